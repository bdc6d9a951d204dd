/* report_json.c - a report for programs.
 * In:   struct dr_bench_report.      Out: one JSON object on stdout.
 * Owns: nothing.
 * Why:  everything that was measured, in fields that do not change their meaning. Times are milliseconds,
 * rates a second, sizes bytes. */
#include <jansson.h>
#include <stdio.h>

#include "gateway/bench/report.h"
#include "gateway/cli/command.h"

static const char *const kinds[] = {"allreduce", "exchange", "gather", "boundary",
                                    "sampler"}; /* dr_bytes_kind */

static json_t *hex(uint64_t v) {
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)v);
    return json_string(text);
}

static json_t *machine_json(const struct dr_bench_machine *m) {
    return json_pack("{s:s,s:i,s:i,s:I,s:s}", "cpu", m->cpu, "cores", m->cores, "numa_nodes", m->nodes,
                     "memory_bytes", (json_int_t)m->memory_bytes, "system", m->system);
}

static json_t *probe_json(const struct dr_probe *p) {
    return json_pack("{s:i,s:f,s:b,s:f,s:f,s:f}", "threads", p->n_thread, "read_bytes_per_s", p->read_bytes_s,
                     "huge_pages", (int)p->huge_pages, "f32_flop_per_s", p->f32_flop_s, "bf16_flop_per_s",
                     p->bf16_flop_s, "int8_op_per_s", p->int8_op_s);
}

/* {"allreduce": sum / by, ...} */
static json_t *kinds_json(const uint64_t sum[DR_BYTES_KIND_COUNT], double by) {
    json_t *out = json_object();
    for (int i = 0; i < DR_BYTES_KIND_COUNT; i++)
        if (json_object_set_new(out, kinds[i], json_real(by > 0 ? (double)sum[i] / by : 0)) != 0) {
            json_decref(out);
            return NULL;
        }
    return out;
}

static json_t *rank_json(const struct dr_bench_tally *t, int32_t k) {
    const struct dr_bench_rank_sum *s = dr_bench_tally_rank(t, k);
    const double steps = t->steps[t->middle];
    json_t *parts = json_object();
    for (int i = 0; i < DR_PART_COUNT; i++)
        json_object_set_new(parts, dr_step_part_name(i), json_real((double)s->part_ns[i] / 1e6 / steps));
    return json_pack("{s:i,s:f,s:o,s:o,s:o}", "rank", k, "ms_per_step", (double)s->step_ns / 1e6 / steps,
                     "parts_ms", parts, "waiting_ms", kinds_json(s->wait_kind_ns, 1e6 * steps), "bytes_sent",
                     kinds_json(s->bytes, steps));
}

static json_t *parts_json(const struct dr_bench_tally *t) {
    json_t *out = json_object();
    for (int i = 0; i < DR_PART_COUNT; i++)
        json_object_set_new(out, dr_step_part_name(i),
                            json_real(dr_bench_tally_part_ms(t, (enum dr_step_part)i)));
    json_object_set_new(out, "between", json_real(dr_bench_tally_between_ms(t)));
    return out;
}

static json_t *rates_json(const struct dr_bench_tally *t) {
    json_t *all = json_array();
    for (int32_t i = 0; i < t->n; i++) json_array_append_new(all, json_real(t->rate[i]));
    return json_pack("{s:f,s:f,s:f,s:o}", "median", t->median, "min", t->least, "max", t->most, "all", all);
}

static json_t *bound_json(const struct dr_bench_cluster *c, const struct dr_bench_row *row) {
    const struct dr_bench_bound *b = &row->bound;
    const double bytes = dr_bench_row_bytes_s(row), flop = dr_bench_row_flop_s(row);
    return json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "weight_bytes", b->weight_bytes, "cache_bytes",
                     b->cache_bytes, "linear_flop", b->linear_flop, "attention_flop", b->attention_flop,
                     "bytes_per_s", bytes, "read_share", bytes / c->peaks.read_bytes_s, "flop_per_s", flop,
                     "peak_share", flop / c->peaks.linear_op_s);
}

static json_t *case_json(const struct dr_bench_report *r, const struct dr_bench_cluster *c,
                         const struct dr_bench_row *row) {
    const struct dr_bench_tally *t = &row->tally;
    const double ms = dr_bench_tally_step_ms(t), predicted = dr_bench_bound_rate(&row->bound);
    char name[64];
    json_t *ranks = json_array();
    for (int32_t k = 0; k < t->n_rank; k++) json_array_append_new(ranks, rank_json(t, k));
    json_t *out =
        json_pack("{s:s,s:i,s:i,s:i,s:i,s:o,s:I,s:f,s:o,s:o,s:o,s:o}", "test",
                  dr_bench_case_name(&row->c, name), "prompt_tokens", row->c.prompt, "generated_tokens",
                  row->c.gen, "depth", row->c.depth, "batch", row->c.batch, "tokens_per_s", rates_json(t),
                  "steps", (json_int_t)t->steps[t->middle], "ms_per_step", ms, "parts_ms", parts_json(t),
                  "per_step", bound_json(c, row), "digest", hex(t->digest), "ranks", ranks);
    if (out && r->roofline)
        json_object_set_new(
            out, "roofline",
            json_pack("{s:f,s:f,s:f,s:s}", "predicted_tokens_per_s", predicted, "predicted_ms_per_step",
                      row->bound.seconds * 1e3, "share", predicted > 0 ? t->median / predicted : 0.0, "bound",
                      row->bound.memory_seconds > row->bound.seconds / 2 ? "memory" : "arithmetic"));
    return out;
}

static json_t *memory_json(const struct dr_bench_cluster *c) {
    json_t *out = json_array();
    for (int32_t i = 0; i < c->layout.n_rank; i++)
        json_array_append_new(out,
                              json_pack("{s:i,s:s,s:I,s:I,s:I,s:f}", "rank", i, "host",
                                        c->facts->rank[i].host, "planned_bytes", (json_int_t)c->plan_bytes[i],
                                        "peak_bytes", (json_int_t)c->peak_bytes[i], "weights_bytes",
                                        (json_int_t)c->facts->rank[i].weights_bytes, "load_s",
                                        (double)c->facts->rank[i].load_ns / 1e9));
    return out;
}

static json_t *cluster_json(const struct dr_bench_report *r, const struct dr_bench_cluster *c) {
    const struct dr_layout *l = &c->layout;
    const struct dr_arithmetic *a = &c->facts->rank[0].arithmetic;
    char name[96];
    json_t *cases = json_array();
    for (int32_t i = 0; i < c->n_row; i++) json_array_append_new(cases, case_json(r, c, &c->row[i]));
    json_t *layout = json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:s,s:s}", "name", dr_bench_layout_name(c, name),
                               "tp", l->tp, "pp", l->pp, "c", l->c, "threads", c->threads, "hosts", c->n_host,
                               "step_tokens", l->step_tokens, "experts", dr_expert_cut_name(l->experts),
                               "cache_type", dr_cache_type_name(l->cache_type));
    json_t *arithmetic =
        json_pack("{s:s,s:s,s:s}", "isa", a->isa, "precision", c->precision, "inputs", a->inputs);
    return json_pack("{s:o,s:s,s:o,s:I,s:o,s:o,s:o}", "layout", layout, "weights",
                     dr_weights_name(l->weights), "arithmetic", arithmetic, "cache_bytes_per_token",
                     (json_int_t)c->token_bytes, "memory", memory_json(c), "probe", probe_json(&c->probe),
                     "cases", cases);
}

dr_status dr_bench_report_json(const struct dr_bench_report *r) {
    json_t *clusters = json_array();
    for (int32_t i = 0; i < r->n; i++) json_array_append_new(clusters, cluster_json(r, &r->cluster[i]));
    return dr_output_json(json_pack("{s:s,s:s,s:s,s:o,s:i,s:i,s:I,s:o}", "version", DR_VERSION, "commit",
                                    dr_bench_commit(), "model", r->model, "machine",
                                    machine_json(&r->machine), "reps", r->reps, "warmup", r->warmup, "seed",
                                    (json_int_t)r->seed, "clusters", clusters));
}
