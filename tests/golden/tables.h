/* tables.h - the kernel tables that golden tests run.
 * In:   a precision, an instruction set.      Out: tables.
 * Owns: nothing; tables are constant.
 * Why:  every kernel path meets the golden values on every machine: what the processor lacks is emulated. */
#pragma once

#include "kernels/ops.h"

/* The product's choice for this processor. Aborts when there is none: nothing could be tested. */
const struct dr_ops *table_here(enum dr_precision precision);

const struct dr_ops *table_oracle(void);

/* The table of one instruction set: the product's where the processor has it, else the one with emulated
 * instructions. */
const struct dr_ops *table_of(enum dr_isa isa, enum dr_precision precision);

/* All of table_of and the oracle that differ from table_here, each once; out holds DR_ISA_COUNT + 1. */
int32_t tables_other(enum dr_precision precision, const struct dr_ops **out);
