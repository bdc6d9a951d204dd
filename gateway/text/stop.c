/* stop.c - see stop.h.
 * In:   parts of text.      Out: text and the hit.
 * Owns: the held text.
 * Why:  leftmost-longest over the whole text is the only rule that does not depend on token borders. */
#include "gateway/text/stop.h"

#include <string.h>

#include "gateway/text/utf8.h"

dr_status dr_stop_init(struct dr_stop *s, const char *const *stops, const size_t *bytes, size_t n,
                       bool include) {
    if (n > DR_STOP_STRINGS_MAX)
        return dr_fail(DR_EINVAL, "stop: %zu strings, at most %d are accepted", n, DR_STOP_STRINGS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == 0) return dr_fail(DR_EINVAL, "stop[%zu]: it is empty", i);
        if (bytes[i] > DR_STOP_BYTES_MAX)
            return dr_fail(DR_EINVAL, "stop[%zu]: %zu bytes, at most %d are accepted", i, bytes[i],
                           DR_STOP_BYTES_MAX);
        if (dr_utf8_valid(stops[i], bytes[i]) < bytes[i])
            return dr_fail(DR_EINVAL, "stop[%zu]: it is not valid UTF-8", i);
    }
    memset(s, 0, sizeof *s);
    s->hit = -1;
    s->include = include;
    s->n = n;
    for (size_t i = 0; i < n; i++) {
        memcpy(s->stop[i].text, stops[i], bytes[i]);
        s->stop[i].bytes = bytes[i];
    }
    return dr_ok();
}

void dr_stop_fini(struct dr_stop *s) {
    dr_text_fini(&s->held);
    s->n = 0;
}

/* What stands at text[0..n): *full is the longest stop string that does, -1 if none. Returns true if a longer
 * one would with more text. */
static bool look(const struct dr_stop *s, const char *text, size_t n, int *full) {
    bool open = false;
    *full = -1;
    for (size_t i = 0; i < s->n; i++) {
        size_t bytes = s->stop[i].bytes, shared = bytes < n ? bytes : n;
        if (s->stop[i].text[0] != text[0] || memcmp(s->stop[i].text, text, shared) != 0) continue;
        if (shared < bytes)
            open = true;
        else if (*full < 0 || bytes > s->stop[*full].bytes)
            *full = (int)i;
    }
    return open;
}

/* Appends what is decided of the held text; `last`: nothing will follow it. */
static dr_status decide(struct dr_stop *s, bool last, struct dr_text *out) {
    size_t i = 0;
    int full = -1;
    for (; i < s->held.n; i++) {
        bool open = look(s, s->held.at + i, s->held.n - i, &full);
        if (open && !last) {
            full = -1;
            break;
        }
        if (full >= 0) break;
    }
    DR_TRY(dr_text_push(out, s->held.at, i + (full >= 0 && s->include ? s->stop[full].bytes : 0)));
    if (full >= 0) {
        s->hit = full;
        dr_text_reset(&s->held);
        return dr_ok();
    }
    memmove(s->held.at, s->held.at + i, s->held.n - i);
    s->held.n -= i;
    s->held.at[s->held.n] = 0;
    return dr_ok();
}

dr_status dr_stop_push(struct dr_stop *s, const char *text, size_t n, struct dr_text *out) {
    if (s->hit >= 0 || n == 0) return dr_ok();
    if (s->n == 0) return dr_text_push(out, text, n);
    DR_TRY(dr_text_push(&s->held, text, n));
    return decide(s, false, out);
}

dr_status dr_stop_end(struct dr_stop *s, struct dr_text *out) {
    if (s->hit >= 0 || s->held.n == 0) return dr_ok();
    return decide(s, true, out);
}
