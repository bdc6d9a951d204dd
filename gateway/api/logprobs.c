/* logprobs.c - writes log-probabilities.
 * In:   tokens.      Out: JSON.
 * Owns: nothing beyond the struct.
 * Why:  see logprobs.h. */
#include "gateway/api/logprobs.h"

#include <string.h>

#include "common/size.h"
#include "gateway/text/utf8.h"

struct bytes {
    const uint8_t *at;
    size_t n;
};

static struct bytes token_bytes(const struct dr_kit *kit, uint32_t id) {
    struct bytes b = {0};
    if (!kit->tokenizer || !dr_tokenizer_has(kit->tokenizer, id)) return b;
    dr_ignore(dr_tokenizer_token(kit->tokenizer, id, &b.at, &b.n), "_has was asked before");
    return b;
}

/* A token's text; one that is a part of a character shows U+FFFD here and is exact in `bytes` only. */
static void quote_token(struct dr_json_out *o, const struct dr_kit *kit, uint32_t id, bool as_id) {
    struct bytes b = token_bytes(kit, id);
    if (as_id || (!b.n && !kit->tokenizer))
        dr_json_format(o, "\"token_id:%u\"", id);
    else
        dr_json_quote(o, b.at, b.n);
}

static void chat_fields(struct dr_logprobs *l, const struct dr_kit *kit, uint32_t id, float logprob) {
    struct dr_json_out *o = &l->entry[0];
    struct bytes b = token_bytes(kit, id);
    dr_json_raw(o, "{\"token\":");
    quote_token(o, kit, id, l->ids_as_tokens);
    dr_json_raw(o, ",\"logprob\":");
    dr_json_logprob(o, logprob);
    dr_json_raw(o, ",\"bytes\":");
    dr_json_octets(o, b.at, b.n);
}

static void add_chat(struct dr_logprobs *l, const struct dr_kit *kit, const struct dr_piece_token *t,
                     int32_t top) {
    struct dr_json_out *o = &l->entry[0];
    if (l->n) dr_json_raw(o, ",");
    chat_fields(l, kit, t->id, t->logprob);
    dr_json_raw(o, ",\"top_logprobs\":[");
    for (int32_t i = 0; i < t->n_top && i < top; i++) {
        if (i) dr_json_raw(o, ",");
        chat_fields(l, kit, t->top[i].id, t->top[i].logprob);
        dr_json_raw(o, "}");
    }
    dr_json_raw(o, "]}");
}

static uint32_t characters(struct bytes b) {
    uint32_t n = 0;
    for (size_t i = 0, used; i < b.n; i += used, n++)
        if (dr_utf8_read(b.at + i, b.n - i, &used) == DR_UTF8_CUT) used = b.n - i;
    return n;
}

/* {"text":logprob}: two tokens may read alike, and a name must not come twice */
static bool seen_before(const struct dr_kit *kit, const struct dr_piece_token *t, int32_t i) {
    struct bytes b = token_bytes(kit, t->top[i].id);
    for (int32_t k = 0; k < i; k++) {
        struct bytes other = token_bytes(kit, t->top[k].id);
        if (other.n == b.n && (b.n == 0 || memcmp(other.at, b.at, b.n) == 0)) return true;
        if (dr_utf8_valid(b.at, b.n) < b.n && dr_utf8_valid(other.at, other.n) < other.n &&
            characters(b) == characters(other))
            return true; /* both show U+FFFD */
    }
    return false;
}

static void add_completion(struct dr_logprobs *l, const struct dr_kit *kit, const struct dr_piece_token *t,
                           int32_t top, bool known) {
    struct dr_json_out *o = l->entry;
    for (int i = 0; l->n && i < 4; i++) dr_json_raw(&o[i], ",");
    quote_token(&o[0], kit, t->id, l->ids_as_tokens);
    if (known)
        dr_json_logprob(&o[1], t->logprob);
    else
        dr_json_raw(&o[1], "null");
    dr_json_format(&o[3], "%u", l->offset);
    if (!l->skip_special || !kit->tokenizer || !dr_tokenizer_is_special(kit->tokenizer, t->id))
        l->offset += characters(token_bytes(kit, t->id));
    if (!known || top <= 0) {
        dr_json_raw(&o[2], "null");
        return;
    }
    dr_json_raw(&o[2], "{");
    bool first = true;
    for (int32_t i = 0; i < t->n_top && i < top; i++) {
        if (!l->ids_as_tokens && kit->tokenizer && seen_before(kit, t, i)) continue;
        if (!first) dr_json_raw(&o[2], ",");
        first = false;
        quote_token(&o[2], kit, t->top[i].id, l->ids_as_tokens);
        dr_json_raw(&o[2], ":");
        dr_json_logprob(&o[2], t->top[i].logprob);
    }
    dr_json_raw(&o[2], "}");
}

void dr_logprobs_add(struct dr_logprobs *l, const struct dr_kit *kit, const struct dr_piece_token *t,
                     int32_t top, bool known) {
    if (l->chat)
        add_chat(l, kit, t, top);
    else
        add_completion(l, kit, t, top, known);
    l->n++;
}

void dr_logprobs_write(struct dr_logprobs *l, struct dr_json_out *out) {
    static const char *const names[] = {"{\"tokens\":[", "],\"token_logprobs\":[", "],\"top_logprobs\":[",
                                        "],\"text_offset\":["};
    if (l->chat) dr_json_raw(out, "{\"content\":[");
    for (int i = 0; i < (l->chat ? 1 : 4); i++) {
        if (!l->chat) dr_json_raw(out, names[i]);
        dr_json_bytes(out, l->entry[i].text.at, l->entry[i].text.n);
        if (l->entry[i].failed) out->failed = true;
        dr_text_reset(&l->entry[i].text);
    }
    dr_json_raw(out, "]}");
    l->n = 0;
}

void dr_logprobs_fini(struct dr_logprobs *l) {
    for (int i = 0; i < 4; i++) dr_json_out_fini(&l->entry[i]);
}

static void prompt_entry(struct dr_json_out *o, const struct dr_kit *kit, uint32_t id, float logprob,
                         int32_t rank) {
    dr_json_format(o, "\"%u\":{\"logprob\":", id);
    dr_json_logprob(o, logprob);
    if (rank > 0)
        dr_json_format(o, ",\"rank\":%d,\"decoded_token\":", rank);
    else
        dr_json_raw(o, ",\"rank\":null,\"decoded_token\":");
    quote_token(o, kit, id, false);
    dr_json_raw(o, "}");
}

void dr_logprobs_prompt(struct dr_json_out *o, const struct dr_kit *kit, const struct dr_piece_token *t,
                        int32_t top) {
    int32_t rank = 0, n = dr_min_i32(t->n_top, top);
    for (int32_t i = 0; i < t->n_top && !rank; i++)
        if (t->top[i].id == t->id) rank = i + 1;
    dr_json_raw(o, "{");
    prompt_entry(o, kit, t->id, t->logprob, rank);
    for (int32_t i = 0; i < n; i++) {
        if (t->top[i].id == t->id) continue;
        dr_json_raw(o, ",");
        prompt_entry(o, kit, t->top[i].id, t->top[i].logprob, i + 1);
    }
    dr_json_raw(o, "}");
}
