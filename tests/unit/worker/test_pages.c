/* test_pages.c - page tables and places.
 * In:   entries.      Out: places.
 * Owns: nothing.
 * Why:  each position must have exactly one place in a cache group, for every width of the cut. */

#include <string.h>

#include "tests/support/runner.h"
#include "worker/cache/pages.h"

enum { SLOTS = 3, SLOT_PAGES = 5, PAGES = 20 };

static struct dr_page_tables tables(uint32_t *entry, int32_t c, int32_t member) {
    int32_t tokens = (64 + c - 1) / c * c;
    struct dr_page_tables t = {
        .entry = entry,
        .n_slot = SLOTS,
        .slot_pages = SLOT_PAGES,
        .n_page = PAGES,
        .page_tokens = tokens,
        .page_rows = tokens / c,
        .c = c,
        .member = member,
    };
    for (int32_t i = 0; i < SLOTS; i++) dr_pages_clear(&t, i);
    return t;
}

static const uint32_t some[] = {7, 2, 19, 0, 11};

static void one_place_each(void) {
    for (int32_t c = 1; c <= 8; c++) {
        uint32_t entry[8][SLOTS * SLOT_PAGES];
        struct dr_page_tables t[8] = {{0}};
        struct dr_pages p = {.slot = 1, .n = SLOT_PAGES, .page = some};
        for (int32_t m = 0; m < c; m++) {
            t[m] = tables(entry[m], c, m);
            CU_ASSERT(dr_pages_set(&t[m], &p).code == DR_OK);
        }
        int32_t next[8] = {0};
        for (int32_t pos = 0; pos < SLOT_PAGES * t[0].page_tokens; pos++)
            for (int32_t m = 0; m < c; m++) {
                uint32_t page;
                int32_t row;
                dr_pages_place(&t[m], 1, pos, &page, &row);
                CU_ASSERT((page != UINT32_MAX) == (pos % c == m));
                if (page == UINT32_MAX) continue;
                /* the member's rows of the sequence come one after the other */
                CU_ASSERT(page == some[next[m] / t[m].page_rows] && row == next[m] % t[m].page_rows);
                next[m]++;
                CU_ASSERT(dr_pages_local_rows(&t[m], pos + 1) == next[m]);
            }
        for (int32_t m = 0; m < c; m++) {
            CU_ASSERT(next[m] == SLOT_PAGES * t[m].page_rows);
            CU_ASSERT(dr_pages_local_rows(&t[m], 0) == 0);
        }
    }
}

static void cover(void) {
    uint32_t entry[SLOTS * SLOT_PAGES];
    struct dr_page_tables t = tables(entry, 1, 0);
    struct dr_pages p = {.slot = 0, .first = 0, .n = 2, .page = some};
    CU_ASSERT(dr_pages_cover(&t, 0, 1).code == DR_EPROTO);
    CU_ASSERT(dr_pages_set(&t, &p).code == DR_OK);
    CU_ASSERT(dr_pages_cover(&t, 0, 128).code == DR_OK);
    CU_ASSERT(dr_pages_cover(&t, 0, 129).code == DR_EPROTO);
    CU_ASSERT(strstr(dr_error_text(), "entry 2") != NULL);
    CU_ASSERT(dr_pages_cover(&t, 0, SLOT_PAGES * 64 + 1).code == DR_EPROTO);
    p.first = 3; /* a hole stays a hole */
    CU_ASSERT(dr_pages_set(&t, &p).code == DR_OK);
    CU_ASSERT(dr_pages_cover(&t, 0, 320).code == DR_EPROTO);
    dr_pages_clear(&t, 0);
    CU_ASSERT(dr_pages_cover(&t, 0, 1).code == DR_EPROTO);
}

static void refused(void) {
    static const uint32_t beyond[] = {3, PAGES};
    static const struct dr_pages bad[] = {
        {.slot = -1, .n = 1, .page = some},
        {.slot = SLOTS, .n = 1, .page = some},
        {.slot = 0, .first = -1, .n = 1, .page = some},
        {.slot = 0, .first = 4, .n = 2, .page = some},
        {.slot = 0, .first = INT32_MAX, .n = 1, .page = some},
        {.slot = 0, .n = 2, .page = beyond},
        {.slot = 0, .n = -1, .page = some},
    };
    uint32_t entry[SLOTS * SLOT_PAGES];
    struct dr_page_tables t = tables(entry, 2, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CU_ASSERT(dr_pages_set(&t, &bad[i]).code == DR_EPROTO);
    for (int32_t i = 0; i < SLOTS * SLOT_PAGES; i++) CU_ASSERT(entry[i] == UINT32_MAX);
}

static CU_TestInfo tests[] = {
    {"each position has one place, members' rows are dense", one_place_each},
    {"rows need a page for every position before them", cover},
    {"entries out of range are refused and change nothing", refused},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_pages = {.pName = "worker/pages", .pTests = tests};
