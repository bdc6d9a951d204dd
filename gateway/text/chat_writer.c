/* chat_writer.c - see chat_writer.h.
 * In:   controls and texts.      Out: ids and text.
 * Owns: nothing; the run lies in the caller's prompt.
 * Why:  the only place where a control id enters a prompt, and the only one where contents are tokenized. */
#include "gateway/text/chat_writer.h"

#include <string.h>

static void flush(struct dr_chat_writer *w) {
    const struct dr_text *text = &w->out->text;
    if (w->status.code == DR_OK && w->chat->tokenizer && text->n > w->run)
        w->status = dr_tokenizer_encode(w->chat->tokenizer, text->at + w->run, text->n - w->run, DR_ADDED_OFF,
                                        &w->out->ids);
    w->run = text->n;
}

void dr_chat_writer_control(struct dr_chat_writer *w, enum dr_chat_control control) {
    flush(w);
    dr_chat_writer_literal(w, dr_chat_control_text(control));
    w->run = w->out->text.n;
    if (w->status.code != DR_OK || !w->chat->tokenizer) return;
    DR_ASSERT(w->chat->id[control] !=
              DR_TOKENIZER_NONE); /* needed() in chat.c forgets a control of this layout */
    w->status = dr_ids_push(&w->out->ids, w->chat->id[control]);
}

void dr_chat_writer_text(struct dr_chat_writer *w, struct dr_chat_string s) {
    if (w->status.code == DR_OK && s.at) w->status = dr_text_push(&w->out->text, s.at, s.n);
}

void dr_chat_writer_literal(struct dr_chat_writer *w, const char *text) {
    dr_chat_writer_text(w, (struct dr_chat_string){.at = text, .n = strlen(text)});
}

dr_status dr_chat_writer_end(struct dr_chat_writer *w) {
    flush(w);
    return w->status;
}
