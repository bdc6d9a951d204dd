/* test_gate.c - keys, routes and addresses.
 * In:   files, paths, names.      Out: who may do what where.
 * Owns: a temporary file.
 * Why:  a mistake here opens the server to everyone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/http/keys.h"
#include "gateway/http/listen.h"
#include "gateway/http/route.h"
#include "tests/support/runner.h"
#include "tests/unit/http/rig.h"

static void write_file(char path[32], const char *text, size_t n) {
    snprintf(path, 32, "/tmp/dr-test-XXXXXX");
    int fd = mkstemp(path);
    CU_ASSERT_TRUE_FATAL(fd >= 0 && write(fd, text, n) == (ssize_t)n);
    close(fd);
}

static void read_keys(void) {
    char path[32];
    struct dr_keys k = {0};
    static const char text[] = "# names\n\n  alpha \nbeta\r\n#gamma\nlast";
    write_file(path, text, sizeof text - 1);
    CU_ASSERT_EQUAL(dr_keys_read(path, &k).code, DR_OK);
    unlink(path);
    CU_ASSERT_EQUAL_FATAL(k.n, 3);
    CU_ASSERT_EQUAL(dr_keys_find(&k, "Bearer alpha", NULL), 0);
    CU_ASSERT_EQUAL(dr_keys_find(&k, "bearer beta", NULL), 1);
    CU_ASSERT_EQUAL(dr_keys_find(&k, NULL, "last"), 2);
    CU_ASSERT_EQUAL(dr_keys_find(&k, "Bearer no", "beta"), 1);
    CU_ASSERT_EQUAL(dr_keys_find(&k, "Bearer alph", NULL), -1);
    CU_ASSERT_EQUAL(dr_keys_find(&k, "Bearer alphaa", NULL), -1);
    CU_ASSERT_EQUAL(dr_keys_find(&k, "Basic alpha", NULL), -1);
    CU_ASSERT_EQUAL(dr_keys_find(&k, "alpha", NULL), -1);
    CU_ASSERT_EQUAL(dr_keys_find(&k, "Bearer #gamma", NULL), -1);
    CU_ASSERT_EQUAL(dr_keys_find(&k, "Bearer ", ""), -1);
    CU_ASSERT_EQUAL(dr_keys_find(&k, NULL, NULL), -1);
}

static void bad_key_files(void) {
    char path[32], text[1200];
    struct dr_keys k = {0};
    CU_ASSERT_EQUAL(dr_keys_read("/nonexistent/keys", &k).code, DR_ENOENT);
    CU_ASSERT_EQUAL(dr_keys_read("/proc/self/mem", &k).code, DR_EIO);
    write_file(path, "# none\n", 7);
    CU_ASSERT_EQUAL(dr_keys_read(path, &k).code, DR_EUSAGE);
    unlink(path);
    memset(text, 'k', sizeof text);
    for (size_t n = 513; n < sizeof text; n += 600) { /* a long key, a line beyond all bounds */
        write_file(path, text, n);
        CU_ASSERT_EQUAL(dr_keys_read(path, &k).code, DR_EUSAGE);
        CU_ASSERT_PTR_NULL(strstr(dr_error_text(), "kkk"));
        unlink(path);
    }
    for (int i = 0; i < 514; i++) text[i] = i % 2 ? '\n' : 'k';
    write_file(path, text, 514);
    CU_ASSERT_EQUAL(dr_keys_read(path, &k).code, DR_EUSAGE); /* 257 keys */
    unlink(path);
    CU_ASSERT_EQUAL(k.n, 0);
}

static void tenants(void) {
    struct dr_keys k = {.n = 2, .hash = {{1}, {2}}};
    char a[33], b[33], c[33], d[33];
    dr_keys_tenant(&k, 0, "", a);
    dr_keys_tenant(&k, 1, "", b);
    dr_keys_tenant(&k, 0, "salt", c);
    dr_keys_tenant(&k, 0, "salt", d);
    CU_ASSERT_EQUAL(strlen(a), 32);
    CU_ASSERT_STRING_NOT_EQUAL(a, b);
    CU_ASSERT_STRING_NOT_EQUAL(a, c);
    CU_ASSERT_STRING_EQUAL(c, d);
}

static void routes(void) {
    static const struct {
        const char *method, *path;
        enum dr_route route;
        bool fits;
    } rows[] = {
        {"POST", "/v1/chat/completions", DR_ROUTE_CHAT, true},
        {"GET", "/v1/chat/completions", DR_ROUTE_CHAT, false},
        {"POST", "/v1/completions", DR_ROUTE_COMPLETIONS, true},
        {"POST", "/v1/completions/", DR_ROUTE_NONE, false},
        {"GET", "/v1/models", DR_ROUTE_MODELS, true},
        {"HEAD", "/v1/models", DR_ROUTE_MODELS, true},
        {"GET", "/v1/models/x", DR_ROUTE_MODEL, true},
        {"GET", "/v1/models/", DR_ROUTE_NONE, false},
        {"POST", "/v1/models", DR_ROUTE_MODELS, false},
        {"GET", "/health", DR_ROUTE_HEALTH, true},
        {"GET", "/Health", DR_ROUTE_NONE, false},
        {"GET", "//health", DR_ROUTE_NONE, false},
        {"GET", "/health/live", DR_ROUTE_LIVE, true},
        {"GET", "/health/ready", DR_ROUTE_READY, true},
        {"GET", "/health/progress", DR_ROUTE_PROGRESS, true},
        {"GET", "/health/../v1/models", DR_ROUTE_NONE, false},
        {"GET", "/metrics", DR_ROUTE_METRICS, true},
        {"GET", "/version", DR_ROUTE_VERSION, true},
        {"GET", "/", DR_ROUTE_NONE, false},
        {"GET", "", DR_ROUTE_NONE, false},
        {"post", "/tokenize", DR_ROUTE_TOKENIZE, false},
        {"POST", "/detokenize", DR_ROUTE_DETOKENIZE, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool fits = false;
        CU_ASSERT_EQUAL(dr_route_find(rows[i].method, rows[i].path, &fits), rows[i].route);
        CU_ASSERT_EQUAL(fits, rows[i].fits);
    }
    CU_ASSERT_TRUE(dr_route_is_open(DR_ROUTE_HEALTH) && dr_route_is_open(DR_ROUTE_LIVE) &&
                   dr_route_is_open(DR_ROUTE_READY));
    CU_ASSERT_FALSE(dr_route_is_open(DR_ROUTE_METRICS) || dr_route_is_open(DR_ROUTE_NONE) ||
                    dr_route_is_open(DR_ROUTE_MODELS));
}

static void escapes(void) {
    char out[8];
    CU_ASSERT_TRUE(dr_route_decode("a%2Fb%2f", out, sizeof out));
    CU_ASSERT_STRING_EQUAL(out, "a/b/");
    CU_ASSERT_FALSE(dr_route_decode("a%00", out, sizeof out));
    CU_ASSERT_FALSE(dr_route_decode("a%2", out, sizeof out));
    CU_ASSERT_FALSE(dr_route_decode("a%zz", out, sizeof out));
    CU_ASSERT_FALSE(dr_route_decode("12345678", out, sizeof out));
}

static void addresses(void) {
    static const struct {
        const char *text, *host;
        int32_t port;
    } rows[] = {{"9000", "127.0.0.1", 9000},
                {"0.0.0.0:1", "0.0.0.0", 1},
                {"[::1]:80", "::1", 80},
                {"node:65535", "node", 65535}};
    static const char *const bad[] = {"", ":", ":5", "a:", "a:b", "a:70000", "a:-1", "a:5x"};
    char host[64];
    int32_t port;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CU_ASSERT_EQUAL(dr_listen_split(rows[i].text, "metrics-listen", host, sizeof host, &port).code,
                        DR_OK);
        CU_ASSERT_STRING_EQUAL(host, rows[i].host);
        CU_ASSERT_EQUAL(port, rows[i].port);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CU_ASSERT_EQUAL(dr_listen_split(bad[i], "metrics-listen", host, sizeof host, &port).code, DR_EUSAGE);
        CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "--metrics-listen"));
    }
}

static void listening(void) {
    struct dr_listener a = {.fd = -1}, b = {.fd = -1};
    CU_ASSERT_EQUAL_FATAL(dr_listen("127.0.0.1", 0, &a).code, DR_OK);
    CU_ASSERT_TRUE(a.loopback && a.port > 0);
    CU_ASSERT_EQUAL(dr_listen("127.0.0.1", a.port, &b).code, DR_EIO); /* taken */
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "another server"));
    close(a.fd);
    CU_ASSERT_EQUAL(dr_listen("192.0.2.1", 0, &b).code, DR_EUSAGE); /* of nobody */
    CU_ASSERT_EQUAL(dr_listen("not an address", 0, &b).code, DR_EUSAGE);
    CU_ASSERT_EQUAL_FATAL(dr_listen("0.0.0.0", 0, &b).code, DR_OK);
    CU_ASSERT_FALSE(b.loopback);
    close(b.fd);
}

/* What dr_server_create says; it must leave nothing behind, which the leak checks of sanitizer builds see. */
static enum dr_code create_with(const char *a, const char *b, const char *c, const char *d) {
    const char *const flags[] = {
        "--model", DR_SOURCE_DIR "/deploy/models/lexi-15m", "--port", "0", a, b, c, d, NULL};
    struct dr_options o = {0};
    struct dr_server *s = NULL;
    struct dr_engine *e = fake_create();
    CU_ASSERT_EQUAL_FATAL(rig_options(DR_CMD_SERVE, flags, &o).code, DR_OK);
    dr_status st = dr_server_create(&o, rig_kit(), e, &s);
    if (st.code == DR_OK) dr_server_destroy(s);
    dr_engine_destroy(e);
    dr_options_fini(&o);
    return st.code;
}

static void exposure(void) {
    char path[32];
    CU_ASSERT_EQUAL(create_with("--host", "0.0.0.0", NULL, NULL), DR_EUSAGE);
    CU_ASSERT_PTR_NOT_NULL(strstr(dr_error_text(), "--api-key-file"));
    CU_ASSERT_EQUAL(create_with("--host", "0.0.0.0", "--insecure", NULL), DR_OK);
    write_file(path, "key\n", 4);
    CU_ASSERT_EQUAL(create_with("--host", "0.0.0.0", "--api-key-file", path), DR_OK);
    unlink(path);
    CU_ASSERT_EQUAL(create_with("--api-key-file", path, NULL, NULL), DR_ENOENT);
    CU_ASSERT_EQUAL(create_with("--metrics-listen", "x", NULL, NULL), DR_EUSAGE);
    CU_ASSERT_EQUAL(create_with("--host", "192.0.2.1", NULL, NULL), DR_EUSAGE);
}

static CU_TestInfo cases[] = {
    {"keys are found by their value alone", read_keys},
    {"key files without keys, too long, too many are refused", bad_key_files},
    {"caches are shared by key and salt only", tenants},
    {"paths match exactly", routes},
    {"escapes in a model's name are decoded, zero bytes refused", escapes},
    {"addresses are split or refused", addresses},
    {"a port is bound once, loopback is known", listening},
    {"an address beyond loopback needs keys or --insecure", exposure},
    CU_TEST_INFO_NULL,
};
CU_SuiteInfo suite_gate = {.pName = "http/gate", .pTests = cases};
