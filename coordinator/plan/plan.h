/* plan.h - turns a draft into the StepPlan that every worker receives.
 * In:   draft and book.      Out: one dr_step_plan.
 * Owns: the plan's arrays, valid until the next build; ids, biases and page tables are borrowed from the
 * book. Why:  what a worker must know about a slot (open, pages, rows) is decided in one place, so that
 * nothing is sent twice or forgotten. */
#pragma once

#include "common/arena.h"
#include "coordinator/batcher/batcher.h"
#include "model/schedule.h"

struct dr_planner {
    const struct dr_config *config; /* borrowed */
    struct dr_book *book;           /* borrowed */
    struct dr_open *open;           /* [seqs_max] each, owned */
    struct dr_pages *pages;
    struct dr_segment *segment;
    struct dr_shape_segment *shape;
    struct dr_sampling *sampling; /* [seqs_max] by slot: what the workers hold */
    int32_t *drop;
    uint32_t *count;                 /* [vocab] owned: occurrences while an Open is made, 0 between */
    struct dr_arena arena;           /* seen ids of a plan's Opens */
    struct dr_step_shape step_shape; /* of the plan built last */
    struct dr_step_plan plan;
};

/* config and book are borrowed. Fails: EFULL. */
DR_FALLIBLE dr_planner_init(struct dr_planner *p, const struct dr_config *config, struct dr_book *book);
void dr_planner_fini(struct dr_planner *p);

/* Builds the plan of a draft with at least one item; marks Opens, page entries and drops as sent. step and
 * epoch go in as given. */
const struct dr_step_plan *dr_planner_build(struct dr_planner *p, const struct dr_draft *d, uint64_t epoch,
                                            uint64_t step);
