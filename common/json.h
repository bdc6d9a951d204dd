/* json.h - strict JSON from outside.
 * In:   bytes.      Out: a Jansson value, or a refusal that says where and why.
 * Owns: nothing; the caller owns the value (json_decref).
 * Why:  duplicate keys, NUL, trailing bytes, deep nesting and huge documents are refused in one place. */
#pragma once

#include <jansson.h>

#include "common/status.h"

enum { DR_JSON_DEPTH_MAX = 64, DR_JSON_NODES_MAX = 100000 };

struct dr_json_limits {
    size_t bytes_max; /* of the text; 0: no limit of its own */
    size_t nodes_max; /* values and keys; 0: DR_JSON_NODES_MAX */
    bool nul_allowed; /* strings may hold U+0000: only for callers that use json_string_length */
};

/* Parses exactly one document. Fails: EINVAL with line, column and reason (never the offending text itself).
 */
DR_FALLIBLE dr_json_parse(const char *text, size_t bytes, struct dr_json_limits limits, json_t **out);

/* Reads and parses a file. Fails: ENOENT, EIO, EINVAL; texts name the file. */
DR_FALLIBLE dr_json_read(const char *path, struct dr_json_limits limits, json_t **out);
