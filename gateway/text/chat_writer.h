/* chat_writer.h - writes a prompt as control tokens and runs of text.
 * In:   controls and texts in reading order.      Out: ids and text of a dr_chat_prompt.
 * Owns: the run of text since the last control.
 * Why:  neighbouring texts are tokenized as one run, or a border between template and content would show in
 * the ids. */
#pragma once

#include "gateway/text/chat.h"

struct dr_chat_writer {
    const struct dr_chat *chat;
    struct dr_chat_prompt *out;
    size_t run;       /* where in out->text the run begins that is not tokenized yet */
    dr_status status; /* the first failure; nothing is written after it */
};

#ifdef __cplusplus
extern "C" {
#endif

/* "<|im_end|>" and so on. */
const char *dr_chat_control_text(enum dr_chat_control control);

void dr_chat_writer_control(struct dr_chat_writer *w, enum dr_chat_control control);
void dr_chat_writer_text(struct dr_chat_writer *w, struct dr_chat_string s);
void dr_chat_writer_literal(struct dr_chat_writer *w, const char *text);
/* Tokenizes the last run. Fails: what any write before has failed with. */
DR_FALLIBLE dr_chat_writer_end(struct dr_chat_writer *w);

#ifdef __cplusplus
}
#endif
