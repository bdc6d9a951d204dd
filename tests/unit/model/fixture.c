/* fixture.c - see fixture.h.
 * In:   golden cases.      Out: folders.
 * Owns: nothing beyond what struct fixture says.
 * Why:  see fixture.h. */
#include "tests/unit/model/fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <CUnit/CUnit.h>

const char *fixture_case(const char *name, char *out) {
    bool sample = strcmp(name, "lexi-15m") == 0;
    snprintf(out, FIXTURE_PATH, "%s/%s/%s", sample ? DR_SOURCE_DIR : DR_TESTS_DIR,
             sample ? "deploy/models" : "golden", name);
    return out;
}

struct dr_config fixture_config(const char *name) {
    char path[FIXTURE_PATH];
    struct dr_config c = {0};
    dr_status st;
    if (strncmp(name, "configs/", 8) == 0) {
        snprintf(path, sizeof path, "%s/golden/%s.json", DR_TESTS_DIR, name);
        json_t *j = json_load_file(path, 0, NULL);
        char *text = j ? json_dumps(j, 0) : NULL;
        CU_ASSERT_PTR_NOT_NULL_FATAL(text);
        st = dr_config_parse(text, strlen(text), NULL, 0, &c);
        free(text);
        json_decref(j);
    } else {
        st = dr_config_load(fixture_case(name, path), &c);
    }
    if (st.code != DR_OK) printf("%s: %s\n", name, dr_error_text());
    CU_ASSERT_EQUAL_FATAL(st.code, DR_OK);
    return c;
}

struct dr_layout_wish fixture_wish(int32_t tp, int32_t pp) {
    return (struct dr_layout_wish){
        .tp = tp, .pp = pp, .cache_type = DR_CACHE_F32, .seqs_max = 4, .step_tokens = 64};
}

static json_t *load(const char *dir, const char *name) {
    char path[FIXTURE_PATH + 80];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return json_load_file(path, 0, NULL);
}

static json_t *load_header(const char *dir, const char *name) {
    char path[FIXTURE_PATH + 80];
    unsigned char word[8];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    CU_ASSERT_EQUAL_FATAL(fread(word, 1, 8, f), 8);
    size_t n = (size_t)word[0] | (size_t)word[1] << 8 | (size_t)word[2] << 16;
    char *text = malloc(n);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    CU_ASSERT_EQUAL_FATAL(fread(text, 1, n, f), n);
    fclose(f);
    json_t *header = json_loadb(text, n, 0, NULL);
    free(text);
    CU_ASSERT_PTR_NOT_NULL_FATAL(header);
    return header;
}

void fixture_init(struct fixture *f, const char *golden_case) {
    char dir[FIXTURE_PATH];
    memset(f, 0, sizeof *f);
    fixture_case(golden_case, dir);
    f->config = load(dir, "config.json");
    f->generation = load(dir, "generation_config.json");
    f->index = load(dir, "model.safetensors.index.json");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f->config);
    f->n_file = f->index ? 2 : 1;
    for (int i = 0; i < f->n_file; i++) {
        if (f->index)
            snprintf(f->file[i], sizeof f->file[i], "model-%05d-of-000002.safetensors", i + 1);
        else
            snprintf(f->file[i], sizeof f->file[i], "model.safetensors");
        f->header[i] = load_header(dir, f->file[i]);
    }
}

void fixture_path(const struct fixture *f, const char *name, char *out) {
    snprintf(out, FIXTURE_PATH, "%.255s/%.255s", f->dir, name);
}

/* Writes n bytes and makes the file `size` bytes long (a hole reads as zeros). */
void fixture_put(const char *path, const void *bytes, size_t n, off_t size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL_FATAL(write(fd, bytes, n), (ssize_t)n);
    CU_ASSERT_EQUAL_FATAL(ftruncate(fd, size > (off_t)n ? size : (off_t)n), 0);
    close(fd);
}

static void put_json(const struct fixture *f, const char *name, const json_t *j) {
    char path[FIXTURE_PATH];
    if (!j) return;
    char *text = json_dumps(j, JSON_COMPACT);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    fixture_path(f, name, path);
    fixture_put(path, text, strlen(text), 0);
    free(text);
}

static json_int_t last_end(const json_t *header) {
    const char *name;
    json_t *value;
    json_int_t last = 0;
    json_object_foreach((json_t *)(uintptr_t)header, name, value) {
        json_int_t end = json_integer_value(json_array_get(json_object_get(value, "data_offsets"), 1));
        if (end > last) last = end;
    }
    return last;
}

void fixture_write(struct fixture *f) {
    snprintf(f->dir, sizeof f->dir, "%s/dr-model-XXXXXX", P_tmpdir);
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(f->dir));
    put_json(f, "config.json", f->config);
    put_json(f, "generation_config.json", f->generation);
    put_json(f, "model.safetensors.index.json", f->index);
    for (int i = 0; i < f->n_file; i++) {
        char path[FIXTURE_PATH];
        char *text = json_dumps(f->header[i], JSON_COMPACT);
        CU_ASSERT_PTR_NOT_NULL_FATAL(text);
        size_t n = strlen(text);
        char *bytes = malloc(n + 8);
        CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
        for (int b = 0; b < 8; b++) bytes[b] = (char)(n >> (8 * b));
        memcpy(bytes + 8, text, n);
        fixture_path(f, f->file[i], path);
        fixture_put(path, bytes, n + 8, (off_t)(8 + n) + (off_t)last_end(f->header[i]));
        free(bytes);
        free(text);
    }
}

void fixture_fini(struct fixture *f) {
    json_decref(f->config);
    json_decref(f->generation);
    json_decref(f->index);
    for (int i = 0; i < f->n_file; i++) json_decref(f->header[i]);
    DIR *d = f->dir[0] ? opendir(f->dir) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[FIXTURE_PATH];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        fixture_path(f, e->d_name, path);
        if (unlink(path) != 0) rmdir(path);
    }
    if (d) closedir(d);
    if (f->dir[0]) rmdir(f->dir);
    memset(f, 0, sizeof *f);
}

int fixture_find(const struct fixture *f, const char *tensor) {
    for (int i = 0; i < f->n_file; i++)
        if (json_object_get(f->header[i], tensor)) return i;
    return -1;
}

void fixture_renumber(struct fixture *f, int file) {
    const char *name;
    json_t *value, *dim;
    json_int_t at = 0;
    json_object_foreach(f->header[file], name, value) {
        const char *dtype = json_string_value(json_object_get(value, "dtype"));
        if (!dtype) continue;
        json_int_t bytes = strcmp(dtype, "F32") == 0 ? 4 : strncmp(dtype, "F8", 2) == 0 ? 1 : 2;
        size_t i;
        json_array_foreach(json_object_get(value, "shape"), i, dim) bytes *= json_integer_value(dim);
        json_object_set_new(value, "data_offsets", json_pack("[I, I]", at, at + bytes));
        at += bytes;
    }
}
