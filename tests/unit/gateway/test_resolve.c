/* test_resolve.c - pages, context and threads for a machine of given size.
 * In:   options, the sample model's config, made-up machines.      Out: numbers and refusals.
 * Owns: nothing.
 * Why:  what does not fit must be refused by name before anything is started. */
#include <stdio.h>
#include <string.h>

#include "gateway/cluster/resolve.h"
#include "tests/support/runner.h"

static void load(struct dr_config *c) {
    CU_ASSERT_EQUAL_FATAL(dr_config_load(DR_SOURCE_DIR "/deploy/models/lexi-15m", c).code, DR_OK);
}

static void options(struct dr_options *o, int argc, char **argv) {
    CU_ASSERT_EQUAL_FATAL(dr_options_parse(DR_CMD_SERVE, argc, argv, o).code, DR_OK);
}

static void a_large_machine_gets_all_pages(void) {
    struct dr_config c;
    struct dr_options o;
    struct dr_resolved r;
    const struct dr_machine m = {.free_bytes = (size_t)64 << 30, .cores = 8};
    char *argv[] = {"--tp=2", "--seqs-max=4", "--context=1000"};
    load(&c);
    options(&o, 3, argv);
    CU_ASSERT_EQUAL_FATAL(dr_resolve_on(&m, &o, &c, NULL, &r).code, DR_OK);
    CU_ASSERT_EQUAL(r.layout.n_page, 4 * 16); /* 1,000 tokens are 16 pages of 64 */
    CU_ASSERT_EQUAL(r.layout.context, 1000);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_PAGES), 64);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_CONTEXT), 1000);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_THREADS), 4);
    CU_ASSERT_EQUAL(r.local_workers, 2);
    CU_ASSERT_EQUAL(r.n_host, 0);
    dr_options_fini(&o);
}

static void context_defaults_to_the_models(void) {
    struct dr_config c;
    struct dr_options o;
    struct dr_resolved r;
    const struct dr_machine m = {.free_bytes = (size_t)64 << 30, .cores = 1};
    char *argv[] = {"--tp=2", "--threads=0"};
    load(&c);
    options(&o, 2, argv);
    CU_ASSERT_EQUAL_FATAL(dr_resolve_on(&m, &o, &c, NULL, &r).code, DR_OK);
    CU_ASSERT_EQUAL(r.layout.context, c.n_position);
    CU_ASSERT_EQUAL(dr_option_int(&o, DR_OPTION_THREADS), 1); /* at least one */
    dr_options_fini(&o);
}

static void the_cache_takes_half_of_a_small_machine(void) {
    struct dr_config c;
    struct dr_options o;
    struct dr_resolved r;
    char *argv[] = {"--tp=2", "--seqs-max=64"};
    load(&c);
    options(&o, 2, argv);
    const struct dr_machine m = {.free_bytes = (size_t)400 << 20, .cores = 2};
    CU_ASSERT_EQUAL_FATAL(dr_resolve_on(&m, &o, &c, NULL, &r).code, DR_OK);
    const struct dr_footprint f = dr_footprint_rank(&c, NULL, &r.layout, 0);
    const size_t page = dr_footprint_page_bytes(&c, &r.layout, 0);
    CU_ASSERT_TRUE(f.cache <= m.free_bytes / 4);
    CU_ASSERT_TRUE(2 * f.total <= m.free_bytes);
    /* either everything was granted, or not one more page would have fitted the budget of whoever is smaller
     */
    const size_t rest = (m.free_bytes - m.free_bytes / 20 - 2 * (f.total - f.cache)) / 2;
    const size_t budget = rest < m.free_bytes / 4 ? rest : m.free_bytes / 4;
    const bool all = r.layout.n_page == 64 * ((r.layout.context + 63) / 64);
    CU_ASSERT_TRUE(all || f.cache + page > budget);
    dr_options_fini(&o);
}

static const struct {
    const char *flags[4];
    size_t free_mib;
    const char *text; /* part of the refusal */
} refusals[] = {
    {{"--tp=2"}, 4, "memory: weights and workspace of 2 ranks need "},
    {{"--tp=2", "--cache-memory=64K"},
     4096,
     "memory: a rank's cache may take 64.00 KiB (--cache-memory): layout: cache pages: a context of "},
    {{"--tp=2", "--pages=1"}, 4096, "layout: cache pages: a context of "},
    {{"--tp=2", "--pages=100000", "--seqs-max=64"},
     512,
     "with 100000 cache pages, free are 512.00 MiB; use fewer --pages or a shorter --context"},
    {{"--tp=9"}, 4096, "layout: tp 9: the model has only 8 heads"},
    {{"--pp=7"}, 4096, "layout: pp 7: the model has only 6 layers"},
    {{"--tp=4", "--cache-width=3"}, 4096, "layout: cache width: expected a divisor of tp 4, found 3"},
    {{"--context=9999999"}, 4096, "layout: context: the model was made for at most "},
};

static void what_does_not_fit_is_refused_by_name(void) {
    struct dr_config c;
    load(&c);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct dr_options o;
        struct dr_resolved r;
        char *argv[4];
        int argc = 0;
        while (argc < 4 && refusals[i].flags[argc]) {
            argv[argc] = (char *)refusals[i].flags[argc];
            argc++;
        }
        const struct dr_machine m = {.free_bytes = refusals[i].free_mib << 20, .cores = 2};
        options(&o, argc, argv);
        const dr_status st = dr_resolve_on(&m, &o, &c, NULL, &r);
        const bool same = st.code == DR_EMODEL && strstr(dr_error_text(), refusals[i].text);
        if (!same)
            printf("  %s\n    expected: %s\n    found:    %s\n", argv[0], refusals[i].text, dr_error_text());
        CU_ASSERT_TRUE(same);
        dr_options_fini(&o);
    }
}

/* auto: values where a cache group spans hosts and the link is slow beside memory. */
static void the_exchange_follows_hosts_and_link(void) {
    static const struct {
        const char *flags[4];
        enum dr_exchange exchange;
    } rows[] = {
        {{"--tp=4"}, DR_EXCHANGE_LATENT}, /* one machine */
        {{"--tp=4", "--hosts=a,b"}, DR_EXCHANGE_VALUE},
        {{"--tp=4", "--hosts=a,b", "--link-gbit=1000"}, DR_EXCHANGE_LATENT},
        {{"--tp=4", "--hosts=a,b", "--cache-width=2"}, DR_EXCHANGE_LATENT}, /* each group on one host */
        {{"--tp=4", "--hosts=a,b", "--exchange=latent"}, DR_EXCHANGE_LATENT},
        {{"--tp=4", "--exchange=value"}, DR_EXCHANGE_VALUE},
    };
    struct dr_config c;
    load(&c);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct dr_options o;
        struct dr_resolved r;
        char *argv[4];
        int argc = 0;
        for (; argc < 4 && rows[i].flags[argc]; argc++) argv[argc] = (char *)rows[i].flags[argc];
        const struct dr_machine m = {.free_bytes = (size_t)64 << 30, .cores = 4};
        options(&o, argc, argv);
        CU_ASSERT_EQUAL_FATAL(dr_resolve_on(&m, &o, &c, NULL, &r).code, DR_OK);
        CU_ASSERT_EQUAL(r.layout.exchange, rows[i].exchange);
        CU_ASSERT_STRING_EQUAL(dr_option_text(&o, DR_OPTION_EXCHANGE), /* what the ranks are told */
                               dr_exchange_name(rows[i].exchange));
        dr_options_fini(&o);
    }
}

static void a_missing_model_is_refused(void) {
    struct dr_config c;
    struct dr_options o;
    struct dr_resolved r;
    char *argv[] = {"--model=/nowhere"};
    load(&c);
    options(&o, 1, argv);
    CU_ASSERT_EQUAL(dr_resolve(&o, &c, &r).code, DR_ENOENT);
    dr_options_fini(&o);
}

static void this_machine_has_memory_and_cores(void) {
    struct dr_machine m;
    CU_ASSERT_EQUAL_FATAL(dr_machine_read(&m).code, DR_OK);
    CU_ASSERT_TRUE(m.cores >= 1);
    CU_ASSERT_TRUE(m.free_bytes > 0);
}

static void bytes_are_told_in_the_largest_unit(void) {
    char text[32];
    CU_ASSERT_STRING_EQUAL(dr_bytes_text(0, text), "0 B");
    CU_ASSERT_STRING_EQUAL(dr_bytes_text(1023, text), "1023 B");
    CU_ASSERT_STRING_EQUAL(dr_bytes_text(1536, text), "1.50 KiB");
    CU_ASSERT_STRING_EQUAL(dr_bytes_text((uint64_t)3 << 40, text), "3.00 TiB");
}

static CU_TestInfo cases[] = {
    {"a large machine gives every sequence its whole context", a_large_machine_gets_all_pages},
    {"the context is the model's unless given", context_defaults_to_the_models},
    {"the cache takes half of a small machine", the_cache_takes_half_of_a_small_machine},
    {"what does not fit is refused by name", what_does_not_fit_is_refused_by_name},
    {"the exchange follows hosts and link", the_exchange_follows_hosts_and_link},
    {"a model that is not there is refused", a_missing_model_is_refused},
    {"this machine has memory and cores", this_machine_has_memory_and_cores},
    {"bytes are told in the largest unit", bytes_are_told_in_the_largest_unit},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_resolve = {.pName = "gateway/resolve", .pTests = cases};
