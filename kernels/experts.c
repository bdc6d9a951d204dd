/* experts.c - see experts.h.
 * In:   choices.      Out: lists.
 * Owns: nothing.
 * Why:  see experts.h. */
#include "kernels/experts.h"

#include <string.h>

static size_t pairs_max(int32_t n_tok, int32_t n_active, int32_t n_owned) {
    return (size_t)n_tok * ((size_t)dr_min_i32(n_active, n_owned) + 1);
}

int32_t dr_experts_batch_max(int32_t n_tok, int32_t n_active, int32_t n_owned) {
    size_t all = pairs_max(n_tok, n_active, n_owned), two = 2 * (size_t)n_tok;
    size_t most = two > DR_MOE_PAIRS_LEAST ? two : DR_MOE_PAIRS_LEAST;
    return (int32_t)(all < most ? all : most);
}

struct dr_expert_lists dr_experts_carve(void *base, int32_t n_tok, int32_t n_active, int32_t n_owned,
                                        int32_t width) {
    size_t n_pair = pairs_max(n_tok, n_active, n_owned), n_expert = (size_t)n_owned;
    size_t n_row = (size_t)dr_experts_batch_max(n_tok, n_active, n_owned);
    size_t active = dr_size_align((n_expert + 2) * sizeof(int32_t), 64);
    size_t token = active + dr_size_align((n_expert + 1) * sizeof(int32_t), 64);
    size_t weight = token + dr_size_align(n_pair * sizeof(int32_t), 64);
    size_t hidden = weight + dr_size_align(n_pair * sizeof(float), 64);
    struct dr_expert_lists l = {.bytes = hidden + dr_size_align(n_row * (size_t)width * sizeof(float), 64)};
    uint8_t *at = base;
    if (!at) return l;
    l.first = (int32_t *)(void *)at;
    l.active = (int32_t *)(void *)(at + active);
    l.token = (int32_t *)(void *)(at + token);
    l.weight = (float *)(void *)(at + weight);
    l.hidden = (float *)(void *)(at + hidden);
    l.rest = at + l.bytes;
    return l;
}

int32_t dr_experts_group(const struct dr_moe *a, const struct dr_expert_lists *l) {
    int32_t *first = l->first, n = 0;
    size_t n_chosen = (size_t)a->n_tok * (size_t)a->n_active;
    memset(first, 0, ((size_t)a->n_owned + 2) * sizeof *first);
    for (size_t i = 0; i < n_chosen; i++) {
        int32_t e = a->expert[i] - a->first;
        if (e >= 0 && e < a->n_owned) first[e + 1]++;
    }
    first[a->n_owned + 1] = a->shared ? a->n_tok : 0;
    for (int32_t e = 0; e <= a->n_owned; e++) first[e + 1] += first[e];
    /* filling moves first[e] to the end of e's pairs ... */
    for (size_t i = 0; i < n_chosen; i++) {
        int32_t e = a->expert[i] - a->first;
        if (e < 0 || e >= a->n_owned) continue;
        l->token[first[e]] = (int32_t)(i / (size_t)a->n_active);
        l->weight[first[e]++] = a->weight[i];
    }
    for (int32_t t = 0; a->shared && t < a->n_tok; t++) l->token[first[a->n_owned]++] = t;
    /* ... which is the start of e + 1 */
    for (int32_t e = a->n_owned; e > 0; e--) first[e] = first[e - 1];
    first[0] = 0;
    for (int32_t e = 0; e <= a->n_owned; e++)
        if (first[e + 1] > first[e]) l->active[n++] = e;
    return n;
}

void dr_experts_next(const struct dr_moe *a, const struct dr_expert_lists *l, int32_t n_experts,
                     struct dr_expert_batch *b) {
    int32_t most = dr_experts_batch_max(a->n_tok, a->n_active, a->n_owned);
    b->begin = b->end;
    b->n_pair = 0;
    for (; b->end < n_experts; b->end++) {
        const int32_t *first = l->first + l->active[b->end];
        int32_t n = first[1] - first[0];
        DR_ASSERT(n <= most); /* a token names an expert once */
        if (b->n_pair + n > most) break;
        if (b->end == b->begin) b->first_pair = first[0];
        b->n_pair += n;
    }
}

dr_status dr_experts_check(const struct dr_moe *a, int32_t *width) {
    *width = 0;
    for (int32_t e = 0; e <= a->n_owned; e++) {
        const struct dr_expert *x = dr_experts_get(a, e);
        if (!x) continue;
        DR_ASSERT(x->gate.n_in == a->dim && x->up.n_in == a->dim && x->down.n_out == a->dim);
        DR_ASSERT(x->gate.n_out == x->up.n_out && x->down.n_in == x->gate.n_out);
        *width = dr_max_i32(*width, x->gate.n_out);
    }
    size_t need = dr_moe_scratch_bytes(a->n_tok, a->dim, *width, a->n_active, a->n_owned);
    if (need <= a->scratch_bytes) return dr_ok();
    return dr_fail(DR_EINTERNAL, "experts of width %d, %d rows: the op needs %zu bytes of scratch, found %zu",
                   *width, a->n_tok, need, a->scratch_bytes);
}
