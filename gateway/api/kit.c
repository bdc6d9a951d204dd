/* kit.c - reads a model's files for the text world.
 * In:   options.      Out: struct dr_kit.
 * Owns: what it returns.
 * Why:  see kit.h. */
#include "gateway/api/kit.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rng.h"

enum { TEMPLATE_BYTES_MAX = 1 << 20 };

static dr_status path_in(const char *dir, const char *name, char **out) {
    size_t bytes = strlen(dir) + strlen(name) + 2;
    *out = malloc(bytes);
    if (!*out) return dr_fail(DR_EFULL, "no memory for a path");
    snprintf(*out, bytes, "%s/%s", dir, name);
    return dr_ok();
}

/* tokenizer.json and tokenizer_config.json of a folder; without the first there is no tokenizer. */
static dr_status read_tokenizer(struct dr_kit *kit, const char *dir) {
    char *json = NULL, *config = NULL;
    dr_status st = path_in(dir, "tokenizer.json", &json);
    if (st.code == DR_OK) st = path_in(dir, "tokenizer_config.json", &config);
    if (st.code == DR_OK) {
        if (access(json, F_OK) != 0)
            dr_log(DR_LOG_INFO, "no_tokenizer", "%s is missing: prompts are token ids only", json);
        else
            st = dr_tokenizer_create(json, access(config, F_OK) == 0 ? config : NULL, &kit->tokenizer);
    }
    free(json);
    free(config);
    return st;
}

/* --tokenizer FILE: its tokenizer_config.json, if there is one, lies beside it. */
static dr_status read_lone_tokenizer(struct dr_kit *kit, const char *file) {
    char *dir = strdup(file), *config = NULL;
    if (!dir) return dr_fail(DR_EFULL, "no memory for a path");
    char *slash = strrchr(dir, '/');
    if (slash) *slash = 0;
    dr_status st = path_in(slash ? dir : ".", "tokenizer_config.json", &config);
    if (st.code == DR_OK)
        st = dr_tokenizer_create(file, access(config, F_OK) == 0 ? config : NULL, &kit->tokenizer);
    free(dir);
    free(config);
    return st;
}

/* Newer checkpoints keep the template in a file of its own. NULL: there is none. */
static char *read_template(const char *dir) {
    char *path = NULL, *text = NULL;
    if (path_in(dir, "chat_template.jinja", &path).code != DR_OK) return NULL;
    FILE *f = fopen(path, "re");
    if (f && (text = calloc(1, TEMPLATE_BYTES_MAX + 1))) text[fread(text, 1, TEMPLATE_BYTES_MAX, f)] = 0;
    if (f) fclose(f);
    free(path);
    return text;
}

static dr_status choose_chat(struct dr_kit *kit, const struct dr_options *o, const char *dir) {
    const char *wish = dr_option_text(o, DR_OPTION_TEMPLATE);
    if (*wish && strcmp(wish, "auto") != 0)
        return dr_chat_init(&kit->chat, dr_chat_find(wish), kit->tokenizer);
    if (!kit->tokenizer) return dr_ok();
    char *file = dir ? read_template(dir) : NULL;
    enum dr_chat_layout layout =
        dr_chat_detect(file ? file : dr_tokenizer_facts(kit->tokenizer)->chat_template);
    free(file);
    if (layout == DR_CHAT_NONE) {
        dr_log(DR_LOG_INFO, "no_chat",
               "the model's files name no chat layout that is known: completions only");
        return dr_ok();
    }
    dr_status st = dr_chat_init(&kit->chat, layout, kit->tokenizer);
    if (st.code != DR_EMODEL) return st;
    dr_log(DR_LOG_INFO, "no_chat", "layout %s: %s; completions only", dr_chat_name(layout), dr_error_text());
    kit->chat = (struct dr_chat){.layout = DR_CHAT_NONE};
    return dr_ok();
}

static void add_end(struct dr_kit *kit, uint32_t id) {
    int32_t i = 0;
    while (i < kit->n_end_id && kit->end_id[i] < id) i++;
    if ((i < kit->n_end_id && kit->end_id[i] == id) || kit->n_end_id == DR_END_IDS_MAX) return;
    memmove(kit->end_id + i + 1, kit->end_id + i, (size_t)(kit->n_end_id - i) * sizeof *kit->end_id);
    kit->end_id[i] = id;
    kit->n_end_id++;
}

static void choose_name(struct dr_kit *kit, const struct dr_options *o, const char *dir) {
    const char *name = dr_option_text(o, DR_OPTION_SERVED_MODEL_NAME);
    char *full = NULL;
    if (!*name && dir) {
        full = realpath(dir, NULL);
        const char *slash = full ? strrchr(full, '/') : NULL;
        name = slash ? slash + 1 : dir;
    }
    snprintf(kit->name, sizeof kit->name, "%s", name);
    free(full);
}

static dr_status fill(struct dr_kit *kit, const struct dr_options *o) {
    const char *dir = dr_option_text(o, DR_OPTION_MODEL), *file = dr_option_text(o, DR_OPTION_TOKENIZER);
    if (!*dir && !*file)
        return dr_fail(DR_EUSAGE, o->command == DR_CMD_TOKENIZE
                                      ? "expected --model DIR or --tokenizer FILE"
                                      : "expected --model DIR, a folder with config.json and safetensors");
    if (!*dir) dir = NULL;
    if (dir) {
        DR_TRY(dr_config_load(dir, &kit->config));
        DR_TRY(read_tokenizer(kit, dir));
    } else
        DR_TRY(read_lone_tokenizer(kit, file));
    DR_TRY(choose_chat(kit, o, dir));
    choose_name(kit, o, dir);
    for (int32_t i = 0; i < kit->config.n_end_id; i++) add_end(kit, kit->config.end_id[i]);
    if (kit->tokenizer) {
        const struct dr_tokenizer_facts *facts = dr_tokenizer_facts(kit->tokenizer);
        for (size_t i = 0; i < facts->n_stop; i++) add_end(kit, facts->stop[i]);
        size_t named = dr_tokenizer_size(kit->tokenizer);
        if (dir && named > (size_t)kit->config.vocab)
            return dr_fail(DR_EMODEL, "%s: tokenizer.json names token id %zu, but vocab_size is %d", dir,
                           named - 1, kit->config.vocab);
        kit->n_vocab_named = (int32_t)named;
    }
    int64_t context = dr_option_int(o, DR_OPTION_CONTEXT);
    kit->context = context > 0 ? (int32_t)context : kit->config.n_position;
    kit->openai_defaults = strcmp(dr_option_text(o, DR_OPTION_SAMPLING_DEFAULTS), "openai") == 0;
    return dr_ok();
}

dr_status dr_kit_create(const struct dr_options *options, struct dr_kit **out) {
    struct dr_kit *kit = calloc(1, sizeof *kit);
    if (!kit) return dr_fail(DR_EFULL, "no memory for the model's facts");
    dr_status st = fill(kit, options);
    if (st.code != DR_OK)
        dr_kit_destroy(kit);
    else
        *out = kit;
    return st;
}

void dr_kit_destroy(struct dr_kit *kit) {
    if (!kit) return;
    dr_tokenizer_destroy(kit->tokenizer);
    free(kit);
}

struct dr_sampling dr_kit_sampling(const struct dr_kit *kit) {
    struct dr_sampling s = {
        .temperature = 1, .top_p = 1, .repetition = 1, .seed = dr_rng_system(), .n_top = -1};
    if (kit->openai_defaults) return s;
    const struct dr_config *c = &kit->config;
    if (c->gen_temperature >= 0) s.temperature = c->gen_temperature; /* false for NAN: the file is silent */
    if (c->gen_top_p > 0) s.top_p = c->gen_top_p;
    if (c->gen_top_k > 0) s.top_k = c->gen_top_k;
    return s;
}

dr_status dr_kit_encode_prompt(const struct dr_kit *kit, const char *text, size_t bytes, struct dr_ids *out) {
    if (!kit->tokenizer)
        return dr_fail(DR_EINVAL, "this model has no tokenizer.json, so a prompt must be token ids");
    return dr_tokenizer_encode_prompt(kit->tokenizer, text, bytes, out);
}
