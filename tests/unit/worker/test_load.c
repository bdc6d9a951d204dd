/* test_load.c - from the file to the packed weights.
 * In:   golden checkpoints and damaged copies.      Out: every element of every holding; refusals by name.
 * Owns: the copies.
 * Why:  a slice may start inside a scale block, at any column and any row; the oracle reads single elements.
 */

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/weight.h"
#include "tests/support/checkpoint.h"
#include "tests/support/runner.h"
#include "tests/support/worker_rig.h"
#include "worker/load/load.h"

struct model {
    struct dr_config config;
    struct dr_tensors *tensors;
    struct dr_layout layout;
    struct dr_holding *list;
    int32_t n;
    uint8_t *block;
    uint64_t done, total;
};

static void open_model(struct model *m, const char *dir, struct dr_layout_wish wish) {
    *m = (struct model){0};
    CU_ASSERT_FATAL(dr_config_load(dir, &m->config).code == DR_OK);
    wish.mtp = m->config.n_mtp > 0;
    dr_status st = dr_tensors_open(dir, &m->config, &m->tensors);
    if (st.code != DR_OK) printf("%s\n", dr_error_text());
    CU_ASSERT_FATAL(st.code == DR_OK);
    CU_ASSERT_FATAL(dr_layout_make(&m->config, &wish, &m->layout).code == DR_OK);
}

static void progress(void *arg, uint64_t done, uint64_t total) {
    struct model *m = arg;
    CU_ASSERT(done >= m->done && done <= total);
    m->done = done;
    m->total = total;
}

static dr_status load(struct model *m, int32_t rank, int32_t readers) {
    free(m->list);
    free(m->block);
    m->done = 0;
    m->n = dr_footprint_list(&m->config, m->tensors, &m->layout, rank, NULL, 0);
    m->list = calloc((size_t)m->n, sizeof *m->list);
    (void)dr_footprint_list(&m->config, m->tensors, &m->layout, rank, m->list, m->n);
    size_t bytes = dr_footprint_rank(&m->config, m->tensors, &m->layout, rank).weights;
    m->block = aligned_alloc(64, (bytes + 63) / 64 * 64);
    CU_ASSERT_FATAL(m->list != NULL && m->block != NULL);
    memset(m->block, 0, bytes);
    struct dr_load_params p = {.tensors = m->tensors,
                               .list = m->list,
                               .n = m->n,
                               .n_reader = readers,
                               .block = m->block,
                               .progress = progress,
                               .arg = m};
    return dr_load(&p);
}

static void close_model(struct model *m) {
    free(m->list);
    free(m->block);
    dr_tensors_destroy(m->tensors);
}

/* Element (row, col) of a tensor, straight from the file. */
static float element(const struct dr_tensor *t, const uint8_t *data, const float *scale, int32_t row,
                     int32_t col) {
    float v = dr_wtype_decode((enum dr_wtype)t->dtype, data, (size_t)row * (size_t)t->cols + (size_t)col);
    return scale ? v * scale[(row / 128) * t->scale_cols + col / 128] : v;
}

static void read_all(int fd, void *to, size_t bytes, uint64_t offset) {
    CU_ASSERT_FATAL(pread(fd, to, bytes, (off_t)offset) == (ssize_t)bytes);
}

static float held(const struct model *m, const struct dr_holding *h, int32_t row, int32_t col) {
    const uint8_t *at = m->block + h->offset;
    struct dr_weight w = {
        .type = (enum dr_wtype)h->dtype,
        .n_out = dr_holding_out(h),
        .n_in = dr_holding_in(h),
        .phase = dr_holding_phase(h),
        .out_phase = dr_holding_out_phase(h),
        .data = at,
        .scale = h->scale_bytes ? (const float *)(const void *)(at + h->data_bytes) : NULL,
    };
    switch (h->kind) {
    case DR_HOLD_PACKED:
        return dr_weight_at(&w, row, col);
    case DR_HOLD_TRANSPOSED:
        return dr_weight_at(&w, col, row);
    case DR_HOLD_ROWS:
        return dr_wtype_decode(w.type, at, (size_t)row * (size_t)h->cols + (size_t)col);
    default:
        return ((const float *)(const void *)at)[col];
    }
}

static int64_t check_holding(const struct model *m, const struct dr_holding *h) {
    const struct dr_tensor *t = dr_tensors_get(m->tensors, h->role, h->layer, h->expert);
    size_t bytes = (size_t)t->rows * (size_t)t->cols * dr_dtype_bytes(t->dtype),
           scales = (size_t)t->scale_rows * (size_t)t->scale_cols;
    uint8_t *data = malloc(bytes);
    float *scale = t->dtype == DR_DTYPE_F8_E4M3 ? malloc(scales * sizeof *scale) : NULL;
    int64_t wrong = 0;
    read_all(t->fd, data, bytes, t->offset);
    if (scale) read_all(t->scale_fd, scale, scales * sizeof *scale, t->scale_offset);
    for (int32_t r = 0; r < h->rows; r++)
        for (int32_t c = 0; c < h->cols; c++)
            wrong += held(m, h, r, c) != element(t, data, scale, h->row0 + r, h->col0 + c);
    if (wrong) printf("%s: %lld elements differ\n", t->name, (long long)wrong);
    free(data);
    free(scale);
    return wrong;
}

static void every_element(void) {
    static const struct {
        const char *dir;
        int32_t tp, pp;
        enum dr_expert_cut cut;
    } rows[] = {
        {DR_TESTS_DIR "/golden/v3-fp8", 1, 1, DR_EXPERTS_COLUMNS},
        {DR_TESTS_DIR "/golden/v3-fp8", 5, 1, DR_EXPERTS_COLUMNS},
        {DR_TESTS_DIR "/golden/dense-fp8", 3, 2, DR_EXPERTS_COLUMNS},
        {DR_TESTS_DIR "/golden/v2-lite", 4, 3, DR_EXPERTS_WHOLE},
        {DR_TESTS_DIR "/golden/moonlight", 2, 2, DR_EXPERTS_WHOLE},
        {DR_TESTS_DIR "/golden/v3-mtp", 2, 1, DR_EXPERTS_COLUMNS},
        {DR_SOURCE_DIR "/deploy/models/lexi-15m", 7, 2, DR_EXPERTS_COLUMNS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model m;
        open_model(&m, rows[i].dir, rig_wish(rows[i].tp, rows[i].pp, 1, rows[i].cut));
        for (int32_t rank = 0; rank < m.layout.n_rank; rank++) {
            dr_status st = load(&m, rank, 1 + rank % 4);
            CU_ASSERT(st.code == DR_OK);
            if (st.code != DR_OK) continue;
            CU_ASSERT(m.done == m.total && m.total == dr_load_bytes(m.tensors, m.list, m.n));
            for (int32_t k = 0; k < m.n; k++) CU_ASSERT(check_holding(&m, &m.list[k]) == 0);
        }
        close_model(&m);
    }
}

static const char *first_of(const struct checkpoint *c, const char *dtype) {
    for (int i = 0; i < c->tensors.n; i++)
        if (strcmp(c->tensors.entry[i].dtype, dtype) == 0 && c->tensors.entry[i].n_shape == 2)
            return c->tensors.entry[i].name;
    return "";
}

static void not_a_number(void) {
    struct checkpoint c;
    struct model m;
    char name[SAFETENSORS_NAME], place[64];
    checkpoint_init(&c, DR_TESTS_DIR "/golden/v3-fp8");
    (void)snprintf(name, sizeof name, "%s", first_of(&c, "F8_E4M3"));
    int64_t cols = c.tensors.entry[checkpoint_find(&c, name)].shape[1];
    checkpoint_bytes(&c, name)[3 * cols + 5] = 0xff;
    checkpoint_write(&c);
    open_model(&m, c.dir, rig_wish(1, 1, 1, DR_EXPERTS_COLUMNS));
    CU_ASSERT(load(&m, 0, 3).code == DR_EMODEL);
    (void)snprintf(place, sizeof place, "row 3, column 5 is 0xff");
    CU_ASSERT(strstr(dr_error_text(), name) != NULL && strstr(dr_error_text(), place) != NULL);
    CU_ASSERT(strstr(dr_error_text(), c.file) != NULL);
    close_model(&m);
    checkpoint_fini(&c);
}

static void bad_scale(void) {
    struct checkpoint c;
    struct model m;
    char name[SAFETENSORS_NAME];
    float inf = INFINITY;
    checkpoint_init(&c, DR_TESTS_DIR "/golden/v3-fp8");
    (void)snprintf(name, sizeof name, "%s", first_of(&c, "F32")); /* two-dimensional F32 tensors are scales */
    CU_ASSERT(strstr(name, "scale_inv") != NULL);
    memcpy(checkpoint_bytes(&c, name), &inf, sizeof inf);
    checkpoint_write(&c);
    open_model(&m, c.dir, rig_wish(1, 1, 1, DR_EXPERTS_COLUMNS));
    CU_ASSERT(load(&m, 0, 2).code == DR_EMODEL);
    CU_ASSERT(strstr(dr_error_text(), "the scale of block 0, 0 is inf") != NULL);
    close_model(&m);
    checkpoint_fini(&c);
}

static void cut_file(void) {
    struct checkpoint c;
    struct model m;
    checkpoint_init(&c, DR_TESTS_DIR "/golden/v3-bf16");
    checkpoint_write(&c);
    open_model(&m, c.dir, rig_wish(1, 1, 1, DR_EXPERTS_COLUMNS));
    checkpoint_cut(&c, 1000); /* after the headers were checked */
    CU_ASSERT(load(&m, 0, 2).code == DR_EMODEL);
    CU_ASSERT(strstr(dr_error_text(), "the file ends after") != NULL &&
              strstr(dr_error_text(), "model.safetensors") != NULL);
    close_model(&m);
    checkpoint_fini(&c);
}

static void unreadable(void) {
    struct model m;
    open_model(&m, DR_TESTS_DIR "/golden/v3-bf16", rig_wish(1, 1, 1, DR_EXPERTS_COLUMNS));
    int fd = dr_tensors_get(m.tensors, DR_ROLE_NORM, -1, -1)->fd, sink = open("/dev/null", O_WRONLY);
    CU_ASSERT_FATAL(sink >= 0 && dup2(sink, fd) == fd);
    (void)close(sink);
    CU_ASSERT(load(&m, 0, 2).code == DR_EIO);
    CU_ASSERT(strstr(dr_error_text(), "model.safetensors: reading ") != NULL);
    close_model(&m);
}

static CU_TestInfo tests[] = {
    {"every element of every rank's weights is the file's, on seven layouts", every_element},
    {"an F8 code that is no number is refused with tensor, file, row, column", not_a_number},
    {"a scale that is infinite is refused", bad_scale},
    {"a file cut after the check of its header is refused", cut_file},
    {"a file that cannot be read is an I/O failure", unreadable},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_load = {.pName = "worker/load", .pTests = tests};
