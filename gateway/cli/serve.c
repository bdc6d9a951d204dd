/* serve.c - the HTTP service on a cluster of its own.
 * In:   options, signals.      Out: answers over HTTP until SIGTERM or Ctrl-C.
 * Owns: the order in which model, cluster and server come and go.
 * Why:  the first signal drains, the second ends at once; a cluster that cannot be started ends the program
 * with its reason. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/cli/command.h"
#include "gateway/http/server.h"

enum { LOOK_MS = 500, SLICE_MS = 100 };

static void log_options(const struct dr_options *o) {
    for (int i = 0; i < DR_OPTION_COUNT; i++) {
        const struct dr_option_value *v = &o->value[i];
        if (!v->set) continue;
        if (v->text)
            dr_log(DR_LOG_INFO, "option", "%s=\"%s\"", dr_option_name((enum dr_option)i), v->text);
        else if (v->real != 0)
            dr_log(DR_LOG_INFO, "option", "%s=%g", dr_option_name((enum dr_option)i), v->real);
        else
            dr_log(DR_LOG_INFO, "option", "%s=%" PRId64, dr_option_name((enum dr_option)i), v->number);
    }
}

/* Until a signal comes or the cluster is down for good. A latched cluster keeps the server up: it answers 503
 * with the reason. */
static dr_status watch(struct dr_session *s, struct dr_engine_facts *facts) {
    while (dr_interrupt_poll(s->interrupt, LOOK_MS) == 0) {
        dr_engine_facts(s->engine, facts);
        if (facts->state == DR_ENGINE_STOPPED)
            return dr_fail(facts->code == DR_OK ? DR_EPEER : facts->code, "%s", facts->reason);
    }
    dr_engine_facts(s->engine, facts);
    if (facts->state == DR_ENGINE_LATCHED)
        return dr_fail(DR_EPEER, "the cluster was lost too often and not started again: %s", facts->reason);
    return dr_ok();
}

/* True: everything ended. False: patience did, or a second signal came. */
static bool drain(struct dr_session *s, struct dr_server *server) {
    const int before = s->interrupt->n;
    const uint64_t end =
        dr_clock_ns() + (uint64_t)dr_option_int(s->options, DR_OPTION_DRAIN_SECONDS) * 1000000000u;
    dr_log(DR_LOG_INFO, "drain", "seconds=%" PRId64 "; a second signal ends at once",
           dr_option_int(s->options, DR_OPTION_DRAIN_SECONDS));
    for (;;) {
        if (dr_server_drain(server, (uint64_t)SLICE_MS * 1000000u)) return true;
        if (dr_interrupt_poll(s->interrupt, 0) > before || dr_clock_ns() >= end) return false;
    }
}

dr_status dr_serve(struct dr_options *o, struct dr_interrupt *i) {
    struct dr_session s = {.engine = NULL};
    struct dr_server *server = NULL;
    struct dr_engine_facts *facts = calloc(1, sizeof *facts);
    dr_status st = facts ? dr_session_begin(&s, o, i) : dr_fail(DR_EFULL, "no memory");
    if (st.code == DR_OK) st = dr_interrupt_begin(i);
    if (st.code == DR_OK) st = dr_engine_create(o, &s.kit->config, &s.engine);
    if (st.code == DR_OK) {
        log_options(o);
        st = dr_server_create(o, s.kit, s.engine, &server);
    }
    if (st.code == DR_OK) {
        st = watch(&s, facts);
        if (st.code == DR_OK && drain(&s, server)) {
            dr_engine_drain(s.engine, 0);
            dr_log(DR_LOG_INFO, "drained", "open=%d", dr_server_drain(server, 1000000000u) ? 0 : 1);
        }
    }
    free(facts);
    char text[1024];
    snprintf(text, sizeof text, "%s", dr_error_text());
    if (server) dr_server_destroy(server);
    dr_ignore(dr_fail(DR_EINTERNAL, "%s", text), "puts the text back for main");
    dr_session_end(&s);
    return st;
}
