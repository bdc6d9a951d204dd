/* test_bad_files.c - table of damaged checkpoints.
 * In:   a golden case with one damage, in a temporary folder.      Out: code and exact text of the refusal.
 * Owns: nothing.
 * Why:  a damaged, missing, surplus or misshapen tensor or file must be named before anything is loaded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CUnit/CUnit.h>

#include "model/folder.h"
#include "model/tensors.h"
#include "tests/unit/model/fixture.h"

enum op {
    SET,       /* field `key` of tensor `at` becomes JSON `value`; offsets are numbered anew */
    SET_RAW,   /* the same, offsets stay */
    DROP,      /* tensor `at` leaves its file (and the index) */
    DROP_FILE, /* tensor `at` leaves its file, the index keeps it */
    ADD,       /* tensor `at` with header entry `value` joins the first file and the index */
    ADD_FILE,  /* the same without the index */
    RENAME,    /* tensor `at` is called `value`, in the index too */
    INDEX,     /* weight_map entry `at` becomes string `value` */
    CUT,       /* file `at` loses `value` bytes at its end, or gains them if negative */
    LENGTH,    /* the length word of file `at` becomes `value` */
    POKE,      /* the byte at offset `value` of tensor `at` becomes 1 */
    TEXT,      /* file `at` becomes the text `value` */
    REMOVE,    /* file `at` goes */
    LINK,      /* file `at` becomes a symbolic link to a file outside */
    FIFO,      /* file `at` becomes a pipe */
    FOLDER,    /* file `at` becomes a folder */
};

struct bad {
    const char *base;
    enum op op;
    const char *at, *key, *value;
    enum dr_code code;
    const char *text;
};

#define L1              "model.layers.1."
#define SHARD1          "model-00001-of-000002.safetensors"
#define SHARD2          "model-00002-of-000002.safetensors"
#define SINGLE          "model.safetensors: "
#define INDEX_FILE      "model.safetensors.index.json"
#define SURPLUS         ": surplus, the config asks for no such tensor"
#define ENTRY(dtype, n) "{\"dtype\":\"" dtype "\",\"shape\":[" #n "],\"data_offsets\":[0,0]}"

/* Where v3-fp8 keeps things: o_proj of layer 1 with its scale, and the norms, are looked up by the table's
 * runner. */
static const struct bad table[] = {
    /* shapes and dtypes */
    {"v3-bf16", SET, L1 "self_attn.o_proj.weight", "shape", "[108,104]", DR_EMODEL,
     SINGLE "tensor " L1 "self_attn.o_proj.weight: expected shape [104, 108], found [108, 104]"},
    {"v3-bf16", SET, L1 "self_attn.o_proj.weight", "shape", "[11232]", DR_EMODEL,
     SINGLE "tensor " L1 "self_attn.o_proj.weight: expected shape [104, 108], found [11232]"},
    {"v3-bf16", SET, L1 "self_attn.o_proj.weight", "shape", "[104,108,1]", DR_EMODEL,
     SINGLE "tensor " L1 "self_attn.o_proj.weight: expected shape [104, 108], found [104, 108, 1]"},
    {"v3-bf16", SET, L1 "self_attn.o_proj.weight", "shape", "[]", DR_EMODEL,
     SINGLE "tensor " L1 "self_attn.o_proj.weight: expected shape [104, 108], found []"},
    {"v3-bf16", SET, "model.norm.weight", "shape", "[1,104]", DR_EMODEL,
     SINGLE "tensor model.norm.weight: expected shape [104], found [1, 104]"},
    {"v3-bf16", SET, "model.embed_tokens.weight", "shape", "[511,104]", DR_EMODEL,
     SINGLE "tensor model.embed_tokens.weight: expected shape [512, 104], found [511, 104]"},
    {"v3-bf16", SET, L1 "mlp.experts.15.up_proj.weight", "shape", "[38,0]", DR_EMODEL,
     SINGLE "tensor " L1 "mlp.experts.15.up_proj.weight: expected shape [38, 104], found [38, 0]"},
    {"v3-bf16", SET, L1 "self_attn.o_proj.weight", "dtype", "\"I16\"", DR_EMODEL,
     SINGLE "tensor " L1 "self_attn.o_proj.weight: expected dtype F32, F16, BF16 or F8_E4M3, found I16"},
    {"v3-bf16", SET, "model.embed_tokens.weight", "dtype", "\"F8_E4M3\"", DR_EMODEL,
     SINGLE "tensor model.embed_tokens.weight: expected dtype F32, F16 or BF16, found F8_E4M3"},
    {"v3-bf16", SET, "model.norm.weight", "dtype", "\"F8_E4M3\"", DR_EMODEL,
     SINGLE "tensor model.norm.weight: expected dtype F32, F16 or BF16, found F8_E4M3"},
    {"v3-bf16", SET, L1 "mlp.gate.weight", "dtype", "\"F8_E4M3\"", DR_EMODEL,
     SINGLE "tensor " L1 "mlp.gate.weight: expected dtype F32, F16 or BF16, found F8_E4M3"},
    {"v3-bf16", SET, L1 "mlp.gate.e_score_correction_bias", "dtype", "\"F16\"", DR_EMODEL,
     SINGLE "tensor " L1 "mlp.gate.e_score_correction_bias: expected dtype F32 or BF16, found F16"},
    {"v3-bf16", SET_RAW, "model.norm.weight", "dtype", "\"F99\"", DR_EMODEL,
     SINGLE "tensor model.norm.weight: dtype \"F99\" is unknown"},
    /* FP8 and its scales */
    {"v3-bf16", SET, L1 "self_attn.o_proj.weight", "dtype", "\"F8_E4M3\"", DR_EMODEL,
     SINGLE "tensor " L1 "self_attn.o_proj.weight: is F8_E4M3, but its scale " L1
            "self_attn.o_proj.weight_scale_inv is missing"},
    {"v3-fp8", DROP, L1 "self_attn.o_proj.weight_scale_inv", NULL, NULL, DR_EMODEL,
     "@" L1 "self_attn.o_proj.weight: is F8_E4M3, but its scale " L1
     "self_attn.o_proj.weight_scale_inv is missing"},
    {"v3-fp8", SET, L1 "self_attn.o_proj.weight", "dtype", "\"BF16\"", DR_EMODEL,
     "@" L1 "self_attn.o_proj.weight_scale_inv: a scale, but " L1 "self_attn.o_proj.weight is BF16"},
    {"v3-fp8", SET, L1 "self_attn.o_proj.weight_scale_inv", "shape", "[1,2]", DR_EMODEL,
     "@" L1 "self_attn.o_proj.weight_scale_inv: expected shape [2, 1], found [1, 2]"},
    {"v3-fp8", SET, L1 "self_attn.o_proj.weight_scale_inv", "dtype", "\"BF16\"", DR_EMODEL,
     "@" L1 "self_attn.o_proj.weight_scale_inv: expected dtype F32, found BF16"},
    {"v3-bf16", ADD, L1 "mlp.gate.weight_scale_inv", NULL, ENTRY("F32", 1), DR_EMODEL,
     SINGLE "tensor " L1 "mlp.gate.weight_scale_inv: a scale for a tensor that is never FP8"},
    {"v3-bf16", ADD, "nobody.weight_scale_inv", NULL, ENTRY("F32", 1), DR_EMODEL,
     SINGLE "tensor nobody.weight_scale_inv" SURPLUS},
    /* missing and surplus */
    {"v3-bf16", DROP, "lm_head.weight", NULL, NULL, DR_EMODEL,
     "tensor lm_head.weight: missing, no file has it"},
    {"v3-bf16", DROP, L1 "mlp.experts.7.down_proj.weight", NULL, NULL, DR_EMODEL,
     "tensor " L1 "mlp.experts.7.down_proj.weight: missing, no file has it"},
    {"v3-mtp", DROP, "model.layers.3.eh_proj.weight", NULL, NULL, DR_EMODEL,
     "tensor model.layers.3.eh_proj.weight: missing, no file has it"},
    {"v3-bf16", RENAME, L1 "input_layernorm.weight", NULL, L1 "input_norm.weight", DR_EMODEL,
     SINGLE "tensor " L1 "input_norm.weight" SURPLUS},
    {"v3-bf16", ADD, L1 "self_attn.q_proj.weight", NULL, ENTRY("BF16", 1), DR_EMODEL,
     SINGLE "tensor " L1 "self_attn.q_proj.weight" SURPLUS},
    {"v3-bf16", ADD, L1 "mlp.experts.16.up_proj.weight", NULL, ENTRY("BF16", 1), DR_EMODEL,
     SINGLE "tensor " L1 "mlp.experts.16.up_proj.weight" SURPLUS},
    {"v3-bf16", ADD, "model.layers.0.mlp.gate.weight", NULL, ENTRY("BF16", 1), DR_EMODEL,
     SINGLE "tensor model.layers.0.mlp.gate.weight" SURPLUS},
    {"v3-bf16", ADD, "model.layers.4.input_layernorm.weight", NULL, ENTRY("BF16", 1), DR_EMODEL,
     SINGLE "tensor model.layers.4.input_layernorm.weight" SURPLUS},
    {"v3-mtp", ADD, "model.layers.3.extra.weight", NULL, ENTRY("BF16", 1), DR_EMODEL,
     SINGLE "tensor model.layers.3.extra.weight" SURPLUS},
    {"v3-bf16", ADD, L1 "self_attn.o_proj.bias", NULL, ENTRY("BF16", 1), DR_EMODEL,
     SINGLE "tensor " L1 "self_attn.o_proj.bias" SURPLUS},
    {"v3-bf16", ADD, "evil\\u001b[2Jname", NULL, ENTRY("BF16", 1), DR_EMODEL,
     SINGLE "tensor evil?[2Jname" SURPLUS},
    /* copies of the MTP layer and of a tied head */
    {"v3-mtp", POKE, "model.layers.3.embed_tokens.weight", NULL, "88063", DR_EMODEL,
     SINGLE "tensor model.layers.3.embed_tokens.weight: expected a copy of model.embed_tokens.weight, found "
            "another byte "
            "at 88063"},
    {"v3-mtp", POKE, "lm_head.weight", NULL, "0", DR_EMODEL,
     SINGLE "tensor model.layers.3.shared_head.head.weight: expected a copy of lm_head.weight, found another "
            "byte at 0"},
    {"v3-mtp", SET, "model.layers.3.embed_tokens.weight", "dtype", "\"F16\"", DR_EMODEL,
     SINGLE "tensor model.layers.3.embed_tokens.weight: expected dtype BF16 as in model.embed_tokens.weight, "
            "found F16"},
    {"v3-mtp", SET, "model.layers.3.shared_head.head.weight", "shape", "[86,512]", DR_EMODEL,
     SINGLE "tensor model.layers.3.shared_head.head.weight: expected shape [512, 86], found [86, 512]"},
    {"moonlight", ADD, "lm_head.weight", NULL, ENTRY("BF16", 1), DR_EMODEL,
     SINGLE "tensor lm_head.weight: expected shape [512, 94], found [1]"},
    /* index against files */
    {"v3-fp8", ADD_FILE, "stranger.weight", NULL, ENTRY("F32", 1), DR_EMODEL,
     SHARD1
     ": tensor stranger.weight: found in this file, but the index lists it nowhere or it was found before"},
    {"v3-fp8", INDEX, "stranger.weight", NULL, SHARD2, DR_EMODEL,
     "tensor stranger.weight: the index lists it in " SHARD2 ", but it is not there"},
    {"v3-fp8", DROP_FILE, L1 "mlp.experts.3.up_proj.weight", NULL, NULL, DR_EMODEL,
     "tensor " L1 "mlp.experts.3.up_proj.weight: the index lists it in @, but it is not there"},
    {"v3-fp8", INDEX, "stranger.weight", NULL, "model-00003-of-000002.safetensors", DR_EMODEL,
     "model-00003-of-000002.safetensors: file missing, but the index lists tensors in it"},
    {"v3-fp8", INDEX, "stranger.weight", NULL, "../outside.safetensors", DR_EMODEL,
     INDEX_FILE ": weight_map: tensor stranger.weight: expected the plain name of a .safetensors file in the "
                "same folder, "
                "found \"../outside.safetensors\""},
    {"v3-fp8", TEXT, INDEX_FILE, NULL, "{", DR_EMODEL,
     INDEX_FILE ": not valid JSON at line 1, column 1: string or '}' expected near end of file"},
    {"v3-fp8", TEXT, "model.safetensors", NULL, "x", DR_EMODEL,
     "found both model.safetensors and " INDEX_FILE "; remove the one that is out of date"},
    {"v3-fp8", REMOVE, SHARD2, NULL, NULL, DR_EMODEL,
     SHARD2 ": file missing, but the index lists tensors in it"},
    {"v3-fp8", REMOVE, INDEX_FILE, NULL, NULL, DR_ENOENT, "found neither model.safetensors nor " INDEX_FILE},
    /* the file as such */
    {"v3-bf16", CUT, "model.safetensors", NULL, "1", DR_EMODEL,
     SINGLE "tensor model.norm.weight: data_offsets: expected a range within 1346255 bytes of data, found "
            "1346048 to 1346256"},
    {"v3-bf16", CUT, "model.safetensors", NULL, "-1", DR_EMODEL,
     SINGLE "expected the data to end with the last tensor at 1346256, found 1346257 bytes of data"},
    {"v3-bf16", TEXT, "model.safetensors", NULL, "", DR_EMODEL,
     SINGLE "expected a safetensors file, found only 0 bytes"},
    {"v3-bf16", TEXT, "model.safetensors", NULL, "version ht", DR_EMODEL,
     SINGLE "expected a header of 2 to 16777216 bytes, found 2336927755350992246"},
    {"v3-bf16", LENGTH, "model.safetensors", NULL, "0", DR_EMODEL,
     SINGLE "expected a header of 2 to 16777216 bytes, found 0"},
    {"v3-bf16", LENGTH, "model.safetensors", NULL, "1", DR_EMODEL,
     SINGLE "expected a header of 2 to 16777216 bytes, found 1"},
    {"v3-bf16", LENGTH, "model.safetensors", NULL, "16777217", DR_EMODEL,
     SINGLE "expected a header of 2 to 16777216 bytes, found 16777217"},
    {"v3-bf16", LENGTH, "model.safetensors", NULL, "16777216", DR_EMODEL, /* @: size of the file */
     SINGLE "expected a header of 16777216 bytes, but the file has @ bytes in all"},
    {"v3-bf16", LENGTH, "model.safetensors", NULL, "20", DR_EMODEL,
     SINGLE "header: not valid JSON at line 1, column 20: premature end of input"},
    {"v3-bf16", SET_RAW, "lm_head.weight", "data_offsets", "[128, 106632]", DR_EMODEL,
     SINGLE
     "tensor lm_head.weight: data_offsets: expected 106496 bytes for its shape and BF16, found 106504"},
    {"v3-bf16", SET_RAW, "lm_head.weight", "data_offsets", "[1244152, 1350648]", DR_EMODEL,
     SINGLE "tensor model.embed_tokens.weight: a hole in the data: expected its data at 128, found 106624"},
    {"v3-bf16", LINK, "model.safetensors", NULL, NULL, DR_EMODEL,
     SINGLE
     "expected a regular file, found a symbolic link; links are not followed, copy the folder with its links "
     "resolved (cp -rL)"},
    {"v3-bf16", FIFO, "model.safetensors", NULL, NULL, DR_EMODEL, SINGLE "expected a regular file"},
    {"v3-bf16", FOLDER, "model.safetensors", NULL, NULL, DR_EMODEL, SINGLE "expected a regular file"},
    {"v3-fp8", FIFO, INDEX_FILE, NULL, NULL, DR_EMODEL, INDEX_FILE ": expected a regular file"},
};

static void add(struct fixture *f, const struct bad *b, bool index) {
    char name[128];
    json_t *quoted, *entry = json_loads(b->value, 0, NULL);
    snprintf(name, sizeof name, "\"%s\"", b->at);
    quoted = json_loads(name, JSON_DECODE_ANY, NULL);
    CU_ASSERT_FATAL(quoted && entry);
    json_object_set_new(f->header[0], json_string_value(quoted), entry);
    if (index && f->index)
        json_object_set_new(json_object_get(f->index, "weight_map"), json_string_value(quoted),
                            json_string(f->file[0]));
    json_decref(quoted);
    fixture_renumber(f, 0);
}

/* Damages of the JSON, before the files are written. */
static void damage_json(struct fixture *f, const struct bad *b) {
    json_t *map = json_object_get(f->index, "weight_map");
    int file = fixture_find(f, b->at);
    switch (b->op) {
    case SET:
    case SET_RAW:
        CU_ASSERT_FATAL(file >= 0);
        json_object_set_new(json_object_get(f->header[file], b->at), b->key,
                            json_loads(b->value, JSON_DECODE_ANY, NULL));
        if (b->op == SET) fixture_renumber(f, file);
        break;
    case DROP:
    case DROP_FILE:
        CU_ASSERT_FATAL(file >= 0);
        json_object_del(f->header[file], b->at);
        if (b->op == DROP && map) json_object_del(map, b->at);
        fixture_renumber(f, file);
        break;
    case ADD:
        add(f, b, true);
        break;
    case ADD_FILE:
        add(f, b, false);
        break;
    case RENAME:
        CU_ASSERT_FATAL(file >= 0 && !f->index);
        json_object_set(f->header[file], b->value, json_object_get(f->header[file], b->at));
        json_object_del(f->header[file], b->at);
        break;
    case INDEX:
        json_object_set_new(map, b->at, json_string(b->value));
        break;
    default:
        break;
    }
}

static void poke(const struct fixture *f, const struct bad *b) {
    int file = fixture_find(f, b->at);
    char path[FIXTURE_PATH];
    CU_ASSERT_FATAL(file >= 0);
    fixture_path(f, f->file[file], path);
    FILE *s = fopen(path, "r+b");
    CU_ASSERT_PTR_NOT_NULL_FATAL(s);
    unsigned char word[8];
    CU_ASSERT_EQUAL(fread(word, 1, 8, s), 8);
    long begin = (long)json_integer_value(
        json_array_get(json_object_get(json_object_get(f->header[file], b->at), "data_offsets"), 0));
    long header = word[0] | word[1] << 8 | word[2] << 16;
    fseek(s, 8 + header + begin + atol(b->value), SEEK_SET);
    fputc(1, s);
    fclose(s);
}

/* Damages of the files. */
static void damage_files(const struct fixture *f, const struct bad *b) {
    char path[FIXTURE_PATH];
    struct stat st = {0};
    fixture_path(f, b->at, path);
    bool there = stat(path, &st) == 0;
    switch (b->op) {
    case CUT:
        CU_ASSERT_EQUAL(truncate(path, st.st_size - atol(b->value)), 0);
        break;
    case LENGTH: {
        FILE *s = fopen(path, "r+b");
        unsigned long long n = strtoull(b->value, NULL, 10);
        CU_ASSERT_PTR_NOT_NULL_FATAL(s);
        for (int i = 0; i < 8; i++) fputc((int)(n >> (8 * i) & 255), s);
        fclose(s);
        break;
    }
    case POKE:
        poke(f, b);
        break;
    case TEXT:
        fixture_put(path, b->value, strlen(b->value), 0);
        break;
    case REMOVE:
        CU_ASSERT_EQUAL(unlink(path), 0);
        break;
    case LINK:
        unlink(path);
        CU_ASSERT_EQUAL(symlink("/etc/hostname", path), 0);
        break;
    case FIFO:
        unlink(path);
        CU_ASSERT_EQUAL(mkfifo(path, 0600), 0);
        break;
    case FOLDER:
        if (there) unlink(path);
        CU_ASSERT_EQUAL(mkdir(path, 0700), 0);
        break;
    default:
        break;
    }
}

/* "@tensor ...": the file that holds the tensor goes in front; a lone @: that file, or the size of file `at`.
 */
static void expected_text(const struct fixture *f, const struct bad *b, char *out, size_t room) {
    const char *mark = strchr(b->text, '@');
    char insert[96];
    if (!mark) {
        snprintf(out, room, "%s: %s", f->dir, b->text);
        return;
    }
    if (b->op == LENGTH) {
        char path[FIXTURE_PATH];
        struct stat st;
        fixture_path(f, b->at, path);
        CU_ASSERT_EQUAL_FATAL(stat(path, &st), 0);
        snprintf(insert, sizeof insert, "%lld", (long long)st.st_size);
    } else if (b->op == DROP_FILE) {
        snprintf(insert, sizeof insert, "%s",
                 json_string_value(json_object_get(json_object_get(f->index, "weight_map"), b->at)));
    } else {
        char tensor[128];
        snprintf(tensor, sizeof tensor, "%.*s", (int)strcspn(mark + 1, ":"), mark + 1);
        int file = fixture_find(f, tensor);
        CU_ASSERT_FATAL(file >= 0);
        snprintf(insert, sizeof insert, "%s: tensor ", f->file[file]);
    }
    snprintf(out, room, "%s: %.*s%s%s", f->dir, (int)(mark - b->text), b->text, insert, mark + 1);
}

static void damaged_files(void) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct bad *b = &table[i];
        struct dr_config c = fixture_config(b->base);
        struct dr_tensors *t = NULL;
        struct fixture f;
        char expected[1024];
        fixture_init(&f, b->base);
        damage_json(&f, b);
        fixture_write(&f);
        damage_files(&f, b);
        expected_text(&f, b, expected, sizeof expected);
        dr_status st = dr_tensors_open(f.dir, &c, &t);
        CU_ASSERT_EQUAL(st.code, b->code);
        CU_ASSERT_PTR_NULL(t);
        bool same = st.code != DR_OK && strcmp(dr_error_text(), expected) == 0;
        CU_ASSERT_TRUE(same);
        if (!same)
            printf("row %zu\nexpected: %s\n   found: %s\n", i, expected,
                   st.code ? dr_error_text() : "(accepted)");
        dr_tensors_destroy(t);
        fixture_fini(&f);
    }
}

static void refused_folder(const char *dir, enum dr_code code, const char *text) {
    struct dr_config c = fixture_config("v3-bf16");
    struct dr_tensors *t = NULL;
    char expected[1024];
    snprintf(expected, sizeof expected, "%s%s", dir, text);
    CU_ASSERT_EQUAL(dr_tensors_open(dir, &c, &t).code, code);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), expected);
    CU_ASSERT_EQUAL(dr_config_load(dir, &c).code, code);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), expected);
}

static void no_folder(void) {
    char dir[FIXTURE_PATH], path[FIXTURE_PATH + 64];
    refused_folder("/nonexistent/model", DR_ENOENT,
                   ": no such folder; give the folder that holds config.json");
    snprintf(path, sizeof path, "%s/model.safetensors", fixture_case("v3-bf16", dir));
    refused_folder(
        path, DR_EMODEL,
        ": expected the folder of a model, found a file; give the folder that holds config.json and the "
        ".safetensors files");
}

static void config_files(void) {
    static const struct {
        enum op op;
        const char *file;
        enum dr_code code;
        const char *text;
    } rows[] = {
        {REMOVE, "config.json", DR_ENOENT, "config.json: file missing"},
        {FIFO, "config.json", DR_EMODEL, "config.json: expected a regular file"},
        {FOLDER, "config.json", DR_EMODEL, "config.json: expected a regular file"},
        {FIFO, "generation_config.json", DR_EMODEL, "generation_config.json: expected a regular file"},
        {TEXT, "generation_config.json", DR_EMODEL,
         "generation_config.json: not valid JSON at line 1, column 0: unexpected token near end of file"},
        {CUT, "config.json", DR_EMODEL, "config.json: expected at most 1048576 bytes, found 1048577"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fixture f;
        struct stat st = {0};
        char path[FIXTURE_PATH], expected[1024], size[32];
        fixture_init(&f, "v3-bf16");
        fixture_write(&f);
        fixture_path(&f, rows[i].file, path);
        if (stat(path, &st) != 0) st.st_size = 0;
        snprintf(size, sizeof size, "%lld", (long long)st.st_size - 1048577);
        const struct bad b = {.op = rows[i].op, .at = rows[i].file, .value = rows[i].op == CUT ? size : ""};
        damage_files(&f, &b);
        struct dr_config c = {.vocab = 99};
        CU_ASSERT_EQUAL(dr_config_load(f.dir, &c).code, rows[i].code);
        snprintf(expected, sizeof expected, "%s: %s", f.dir, rows[i].text);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), expected);
        CU_ASSERT_EQUAL(c.vocab, 99);
        fixture_fini(&f);
    }
}

/* A config within its limits that asks for 3 million tensors must be refused from the headers alone. */
static void absurd_config(void) {
    struct fixture f;
    struct dr_config c = fixture_config("v3-bf16");
    struct dr_tensors *t = NULL;
    char expected[1024];
    c.n_layer = 255;
    c.n_expert = 4096;
    fixture_init(&f, "v3-bf16");
    fixture_write(&f);
    CU_ASSERT_EQUAL(dr_tensors_open(f.dir, &c, &t).code, DR_EMODEL);
    snprintf(expected, sizeof expected,
             "%s: " SINGLE "tensor " L1 "mlp.gate.e_score_correction_bias: expected shape [4096], found [16]",
             f.dir);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), expected);
    fixture_fini(&f);
}

static void failing_reads(void) {
    char dir[FIXTURE_PATH], byte[2], *text = NULL;
    int folder = -1, fd = -1;
    uint64_t bytes = 0;
    size_t n = 0;
    CU_ASSERT_EQUAL_FATAL(dr_folder_open(fixture_case("v3-bf16", dir), &folder).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(dr_folder_open_file(folder, "config.json", &fd, &bytes).code, DR_OK);
    CU_ASSERT_EQUAL(dr_folder_pread(fd, "config.json", byte, 2, bytes - 1).code,
                    DR_EIO); /* as when it shrank meanwhile */
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "got 1: the file ends early"));
    close(fd);
    CU_ASSERT_EQUAL(dr_folder_pread(fd, "config.json", byte, 1, 0).code, DR_EIO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "config.json: expected 1 bytes at 0, got 0: Bad file descriptor");
    static const char *const names[] = {"", ".", "..", "../v3-fp8/config.json", "/etc/hostname"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        CU_ASSERT_EQUAL(dr_folder_read(folder, names[i], 100, &text, &n).code, DR_EMODEL);
        CU_ASSERT_PTR_NOT_NULL(
            strstr(dr_error_text(), ": expected the plain name of a file in the model's folder"));
    }
    close(folder);
    CU_ASSERT_EQUAL(dr_folder_open_file(folder, "config.json", &fd, &bytes).code, DR_EIO);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "config.json: cannot be opened: Bad file descriptor");
    CU_ASSERT_PTR_NULL(text);
}

static CU_TestInfo cases[] = {
    {"each damage is refused with file, tensor, expected, found", damaged_files},
    {"no folder, or a file instead of one, is refused", no_folder},
    {"missing, strange and oversized config files are refused", config_files},
    {"a read that fails or ends early is an I/O error", failing_reads},
    {"an absurd config is refused by the first header", absurd_config},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_bad_files = {.pName = "model/bad_files", .pTests = cases};
