/* decode_steps.c - decode steps of a small model in one process, for counting instructions.
 * In:   a model's folder, numbers of steps.      Out: the greedy ids; the work is done in dr_worker_step.
 * Owns: nothing.
 * Why:  instruction counts do not depend on the machine's load: two versions can be compared exactly
 * (tests/bench/callgrind.sh). One rank, one thread, AVX2, exact arithmetic: what every machine can run. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/golden/player.h"

int main(int argc, char **argv) {
    static int32_t prompt[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct rig *r = calloc(1, sizeof *r);
    struct play p = {.prompt = prompt, .n_prompt = 8, .n_new = 32, .chunk = 8, .n_top = -1};
    struct dr_layout_wish wish = rig_wish(1, 1, 1, DR_EXPERTS_COLUMNS);
    dr_status st = argc == 2 && r ? dr_ops_x86(DR_ISA_AVX2, DR_PRECISION_F32, &rig_kernels.ops)
                                  : dr_fail(DR_EUSAGE, "usage: decode-steps MODEL");
    if (st.code == DR_OK) st = rig_init(r, argv[1], &wish);
    bool made = st.code == DR_OK;
    if (made) {
        size_t vocab = (size_t)r->config.vocab;
        p.logits = calloc(8 * vocab, sizeof *p.logits);
        p.last = calloc(vocab, sizeof *p.last);
        st = p.logits && p.last ? play_all(r, &p, 1) : dr_fail(DR_EFULL, "no memory");
    }
    if (st.code != DR_OK) fprintf(stderr, "decode-steps: %s\n", dr_error_text());
    for (int32_t i = 0; st.code == DR_OK && i < p.n_new; i++)
        printf("%u%c", p.ids[i], i + 1 < p.n_new ? ' ' : '\n');
    if (made) rig_fini(r);
    free(p.logits);
    free(p.last);
    free(r);
    return st.code == DR_OK ? 0 : dr_code_exit(st.code);
}
