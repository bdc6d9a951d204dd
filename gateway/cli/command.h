/* command.h - the commands of the program, and what they share.
 * In:   resolved options.      Out: answers on stdout; failures as statuses, printed once by main.
 * Owns: in struct dr_session: kit and engine.
 * Why:  each command is one file and one function; main.c is the list of them. */
#pragma once

#include <jansson.h>

#include "common/option.h"
#include "gateway/api/generation.h"
#include "gateway/api/kit.h"
#include "gateway/cli/interrupt.h"
#include "gateway/cluster/engine.h"

struct dr_session {
    struct dr_options *options;     /* borrowed */
    struct dr_interrupt *interrupt; /* borrowed */
    struct dr_kit *kit;
    struct dr_engine *engine;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Each runs one command to its end. Failures: the code decides the exit status (contracts of status.h);
 * ECANCEL after Ctrl-C. */
DR_FALLIBLE dr_serve(struct dr_options *o, struct dr_interrupt *i);
DR_FALLIBLE dr_generate(struct dr_options *o, struct dr_interrupt *i);
DR_FALLIBLE dr_chat_command(struct dr_options *o, struct dr_interrupt *i);
DR_FALLIBLE dr_score(struct dr_options *o, struct dr_interrupt *i);
DR_FALLIBLE dr_tokenize(struct dr_options *o, struct dr_interrupt *i);
DR_FALLIBLE dr_inspect(struct dr_options *o, struct dr_interrupt *i);
DR_FALLIBLE dr_bench(struct dr_options *o, struct dr_interrupt *i);
DR_FALLIBLE dr_plan_command(struct dr_options *o, struct dr_interrupt *i);

/* session.c. begin reads the model; start runs the cluster and waits until it is ready (or Ctrl-C: ECANCEL).
 * end takes both away and accepts a session at any stage. */
DR_FALLIBLE dr_session_begin(struct dr_session *s, struct dr_options *o, struct dr_interrupt *i);
DR_FALLIBLE dr_session_start(struct dr_session *s);
void dr_session_end(struct dr_session *s);

/* "5,17,9" to ids; flag: its name, for the text. Fails: EUSAGE. */
DR_FALLIBLE dr_ids_parse(const char *flag, const char *text, struct dr_ids *out);

/* A whole file, or stdin for "-", of at most bytes_max. Fails: ENOENT, EIO, EUSAGE. */
DR_FALLIBLE dr_input_read(const char *path, size_t bytes_max, struct dr_text *out);

/* stdout. Fails: ECANCEL with an empty text when the reader has gone, EIO when the disk is full. */
DR_FALLIBLE dr_output_write(const char *text, size_t bytes);

/* One compact line; reals with 9 digits, enough for any f32. Takes `value` over; NULL is what jansson gives
 * when memory is short. Fails: EFULL, and as dr_output_write. */
DR_FALLIBLE dr_output_json(json_t *value);

/* generation_config's sampling with the flags of the command line over it. */
struct dr_sampling dr_flags_sampling(const struct dr_options *o, const struct dr_kit *kit);

/* What the sampling flags of generate and chat ask of an answer to these ids; everything is borrowed. */
struct dr_generation_wish dr_flags_wish(const struct dr_options *o, const struct dr_kit *kit,
                                        const struct dr_ids *prompt, const struct dr_bias *bias,
                                        int32_t n_bias);

/* --logit-bias into out[DR_BIAS_MAX]. Fails: EUSAGE. */
DR_FALLIBLE dr_flags_bias(const struct dr_options *o, struct dr_bias *out, int32_t *n);

/* How an answer went, for the line of facts and for --json. */
struct dr_answer_facts {
    uint64_t total_ns, first_ns; /* from submit to the end; to the first token, 0: none came */
    int32_t n_token;
    double tokens_per_s; /* of the decode: tokens after the first one, per second of their time; 0: fewer than
                            two */
};
struct dr_answer_facts dr_answer_facts_of(const struct dr_done *done, uint64_t begin_ns, uint64_t first_ns,
                                          uint64_t end_ns, int32_t n_token);

/* The line on stderr: when --facts is given, or stderr is a terminal and --no-facts is not. */
void dr_facts_print(const struct dr_session *s, const struct dr_answer_facts *f);

/* Turns the last piece of a failed answer into a status (lost: EPEER; refused or bad numbers: EREQUEST). OK
 * for stop and length. */
DR_FALLIBLE dr_piece_status(const struct dr_piece *last);

#ifdef __cplusplus
}
#endif
