/* option_help.c - the options of a command, for people.
 * In:   dr_option_table.      Out: lines on stdout.
 * Owns: nothing.
 * Why:  the text must follow from the table, so that no option is without help and no help without option. */
#include <stdio.h>
#include <string.h>

#include "common/option_table.h"

enum { LEFT = 27, WIDTH = 80, TEXT_ROOM = 512 };

/* Prints text from column LEFT on, broken at spaces; column: where the cursor stands now. */
static void wrapped(const char *text, int column) {
    if (column > LEFT - 2) {
        putchar('\n');
        column = 0;
    }
    printf("%*s", LEFT - column, "");
    column = LEFT;
    while (*text) {
        const int word = (int)strcspn(text, " ");
        if (column > LEFT && column + 1 + word > WIDTH) {
            printf("\n%*s", LEFT, "");
            column = LEFT;
        }
        column += printf("%s%.*s", column > LEFT ? " " : "", word, text);
        text += word;
        while (*text == ' ') text++;
    }
    putchar('\n');
}

/* help, choices or range, default: one sentence. */
static void describe(const struct dr_option_row *r, char *out, size_t room) {
    size_t n = (size_t)snprintf(out, room, "%s", r->help);
    if (r->type == DR_OPT_ENUM) {
        n += (size_t)snprintf(out + n, room - n, "; one of ");
        for (const char *p = r->word; *p && n + 2 < room; p++) {
            if (*p == '|') {
                out[n++] = ',';
                out[n++] = ' ';
            } else {
                out[n++] = *p;
            }
        }
        out[n] = 0;
    }
    if (r->type == DR_OPT_INT && r->most > 1e15)
        n += (size_t)snprintf(out + n, room - n, "; %.0f or more", r->least);
    else if (r->type == DR_OPT_INT || r->type == DR_OPT_FLOAT)
        n += (size_t)snprintf(out + n, room - n, "; %.10g to %.10g", r->least, r->most);
    if (r->fallback[0] && !(r->type == DR_OPT_BOOL && !strcmp(r->fallback, "false")) &&
        !strstr(r->help, "default:"))
        snprintf(out + n, room - n, " [%s]", r->fallback);
}

void dr_options_help(enum dr_command command) {
    static const char *const place[] = {[DR_OPT_BOOL] = "",   [DR_OPT_INT] = " ",    [DR_OPT_FLOAT] = " ",
                                        [DR_OPT_BYTES] = " ", [DR_OPT_STRING] = " ", [DR_OPT_ENUM] = " WORD"};
    for (int i = 0; i < DR_OPTION_COUNT; i++) {
        const struct dr_option_row *r = &dr_option_table[i];
        if (!(r->commands & command)) continue;
        char text[TEXT_ROOM];
        describe(r, text, sizeof text);
        int column = printf("  --%s%s%s", r->name, place[r->type], r->type == DR_OPT_ENUM ? "" : r->word);
        wrapped(text, column);
    }
}
