/* document.c - see document.h.
 * In:   a path.      Out: text and config.
 * Owns: see document.h.
 * Why:  see document.h. */
#include "tests/bench/checkpoint/document.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

enum { BYTES_MAX = 1 << 20 };

/* 17 digits give every real back exactly; 15 write 1e-06 as people do. */
static dr_status dump(const json_t *object, int digits, char **text) {
    char *s = json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
    size_t n = s ? strlen(s) : 0;
    char *line = s ? malloc(n + 2) : NULL;
    if (line) (void)snprintf(line, n + 2, "%s\n", s);
    free(s);
    *text = line;
    return line ? dr_ok() : dr_fail(DR_EFULL, "no memory for a config");
}

static dr_status numbers_of(const json_t *object, int digits, struct dr_config *out, char **text) {
    DR_TRY(dump(object, digits, text));
    return dr_config_parse(*text, strlen(*text), NULL, 0, out);
}

static dr_status set_quantization(json_t *object, enum dr_dtype weights) {
    if (weights != DR_DTYPE_F8_E4M3) {
        (void)json_object_del(object, "quantization_config"); /* absent is as good */
        return dr_ok();
    }
    json_t *q = json_pack("{s:s, s:s, s:[i, i], s:s}", "quant_method", "fp8", "fmt", "e4m3",
                          "weight_block_size", 128, 128, "activation_scheme", "dynamic");
    return json_object_set_new(object, "quantization_config", q) == 0
               ? dr_ok()
               : dr_fail(DR_EFULL, "no memory for a config");
}

static dr_status convert(json_t *object, enum dr_dtype weights, struct dr_config *out, char **text) {
    struct dr_config given, made;
    char *exact = NULL;
    dr_status st = numbers_of(object, 17, &given, &exact);
    free(exact);
    DR_TRY(st);
    DR_TRY(set_quantization(object, weights));
    DR_TRY(numbers_of(object, 15, &made, text));
    given.fp8 = made.fp8;
    given.fp8_block = made.fp8_block;
    if (dr_config_hash(&given) != dr_config_hash(&made))
        return dr_fail(DR_EMODEL, "a number of the config needs more than 15 digits");
    *out = made;
    return dr_ok();
}

dr_status dr_document_read(const char *path, enum dr_dtype weights, struct dr_config *out, char **text) {
    const struct dr_json_limits limits = {.bytes_max = BYTES_MAX};
    json_t *object = NULL;
    char *made = NULL;
    DR_TRY(dr_json_read(path, limits, &object));
    dr_status st = json_is_object(object) ? convert(object, weights, out, &made)
                                          : dr_fail(DR_EMODEL, "expected a JSON object");
    json_decref(object);
    if (st.code == DR_OK) {
        *text = made;
        return st;
    }
    free(made);
    return dr_fail_within(st, "%s: ", path);
}
