/* keys.h - values of a JSON object under the rules of config.json.
 * In:   a parsed object and, for each key, what is legal.      Out: checked values.
 * Owns: nothing; borrows the JSON.
 * Why:  every refusal says key, expected and found in the same words. */
#pragma once

#include <jansson.h>

#include "common/status.h"

struct dr_keys {
    const char *file;     /* "config.json", for messages */
    const char *prefix;   /* "" or "rope_scaling." */
    const json_t *object; /* NULL: no key is present */
};

enum dr_need {
    DR_REQUIRED,
    DR_OPTIONAL
}; /* an optional key may be absent or null; *value then stays as it is */

#ifdef __cplusplus
extern "C" {
#endif

/* The key's value; NULL when absent or null. */
const json_t *dr_keys_get(const struct dr_keys *k, const char *key);

DR_FALLIBLE dr_keys_int(const struct dr_keys *k, const char *key, enum dr_need need, int64_t least,
                        int64_t most, int32_t *value);
DR_FALLIBLE dr_keys_real(const struct dr_keys *k, const char *key, enum dr_need need, double least,
                         double most, double *value);
DR_FALLIBLE dr_keys_bool(const struct dr_keys *k, const char *key, bool *value);

/* One of `words` (ends in NULL); *value is its index. */
DR_FALLIBLE dr_keys_word(const struct dr_keys *k, const char *key, enum dr_need need,
                         const char *const *words, int32_t *value);

/* An object, or absent or null: then out->object is NULL. name: key with a dot, for messages; borrowed. */
DR_FALLIBLE dr_keys_object(const struct dr_keys *k, const char *key, const char *prefix, struct dr_keys *out);

/* Only this truth value, or absent or null. */
DR_FALLIBLE dr_keys_only_bool(const struct dr_keys *k, const char *key, bool only);

/* EMODEL: file, key, expected (a phrase), found (taken from the object). */
DR_FALLIBLE dr_keys_refuse(const struct dr_keys *k, const char *key, const char *expected);

/* Refuses keys of `foreign` that are present and not null; warns once about each key that is in neither list.
 * NULL ends a list. */
DR_FALLIBLE dr_keys_sort(const struct dr_keys *k, const char *const *known, const char *const *foreign);

#ifdef __cplusplus
}
#endif
