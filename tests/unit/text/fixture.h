/* fixture.h - tokenizers and JSON for the tests of the text world.
 * In:   tests/golden and deploy/models.      Out: loaded tokenizers, a tiny tokenizer.json to damage.
 * Owns: the two shared tokenizers until fixture_end.
 * Why:  the published file takes a moment to load, so all suites share it. */
#pragma once

#include <jansson.h>

#include "gateway/text/tokenizer.h"

const struct dr_tokenizer *fixture_deepseek(void); /* tests/golden/tokenizer/tokenizer.json, no config */
const struct dr_tokenizer *fixture_lexi(void);     /* deploy/models/lexi-15m, with its config */
void fixture_end(void);

/* A JSON file; NULL (and a failed check) if it cannot be read. */
json_t *fixture_json(const char *path);

/* A complete tokenizer.json: 256 letters with ids 0..255 = their bytes, then ab 256, abc 257, " a" 258, "é"
 * 259, <end> 260 (special), <tool> 261 (added); ByteLevel with use_regex. The caller owns it and may damage
 * it. */
json_t *fixture_tiny(void);
/* Its letter for a byte, in UTF-8. */
const char *fixture_letter(int byte, char letter[3]);

/* Dumps both values and creates a tokenizer from them; config may be NULL. */
DR_FALLIBLE fixture_create(const json_t *json, const json_t *config, struct dr_tokenizer **out);

/* Whether ids are those of the JSON array. */
bool fixture_same_ids(const struct dr_ids *ids, const json_t *expected);

/* The next number of a fixed sequence (xorshift), for property tests. */
uint32_t fixture_random(uint64_t *state);
