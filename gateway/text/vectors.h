/* vectors.h - the two growing arrays of the text world: token ids and bytes.
 * In:   values to append.      Out: contiguous arrays.
 * Owns: its memory; the zero object is empty and valid, _fini gives everything back.
 * Why:  every module here appends, so a caller can chain them without copies between. */
#pragma once

#include "common/status.h"

struct dr_ids {
    uint32_t *at; /* owned, NULL while room is 0 */
    size_t n, room;
};

struct dr_text {
    char *at; /* owned; at[n] is 0 whenever at is not NULL; the text itself may hold zero bytes */
    size_t n, room;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Makes room for `more` further values, so that as many appends cannot fail. Fails: EFULL; nothing changed.
 */
DR_FALLIBLE dr_ids_reserve(struct dr_ids *ids, size_t more);
DR_FALLIBLE dr_ids_push(struct dr_ids *ids, uint32_t id);
void dr_ids_fini(struct dr_ids *ids);

/* Appends n bytes; bytes may be NULL if n is 0. Fails: EFULL; nothing changed. */
DR_FALLIBLE dr_text_push(struct dr_text *text, const void *bytes, size_t n);
/* Forgets the contents, keeps the room. */
void dr_text_reset(struct dr_text *text);
void dr_text_fini(struct dr_text *text);

#ifdef __cplusplus
}
#endif
