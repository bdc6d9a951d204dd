/* kit.h - what the text world knows of a model: numbers, tokenizer, chat layout, defaults.
 * In:   the model's folder and the options.      Out: one read-only object that all threads share.
 * Owns: tokenizer and chat layout until dr_kit_destroy.
 * Why:  command line and HTTP start from the same facts and apply the same defaults. */
#pragma once

#include "common/option.h"
#include "gateway/text/chat.h"
#include "gateway/text/tokenizer.h"
#include "model/config.h"
#include "proto/message.h"

struct dr_kit {
    struct dr_config config;
    struct dr_tokenizer *tokenizer;   /* owned; NULL: the model has none (ids only) */
    struct dr_chat chat;              /* layout DR_CHAT_NONE: no chat, only completions */
    char name[DR_SALT_MAX + 1];       /* served name */
    uint32_t end_id[DR_STOP_IDS_MAX]; /* any of these stops: config, generation_config, tokenizer_config;
                                         ascending */
    int32_t n_end_id;
    int32_t n_vocab_named; /* ids >= this have no entry in the tokenizer and are never drawn; 0: unknown */
    int32_t context;       /* longest prompt + answer */
    bool openai_defaults;  /* --sampling-defaults=openai */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Reads config, tokenizer and template of options' --model; with --tokenizer instead, config is all zero. A
 * model without tokenizer.json is legal. --template auto: a layout that the model's files do not name, or
 * lack tokens for, means no chat. Fails: ENOENT, EIO, EMODEL, EFULL; EUSAGE when neither is given. */
DR_FALLIBLE dr_kit_create(const struct dr_options *options, struct dr_kit **out);
void dr_kit_destroy(struct dr_kit *kit);

/* Sampling of a request that leaves everything out: generation_config's values, else OpenAI's; seed from the
 * system. */
struct dr_sampling dr_kit_sampling(const struct dr_kit *kit);

/* Text of a completion prompt to ids, appended: added tokens matched, BOS in front iff add_bos_token and
 * absent. Fails: EINVAL (not UTF-8; a model without tokenizer), EFULL. */
DR_FALLIBLE dr_kit_encode_prompt(const struct dr_kit *kit, const char *text, size_t bytes,
                                 struct dr_ids *out);

#ifdef __cplusplus
}
#endif
