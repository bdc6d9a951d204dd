/* cost.h - what a step must read and compute, from the shapes alone.
 * In:   config, layout, what a rank holds, the rows of a step.      Out: bytes and floating point operations.
 * Owns: nothing.
 * Why:  `bench` prints measured speed beside what memory and arithmetic allow; a gap without a bound beside
 * it says nothing.
 *
 * A multiply-add counts as two operations. Norms, rotation, softmax and routing are left out: together they
 * are below a hundredth of the products. */
#pragma once

#include "model/footprint.h"

/* The rows of one step. Positions are means or sums over rows, so they are real numbers. */
struct dr_cost_shape {
    double absorbed, expanded; /* rows of each form */
    double out;                /* rows that pass the head */
    double visible;            /* cached positions that an absorbed row sees, on average */
    double past; /* expanded segments: sum of their ends, positions whose latents are expanded */
    double keys; /* expanded rows: sum of the positions that each sees */
};

struct dr_cost {
    double weight_bytes;   /* read once a step, however many rows there are */
    double cache_bytes;    /* latents of the positions that are seen */
    double linear_flop;    /* products with weights */
    double attention_flop; /* scores and weighted sums over the cache */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Multiply-adds of one row's products in the main layers [begin, end): for the absorbed form and for the
 * expanded one alike (kv_b meets the query and the result, or the own latent). */
double dr_cost_layers_madd(const struct dr_config *c, int32_t begin, int32_t end);
double dr_cost_head_madd(const struct dr_config *c);

/* Operations of one row for each position that it sees, one layer. */
double dr_cost_absorbed_flop(const struct dr_config *c);
double dr_cost_expanded_flop(const struct dr_config *c);
/* Operations that expand one cached latent to the keys and values of all heads, one layer. */
double dr_cost_expansion_flop(const struct dr_config *c);

/* Whether the value exchange pays for steps of `rows` generated rows. It saves, of each row, head and layer,
 * 4 (kv_lora - nope + kv_lora - v) bytes on a link of link_bytes_s; it costs reading kv_b (`width` bytes an
 * element) of the other members' heads at read_bytes_s: kv_lora (nope + v) elements a head, layer and step.
 * Both count for each head that is not the member's own, so heads and members cancel out. */
bool dr_cost_value_pays(const struct dr_config *c, double rows, double width, double link_bytes_s,
                        double read_bytes_s);

/* Distinct experts that `rows` rows choose in a layer, on average, when each expert is as likely as any
 * other: E (1 - (1 - k/E)^rows). */
double dr_cost_touched(const struct dr_config *c, double rows);

/* Bytes of the list (dr_footprint_list of one rank) that a step reads: of routed experts the touched share,
 * of kv_b the forms in use, of the embedding the rows. */
double dr_cost_weight_bytes(const struct dr_config *c, const struct dr_holding *list, int32_t n,
                            const struct dr_cost_shape *s);

/* Everything but weight_bytes, of all ranks of a stage together. */
struct dr_cost dr_cost_stage(const struct dr_config *c, const struct dr_layout *l, int32_t stage,
                             const struct dr_cost_shape *s);

#ifdef __cplusplus
}
#endif
