/* keys.c - see keys.h.
 * In:   JSON.      Out: values or refusals.
 * Owns: nothing.
 * Why:  see keys.h. */
#include "model/keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "model/folder.h"

enum { FOUND_ROOM = 96, KEY_ROOM = 64, WARNINGS_MAX = 32 };

/* A short, printable account of a value. */
static const char *found(const json_t *v, char *out, size_t room) {
    char text[56];
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_INTEGER:
        snprintf(out, room, "%lld", (long long)json_integer_value(v));
        break;
    case JSON_REAL:
        snprintf(out, room, "%.9g (a real)", json_real_value(v));
        break;
    case JSON_STRING:
        snprintf(out, room, "\"%s\"", dr_folder_printable(json_string_value(v), text, sizeof text));
        break;
    case JSON_TRUE:
        snprintf(out, room, "true");
        break;
    case JSON_FALSE:
        snprintf(out, room, "false");
        break;
    case JSON_ARRAY:
        snprintf(out, room, "a list of %zu", json_array_size(v));
        break;
    case JSON_OBJECT:
        snprintf(out, room, "an object");
        break;
    case JSON_NULL:
        snprintf(out, room, v ? "null" : "nothing");
        break;
    }
    return out;
}

const json_t *dr_keys_get(const struct dr_keys *k, const char *key) {
    const json_t *v = k->object ? json_object_get(k->object, key) : NULL;
    return json_is_null(v) ? NULL : v;
}

dr_status dr_keys_refuse(const struct dr_keys *k, const char *key, const char *expected) {
    char shown[FOUND_ROOM];
    const json_t *v = k->object ? json_object_get(k->object, key) : NULL;
    return dr_fail(DR_EMODEL, "%s: key \"%s%s\": expected %s, found %s", k->file, k->prefix, key, expected,
                   found(v, shown, sizeof shown));
}

dr_status dr_keys_int(const struct dr_keys *k, const char *key, enum dr_need need, int64_t least,
                      int64_t most, int32_t *value) {
    const json_t *v = dr_keys_get(k, key);
    if (!v && need == DR_OPTIONAL) return dr_ok();
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < least || n > most) {
        char expected[96];
        snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)least,
                 (long long)most);
        return dr_keys_refuse(k, key, expected);
    }
    *value = (int32_t)n;
    return dr_ok();
}

dr_status dr_keys_real(const struct dr_keys *k, const char *key, enum dr_need need, double least, double most,
                       double *value) {
    const json_t *v = dr_keys_get(k, key);
    if (!v && need == DR_OPTIONAL) return dr_ok();
    double x = json_number_value(v);
    if (!json_is_number(v) || !isfinite(x) || x < least || x > most) {
        char expected[96];
        snprintf(expected, sizeof expected, "a number from %g to %g", least, most);
        return dr_keys_refuse(k, key, expected);
    }
    *value = x;
    return dr_ok();
}

dr_status dr_keys_bool(const struct dr_keys *k, const char *key, bool *value) {
    const json_t *v = dr_keys_get(k, key);
    if (!v) return dr_ok();
    if (!json_is_boolean(v)) return dr_keys_refuse(k, key, "true or false");
    *value = json_is_true(v);
    return dr_ok();
}

dr_status dr_keys_only_bool(const struct dr_keys *k, const char *key, bool only) {
    const json_t *v = dr_keys_get(k, key);
    if (!v || (json_is_boolean(v) && json_is_true(v) == only)) return dr_ok();
    return dr_keys_refuse(k, key, only ? "true" : "false");
}

dr_status dr_keys_word(const struct dr_keys *k, const char *key, enum dr_need need, const char *const *words,
                       int32_t *value) {
    const json_t *v = dr_keys_get(k, key);
    if (!v && need == DR_OPTIONAL) return dr_ok();
    const char *word = json_string_value(v);
    for (int32_t i = 0; word && words[i]; i++) {
        /* json_string_length: a string with a NUL inside equals no word */
        if (strcmp(word, words[i]) == 0 && json_string_length(v) == strlen(words[i])) {
            *value = i;
            return dr_ok();
        }
    }
    char expected[256];
    int n = 0;
    for (int32_t i = 0; words[i] && n < (int)sizeof expected; i++)
        n += snprintf(expected + n, sizeof expected - (size_t)n, "%s\"%s\"",
                      i == 0         ? ""
                      : words[i + 1] ? ", "
                                     : " or ",
                      words[i]);
    return dr_keys_refuse(k, key, expected);
}

dr_status dr_keys_object(const struct dr_keys *k, const char *key, const char *prefix, struct dr_keys *out) {
    const json_t *v = dr_keys_get(k, key);
    if (v && !json_is_object(v)) return dr_keys_refuse(k, key, "an object or null");
    out->file = k->file;
    out->prefix = prefix;
    out->object = v;
    return dr_ok();
}

static bool listed(const char *key, const char *const *list) {
    for (; *list; list++)
        if (strcmp(key, *list) == 0) return true;
    return false;
}

dr_status dr_keys_sort(const struct dr_keys *k, const char *const *known, const char *const *foreign) {
    const char *key;
    json_t *value;
    size_t n_unknown = 0;
    if (!k->object) return dr_ok();
    /* Jansson's iteration takes a non-const object but does not change it. */
    json_object_foreach((json_t *)(uintptr_t)k->object, key, value) {
        if (listed(key, known)) continue;
        if (listed(key, foreign)) {
            if (json_is_null(value)) continue;
            return dr_keys_refuse(k, key, "nothing (the key belongs to another architecture)");
        }
        if (++n_unknown > WARNINGS_MAX) continue; /* a hostile file may hold a hundred thousand */
        char shown[KEY_ROOM];
        dr_log(DR_LOG_WARN, "config_key", "%s: key \"%s%s\" is unknown and ignored", k->file, k->prefix,
               dr_folder_printable(key, shown, sizeof shown));
    }
    if (n_unknown > WARNINGS_MAX)
        dr_log(DR_LOG_WARN, "config_key", "%s: %zu more keys are unknown and ignored", k->file,
               n_unknown - WARNINGS_MAX);
    return dr_ok();
}
