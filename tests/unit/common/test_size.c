/* test_size.c - sizes that cannot overflow silently.
 * In:   small and huge numbers.      Out: checks.
 * Owns: nothing.
 * Why:  every length from a file passes here. */
#include "common/size.h"

#include "tests/support/runner.h"

static void size_overflow(void) {
    size_t out = 7;
    CU_ASSERT_TRUE(dr_size_mul(3, 5, &out));
    CU_ASSERT_EQUAL(out, 15);
    CU_ASSERT_TRUE(dr_size_mul(SIZE_MAX, 1, &out));
    CU_ASSERT_EQUAL(out, SIZE_MAX);
    CU_ASSERT_TRUE(dr_size_mul(SIZE_MAX, 0, &out));
    CU_ASSERT_EQUAL(out, 0);
    CU_ASSERT_FALSE(dr_size_mul(SIZE_MAX / 2 + 1, 2, &out));
    CU_ASSERT_FALSE(dr_size_mul((size_t)1 << 32, (size_t)1 << 32, &out));
    CU_ASSERT_TRUE(dr_size_add(SIZE_MAX - 1, 1, &out));
    CU_ASSERT_EQUAL(out, SIZE_MAX);
    CU_ASSERT_FALSE(dr_size_add(SIZE_MAX, 1, &out));
}

static void size_rounding(void) {
    CU_ASSERT_EQUAL(dr_size_align(0, 64), 0);
    CU_ASSERT_EQUAL(dr_size_align(1, 64), 64);
    CU_ASSERT_EQUAL(dr_size_align(64, 64), 64);
    CU_ASSERT_EQUAL(dr_size_align(65, 64), 128);
    CU_ASSERT_EQUAL(dr_ceil_div(0, 3), 0);
    CU_ASSERT_EQUAL(dr_ceil_div(1, 3), 1);
    CU_ASSERT_EQUAL(dr_ceil_div(3, 3), 1);
    CU_ASSERT_EQUAL(dr_ceil_div(4, 3), 2);
    CU_ASSERT_EQUAL(dr_min_i32(-1, 2), -1);
    CU_ASSERT_EQUAL(dr_min_i32(2, -1), -1);
    CU_ASSERT_EQUAL(dr_max_i32(-1, 2), 2);
    CU_ASSERT_EQUAL(dr_max_i32(2, -1), 2);
}

static CU_TestInfo cases[] = {
    {"products and sums beyond the largest size are refused", size_overflow},
    {"rounding, least and most", size_rounding},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_size = {.pName = "common/size", .pTests = cases};
