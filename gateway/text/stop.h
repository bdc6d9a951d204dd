/* stop.h - finds stop strings in text that arrives in parts.
 * In:   parts of valid UTF-8.      Out: the text that no stop string can claim any more, and the hit.
 * Owns: the stop strings and the text held back.
 * Why:  a stop string crosses token borders, and what was sent to a client cannot be taken back. */
#pragma once

#include "gateway/text/vectors.h"

enum { DR_STOP_STRINGS_MAX = 16, DR_STOP_BYTES_MAX = 256 };

struct dr_stop {
    struct {
        char text[DR_STOP_BYTES_MAX];
        size_t bytes;
    } stop[DR_STOP_STRINGS_MAX];
    size_t n;
    bool include;        /* the stop string itself belongs to the text */
    int hit;             /* index of the stop string that was found, -1: none yet */
    struct dr_text held; /* owned: begins a stop string, or is not decided yet */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Copies n stop strings; two equal ones are legal, the first counts. n = 0: everything passes.
 * Fails: EINVAL "stop[i]: ..." for an empty, long or not UTF-8 string or too many of them; *s is untouched
 * then. */
DR_FALLIBLE dr_stop_init(struct dr_stop *s, const char *const *stops, const size_t *bytes, size_t n,
                         bool include);
void dr_stop_fini(struct dr_stop *s);

/* Adds text[0..n) and appends to out what is certain. The hit is that of the whole text however it was cut:
 * earliest position, longest stop string there; so a stop string that begins a longer one waits for the next
 * character. After a hit nothing is appended any more. Fails: EFULL. */
DR_FALLIBLE dr_stop_push(struct dr_stop *s, const char *text, size_t n, struct dr_text *out);
/* No more text: decides on what is held (s->hit may become set) and appends the rest. Fails: EFULL. */
DR_FALLIBLE dr_stop_end(struct dr_stop *s, struct dr_text *out);

#ifdef __cplusplus
}
#endif
