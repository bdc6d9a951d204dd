/* main.c - the program deeprack-coordinator: rank 0 of the MPI job.
 * In:   options as flags, the link's token in the environment.      Out: an exit status.
 * Owns: link, channel; the loop owns the rest.
 * Why:  a table of contents: options, link, model, MPI, loop, leave. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/option.h"
#include "common/size.h"
#include "coordinator/loop.h"
#include "coordinator/post.h"
#include "model/wish.h"

enum { TOKEN_BYTES = 32, LEAVE_SECONDS = 10 };

static dr_status parse_token(const char *text, uint8_t out[TOKEN_BYTES]) {
    static const char digits[] = "0123456789abcdef";
    if (strlen(text) != 2 * TOKEN_BYTES ||
        strspn(text, digits) != 2 * TOKEN_BYTES) /* the text is a secret: not shown */
        return dr_fail(DR_EUSAGE,
                       "DEEPRACK_LINK_TOKEN is not %d hexadecimal digits; the gateway starts this program",
                       2 * TOKEN_BYTES);
    for (int i = 0; i < TOKEN_BYTES; i++)
        out[i] = (uint8_t)((strchr(digits, text[2 * i]) - digits) << 4 |
                           (strchr(digits, text[2 * i + 1]) - digits));
    return dr_ok();
}

static dr_status connect_gateway(const struct dr_options *o, uint64_t *epoch, struct dr_link **link) {
    uint8_t token[TOKEN_BYTES];
    DR_TRY(dr_option_epoch(o, epoch));
    DR_TRY(parse_token(dr_option_text(o, DR_OPTION_LINK_TOKEN), token));
    return dr_link_connect(dr_option_text(o, DR_OPTION_LINK), token, link);
}

static int32_t drafts_of(const struct dr_options *o) {
    const int32_t choice = (int32_t)dr_option_int(o, DR_OPTION_DRAFTS); /* off, auto, 1, 2, ... */
    return choice == 1 ? DR_DRAFTS_AUTO : dr_max_i32(0, choice - 1);
}

static enum dr_reuse reuse_of(const struct dr_options *o) {
    const char *word =
        dr_option_text(o, DR_OPTION_REUSE); /* one of the three, or options would have refused it */
    return !strcmp(word, "any") ? DR_REUSE_ANY : !strcmp(word, "exact") ? DR_REUSE_EXACT : DR_REUSE_OFF;
}

static dr_status read_model(const struct dr_options *o, struct dr_config *config, struct dr_layout *layout) {
    DR_TRY(dr_config_load(dr_option_text(o, DR_OPTION_MODEL), config));
    struct dr_layout_wish wish = dr_wish_of(o, config);
    return dr_layout_make(config, &wish, layout);
}

/* Open MPI hands the core on at every look that finds nothing (the job's mpi_yield_when_idle); where workers
 * keep all cores busy that cost 1.2 ms a look and half of this process's time (measured on 2 cores). The
 * coordinator never waits inside MPI: it looks, then rests by itself. */
static void keep_core(void) {
    if (setenv("OMPI_MCA_mpi_yield_when_idle", "0", 1) != 0)
        dr_log(DR_LOG_WARN, "yields",
               "no memory for a setting of MPI; steps may come late on a full machine");
}

/* Everything before the loop that can fail with the gateway listening. */
static dr_status serve(const struct dr_options *o, int *argc, char ***argv, uint64_t epoch,
                       struct dr_link *link) {
    struct dr_config config;
    struct dr_layout layout;
    struct dr_channel *channel = NULL;
    dr_status st = read_model(o, &config, &layout);
    keep_core();
    if (st.code == DR_OK) st = dr_channel_mpi_create(argc, argv, &channel);
    if (st.code != DR_OK) {
        struct dr_fault_note note = {.rank = -1, .code = (int32_t)st.code};
        snprintf(note.text, sizeof note.text, "%s", dr_error_text());
        dr_ignore(dr_post_fault(link, epoch, &note), "it is logged as well");
        return dr_fail(st.code, "%s", note.text);
    }
    struct dr_loop_setup setup = {
        .config = &config,
        .layout = &layout,
        .channel = channel,
        .link = link,
        .epoch = epoch,
        .deadline_scale = dr_option_float(o, DR_OPTION_DEADLINE_SCALE),
        .reuse = reuse_of(o),
        .drafts = drafts_of(o),
        .step_ns = (uint64_t)dr_option_int(o, DR_OPTION_STEP_MS) * 1000000U,
    };
    DR_TRY(dr_loop_run(&setup));
    alarm(
        LEAVE_SECONDS); /* ranks that do not reach finalize must not keep this one: the signal ends the job */
    dr_channel_destroy(channel);
    dr_mpi_finalize();
    return dr_ok();
}

int main(int argc, char **argv) {
    struct dr_options o = {.n_rest = 0};
    struct dr_link *link = NULL;
    uint64_t epoch = 0;
    dr_status st = dr_options_parse(DR_CMD_COORDINATOR, argc - 1, argv + 1, &o);
    dr_log_init((enum dr_log_level)dr_option_int(&o, DR_OPTION_LOG_LEVEL),
                (enum dr_log_format)dr_option_int(&o, DR_OPTION_LOG_FORMAT), "coordinator", 0);
    signal(SIGPIPE, SIG_IGN);
    if (st.code == DR_OK) st = connect_gateway(&o, &epoch, &link);
    if (st.code == DR_OK) st = serve(&o, &argc, &argv, epoch, link);
    if (st.code != DR_OK) {
        dr_log(DR_LOG_ERROR, "epoch_failed", "code=%s reason=\"%s\"", dr_code_name(st.code), dr_error_text());
        _exit(dr_code_exit(
            st.code)); /* without MPI_Finalize, which waits for ranks that may be dead; mpirun ends the job */
    }
    dr_link_destroy(link);
    dr_options_fini(&o);
    return 0;
}
