/* tables.c - see tables.h.
 * In:   see tables.h.      Out: see tables.h.
 * Owns: nothing.
 * Why:  see tables.h. */
#include "tests/golden/tables.h"

#include <stdio.h>
#include <stdlib.h>

/* kernels/x86/table.c, built once more with emulated instructions (tests/CMakeLists.txt) */
dr_status dr_ops_x86_simde(enum dr_isa isa, enum dr_precision precision, const struct dr_ops **out);

static const struct dr_ops *need(dr_status st, const struct dr_ops *ops) {
    if (st.code == DR_OK) return ops;
    printf("FAIL no kernels: %s\n", dr_error_text());
    abort();
}

const struct dr_ops *table_here(enum dr_precision precision) {
    const struct dr_ops *ops = NULL;
    dr_status st = dr_ops_x86(DR_ISA_COUNT, precision, &ops);
    return need(st, ops);
}

const struct dr_ops *table_oracle(void) {
    const struct dr_ops *ops = NULL;
    dr_status st = dr_ops_cpu(&ops);
    return need(st, ops);
}

const struct dr_ops *table_of(enum dr_isa isa, enum dr_precision precision) {
    const struct dr_ops *ops = NULL;
    enum dr_isa here = dr_isa_here();
    bool has = here != DR_ISA_COUNT && isa <= here;
    dr_status st = has ? dr_ops_x86(isa, precision, &ops) : dr_ops_x86_simde(isa, precision, &ops);
    return need(st, ops);
}

int32_t tables_other(enum dr_precision precision, const struct dr_ops **out) {
    int32_t n = 0;
    out[n++] = table_oracle();
    for (int isa = 0; isa < DR_ISA_COUNT; isa++) {
        const struct dr_ops *ops = table_of((enum dr_isa)isa, precision);
        bool known = ops == table_here(precision);
        for (int32_t i = 0; i < n; i++) known = known || ops == out[i];
        if (!known) out[n++] = ops;
    }
    return n;
}
