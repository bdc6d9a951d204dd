/* rig.h - kit, fake engine, server and a plain client for the HTTP tests.
 * In:   deploy/models/lexi-15m.      Out: replies.
 * Owns: one kit for the program; an engine and a server between rig_begin and rig_end.
 * Why:  a test says what it sends and what must come back, nothing else. */
#pragma once

#include <jansson.h>

#include "gateway/api/kit.h"
#include "gateway/http/server.h"
#include "tests/unit/http/fake_engine.h"

const struct dr_kit *rig_kit(void); /* lexi-15m; loaded once */
void rig_kit_end(void);

struct rig {
    struct dr_engine *engine;
    struct dr_server *server;
    int32_t port;
};

/* flags: further options of serve, NULL-terminated, or NULL. */
void rig_begin(struct rig *r, const char *const *flags);
void rig_end(struct rig *r);

/* The script: the ids of text, then the end token if end. Fills engine's script; mode FAKE_NORMAL. */
void rig_say(struct rig *r, const char *text, bool end);
int32_t rig_ids(const char *text, uint32_t *out, int32_t room);

struct reply {
    int status;
    char *head; /* owned; status line and headers */
    char *body; /* owned; chunks joined */
    size_t n;
};

/* One request on a connection of its own. headers: "Name: value\r\n..." or "". body NULL: none. */
struct reply rig_ask(int32_t port, const char *method, const char *path, const char *headers,
                     const char *body);
/* Sends bytes as they are, reads to the end. */
struct reply rig_raw(int32_t port, const char *bytes, size_t n);
void reply_fini(struct reply *r);
/* Value of a header, "" if it is not there; in the caller's room. */
const char *reply_header(const struct reply *r, const char *name, char *room, size_t bytes);
json_t *reply_json(const struct reply *r); /* NULL: not JSON */

int rig_connect(int32_t port);
/* Waits up to 5 s until fn(engine) == want. */
bool rig_until(struct dr_engine *e, int64_t (*fn)(struct dr_engine *e), int64_t want);

/* Payload i of an event stream, parsed; NULL: there is none or it is [DONE]. */
json_t *stream_event(const char *body, int i);
int stream_count(const char *body); /* events with [DONE] */

/* dr_options of a command from flags, NULL-terminated. */
dr_status rig_options(enum dr_command command, const char *const *flags, struct dr_options *out);
