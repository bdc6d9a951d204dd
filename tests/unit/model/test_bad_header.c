/* test_bad_header.c - tables of bad safetensors headers and bad indexes, as strings.
 * In:   JSON texts.      Out: the exact refusal.
 * Owns: nothing.
 * Why:  the format is hostile input; each rule of it has a line here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <CUnit/CUnit.h>

#include "model/header.h"
#include "model/index.h"
#include "model/tensors.h"

#define T(dtype, shape, begin, end)                                                                          \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
#define JSON_AT(column, why) "header: not valid JSON at line 1, column " #column ": " why

struct bad {
    uint64_t data_bytes;
    const char *json, *text;
};

static const struct bad headers[] = {
    {0, "", "header: expected JSON that starts with {"},
    {0, "[]", "header: expected JSON that starts with {"},
    {0, " {}", "header: expected JSON that starts with {"},
    {0, "{", JSON_AT(1, "string or '}' expected near end of file")},
    {0, "{} x", JSON_AT(4, "end of file expected")},
    {8, "{\"a\":" T("F32", "[1]", 0, 4) ",\"a\":" T("F32", "[1]", 4, 8) "}",
     JSON_AT(57, "duplicate object key")},
    {0, "{\"a\\u0000\":1}", JSON_AT(10, "NUL byte in object key not supported")},
    {4, "{\"\":" T("F32", "[1]", 0, 4) "}", "a tensor has an empty name"},
    {4, "{\"a\":[]}", "tensor a: expected an object of dtype, shape and data_offsets"},
    {4, "{\"a\":{}}", "tensor a: expected exactly dtype, shape and data_offsets"},
    {4, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}",
     "tensor a: expected exactly dtype, shape and data_offsets"},
    {4, "{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", "tensor a: expected a string as dtype"},
    {4, "{\"a\":" T("F33", "[1]", 0, 4) "}", "tensor a: dtype \"F33\" is unknown"},
    {4, "{\"a\":" T("f32", "[1]", 0, 4) "}", "tensor a: dtype \"f32\" is unknown"},
    {4, "{\"a\":" T("F4", "[8]", 0, 4) "}", "tensor a: dtype \"F4\" is unknown"},
    {4, "{\"a\":" T("F32", "1", 0, 4) "}", "tensor a: expected a shape of at most 8 dimensions"},
    {4, "{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}",
     "tensor a: expected a shape of at most 8 dimensions"},
    {4, "{\"a\":" T("F32", "[-1]", 0, 4) "}", "tensor a: expected whole numbers of at least 0 as shape"},
    {4, "{\"a\":" T("F32", "[1.0]", 0, 4) "}", "tensor a: expected whole numbers of at least 0 as shape"},
    {4, "{\"a\":" T("F32", "[4294967296,4294967296]", 0, 4) "}",
     "tensor a: the product of the shape overflows"},
    {4, "{\"a\":" T("F32", "[4611686018427387904]", 0, 4) "}",
     "tensor a: the product of the shape overflows"},
    {4, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}",
     "tensor a: expected two whole numbers of at least 0 as data_offsets"},
    {4, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{}}}",
     "tensor a: expected two whole numbers of at least 0 as data_offsets"},
    {4, "{\"a\":" T("F32", "[1]", -4, 0) "}",
     "tensor a: expected two whole numbers of at least 0 as data_offsets"},
    {4, "{\"a\":" T("F32", "[1]", 4, 0) "}",
     "tensor a: data_offsets: expected a range within 4 bytes of data, found 4 to 0"},
    {4, "{\"a\":" T("F32", "[2]", 0, 8) "}",
     "tensor a: data_offsets: expected a range within 4 bytes of data, found 0 to 8"},
    {8, "{\"a\":" T("F32", "[1]", 0, 8) "}",
     "tensor a: data_offsets: expected 4 bytes for its shape and F32, found 8"},
    {8, "{\"a\":" T("BF16", "[3]", 0, 8) "}",
     "tensor a: data_offsets: expected 6 bytes for its shape and BF16, found 8"},
    {8, "{\"a\":" T("F32", "[]", 0, 8) "}",
     "tensor a: data_offsets: expected 4 bytes for its shape and F32, found 8"},
    {8, "{\"a\":" T("F32", "[0]", 0, 8) "}",
     "tensor a: data_offsets: expected 0 bytes for its shape and F32, found 8"},
    {8, "{\"a\":" T("F32", "[1]", 4, 8) "}", "tensor a: a hole in the data: expected its data at 0, found 4"},
    {12, "{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 8, 12) "}",
     "tensor b: a hole in the data: expected its data at 4, found 8"},
    {8, "{\"a\":" T("F32", "[2]", 0, 8) ",\"b\":" T("F32", "[1]", 4, 8) "}",
     "tensor b: data overlap: expected its data at 8, found 4"},
    {4, "{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 0, 4) "}",
     "tensor b: data overlap: expected its data at 4, found 0"},
    {8, "{\"a\":" T("F32", "[2]", 0, 8) ",\"b\":" T("F32", "[0]", 4, 4) "}",
     "tensor b: data overlap: expected its data at 8, found 4"},
    {9, "{\"a\":" T("F32", "[2]", 0, 8) "}",
     "expected the data to end with the last tensor at 8, found 9 bytes of data"},
    {1, "{}", "expected the data to end with the last tensor at 0, found 1 bytes of data"},
    {0, "{\"__metadata__\":[]}", "__metadata__: expected an object of strings"},
    {0, "{\"__metadata__\":{\"format\":1}}", "__metadata__: expected an object of strings"},
};

struct seen {
    int n;
    char names[64];
    int stop_at;
};

static dr_status see(void *arg, const struct dr_header_entry *e) {
    struct seen *s = arg;
    if (++s->n == s->stop_at) return dr_fail(DR_ECANCEL, "stopped at %s", e->name);
    snprintf(s->names + strlen(s->names), sizeof s->names - strlen(s->names), "%s ", e->name);
    return dr_ok();
}

static void bad_headers(void) {
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        struct seen s = {0};
        const struct bad *b = &headers[i];
        CU_ASSERT_EQUAL(dr_tensors_parse_header(b->json, strlen(b->json), b->data_bytes, see, &s).code,
                        DR_EMODEL);
        CU_ASSERT_STRING_EQUAL(dr_error_text(), b->text);
        if (strcmp(dr_error_text(), b->text) != 0)
            printf("expected: %s\n   found: %s\n", b->text, dr_error_text());
        CU_ASSERT_EQUAL(s.n, 0);
    }
}

static void nested_header(void) {
    char json[200] = "{\"a\":";
    memset(json + 5, '[', 100);
    CU_ASSERT_EQUAL(dr_tensors_parse_header(json, strlen(json), 0, see, &(struct seen){0}).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "header: JSON is nested deeper than 64 levels at byte 68");
}

static void huge_header(void) {
    size_t n = DR_HEADER_BYTES_MAX + 1;
    char *json = malloc(n);
    CU_ASSERT_PTR_NOT_NULL_FATAL(json);
    memset(json, ' ', n);
    memcpy(json, "{}", 2);
    CU_ASSERT_EQUAL(dr_tensors_parse_header(json, n, 0, see, &(struct seen){0}).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "header: JSON of 16777217 bytes: at most 16777216 are read");
    CU_ASSERT_EQUAL(dr_tensors_parse_header(json, n - 1, 0, see, &(struct seen){0}).code,
                    DR_OK); /* padded with spaces */
    free(json);
}

static void good_headers(void) {
    static const char json[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"b\":" T("F32", "[1]", 4, 8) ",\"z\":" T(
            "F8_E5M2", "[0,3]", 4, 4) ",\"a\":" T("I16", "[1,2,1]", 0, 4) ",\"s\":" T("F64", "[]", 8,
                                                                                      16) "}    ";
    struct seen s = {0};
    CU_ASSERT_EQUAL(dr_tensors_parse_header(json, strlen(json), 16, see, &s).code, DR_OK);
    CU_ASSERT_STRING_EQUAL(s.names, "a z b s "); /* in the order of the data */
    s = (struct seen){.stop_at = 2};
    CU_ASSERT_EQUAL(dr_tensors_parse_header(json, strlen(json), 16, see, &s).code, DR_ECANCEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "stopped at z");
    CU_ASSERT_EQUAL(s.n, 2);
}

static CU_TestInfo cases[] = {
    {"each broken rule is refused with its text, nothing is visited", bad_headers},
    {"deep nesting is refused", nested_header},
    {"the largest header passes, one byte more is refused", huge_header},
    {"good headers are visited in the order of the data", good_headers},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_bad_header = {.pName = "model/header", .pTests = cases};

#define NO_NAME "expected the plain name of a .safetensors file in the same folder, found "

static const struct {
    const char *json, *text;
} indexes[] = {
    {"", "not valid JSON at line 1, column 0: unexpected token near end of file"},
    {"[]", "expected an object with the object \"weight_map\""},
    {"{}", "expected an object with the object \"weight_map\""},
    {"{\"weight_map\":[]}", "expected an object with the object \"weight_map\""},
    {"{\"weight_map\":{}}", "weight_map: expected tensors, found none"},
    {"{\"weight_map\":{\"a\":1}}", "weight_map: tensor a: expected a file name"},
    {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}",
     "weight_map: tensor a: " NO_NAME "\"../x.safetensors\""},
    {"{\"weight_map\":{\"a\":\"/etc/x.safetensors\"}}",
     "weight_map: tensor a: " NO_NAME "\"/etc/x.safetensors\""},
    {"{\"weight_map\":{\"a\":\"sub/x.safetensors\"}}",
     "weight_map: tensor a: " NO_NAME "\"sub/x.safetensors\""},
    {"{\"weight_map\":{\"a\":\"\"}}", "weight_map: tensor a: " NO_NAME "\"\""},
    {"{\"weight_map\":{\"a\":\"..\"}}", "weight_map: tensor a: " NO_NAME "\"..\""},
    {"{\"weight_map\":{\"a\":\"x.bin\"}}", "weight_map: tensor a: " NO_NAME "\"x.bin\""},
    {"{\"weight_map\":{\"a\":\"\\u001b[31m.safetensors\"}} ", NULL}, /* a strange name, but a plain one */
    {"{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"y.safetensors\"}}",
     "not valid JSON at line 1, column 38: duplicate object key"},
};

static void bad_indexes(void) {
    for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
        struct dr_index *ix = NULL;
        dr_status st = dr_index_parse(indexes[i].json, strlen(indexes[i].json), &ix);
        CU_ASSERT_EQUAL(st.code, indexes[i].text ? DR_EMODEL : DR_OK);
        CU_ASSERT_EQUAL(ix == NULL, indexes[i].text != NULL);
        if (indexes[i].text) CU_ASSERT_STRING_EQUAL(dr_error_text(), indexes[i].text);
        if (indexes[i].text && strcmp(dr_error_text(), indexes[i].text) != 0)
            printf("expected: %s\n   found: %s\n", indexes[i].text, dr_error_text());
        dr_index_destroy(ix);
    }
}

static void claims(void) {
    static const char json[] = "{\"metadata\":{\"total_size\":5},\"weight_map\":{\"a\":\"2.safetensors\","
                               "\"b\":\"1.safetensors\",\"c\":\"2.safetensors\"}}";
    struct dr_index *ix = NULL;
    CU_ASSERT_EQUAL_FATAL(dr_index_parse(json, strlen(json), &ix).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(dr_index_files(ix), 2);
    CU_ASSERT_STRING_EQUAL(dr_index_file(ix, 0), "1.safetensors");
    CU_ASSERT_STRING_EQUAL(dr_index_file(ix, 1), "2.safetensors");
    CU_ASSERT_EQUAL(dr_index_claim(ix, "b", "1.safetensors").code, DR_OK);
    CU_ASSERT_EQUAL(dr_index_claim(ix, "b", "1.safetensors").code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(
        dr_error_text(),
        "tensor b: found in this file, but the index lists it nowhere or it was found before");
    CU_ASSERT_EQUAL(dr_index_claim(ix, "c", "1.safetensors").code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "tensor c: found in this file, but the index lists it in 2.safetensors");
    CU_ASSERT_EQUAL(dr_index_claim(ix, "c", "2.safetensors").code, DR_OK);
    CU_ASSERT_EQUAL(dr_index_finish(ix).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(),
                           "tensor a: the index lists it in 2.safetensors, but it is not there");
    CU_ASSERT_EQUAL(dr_index_claim(ix, "a", "2.safetensors").code, DR_OK);
    CU_ASSERT_EQUAL(dr_index_finish(ix).code, DR_OK);
    dr_index_destroy(ix);
}

static void too_many_files(void) {
    size_t room = 64 * (DR_INDEX_FILES_MAX + 2), n = 0;
    char *json = malloc(room);
    CU_ASSERT_PTR_NOT_NULL_FATAL(json);
    for (int i = 0; i <= DR_INDEX_FILES_MAX; i++)
        n += (size_t)snprintf(json + n, room - n, "%s\"t%d\":\"%d.safetensors\"",
                              i ? "," : "{\"weight_map\":{", i, i);
    snprintf(json + n, room - n, "}}");
    struct dr_index *ix = NULL;
    CU_ASSERT_EQUAL(dr_index_parse(json, strlen(json), &ix).code, DR_EMODEL);
    CU_ASSERT_STRING_EQUAL(dr_error_text(), "weight_map: expected at most 4096 files");
    free(json);
}

static CU_TestInfo index_cases[] = {
    {"each broken rule is refused with its text", bad_indexes},
    {"each tensor is claimed once, from its own file", claims},
    {"an index of more files than anyone needs is refused", too_many_files},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_bad_index = {.pName = "model/index", .pTests = index_cases};
