/* slots.c - see slots.h.
 * In:   plan.      Out: slot state.
 * Owns: nothing.
 * Why:  see slots.h. */

#include "worker/slots.h"

#include <assert.h>
#include <string.h>

#include "proto/plan_shape.h"

static_assert((int)DR_WORK_BIAS_MAX == (int)DR_BIAS_MAX && (int)DR_WORK_TOP_MAX == (int)DR_TOP_MAX,
              "model/workspace.h repeats two limits");

static dr_status slot_in_range(const struct dr_slots *s, const char *what, int32_t slot) {
    if (slot >= 0 && slot < s->n) return dr_ok();
    return dr_fail(DR_EPROTO, "%s: slot %d, expected 0 to %d", what, slot, s->n - 1);
}

static void add_count(uint16_t *count, uint32_t n) {
    uint32_t sum = *count + (n > UINT16_MAX ? UINT16_MAX : n);
    *count = (uint16_t)(sum > UINT16_MAX ? UINT16_MAX : sum);
}

/* Counts n occurrences of an id if its column is here. row: the slot's counts. */
static void count_id(const struct dr_slots *s, uint16_t *row, uint32_t id, uint32_t n) {
    if (id >= (uint32_t)s->vocab_first && id - (uint32_t)s->vocab_first < (uint32_t)s->n_vocab)
        add_count(&row[id - (uint32_t)s->vocab_first], n);
}

static bool penalised(const struct dr_sampling *p) {
    return p->repetition != 1 || p->frequency != 0 || p->presence != 0;
}

static dr_status check_open(const struct dr_slots *s, const struct dr_open *o) {
    DR_TRY(slot_in_range(s, "open", o->slot));
    if (s->slot[o->slot].open) return dr_fail(DR_EPROTO, "open: slot %d is open already", o->slot);
    if (o->n_bias > DR_BIAS_MAX)
        return dr_fail(DR_EPROTO, "open of slot %d: %d biases, expected at most %d", o->slot, o->n_bias,
                       DR_BIAS_MAX);
    if (o->sampling.n_top > DR_TOP_MAX)
        return dr_fail(DR_EPROTO, "open of slot %d: %d alternatives, expected at most %d", o->slot,
                       o->sampling.n_top, DR_TOP_MAX);
    for (int32_t i = 0; i < o->n_bias; i++)
        if (o->bias[i].id >= (uint32_t)s->vocab)
            return dr_fail(DR_EPROTO, "open of slot %d: bias of id %u, the vocabulary has %d", o->slot,
                           o->bias[i].id, s->vocab);
    return dr_ok();
}

static dr_status open_slot(struct dr_slots *s, const struct dr_open *o) {
    DR_TRY(check_open(s, o));
    struct dr_slot *slot = &s->slot[o->slot];
    *slot = (struct dr_slot){
        .open = true,
        .n_prompt = o->n_prompt,
        .n_kept = o->n_kept,
        .counts = s->last && penalised(&o->sampling),
    };
    s->sampling[o->slot] = o->sampling;
    dr_pages_clear(&s->pages, o->slot);
    if (!s->last) return dr_ok();
    slot->n_bias = o->n_bias;
    for (int32_t i = 0; i < o->n_bias; i++) {
        s->bias_id[(size_t)o->slot * DR_BIAS_MAX + (size_t)i] = o->bias[i].id;
        s->bias[(size_t)o->slot * DR_BIAS_MAX + (size_t)i] = o->bias[i].value;
    }
    if (!slot->counts) return dr_ok();
    uint16_t *prompt = s->count_prompt + (size_t)o->slot * (size_t)s->n_vocab;
    uint16_t *output = s->count_output + (size_t)o->slot * (size_t)s->n_vocab;
    memset(prompt, 0, (size_t)s->n_vocab * sizeof *prompt);
    memset(output, 0, (size_t)s->n_vocab * sizeof *output);
    for (int32_t i = 0; i < o->n_seen_prompt; i++) count_id(s, prompt, o->seen_prompt[i], 1);
    for (int32_t i = 0; i < o->n_seen_output; i++)
        count_id(s, output, o->seen_output[i].id, o->seen_output[i].count);
    return dr_ok();
}

dr_status dr_slots_apply(struct dr_slots *s, const struct dr_step_plan *plan) {
    for (int32_t i = 0; i < plan->n_drop; i++) {
        DR_TRY(slot_in_range(s, "drop", plan->drop[i]));
        s->slot[plan->drop[i]].open = false;
    }
    for (int32_t i = 0; i < plan->n_open; i++) DR_TRY(open_slot(s, &plan->open[i]));
    for (int32_t i = 0; i < plan->n_pages; i++) DR_TRY(dr_pages_set(&s->pages, &plan->pages[i]));
    return dr_ok();
}

/* Drafts to verify and to make; pages for all rows, those of the MTP layer one position further, and those of
 * drafts after the last one. */
static dr_status check_drafts(const struct dr_slots *s, const struct dr_segment *g, int32_t i) {
    const bool sample = g->output == DR_OUTPUT_SAMPLE;
    if (g->n_verify != 0 && (g->n_verify < 0 || g->n_verify >= g->n_rows || !sample || g->has_next))
        return dr_fail(
            DR_EPROTO,
            "segment %d of slot %d: %d of %d ids are drafts; expected fewer than all of them, a draw "
            "and no next id",
            i, g->slot, g->n_verify, g->n_rows);
    if (g->n_draft != 0 && (g->n_draft < 0 || g->n_draft > DR_DRAFTS_MAX || !s->mtp || !dr_segment_next(g) ||
                            g->output == DR_OUTPUT_NONE))
        return dr_fail(
            DR_EPROTO,
            "segment %d of slot %d: %d drafts are wanted; expected 0 to %d, of a layout with the MTP "
            "layer, a row with an output and a token after it",
            i, g->slot, g->n_draft, DR_DRAFTS_MAX);
    return dr_pages_cover(&s->pages, g->slot, dr_segment_end(g, s->mtp));
}

static dr_status check_segment(const struct dr_slots *s, const struct dr_segment *g, int32_t i) {
    DR_TRY(slot_in_range(s, "segment", g->slot));
    if (!s->slot[g->slot].open) return dr_fail(DR_EPROTO, "segment %d: slot %d is not open", i, g->slot);
    if (g->source == DR_SOURCE_CARRY)
        return dr_fail(DR_EPROTO, "segment %d of slot %d: source CARRY is not run by this version; send ids",
                       i, g->slot);
    if (g->n_rows < 1 || g->first < 0 || g->first > s->context - g->n_rows)
        return dr_fail(
            DR_EPROTO,
            "segment %d of slot %d: rows [%d, %d + %d), expected at least one within a context of %d", i,
            g->slot, g->first, g->first, g->n_rows, s->context);
    if (g->output == DR_OUTPUT_SCORE && (g->score_top < 0 || g->score_top > DR_TOP_MAX))
        return dr_fail(DR_EPROTO, "segment %d of slot %d: %d alternatives, expected 0 to %d", i, g->slot,
                       g->score_top, DR_TOP_MAX);
    for (int32_t r = 0; r < g->n_rows; r++)
        if (g->ids[r] >= (uint32_t)s->vocab)
            return dr_fail(DR_EPROTO, "segment %d of slot %d: id %u at position %d, the vocabulary has %d", i,
                           g->slot, g->ids[r], g->first + r, s->vocab);
    if (g->has_next && g->next_id >= (uint32_t)s->vocab)
        return dr_fail(DR_EPROTO, "segment %d of slot %d: next id %u, the vocabulary has %d", i, g->slot,
                       g->next_id, s->vocab);
    return check_drafts(s, g, i);
}

dr_status dr_slots_check(const struct dr_slots *s, const struct dr_step_plan *plan) {
    int64_t rows = 0;
    if (plan->n_segment > 2 * s->n)
        return dr_fail(DR_EPROTO, "plan: %d segments, expected at most two for each of %d slots",
                       plan->n_segment, s->n);
    for (int32_t i = 0; i < plan->n_segment; i++) {
        DR_TRY(check_segment(s, &plan->segment[i], i));
        rows += plan->segment[i].n_rows;
    }
    if (rows > s->step_tokens)
        return dr_fail(DR_EPROTO, "plan: %lld rows, a step of this layout has at most %d", (long long)rows,
                       s->step_tokens);
    return dr_ok();
}

void dr_slots_count(struct dr_slots *s, int32_t slot, uint32_t id) {
    if (s->slot[slot].counts) count_id(s, s->count_output + (size_t)slot * (size_t)s->n_vocab, id, 1);
}
