/* body.h - typed fields of a request's JSON object.
 * In:   the bytes of a body.      Out: values inside their ranges, or a problem that names the field.
 * Owns: nothing; values borrow from the JSON tree.
 * Why:  a field of the wrong type must never read as its default, and no known field may be lost silently. */
#pragma once

#include <jansson.h>
#include <pthread.h>

#include "gateway/api/problem.h"

enum { /* bits of a field's endpoints */
       DR_BODY_CHAT = 1,
       DR_BODY_COMPLETIONS = 2,
       DR_BODY_TOKENIZE = 4,
       DR_BODY_DETOKENIZE = 8,
       DR_BODY_ANSWERS = DR_BODY_CHAT | DR_BODY_COMPLETIONS,
};
enum {
    DR_BODY_BYTES_MAX = 8 << 20,
    DR_BODY_NODES_MAX = 1 << 19, /* prompts of ids: some full contexts; a tree of about 32 MiB */
    DR_BODY_NAMES_MAX = 64,
};

/* Unknown names met so far, so that each is logged once. The zero object is empty but for its mutex. */
struct dr_body_names {
    pthread_mutex_t lock; /* the fields below; no other lock is taken under it */
    uint64_t hash[DR_BODY_NAMES_MAX];
    int32_t n;
};

struct dr_body {
    json_t *object;         /* borrowed */
    const char *prefix;     /* "" or "stream_options.": put in front of a name in `param` */
    struct dr_problem *why; /* filled on failure */
};

#ifdef __cplusplus
extern "C" {
#endif

/* One JSON object of at most DR_BODY_BYTES_MAX bytes. Fails: EREQUEST, 400 or 413; *out is owned by the
 * caller. */
DR_FALLIBLE dr_body_parse(const char *bytes, size_t n, json_t **out, struct dr_problem *why);

/* Compares every name with the table of known fields: refused ones with another value than their neutral one
 * fail (400, the name in param), unknown ones are logged once each (names may be NULL: not at all). */
DR_FALLIBLE dr_body_check(const struct dr_body *b, int endpoint, struct dr_body_names *names);

/* Absent and null leave *out as it is. Bounds are inclusive. Fail: EREQUEST, 400. */
DR_FALLIBLE dr_body_int(const struct dr_body *b, const char *name, int64_t least, int64_t most, int64_t *out);
DR_FALLIBLE dr_body_int32(const struct dr_body *b, const char *name, int32_t least, int32_t most,
                          int32_t *out);
DR_FALLIBLE dr_body_float(const struct dr_body *b, const char *name, double least, double most, float *out);
DR_FALLIBLE dr_body_bool(const struct dr_body *b, const char *name, bool *out);
/* A string of at most bytes_max bytes, borrowed. */
DR_FALLIBLE dr_body_text(const struct dr_body *b, const char *name, size_t bytes_max, const char **out);
/* A list of ids below `vocab`, 1 to `most` of them; *out is appended to. An empty list is a failure. */
DR_FALLIBLE dr_body_ids(const struct dr_body *b, const char *name, const json_t *list, uint32_t vocab,
                        size_t most, struct dr_ids *out);

/* "a string", "an array", "-1": what was found, without quoting the client's text. */
const char *dr_body_found(const json_t *value, char *room, size_t bytes);

#ifdef __cplusplus
}
#endif
