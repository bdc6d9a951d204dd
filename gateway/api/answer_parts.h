/* answer_parts.h - the inside of an answer, for answer.c (what happens) and answer_write.c (how it reads).
 * In:   nothing.      Out: the two structs.
 * Owns: see each field.
 * Why:  two files, one object; nobody else includes this. */
#pragma once

#include "gateway/api/answer.h"
#include "gateway/api/logprobs.h"

struct dr_choice {
    int32_t index;
    const struct dr_ask_prompt *prompt; /* borrowed from the ask */
    struct dr_generation *generation;   /* owned; NULL once it has ended */
    bool ended;
    struct dr_text text; /* not yet written (stream) or all of it */
    struct dr_logprobs logprobs;
    struct dr_json_out prompt_logprobs;    /* elements, with a comma in front of each */
    struct dr_json_out ids;                /* new ids not yet written, "5,17" */
    const char *finish;                    /* static; NULL: not yet */
    int64_t stop_id;                       /* stop_token_ids' id that stopped, -1: none */
    char stop_text[DR_STOP_BYTES_MAX + 1]; /* stop string that stopped */
    bool stopped_by_text;
    struct dr_done done;
    int32_t n_output;
    uint64_t first_ns, last_ns; /* clock of the first and the latest token; 0: none */
};

struct dr_answer {
    struct dr_api *api; /* borrowed */
    struct dr_ask ask;
    enum dr_answer_state state;
    struct dr_problem problem;
    char id[48];
    int64_t created_s;
    uint64_t start_ns;
    int32_t n_choice;
    struct dr_choice *choice; /* owned, [n_choice] */
    struct dr_json_out event; /* scratch: one chunk */
};

/* The first chunk of a choice: its role, or the echoed prompt. */
void dr_answer_write_first(struct dr_answer *a, struct dr_choice *c, struct dr_json_out *out);
/* What a choice has that is not written: text, log-probabilities, ids. Nothing: no chunk. */
void dr_answer_write_delta(struct dr_answer *a, struct dr_choice *c, struct dr_json_out *out);
void dr_answer_write_finish(struct dr_answer *a, struct dr_choice *c, struct dr_json_out *out);
/* Usage, if asked for, and the end mark. */
void dr_answer_write_done(struct dr_answer *a, struct dr_json_out *out);
void dr_answer_write_error(struct dr_answer *a, struct dr_json_out *out);
/* The whole reply of a request without stream. */
void dr_answer_write_body(struct dr_answer *a, struct dr_json_out *out);
