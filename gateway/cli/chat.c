/* chat.c - a conversation on the terminal.
 * In:   lines of stdin (edited with libedit on a terminal).      Out: streamed answers on stdout.
 * Owns: the messages so far.
 * Why:  the first thing a stranger does with the sample model. */
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "common/clock.h"
#include "gateway/cli/command.h"

enum { HISTORY_LINES = 200, LINE_BYTES_MAX = 1 << 20 };

struct talk {
    struct dr_session *s;
    struct dr_chat_message *message; /* [n]; contents are owned by text[] */
    char **text;
    size_t n, room;
    bool terminal;
    EditLine *edit; /* NULL off a terminal */
    History *history;
    char *line;           /* the last one */
    struct dr_text input; /* off a terminal: read and not yet used */
    size_t used;
};

/* ---- lines ---- */

static char *prompt_text(EditLine *edit) {
    static char text[] = "> ";
    (void)edit;
    return text;
}

/* Waits for stdin; false after SIGTERM (and, off a terminal, after Ctrl-C). */
static bool wait_input(struct talk *t) {
    for (;;) {
        struct pollfd p[] = {{.fd = 0, .events = POLLIN}, {.fd = t->s->interrupt->fd, .events = POLLIN}};
        if (poll(p, 2, -1) < 0) continue; /* a signal that is handled elsewhere */
        if (p[1].revents) dr_interrupt_poll(t->s->interrupt, 0);
        if (t->s->interrupt->term || (!t->terminal && t->s->interrupt->n > 0)) return false;
        if (p[0].revents) return true;
    }
}

/* One character for the editor: 1, or 0 at the end of input. */
static int read_key(EditLine *edit, wchar_t *out) {
    struct talk *t = NULL;
    mbstate_t state = {0};
    el_get(edit, EL_CLIENTDATA, &t);
    for (int i = 0; i < 8; i++) {
        char byte;
        if (!wait_input(t) || read(0, &byte, 1) != 1) return 0;
        size_t n = mbrtowc(out, &byte, 1, &state);
        if (n == (size_t)-2) continue; /* the character has more bytes */
        if (n == (size_t)-1) *out = L'?';
        return 1;
    }
    return 0;
}

/* Edited lines on a terminal: Ctrl-C wipes the line there; while an answer runs it cancels. */
static dr_status open_editor(struct talk *t) {
    HistEvent event;
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
    t->edit = el_init("deeprack", stdin, stdout, stderr);
    t->history = history_init();
    if (!t->edit || !t->history)
        return dr_fail(DR_EINTERNAL, "the line editor cannot be started; is TERM set?");
    history(t->history, &event, H_SETSIZE, HISTORY_LINES);
    el_set(t->edit, EL_CLIENTDATA, t);
    el_set(t->edit, EL_GETCFN, read_key);
    el_set(t->edit, EL_PROMPT, prompt_text);
    el_set(t->edit, EL_EDITOR, "emacs");
    el_set(t->edit, EL_HIST, history, t->history);
    el_set(t->edit, EL_SETTY, "-d", "-isig", NULL);
    el_set(t->edit, EL_BIND, "^C", "em-kill-line", NULL);
    return dr_ok();
}

static char *edited_line(struct talk *t) {
    int n = 0;
    const char *line = el_gets(t->edit, &n);
    if (!line || n <= 0) return NULL;
    HistEvent event;
    if (n > 1) history(t->history, &event, H_ENTER, line);
    return strdup(line);
}

/* Off a terminal: bytes up to the next newline. Not stdio: its buffer would hide input from poll. */
static char *plain_line(struct talk *t) {
    for (size_t looked = t->used;;) {
        const char *at = t->input.at;
        const char *end = at && t->input.n > looked ? memchr(at + looked, '\n', t->input.n - looked) : NULL;
        char piece[4096];
        ssize_t n = 0;
        if (!end) {
            looked = t->input.n;
            if (looked - t->used > LINE_BYTES_MAX || !wait_input(t)) return NULL;
            n = read(0, piece, sizeof piece);
        }
        if (n > 0) {
            if (dr_text_push(&t->input, piece, (size_t)n).code != DR_OK) return NULL;
            continue;
        }
        const size_t stop = end ? (size_t)(end - at) : t->input.n;
        if (!end && stop == t->used) return NULL; /* the end of input */
        char *line = strndup(at + t->used, stop - t->used);
        t->used = end ? stop + 1 : stop;
        return line;
    }
}

/* The next line without its end; NULL at the end of input, or after a signal. Valid until the next call. */
static char *next_line(struct talk *t, size_t *bytes) {
    free(t->line);
    t->line = t->edit ? edited_line(t) : plain_line(t);
    if (!t->line) return NULL;
    *bytes = strcspn(t->line, "\r\n");
    t->line[*bytes] = 0;
    return t->line;
}

/* ---- messages ---- */

static dr_status say(struct talk *t, enum dr_chat_role role, const char *text, size_t bytes) {
    if (t->n == t->room) {
        const size_t room = t->room ? 2 * t->room : 16;
        void *m = realloc(t->message, room * sizeof *t->message);
        if (m) t->message = m;
        void *x = m ? realloc(t->text, room * sizeof *t->text) : NULL;
        if (x) t->text = x;
        if (!m || !x) return dr_fail(DR_EFULL, "no memory for the conversation");
        t->room = room;
    }
    char *copy = malloc(bytes + 1);
    if (!copy) return dr_fail(DR_EFULL, "no memory for the conversation");
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    t->text[t->n] = copy;
    t->message[t->n] = (struct dr_chat_message){.role = role, .content = {.at = copy, .n = bytes}};
    t->n++;
    return dr_ok();
}

static void forget(struct talk *t, size_t keep) {
    while (t->n > keep) free(t->text[--t->n]);
}

static dr_status reset(struct talk *t) {
    const char *system = dr_option_text(t->s->options, DR_OPTION_SYSTEM);
    forget(t, 0);
    return *system ? say(t, DR_CHAT_SYSTEM, system, strlen(system)) : dr_ok();
}

/* ---- one answer ---- */

/* Streams to stdout and into `text`. Ctrl-C cancels and keeps what came. */
static dr_status stream(struct talk *t, struct dr_generation *g, struct dr_text *text) {
    struct dr_piece piece = {.end = false};
    const uint64_t begin_ns = dr_clock_ns();
    const int interrupts = dr_interrupt_poll(t->s->interrupt, 0);
    uint64_t first_ns = 0;
    int32_t n_token = 0;
    bool cancelled = false;
    while (!piece.end) {
        if (!dr_generation_next(g, &piece)) {
            piece.end = false;
            dr_generation_wait(g, 50000000u);
        } else {
            n_token += piece.n_token;
            if (n_token > 0 && !first_ns) first_ns = dr_clock_ns();
            DR_TRY(dr_output_write(piece.text, piece.text_bytes));
            DR_TRY(dr_text_push(text, piece.text, piece.text_bytes));
        }
        if (!cancelled && dr_interrupt_poll(t->s->interrupt, 0) > interrupts) {
            dr_generation_cancel(g);
            cancelled = true;
        }
    }
    DR_TRY(dr_output_write("\n", 1));
    DR_TRY(dr_piece_status(&piece));
    const struct dr_answer_facts f =
        dr_answer_facts_of(&piece.done, begin_ns, first_ns, dr_clock_ns(), n_token);
    if (t->s->options->value[DR_OPTION_FACTS].set) dr_facts_print(t->s, &f);
    return dr_ok();
}

static dr_status answer(struct talk *t, struct dr_text *text) {
    const struct dr_options *o = t->s->options;
    struct dr_chat_prompt prompt = {.ids = {.n = 0}};
    struct dr_bias *bias = calloc(DR_BIAS_MAX, sizeof *bias);
    struct dr_generation *g = NULL;
    int32_t n_bias = 0;
    dr_status st = bias ? dr_flags_bias(o, bias, &n_bias) : dr_fail(DR_EFULL, "no memory for the request");
    if (st.code == DR_OK)
        st = dr_chat_render(&t->s->kit->chat, t->message, t->n,
                            (struct dr_chat_options){.add_generation_prompt = true}, &prompt);
    if (st.code == DR_OK && prompt.ids.n >= (size_t)t->s->kit->context)
        st = dr_fail(DR_EREQUEST, "the conversation has %zu tokens, the context %d; /reset begins a new one",
                     prompt.ids.n, t->s->kit->context);
    if (st.code == DR_OK) {
        const struct dr_generation_wish wish = dr_flags_wish(o, t->s->kit, &prompt.ids, bias, n_bias);
        st = dr_generation_start(t->s->engine, t->s->kit, &wish, &g);
    }
    dr_chat_prompt_fini(&prompt);
    free(bias);
    if (st.code == DR_OK) st = stream(t, g, text);
    if (g) dr_generation_destroy(g);
    return st;
}

/* ---- the loop ---- */

static dr_status say_help(void) {
    static const char text[] =
        "/help   this list\n/reset  begin a new conversation\n/quit   leave (so does Ctrl-D)\n"
        "Ctrl-C stops an answer.\n";
    return dr_output_write(text, sizeof text - 1);
}

/* A failed answer is told and forgotten; what ends the talk is returned. */
static dr_status turn(struct talk *t, const char *line, size_t bytes) {
    const size_t before = t->n;
    struct dr_text text = {.n = 0};
    DR_TRY(say(t, DR_CHAT_USER, line, bytes));
    dr_status st = answer(t, &text);
    if (st.code == DR_OK) st = say(t, DR_CHAT_ASSISTANT, text.at ? text.at : "", text.n);
    dr_text_fini(&text);
    if (st.code == DR_OK) return st;
    forget(t, before);
    const bool ends = st.code == DR_ECANCEL || st.code == DR_EIO || !t->terminal;
    if (ends) return st;
    fprintf(stderr, "deeprack: %s\n", dr_error_text());
    return dr_ok();
}

static dr_status loop(struct talk *t) {
    for (;;) {
        size_t bytes = 0;
        const char *line = next_line(t, &bytes);
        if (t->s->interrupt->term || (!t->terminal && t->s->interrupt->n > 0))
            return dr_fail(DR_ECANCEL, "interrupted");
        if (!line && !t->terminal && t->input.n - t->used > LINE_BYTES_MAX)
            return dr_fail(DR_EUSAGE, "stdin: a line of more than %d bytes; give less text", LINE_BYTES_MAX);
        if (!line || !strcmp(line, "/quit")) break;
        if (bytes == 0) continue;
        dr_status st;
        if (!strcmp(line, "/help"))
            st = say_help();
        else if (!strcmp(line, "/reset"))
            st = reset(t);
        else if (line[0] == '/' && t->terminal) {
            fprintf(stderr, "no such command; /help lists them\n");
            st = dr_ok();
        } else
            st = turn(t, line, bytes);
        if (st.code != DR_OK) return st;
    }
    return t->terminal ? dr_output_write("\n", 1) : dr_ok();
}

static void greet(const struct talk *t) {
    if (!t->terminal) return;
    printf("%s, %s layout; tp %d, pp %d. /help lists commands, Ctrl-D ends.\n", t->s->kit->name,
           dr_chat_name(t->s->kit->chat.layout), (int)dr_option_int(t->s->options, DR_OPTION_TP),
           (int)dr_option_int(t->s->options, DR_OPTION_PP));
    fflush(stdout);
}

dr_status dr_chat_command(struct dr_options *o, struct dr_interrupt *i) {
    struct dr_session s = {.engine = NULL};
    struct talk t = {.s = &s, .terminal = isatty(0) && isatty(1)};
    dr_status st = dr_session_begin(&s, o, i);
    if (st.code == DR_OK && s.kit->chat.layout == DR_CHAT_NONE)
        st = dr_fail(DR_EUSAGE,
                     "the model's files name no chat layout; give --template, or use deeprack generate");
    if (st.code == DR_OK && t.terminal) st = open_editor(&t);
    if (st.code == DR_OK) st = dr_session_start(&s);
    if (st.code == DR_OK) st = reset(&t);
    if (st.code == DR_OK) {
        greet(&t);
        st = loop(&t);
    }
    if (t.edit) el_end(t.edit);
    if (t.history) history_end(t.history);
    forget(&t, 0);
    free(t.message);
    free(t.text);
    free(t.line);
    dr_text_fini(&t.input);
    dr_session_end(&s);
    return st;
}
