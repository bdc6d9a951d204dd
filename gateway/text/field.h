/* field.h - typed fields of the objects in a tokenizer.json.
 * In:   a JSON object and the words that say where it stands.      Out: a value, or a refusal by name.
 * Owns: nothing.
 * Why:  a field of the wrong type must never read as its default. */
#pragma once

#include <jansson.h>

#include "common/status.h"

enum dr_field_need { DR_FIELD_REQUIRED, DR_FIELD_OPTIONAL };

#ifdef __cplusplus
extern "C" {
#endif

/* The boolean `key` of an object. Absent or null and optional: *out is untouched. Fails: EINVAL. */
DR_FALLIBLE dr_field_bool(const json_t *object, const char *where, const char *key, enum dr_field_need need,
                          bool *out);
/* The "type" of a component, 1..40 letters, digits and _; borrowed from the object. Fails: EINVAL. */
DR_FALLIBLE dr_field_type(const json_t *object, const char *where, const char **out);
/* The array `key`, borrowed. Fails: EINVAL. */
DR_FALLIBLE dr_field_array(const json_t *object, const char *where, const char *key, json_t **out);

#ifdef __cplusplus
}
#endif
