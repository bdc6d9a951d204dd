/* option.c - values of all options, from four places.
 * In:   command line, environment, file, the defaults of the table in option.h.      Out: checked values.
 * Owns: nothing; the values own their strings.
 * Why:  see option.h. The only file that calls getenv. */
#include "common/option_table.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_MAX_BYTES = 64,        /* longest option name that is looked at */
    FILE_BYTES_MAX = 256 << 10, /* of --config */
    STOP_BYTES_MAX = 256,
};

#define DR_X_(id, name_, type_, least_, most_, default_, commands_, word_, help_)                            \
    [DR_OPTION_##id] = {.name = name_,                                                                       \
                        .type = DR_OPT_##type_,                                                              \
                        .least = least_,                                                                     \
                        .most = most_,                                                                       \
                        .fallback = default_,                                                                \
                        .commands = commands_,                                                               \
                        .word = word_,                                                                       \
                        .help = help_},
const struct dr_option_row dr_option_table[DR_OPTION_COUNT] = {DR_OPTIONS(DR_X_)};
#undef DR_X_

static const struct {
    enum dr_command command;
    const char *name;
} commands[] = {
    {DR_CMD_SERVE, "serve"},   {DR_CMD_GENERATE, "generate"}, {DR_CMD_CHAT, "chat"},
    {DR_CMD_SCORE, "score"},   {DR_CMD_TOKENIZE, "tokenize"}, {DR_CMD_INSPECT, "inspect"},
    {DR_CMD_PLAN, "plan"},     {DR_CMD_BENCH, "bench"},       {DR_CMD_COORDINATOR, "coordinator"},
    {DR_CMD_WORKER, "worker"},
};

static const char *command_name(enum dr_command command) {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (commands[i].command == command) return commands[i].name;
    return "?";
}

const char *dr_option_name(enum dr_option id) {
    return dr_option_table[id].name;
}

dr_status dr_option_epoch(const struct dr_options *o, uint64_t *out) {
    const char *text = dr_option_text(o, DR_OPTION_EPOCH);
    if (strlen(text) != 16 || strspn(text, "0123456789abcdefABCDEF") != 16)
        return dr_fail(DR_EUSAGE,
                       "--epoch is '%.20s', expected 16 hexadecimal digits; the gateway starts this program",
                       text);
    *out = strtoull(text, NULL, 16);
    return dr_ok();
}

/* ---- words for messages ---- */

/* A value from outside, fit for one line: at most 64 bytes, control bytes replaced. */
static const char *shown(const char *text, char out[80]) {
    size_t n = 0;
    for (; text[n] && n < 64; n++) out[n] = (unsigned char)text[n] < 0x20 || text[n] == 0x7f ? '?' : text[n];
    memcpy(out + n, text[n] ? "..." : "", text[n] ? 4 : 1);
    return out;
}

/* What a row accepts, as the end of "expected ...". */
static const char *expected(const struct dr_option_row *r, char *out, size_t room) {
    switch (r->type) {
    case DR_OPT_BOOL:
        snprintf(out, room, "true or false");
        break;
    case DR_OPT_INT:
        snprintf(out, room, "a whole number from %.0f to %.15g", r->least, r->most);
        break;
    case DR_OPT_FLOAT:
        snprintf(out, room, "a number from %g to %g", r->least, r->most);
        break;
    case DR_OPT_BYTES:
        snprintf(out, room, "a number of bytes such as 512M or 24G, at most %.0fT", r->most / 1e12);
        break;
    case DR_OPT_ENUM: {
        size_t n = (size_t)snprintf(out, room, "one of ");
        for (const char *p = r->word; *p && n + 3 < room; p++) {
            if (*p == '|') {
                out[n++] = ',';
                out[n++] = ' ';
            } else {
                out[n++] = *p;
            }
        }
        out[n] = 0;
        break;
    }
    case DR_OPT_STRING:
        snprintf(out, room, "%s", r->word);
        break;
    }
    return out;
}

static dr_status refused(const struct dr_option_row *r, const char *found) {
    char want[160], seen[80];
    return dr_fail(DR_EUSAGE, "--%s: expected %s, found '%s'", r->name, expected(r, want, sizeof want),
                   shown(found, seen));
}

/* ---- one value ---- */

static bool parse_bool(const char *text, int64_t *out) {
    static const char *const yes[] = {"true", "1", "yes", "on"}, *const no[] = {"false", "0", "no", "off"};
    for (int i = 0; i < 4; i++) {
        if (!strcmp(text, yes[i])) return *out = 1, true;
        if (!strcmp(text, no[i])) return *out = 0, true;
    }
    return false;
}

/* Digits with an optional sign and nothing else: strtoll alone would take spaces and trailing text. */
static bool parse_int(const char *text, const char **end, int64_t *out) {
    const char *digits = text + (*text == '-');
    if (!isdigit((unsigned char)*digits)) return false;
    char *stop;
    errno = 0;
    long long v = strtoll(text, &stop, 10);
    if (errno) return false;
    *end = stop;
    *out = v;
    return true;
}

static bool parse_bytes(const char *text, int64_t *out) {
    const char *end;
    int64_t v;
    if (!parse_int(text, &end, &v) || v < 0) return false;
    if (*end) {
        static const char letters[] = "KMGT";
        const char *at = strchr(letters, toupper((unsigned char)*end));
        if (!at) return false;
        end++;
        if (*end == 'i' && end[1] == 'B')
            end += 2;
        else if (*end == 'B')
            end++;
        if (*end) return false;
        int shift = 10 * (int)(at - letters + 1);
        if (v > INT64_MAX >> shift) return false;
        v <<= shift;
    }
    *out = v;
    return true;
}

static bool parse_float(const char *text, double *out) {
    if (isspace((unsigned char)*text) || !*text) return false;
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) return false;
    char *stop;
    double v = strtod(text, &stop);
    if (*stop || !isfinite(v)) return false;
    *out = v;
    return true;
}

static bool parse_enum(const char *text, const char *choices, int64_t *out) {
    size_t bytes = strlen(text);
    int64_t index = 0;
    for (const char *p = choices;; index++) {
        const char *bar = strchr(p, '|');
        size_t n = bar ? (size_t)(bar - p) : strlen(p);
        if (n == bytes && bytes > 0 && !memcmp(p, text, n)) return *out = index, true;
        if (!bar) return false;
        p = bar + 1;
    }
}

static dr_status add_stop(struct dr_options *o, const char *text) {
    if (!*text || strlen(text) > STOP_BYTES_MAX)
        return dr_fail(DR_EUSAGE, "--stop: expected a text of 1 to %d bytes, found %zu bytes", STOP_BYTES_MAX,
                       strlen(text));
    if (o->n_stop == DR_STOPS_MAX)
        return dr_fail(DR_EUSAGE, "--stop: at most %d texts can stop an answer, found one more",
                       DR_STOPS_MAX);
    char *copy = strdup(text);
    if (!copy) return dr_fail(DR_EFULL, "--stop: no memory for %zu bytes", strlen(text));
    o->stop[o->n_stop++] = copy;
    return dr_ok();
}

/* Checks text and stores it; `v` keeps its old value on failure. */
static dr_status store(const struct dr_option_row *r, const char *text, struct dr_option_value *v) {
    struct dr_option_value fresh = {.set = true, .present = true};
    const char *end = "";
    bool good = true;
    switch (r->type) {
    case DR_OPT_BOOL:
        good = parse_bool(text, &fresh.number);
        break;
    case DR_OPT_INT:
        good = parse_int(text, &end, &fresh.number) && !*end && (double)fresh.number >= r->least &&
               (double)fresh.number <= r->most;
        break;
    case DR_OPT_FLOAT:
        good = parse_float(text, &fresh.real) && fresh.real >= r->least && fresh.real <= r->most;
        break;
    case DR_OPT_BYTES:
        good = parse_bytes(text, &fresh.number) && (double)fresh.number <= r->most;
        break;
    case DR_OPT_ENUM:
        good = parse_enum(text, r->word, &fresh.number);
        break;
    case DR_OPT_STRING:
        break;
    }
    if (!good) return refused(r, text);
    if (r->type == DR_OPT_STRING || r->type == DR_OPT_ENUM) {
        fresh.text = strdup(text);
        if (!fresh.text) return dr_fail(DR_EFULL, "--%s: no memory for %zu bytes", r->name, strlen(text));
    }
    free(v->text);
    *v = fresh;
    return dr_ok();
}

dr_status dr_option_set(struct dr_options *o, enum dr_option id, const char *text) {
    if (id == DR_OPTION_STOP) DR_TRY(add_stop(o, text));
    return store(&dr_option_table[id], text, &o->value[id]);
}

/* ---- names ---- */

/* Edits (insert, drop, replace) that turn a into b; both shorter than NAME_MAX_BYTES. */
static int distance(const char *a, size_t n, const char *b) {
    int row[NAME_MAX_BYTES + 1];
    size_t m = strlen(b);
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

/* Two commands may give one name to two options: the command's own comes first. */
static int find(enum dr_command command, const char *name, size_t bytes) {
    int any = -1;
    for (int i = 0; i < DR_OPTION_COUNT; i++) {
        const struct dr_option_row *r = &dr_option_table[i];
        if (strlen(r->name) != bytes || memcmp(r->name, name, bytes) != 0) continue;
        if (r->commands & command) return i;
        if (any < 0) any = i;
    }
    return any;
}

enum dr_option dr_option_find(enum dr_command command, const char *name, size_t bytes) {
    const int i = find(command, name, bytes);
    return i >= 0 && dr_option_table[i].commands & command ? (enum dr_option)i : DR_OPTION_COUNT;
}

static dr_status unknown(enum dr_command command, const char *name, size_t bytes) {
    int best = -1, least = 1 << 20;
    char seen[80], cut[NAME_MAX_BYTES + 1];
    size_t n = bytes < NAME_MAX_BYTES ? bytes : NAME_MAX_BYTES;
    memcpy(cut, name, n);
    cut[n] = 0;
    for (int i = 0; i < DR_OPTION_COUNT; i++) {
        if (!(dr_option_table[i].commands & command)) continue;
        int d = distance(cut, n, dr_option_table[i].name);
        if (d < least) least = d, best = i;
    }
    if (best >= 0 && least <= (n < 6 ? 2 : (int)n / 3))
        return dr_fail(DR_EUSAGE, "--%s: no such option of %s; did you mean --%s?", shown(cut, seen),
                       command_name(command), dr_option_table[best].name);
    return dr_fail(DR_EUSAGE, "--%s: no such option of %s; --help lists them", shown(cut, seen),
                   command_name(command));
}

static dr_status elsewhere(enum dr_command command, int id) {
    char list[128] = "";
    size_t n = 0;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (dr_option_table[id].commands & commands[i].command && n < sizeof list)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", commands[i].name);
    return dr_fail(DR_EUSAGE, "--%s: not an option of %s; it belongs to %s", dr_option_table[id].name,
                   command_name(command), list);
}

/* ---- the four places, weakest first ---- */

static dr_status take_defaults(struct dr_options *o) {
    for (int i = 0; i < DR_OPTION_COUNT; i++) {
        if (!dr_option_table[i].fallback[0]) continue;
        DR_TRY(store(&dr_option_table[i], dr_option_table[i].fallback, &o->value[i]));
        o->value[i].set = false;
    }
    const char *tmp = getenv("TMPDIR"); /* the system's own name for this one default */
    if (tmp && *tmp) {
        DR_TRY(store(&dr_option_table[DR_OPTION_RUN_DIR], tmp, &o->value[DR_OPTION_RUN_DIR]));
        o->value[DR_OPTION_RUN_DIR].set = false;
    }
    return dr_ok();
}

static char *trim(char *s) {
    while (isspace((unsigned char)*s)) s++;
    size_t n = strlen(s);
    while (n && isspace((unsigned char)s[n - 1])) s[--n] = 0;
    return s;
}

/* One line of the file. seen: which names this file has already set. */
static dr_status take_line(struct dr_options *o, char *line, bool seen[DR_OPTION_COUNT]) {
    char *text = trim(line);
    if (!*text || *text == '#') return dr_ok();
    char *equals = strchr(text, '=');
    if (!equals) return dr_fail(DR_EUSAGE, "expected `name = value`");
    *equals = 0;
    const char *name = trim(text);
    size_t bytes = strlen(name);
    int id = find(o->command, name, bytes);
    if (id < 0) return unknown(o->command, name, bytes);
    if (id == DR_OPTION_CONFIG) return dr_fail(DR_EUSAGE, "--config: a file cannot name another file");
    if (id == DR_OPTION_LINK_TOKEN)
        return dr_fail(DR_EUSAGE, "--link-token: taken from the environment only");
    if (seen[id] && id != DR_OPTION_STOP)
        return dr_fail(DR_EUSAGE, "--%s: given twice in this file", dr_option_table[id].name);
    seen[id] = true;
    if (!(dr_option_table[id].commands & o->command))
        return dr_ok(); /* one file may serve several commands */
    return dr_option_set(o, (enum dr_option)id, trim(equals + 1));
}

static dr_status take_file(struct dr_options *o, const char *path) {
    FILE *f = fopen(path, "re");
    if (!f)
        return dr_fail(errno == ENOENT ? DR_ENOENT : DR_EIO, "--config %s: cannot be opened: %s", path,
                       strerror(errno));
    char *text = malloc(FILE_BYTES_MAX + 1);
    size_t n = text ? fread(text, 1, FILE_BYTES_MAX + 1, f) : 0;
    bool bad = ferror(f);
    fclose(f);
    if (!text || bad || n > FILE_BYTES_MAX || memchr(text, 0, n)) {
        dr_status st = !text ? dr_fail(DR_EFULL, "--config %s: no memory", path)
                       : bad ? dr_fail(DR_EIO, "--config %s: cannot be read", path)
                       : n > FILE_BYTES_MAX
                           ? dr_fail(DR_EUSAGE, "--config %s: more than %d bytes", path, FILE_BYTES_MAX)
                           : dr_fail(DR_EUSAGE, "--config %s: holds a zero byte; expected text", path);
        free(text);
        return st;
    }
    text[n] = 0;
    bool seen[DR_OPTION_COUNT] = {false};
    dr_status st = dr_ok();
    int number = 1;
    for (char *line = text; line && st.code == DR_OK; number++) {
        char *next = strchr(line, '\n');
        if (next) *next++ = 0;
        st = take_line(o, line, seen);
        if (st.code != DR_OK) st = dr_fail_within(st, "%s:%d: ", path, number);
        line = next;
    }
    free(text);
    return st;
}

static void clear_stops(struct dr_options *o) {
    for (int32_t i = 0; i < o->n_stop; i++) free(o->stop[i]);
    o->n_stop = 0;
}

static dr_status take_environment(struct dr_options *o) {
    for (int i = 0; i < DR_OPTION_COUNT; i++) {
        if (!(dr_option_table[i].commands & o->command)) continue;
        char name[NAME_MAX_BYTES + 16] = "DEEPRACK_";
        size_t n = strlen(name);
        for (const char *p = dr_option_table[i].name; *p; p++)
            name[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
        name[n] = 0;
        const char *text = getenv(name);
        if (!text || !*text) continue;
        if (i == DR_OPTION_STOP) clear_stops(o); /* a stronger place replaces the list */
        dr_status st = dr_option_set(o, (enum dr_option)i, text);
        if (st.code != DR_OK) return dr_fail_within(st, "environment %s: ", name);
    }
    return dr_ok();
}

/* Splits argv[*at] and, for "--name VALUE", takes the next word too. Returns the id, its value, or a failure.
 */
static dr_status take_flag(enum dr_command command, int argc, char **argv, int *at, int *id,
                           const char **value) {
    const char *word = argv[*at] + 2, *equals = strchr(word, '=');
    size_t bytes = equals ? (size_t)(equals - word) : strlen(word);
    int found = find(command, word, bytes);
    bool negated = false;
    if (found < 0 && !equals && !strncmp(word, "no-", 3)) {
        found = find(command, word + 3, bytes - 3);
        negated = found >= 0 && dr_option_table[found].type == DR_OPT_BOOL;
        if (!negated) found = -1;
    }
    if (found < 0) return unknown(command, word, bytes);
    if (found == DR_OPTION_LINK_TOKEN)
        return dr_fail(DR_EUSAGE, "--link-token: taken from the environment only");
    if (!(dr_option_table[found].commands & command)) return elsewhere(command, found);
    *id = found;
    if (negated)
        *value = "false";
    else if (equals)
        *value = equals + 1;
    else if (dr_option_table[found].type == DR_OPT_BOOL)
        *value = "true";
    else if (*at + 1 < argc)
        *value = argv[++*at];
    else {
        char want[160];
        return dr_fail(DR_EUSAGE, "--%s: a value is missing; expected %s", dr_option_table[found].name,
                       expected(&dr_option_table[found], want, sizeof want));
    }
    return dr_ok();
}

static dr_status take_rest(struct dr_options *o, const char *word) {
    char seen[80];
    const unsigned takes_model = DR_CMD_FIGURES | DR_CMD_SERVE | DR_CMD_CHAT | DR_CMD_BENCH;
    if (!(o->command & takes_model))
        return dr_fail(DR_EUSAGE, "'%s': %s takes options only; was a -- meant in front?", shown(word, seen),
                       command_name(o->command));
    if (o->n_rest == 1) return dr_fail(DR_EUSAGE, "'%s': only one MODEL can be given", shown(word, seen));
    o->rest[0] = strdup(word);
    if (!o->rest[0]) return dr_fail(DR_EFULL, "no memory for an argument");
    o->n_rest = 1;
    return dr_ok();
}

/* only_config: the first pass, which looks for the file that has to be read before the flags count. */
static dr_status take_flags(struct dr_options *o, int argc, char **argv, bool only_config) {
    bool options = true;
    if (!only_config) {
        o->rest = calloc(1, sizeof *o->rest);
        if (!o->rest) return dr_fail(DR_EFULL, "no memory for an argument");
    }
    bool stops_replaced = false;
    for (int i = 0; i < argc; i++) {
        if (options && !strcmp(argv[i], "--")) {
            options = false;
            continue;
        }
        if (!options || argv[i][0] != '-' || argv[i][1] == 0) {
            if (!only_config) DR_TRY(take_rest(o, argv[i]));
            continue;
        }
        char seen[80];
        if (argv[i][1] != '-')
            return dr_fail(DR_EUSAGE, "'%s': options begin with two dashes; --help lists them",
                           shown(argv[i], seen));
        int id = 0;
        const char *value = NULL;
        DR_TRY(take_flag(o->command, argc, argv, &i, &id, &value));
        if (only_config != (id == DR_OPTION_CONFIG)) continue;
        if (id == DR_OPTION_STOP && !stops_replaced) {
            clear_stops(o);
            stops_replaced = true;
        }
        DR_TRY(dr_option_set(o, (enum dr_option)id, value));
    }
    return dr_ok();
}

dr_status dr_options_parse(enum dr_command command, int argc, char **argv, struct dr_options *out) {
    struct dr_options o = {.command = command};
    dr_status st = take_defaults(&o);
    if (st.code == DR_OK) st = take_flags(&o, argc, argv, true);
    const char *path = dr_option_text(&o, DR_OPTION_CONFIG);
    const char *named = getenv("DEEPRACK_CONFIG");
    if (!*path && named && dr_option_table[DR_OPTION_CONFIG].commands & command) path = named;
    if (st.code == DR_OK && *path) st = take_file(&o, path);
    if (st.code == DR_OK) st = take_environment(&o);
    if (st.code == DR_OK) st = take_flags(&o, argc, argv, false);
    if (st.code != DR_OK) {
        dr_options_fini(&o);
        return st;
    }
    *out = o;
    return st;
}

void dr_options_fini(struct dr_options *o) {
    for (int i = 0; i < DR_OPTION_COUNT; i++) free(o->value[i].text);
    clear_stops(o);
    for (int32_t i = 0; i < o->n_rest; i++) free(o->rest[i]);
    free(o->rest);
    *o = (struct dr_options){.command = o->command};
}

dr_status dr_options_copy(const struct dr_options *from, struct dr_options *out) {
    struct dr_options o = *from;
    bool good = true;
    o.rest = calloc((size_t)from->n_rest + 1, sizeof *o.rest);
    good = o.rest != NULL;
    if (!good) o.n_rest = 0;
    for (int i = 0; i < DR_OPTION_COUNT; i++) {
        if (!from->value[i].text) continue;
        o.value[i].text = strdup(from->value[i].text);
        good = good && o.value[i].text;
    }
    for (int32_t i = 0; i < from->n_stop; i++) good = (o.stop[i] = strdup(from->stop[i])) && good;
    for (int32_t i = 0; i < o.n_rest; i++) good = (o.rest[i] = strdup(from->rest[i])) && good;
    if (!good) {
        dr_options_fini(&o);
        return dr_fail(DR_EFULL, "no memory for a copy of the options");
    }
    *out = o;
    return dr_ok();
}

/* ---- for an exec ---- */

int32_t dr_options_flags(const struct dr_options *o, enum dr_command command, char **out, int32_t room) {
    int32_t n = 0;
    for (int i = 0; i < DR_OPTION_COUNT && n < room; i++) {
        const struct dr_option_value *v = &o->value[i];
        if (!(dr_option_table[i].commands & command) || !v->present || i == DR_OPTION_LINK_TOKEN) continue;
        char number[64];
        const char *text = number;
        switch (dr_option_table[i].type) {
        case DR_OPT_BOOL:
            text = v->number ? "true" : "false";
            break;
        case DR_OPT_INT:
        case DR_OPT_BYTES:
            snprintf(number, sizeof number, "%lld", (long long)v->number);
            break;
        case DR_OPT_FLOAT:
            snprintf(number, sizeof number, "%.17g", v->real);
            break;
        case DR_OPT_STRING:
        case DR_OPT_ENUM:
            text = v->text ? v->text : "";
            break;
        }
        size_t bytes = strlen(dr_option_table[i].name) + strlen(text) + 4;
        char *flag = malloc(bytes);
        if (!flag) break;
        snprintf(flag, bytes, "--%s=%s", dr_option_table[i].name, text);
        out[n++] = flag;
    }
    return n;
}
