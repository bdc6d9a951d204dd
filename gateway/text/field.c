/* field.c - see field.h.
 * In:   JSON objects.      Out: typed fields.
 * Owns: nothing.
 * Why:  the same words for the same mistake, wherever in the file it is. */
#include "gateway/text/field.h"

#include <string.h>

dr_status dr_field_bool(const json_t *object, const char *where, const char *key, enum dr_field_need need,
                        bool *out) {
    const json_t *value = json_object_get(object, key);
    if (need == DR_FIELD_OPTIONAL && (!value || json_is_null(value))) return dr_ok();
    if (!json_is_boolean(value))
        return dr_fail(DR_EINVAL, "%s: expected true or false for %s%s", where, key,
                       value ? "" : ", it is missing");
    *out = json_is_true(value);
    return dr_ok();
}

dr_status dr_field_type(const json_t *object, const char *where, const char **out) {
    if (!json_is_object(object)) return dr_fail(DR_EINVAL, "%s: expected an object with a type", where);
    const char *type = json_string_value(json_object_get(object, "type"));
    size_t n = type ? strlen(type) : 0;
    if (n == 0 || n > 40 ||
        strspn(type, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != n)
        return dr_fail(DR_EINVAL, "%s: expected a name for type", where);
    *out = type;
    return dr_ok();
}

dr_status dr_field_array(const json_t *object, const char *where, const char *key, json_t **out) {
    json_t *value = json_object_get(object, key);
    if (!json_is_array(value)) return dr_fail(DR_EINVAL, "%s: expected an array %s", where, key);
    *out = value;
    return dr_ok();
}
