/* option_table.h - the rows of DR_OPTIONS as data, for the two files that read them.
 * In:   DR_OPTIONS.      Out: dr_option_table, indexed by enum dr_option.
 * Owns: nothing; the table is constant and stands in option.c.
 * Why:  parser and help must speak of the same rows. */
#pragma once

#include "common/option.h"

struct dr_option_row {
    const char *name;
    enum dr_option_type type;
    double least, most;
    const char *fallback; /* default as text; "": unset */
    unsigned commands;    /* bits of enum dr_command */
    const char *word;     /* in the help, or the choices "a|b" */
    const char *help;
};

extern const struct dr_option_row dr_option_table[DR_OPTION_COUNT];
