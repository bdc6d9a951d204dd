/* maker.c - see maker.h.
 * In:   a wish.      Out: files.
 * Owns: see maker.h.
 * Why:  see maker.h. Files are written as NAME.partial, synced, and renamed when all are complete. */
#include "tests/bench/checkpoint/maker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/size.h"
#include "model/header.h"
#include "model/roles.h"
#include "tests/bench/checkpoint/document.h"
#include "tests/bench/checkpoint/pieces.h"

enum { NAME_MAX_BYTES = DR_RECIPE_NAME_MAX + 16, HEADER_ALIGN = 8, SLACK_BYTES = 16 << 20 };

static const char index_name[] = "model.safetensors.index.json", config_name[] = "config.json";

struct maker {
    const struct dr_maker_wish *wish;
    struct dr_recipe recipe;
    struct dr_values_tables *tables;
    char *config; /* text of config.json */
    int dir;      /* -1: not open */
    bool made;    /* the folder is ours */
};

struct header {
    char *text; /* owned; length word, JSON, spaces */
    size_t bytes;
};

static dr_status system_failure(const struct maker *m, const char *name, const char *what) {
    return dr_fail(DR_EIO, "%s/%s: %s: %s", m->wish->dir, name, what, strerror(errno));
}

/* The outputs in the order in which they get their names: files, index if there are several, config. */
static int32_t n_output(const struct dr_recipe *r) {
    return r->n_file + (r->n_file > 1) + 1;
}

static void output_name(const struct dr_recipe *r, int32_t i, char *out) {
    if (i < r->n_file)
        dr_recipe_file_name(r, i, out);
    else
        (void)snprintf(out, DR_RECIPE_NAME_MAX, "%s", i + 1 < n_output(r) ? index_name : config_name);
}

static void partial_name(const struct dr_recipe *r, int32_t i, char *out) {
    char name[DR_RECIPE_NAME_MAX];
    output_name(r, i, name);
    (void)snprintf(out, NAME_MAX_BYTES, "%s.partial", name);
}

static int append_tensor(const struct dr_recipe_tensor *t, bool first, char *out, size_t room) {
    char name[DR_RECIPE_NAME_MAX], shape[32];
    enum dr_role_form form = dr_role_form(t->role);
    dr_recipe_name(t, name);
    if (form == DR_FORM_VECTOR || form == DR_FORM_BIAS)
        (void)snprintf(shape, sizeof shape, "%d", t->cols);
    else
        (void)snprintf(shape, sizeof shape, "%d,%d", t->rows, t->cols);
    return snprintf(out, room,
                    "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
                    first ? "" : ",", name, dr_dtype_name(t->dtype), shape, t->begin, t->begin + t->bytes);
}

static dr_status header_of(const struct dr_recipe *r, int32_t f, struct header *out) {
    static const char start[] = "{\"__metadata__\":{\"format\":\"pt\"},";
    const struct dr_recipe_file *file = &r->file[f];
    size_t room = (size_t)file->n_tensor * (DR_RECIPE_NAME_MAX + 128) + 128, at = DR_HEADER_LENGTH_BYTES;
    char *text = malloc(room);
    if (!text) return dr_fail(DR_EFULL, "no memory for a header of %d tensors", file->n_tensor);
    at += (size_t)snprintf(text + at, room - at, "%s", start);
    for (int32_t i = 0; i < file->n_tensor; i++)
        at += (size_t)append_tensor(&r->tensor[file->first + i], i == 0, text + at, room - at);
    text[at++] = '}';
    while (at % HEADER_ALIGN != 0) text[at++] = ' ';
    uint64_t length = at - DR_HEADER_LENGTH_BYTES;
    memcpy(text, &length, sizeof length);
    if (length > DR_HEADER_BYTES_MAX) {
        free(text);
        return dr_fail(DR_EFULL,
                       "a file's header would have %" PRIu64
                       " bytes, and at most %d are read: take a smaller --shard-bytes",
                       length, DR_HEADER_BYTES_MAX);
    }
    *out = (struct header){.text = text, .bytes = at};
    return dr_ok();
}

static dr_status files_bytes(const struct dr_recipe *r, uint64_t *out) {
    uint64_t sum = r->data_bytes;
    for (int32_t f = 0; f < r->n_file; f++) {
        struct header h;
        DR_TRY(header_of(r, f, &h));
        sum += h.bytes;
        free(h.text);
    }
    *out = sum;
    return dr_ok();
}

static dr_status check_empty(const struct maker *m) {
    int fd = openat(m->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        dr_status st = system_failure(m, "", "list");
        if (fd >= 0) close(fd);
        return st;
    }
    char found[64] = "";
    const struct dirent *e;
    while (!found[0] && (e = readdir(d))) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)snprintf(found, sizeof found, "%.63s", e->d_name);
    }
    (void)closedir(d);
    if (!found[0]) return dr_ok();
    return dr_fail(DR_EUSAGE,
                   "%s: expected a folder that is absent or empty, found \"%s\" in it: give another --out "
                   "or remove it",
                   m->wish->dir, found);
}

static dr_status open_folder(struct maker *m) {
    const char *dir = m->wish->dir;
    m->made = mkdir(dir, 0755) == 0;
    if (!m->made && errno == ENOENT)
        return dr_fail(DR_ENOENT, "%s: expected its parent folder to exist, found none: make it first", dir);
    if (!m->made && errno != EEXIST) return dr_fail(DR_EIO, "%s: mkdir: %s", dir, strerror(errno));
    m->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (m->dir < 0 && errno == ENOTDIR)
        return dr_fail(DR_EUSAGE, "%s: expected a folder, found something else: give another --out", dir);
    if (m->dir < 0) return dr_fail(DR_EIO, "%s: open: %s", dir, strerror(errno));
    return check_empty(m);
}

static dr_status check_room(const struct maker *m, uint64_t bytes) {
    struct statvfs fs;
    uint64_t need =
        bytes + (uint64_t)m->recipe.n_tensor * DR_RECIPE_NAME_MAX + SLACK_BYTES; /* and the index */
    if (fstatvfs(m->dir, &fs) != 0) return system_failure(m, "", "statvfs");
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (free_bytes >= need) return dr_ok();
    return dr_fail(
        DR_EFULL,
        "%s: expected %.2f GB of free disk for %.2f G parameters, found %.2f GB: free some, or give "
        "another --out",
        m->wish->dir, (double)need * 1e-9, (double)m->recipe.n_param * 1e-9, (double)free_bytes * 1e-9);
}

static int create_output(const struct maker *m, int32_t output, char *name) {
    partial_name(&m->recipe, output, name);
    return openat(m->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
}

static dr_status write_file(const struct maker *m, int32_t f, int32_t n_thread) {
    char name[NAME_MAX_BYTES];
    struct header h;
    DR_TRY(header_of(&m->recipe, f, &h));
    int fd = create_output(m, f, name);
    ssize_t n = fd >= 0 ? pwrite(fd, h.text, h.bytes, 0) : -1;
    dr_status st = n == (ssize_t)h.bytes ? dr_ok() : system_failure(m, name, "write");
    free(h.text);
    const struct dr_pieces pieces = {.recipe = &m->recipe,
                                     .tables = m->tables,
                                     .file = f,
                                     .fd = fd,
                                     .data_begin = h.bytes,
                                     .seed = m->wish->seed,
                                     .n_thread = n_thread};
    if (st.code == DR_OK) {
        st = dr_pieces_write(&pieces);
        if (st.code != DR_OK) st = dr_fail_within(st, "%s/%s: ", m->wish->dir, name);
    }
    if (fd < 0) return st;
    (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* a hint: the disk starts while we go on */
    if (close(fd) != 0 && st.code == DR_OK) st = system_failure(m, name, "close");
    return st;
}

static void print_index(const struct dr_recipe *r, FILE *f) {
    char name[DR_RECIPE_NAME_MAX], file[DR_RECIPE_NAME_MAX];
    (void)fprintf(f, "{\n  \"metadata\": {\"total_size\": %" PRIu64 "},\n  \"weight_map\": {\n",
                  r->data_bytes);
    for (int32_t i = 0; i < r->n_tensor; i++) {
        dr_recipe_name(&r->tensor[i], name);
        dr_recipe_file_name(r, r->tensor[i].file, file);
        (void)fprintf(f, "    \"%s\": \"%s\"%s\n", name, file, i + 1 < r->n_tensor ? "," : "");
    }
    (void)fprintf(f, "  }\n}\n");
}

static dr_status write_text(const struct maker *m, int32_t output) {
    char name[NAME_MAX_BYTES];
    int fd = create_output(m, output, name);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!f) {
        dr_status st = system_failure(m, name, "create");
        if (fd >= 0) close(fd);
        return st;
    }
    if (output + 1 < n_output(&m->recipe))
        print_index(&m->recipe, f);
    else
        (void)fputs(m->config, f);
    bool bad = ferror(f) != 0;
    bad = fclose(f) != 0 || bad; /* both report a full disk */
    return bad ? system_failure(m, name, "write") : dr_ok();
}

static dr_status sync_output(const struct maker *m, int32_t output) {
    char name[NAME_MAX_BYTES];
    partial_name(&m->recipe, output, name);
    int fd = openat(m->dir, name, O_RDONLY | O_CLOEXEC);
    dr_status st = fd >= 0 && fsync(fd) == 0 ? dr_ok() : system_failure(m, name, "fsync");
    if (fd >= 0) close(fd);
    return st;
}

static dr_status publish(const struct maker *m) {
    char from[NAME_MAX_BYTES], to[DR_RECIPE_NAME_MAX];
    for (int32_t i = 0; i < n_output(&m->recipe); i++) DR_TRY(sync_output(m, i));
    for (int32_t i = 0; i < n_output(&m->recipe); i++) {
        partial_name(&m->recipe, i, from);
        output_name(&m->recipe, i, to);
        if (renameat(m->dir, from, m->dir, to) != 0) return system_failure(m, to, "rename");
    }
    return fsync(m->dir) == 0 ? dr_ok() : system_failure(m, "", "fsync");
}

/* The folder was empty when the work began, so everything under these names is ours. */
static void remove_outputs(const struct maker *m) {
    char name[NAME_MAX_BYTES];
    for (int32_t i = 0; i < n_output(&m->recipe); i++) {
        partial_name(&m->recipe, i, name);
        (void)unlinkat(m->dir, name, 0); /* most were never begun */
        output_name(&m->recipe, i, name);
        (void)unlinkat(m->dir, name, 0);
    }
}

static uint64_t processor_ns(void) {
    struct timespec t;
    return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0
               ? (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec
               : 0;
}

static dr_status write_all(const struct maker *m, struct dr_maker_report *report) {
    uint64_t begin = dr_clock_ns(), processor = processor_ns();
    for (int32_t f = 0; f < m->recipe.n_file; f++) DR_TRY(write_file(m, f, report->n_thread));
    for (int32_t i = m->recipe.n_file; i < n_output(&m->recipe); i++) DR_TRY(write_text(m, i));
    uint64_t written = dr_clock_ns();
    report->write_ns = written - begin;
    report->processor_ns = processor_ns() - processor;
    DR_TRY(publish(m));
    report->sync_ns = dr_clock_ns() - written;
    return dr_ok();
}

static int32_t n_processor(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static dr_status into_folder(struct maker *m, struct dr_maker_report *report) {
    uint64_t bytes = 0;
    DR_TRY(files_bytes(&m->recipe, &bytes));
    m->tables = malloc(sizeof *m->tables);
    if (!m->tables) return dr_fail(DR_EFULL, "no memory for the tables of quantiles");
    dr_values_init(m->tables);
    *report = (struct dr_maker_report){.n_tensor = m->recipe.n_tensor,
                                       .n_file = m->recipe.n_file,
                                       .n_thread = m->wish->n_thread ? m->wish->n_thread : n_processor(),
                                       .n_param = m->recipe.n_param,
                                       .bytes = bytes};
    dr_status st = open_folder(m);
    if (st.code == DR_OK) st = check_room(m, bytes);
    if (st.code == DR_OK) {
        st = write_all(m, report);
        if (st.code != DR_OK) remove_outputs(m);
    }
    if (m->dir >= 0) close(m->dir);
    if (st.code != DR_OK && m->made) (void)rmdir(m->wish->dir); /* the failure matters more */
    return st;
}

dr_status dr_maker_run(const struct dr_maker_wish *wish, struct dr_maker_report *out) {
    DR_ASSERT(wish->dtype == DR_DTYPE_F8_E4M3 || wish->dtype == DR_DTYPE_BF16);
    DR_ASSERT(wish->shard_bytes > 0 && wish->n_thread >= 0);
    struct maker m = {.wish = wish, .dir = -1};
    struct dr_config config;
    struct dr_maker_report report;
    DR_TRY(dr_document_read(wish->config, wish->dtype, &config, &m.config));
    dr_status st = dr_recipe_init(&config, wish->dtype, wish->shard_bytes, &m.recipe);
    if (st.code == DR_OK) {
        st = into_folder(&m, &report);
        dr_recipe_fini(&m.recipe);
    }
    free(m.config);
    free(m.tables);
    if (st.code == DR_OK) *out = report;
    return st;
}
