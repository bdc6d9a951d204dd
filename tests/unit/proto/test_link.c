/* test_link.c - the socket between gateway and coordinator.
 * In:   real sockets in a folder of the test.      Out: CUnit results.
 * Owns: the folder.
 * Why:  bytes come in any pieces and from anybody; frames must come whole, and strangers not at all. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/link.h"
#include "tests/unit/proto/samples.h"

static char folder[64], path[96];
static uint8_t token[32], other[32];
static uint8_t big[DR_FRAME_HEADER + DR_LINK_FRAME_MAX];

static int set_up(void) {
    snprintf(folder, sizeof folder, "/tmp/dr-link-XXXXXX");
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/link", folder);
    for (int i = 0; i < 32; i++) token[i] = other[i] = (uint8_t)(i * 7 + 1);
    other[31] ^= 1;
    return 0;
}

static int tear_down(void) {
    return rmdir(folder); /* every listener has removed its socket */
}

static size_t word(uint8_t *out, enum dr_msg type, uint64_t value) {
    size_t bytes = 0;
    CU_ASSERT_EQUAL(dr_encode_word(type, SAMPLE_EPOCH, value, out, 64, &bytes).code, DR_OK);
    return bytes;
}

/* A plain client that sends what it likes. */
static int raw_client(void) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_FATAL(connect(fd, (const struct sockaddr *)&at, sizeof at) == 0);
    return fd;
}

static void raw_send(int fd, const void *at, size_t n) {
    CU_ASSERT_EQUAL(send(fd, at, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* Both ends of a link whose hello has been sent; a real listener stands behind it. */
struct pair {
    struct dr_listener *listener;
    struct dr_link *gateway, *coordinator;
};

static struct pair pair_make(void) {
    struct pair p = {0};
    CU_ASSERT_EQUAL_FATAL(dr_listener_create(path, &p.listener).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(dr_link_connect(path, token, &p.coordinator).code, DR_OK);
    CU_ASSERT_EQUAL_FATAL(dr_listener_accept(p.listener, token, &p.gateway).code, DR_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(p.gateway);
    return p;
}

static void pair_drop(struct pair *p) {
    dr_link_destroy(p->gateway);
    dr_link_destroy(p->coordinator);
    dr_listener_destroy(p->listener);
}

/* A listener, a raw client and the link that accepted it. */
static struct pair stranger_make(int *fd) {
    struct pair p = {0};
    CU_ASSERT_EQUAL_FATAL(dr_listener_create(path, &p.listener).code, DR_OK);
    *fd = raw_client();
    CU_ASSERT_EQUAL_FATAL(dr_listener_accept(p.listener, token, &p.gateway).code, DR_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(p.gateway);
    return p;
}

static void expect_word(struct dr_link *l, enum dr_msg type, uint64_t value) {
    struct dr_frame f = {0};
    const uint8_t *body = NULL;
    uint64_t got = 0;
    CU_ASSERT_EQUAL(dr_link_recv(l, &f, &body).code, DR_OK);
    CU_ASSERT_EQUAL(f.type, type);
    CU_ASSERT_EQUAL(f.epoch, SAMPLE_EPOCH);
    if (!body) return;
    CU_ASSERT_EQUAL(dr_decode_word(body, f.bytes, &got).code, DR_OK);
    CU_ASSERT_EQUAL(got, value);
}

static void expect_nothing(struct dr_link *l) {
    struct dr_frame f = {.type = 9};
    const uint8_t *body = token;
    CU_ASSERT_EQUAL(dr_link_recv(l, &f, &body).code, DR_OK);
    CU_ASSERT_EQUAL(f.type, DR_MSG_NONE);
    CU_ASSERT_PTR_NULL(body);
}

static void expect_failure(struct dr_link *l, enum dr_code code, const char *says) {
    struct dr_frame f = {0};
    const uint8_t *body = NULL;
    dr_status st = dr_link_recv(l, &f, &body);
    CU_ASSERT_EQUAL(st.code, code);
    bool named = st.code == code && strstr(dr_error_text(), says) != NULL;
    CU_ASSERT(named);
    if (!named) printf("expected \"%s\", got %s: %s\n", says, dr_code_name(st.code), dr_error_text());
}

static void both_ways(void) {
    struct pair p = pair_make();
    uint8_t frame[64];
    struct stat info;
    CU_ASSERT_EQUAL(stat(path, &info), 0);
    CU_ASSERT_EQUAL(info.st_mode & 0777, 0600);
    CU_ASSERT(dr_listener_fd(p.listener) >= 0 && dr_link_fd(p.gateway) >= 0);
    expect_nothing(p.gateway);     /* the hello is kept */
    expect_nothing(p.coordinator); /* and not answered */
    for (uint64_t k = 0; k < 100; k++) {
        CU_ASSERT_EQUAL(dr_link_send(p.coordinator, frame, word(frame, DR_MSG_ACCEPTED, k)).code, DR_OK);
        CU_ASSERT_EQUAL(dr_link_send(p.gateway, frame, word(frame, DR_MSG_CANCEL, ~k)).code, DR_OK);
    }
    CU_ASSERT_FALSE(dr_link_pending(p.gateway));
    for (uint64_t k = 0; k < 100; k++) {
        expect_word(p.gateway, DR_MSG_ACCEPTED, k);
        expect_word(p.coordinator, DR_MSG_CANCEL, ~k);
    }
    expect_nothing(p.gateway);
    expect_nothing(p.coordinator);
    pair_drop(&p);
    CU_ASSERT_EQUAL(stat(path, &info), -1);
}

static void nobody(void) {
    struct dr_listener *l = NULL;
    struct dr_link *link = (struct dr_link *)token;
    CU_ASSERT_EQUAL(dr_link_connect(path, token, &link).code, DR_EPEER); /* no socket there */
    CU_ASSERT_EQUAL(dr_listener_create(path, &l).code, DR_OK);
    CU_ASSERT_EQUAL(dr_listener_accept(l, token, &link).code, DR_OK);
    CU_ASSERT_PTR_NULL(link);
    dr_listener_destroy(l);
    dr_listener_destroy(NULL);
    dr_link_destroy(NULL);
}

static void bad_paths(void) {
    struct dr_listener *l = NULL, *second = NULL;
    char longest[200];
    memset(longest, 'x', sizeof longest);
    longest[199] = 0;
    CU_ASSERT_EQUAL(dr_listener_create(longest, &l).code, DR_EIO);
    CU_ASSERT_EQUAL(dr_listener_create("", &l).code, DR_EIO);
    CU_ASSERT_EQUAL(dr_listener_create("/no/such/folder/link", &l).code, DR_EIO);
    CU_ASSERT_PTR_NULL(l);
    CU_ASSERT_EQUAL(dr_listener_create(path, &l).code, DR_OK);
    CU_ASSERT_EQUAL(dr_listener_create(path, &second).code,
                    DR_EIO); /* another one listens here; it keeps the socket */
    CU_ASSERT_EQUAL(access(path, F_OK), 0);
    dr_listener_destroy(l);
}

static void byte_by_byte(void) {
    int fd = -1;
    struct pair p = stranger_make(&fd);
    uint8_t stream[1024], frame[64];
    size_t n = 0, got = 0;
    struct dr_link_hello hello = {.protocol = DR_PROTOCOL};
    struct dr_arena none = {0};
    memcpy(hello.token, token, sizeof token);
    CU_ASSERT_EQUAL(dr_encode_link_hello(&hello, 0, &none, stream, sizeof stream, &n).code, DR_OK);
    for (uint64_t k = 0; k < 5; k++) {
        size_t len = word(frame, DR_MSG_CANCEL, k << (9 * k));
        memcpy(stream + n, frame, len);
        n += len;
    }
    for (size_t i = 0; i < n; i++) {
        struct dr_frame f = {0};
        const uint8_t *body = NULL;
        uint64_t value = 0;
        raw_send(fd, stream + i, 1);
        CU_ASSERT_EQUAL(dr_link_recv(p.gateway, &f, &body).code, DR_OK);
        if (f.type == DR_MSG_NONE) continue;
        CU_ASSERT_EQUAL(f.type, DR_MSG_CANCEL);
        CU_ASSERT_EQUAL(dr_decode_word(body, f.bytes, &value).code, DR_OK);
        CU_ASSERT_EQUAL(value, (uint64_t)got << (9 * got));
        got++;
    }
    CU_ASSERT_EQUAL(got, 5);
    close(fd);
    expect_failure(p.gateway, DR_EPEER, "closed");
    pair_drop(&p);
}

/* First bytes that are no good hello. */
static void strangers(void) {
    struct dr_link_hello hello = {.protocol = DR_PROTOCOL};
    struct dr_arena none = {0};
    uint8_t frame[256];
    size_t n = 0;
    memcpy(hello.token, other, sizeof other); /* one bit differs */
    CU_ASSERT_EQUAL(dr_encode_link_hello(&hello, 0, &none, frame, sizeof frame, &n).code, DR_OK);
    int fd = -1;
    struct pair p = stranger_make(&fd);
    raw_send(fd, frame, n);
    expect_failure(p.gateway, DR_EPROTO, "token");
    pair_drop(&p);
    close(fd);

    memcpy(hello.token, token, sizeof token);
    hello.protocol = DR_PROTOCOL + 1;
    CU_ASSERT_EQUAL(dr_encode_link_hello(&hello, 0, &none, frame, sizeof frame, &n).code, DR_OK);
    p = stranger_make(&fd);
    raw_send(fd, frame, n);
    expect_failure(p.gateway, DR_EPROTO, "protocol 2, expected 1");
    pair_drop(&p);
    close(fd);

    p = stranger_make(&fd);
    raw_send(fd, frame, word(frame, DR_MSG_ALIVE, 0));
    expect_failure(p.gateway, DR_EPROTO, "first frame is ALIVE");
    pair_drop(&p);
    close(fd);

    p = stranger_make(&fd);
    n = word(frame, DR_MSG_LINK_HELLO, 0);
    raw_send(fd, frame, n);
    expect_failure(p.gateway, DR_EPROTO, "LinkHello");
    pair_drop(&p);
    close(fd);

    p = stranger_make(&fd);
    word(frame, DR_MSG_LINK_HELLO, 0);
    frame[17] = 1; /* a hello of more than 256 bytes: refused by its header */
    raw_send(fd, frame, DR_FRAME_HEADER);
    expect_failure(p.gateway, DR_EPROTO, "frame.bytes");
    pair_drop(&p);
    close(fd);

    p = stranger_make(&fd);
    raw_send(fd, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 35);
    expect_failure(p.gateway, DR_EPROTO, "frame.magic");
    pair_drop(&p);
    close(fd);

    p = stranger_make(&fd);
    close(fd);
    expect_failure(p.gateway, DR_EPEER, "closed");
    pair_drop(&p);
}

static void bad_frames(void) {
    static const struct {
        size_t at;
        uint8_t value;
        const char *says;
    } bad[] = {{0, 0, "frame.magic"},
               {4, 9, "frame.version"},
               {6, 0, "frame.type"},
               {20, 1, "frame.zero"},
               {19, 1, "frame.bytes"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pair p = pair_make();
        uint8_t frame[64];
        size_t n = word(frame, DR_MSG_ALIVE, 0);
        frame[bad[i].at] = bad[i].value;
        CU_ASSERT_EQUAL(dr_link_send(p.coordinator, frame, n).code, DR_OK);
        expect_failure(p.gateway, DR_EPROTO, bad[i].says);
        pair_drop(&p);
    }
}

static void ends(void) {
    uint8_t frame[64];
    size_t n = word(frame, DR_MSG_CANCEL, 1u << 30);
    for (size_t cut = 0; cut < n; cut++) { /* whole frames first, then an end at every byte of one */
        struct pair p = pair_make();
        CU_ASSERT_EQUAL(dr_link_send(p.coordinator, frame, n).code, DR_OK);
        if (cut > 0) raw_send(dr_link_fd(p.coordinator), frame, cut);
        dr_link_destroy(p.coordinator);
        p.coordinator = NULL;
        expect_word(p.gateway, DR_MSG_CANCEL, 1u << 30);
        expect_failure(p.gateway, DR_EPEER, cut > 0 ? "in the middle of a frame" : "closed it");
        CU_ASSERT_EQUAL(dr_link_send(p.gateway, frame, n).code, DR_EPEER);
        pair_drop(&p);
    }
}

/* Frames of the largest size pass a socket that takes a few hundred KiB at a time. */
static void largest(void) {
    struct pair p = pair_make();
    struct dr_frame f = {0};
    const uint8_t *body = NULL;
    uint8_t small[64];
    size_t n = word(small, DR_MSG_ALIVE, 5), flushes = 0;
    memcpy(big, small, DR_FRAME_HEADER);
    for (int i = 0; i < 4; i++) big[16 + i] = (uint8_t)(DR_LINK_FRAME_MAX >> (8 * i));
    for (size_t i = DR_FRAME_HEADER; i < sizeof big; i++) big[i] = (uint8_t)(i * 37 >> 5);
    CU_ASSERT_EQUAL(dr_link_send(p.coordinator, big, sizeof big).code, DR_OK);
    CU_ASSERT_EQUAL(dr_link_send(p.coordinator, small, n).code, DR_OK);
    CU_ASSERT_TRUE(dr_link_pending(p.coordinator));
    while (f.type == DR_MSG_NONE && flushes < 100000) {
        CU_ASSERT_EQUAL(dr_link_recv(p.gateway, &f, &body).code, DR_OK);
        CU_ASSERT_EQUAL(dr_link_flush(p.coordinator).code, DR_OK);
        flushes++;
    }
    CU_ASSERT(flushes > 1);
    CU_ASSERT_EQUAL(f.bytes, DR_LINK_FRAME_MAX);
    CU_ASSERT(body != NULL && memcmp(body, big + DR_FRAME_HEADER, DR_LINK_FRAME_MAX) == 0);
    CU_ASSERT_EQUAL(dr_link_flush(p.coordinator).code, DR_OK);
    expect_word(p.gateway, DR_MSG_ALIVE, 5);
    CU_ASSERT_FALSE(dr_link_pending(p.coordinator));
    pair_drop(&p);
}

static void queue_full(void) {
    struct pair p = pair_make();
    uint8_t small[64];
    dr_status st = dr_ok();
    int sent = 0;
    word(small, DR_MSG_ALIVE, 5);
    memcpy(big, small, DR_FRAME_HEADER);
    for (int i = 0; i < 4; i++) big[16 + i] = (uint8_t)(DR_LINK_FRAME_MAX >> (8 * i));
    for (; sent < 10 && st.code == DR_OK; sent++) st = dr_link_send(p.gateway, big, sizeof big);
    CU_ASSERT_EQUAL(st.code, DR_EFULL);
    CU_ASSERT_EQUAL(sent, 5); /* 64 MiB wait; what the socket took is not counted */
    pair_drop(&p);
}

enum { SENDERS = 4, EACH = 500 };

static void *sender(void *arg) {
    struct dr_link *l = arg;
    uint8_t frame[64];
    size_t bytes = 0;
    for (uint64_t k = 0; k < EACH; k++) {
        if (dr_encode_word(DR_MSG_CANCEL, SAMPLE_EPOCH, k, frame, sizeof frame, &bytes).code != DR_OK)
            return arg;
        if (dr_link_send(l, frame, bytes).code != DR_OK) return arg;
    }
    return NULL;
}

static void many_senders(void) {
    struct pair p = pair_make();
    pthread_t thread[SENDERS];
    uint64_t sum = 0, got = 0, patience = dr_clock_ns() + 30000000000u;
    for (int i = 0; i < SENDERS; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&thread[i], NULL, sender, p.gateway), 0);
    while (got < SENDERS * EACH && dr_clock_ns() < patience) {
        struct dr_frame f = {0};
        const uint8_t *body = NULL;
        uint64_t value = 0;
        CU_ASSERT_EQUAL_FATAL(dr_link_recv(p.coordinator, &f, &body).code, DR_OK);
        CU_ASSERT_EQUAL(dr_link_flush(p.gateway).code, DR_OK);
        if (f.type == DR_MSG_NONE) continue;
        CU_ASSERT_EQUAL(dr_decode_word(body, f.bytes, &value).code, DR_OK);
        sum += value;
        got++;
    }
    for (int i = 0; i < SENDERS; i++) {
        void *bad = p.gateway;
        pthread_join(thread[i], &bad);
        CU_ASSERT_PTR_NULL(bad);
    }
    CU_ASSERT_EQUAL(got, SENDERS * EACH);
    CU_ASSERT_EQUAL(sum, SENDERS * (EACH * (EACH - 1) / 2));
    pair_drop(&p);
}

static void other_user(void) { /* needs the right to become another user */
    struct dr_listener *l = NULL;
    struct dr_link *link = NULL;
    if (geteuid() != 0) return;
    CU_ASSERT_EQUAL(dr_listener_create(path, &l).code, DR_OK);
    int fd = raw_client(); /* connects as root; then the listener's process is someone else */
    CU_ASSERT_EQUAL(seteuid(65534), 0);
    dr_status st = dr_listener_accept(l, token, &link);
    CU_ASSERT_EQUAL(seteuid(0), 0);
    CU_ASSERT_EQUAL(st.code, DR_EPROTO);
    CU_ASSERT(strstr(dr_error_text(), "user 0 connected, expected user 65534") != NULL);
    CU_ASSERT_PTR_NULL(link);
    close(fd);
    dr_listener_destroy(l);
}

static CU_TestInfo cases[] = {
    {"frames pass both ways after the hello, which is kept", both_ways},
    {"nobody there is EPEER for the one, nothing for the other", nobody},
    {"a socket path that cannot be is EIO", bad_paths},
    {"frames delivered byte by byte arrive whole", byte_by_byte},
    {"a peer without the token, the protocol or a hello is refused", strangers},
    {"a process of another user is refused", other_user},
    {"a bad frame is refused by the name of its field", bad_frames},
    {"the end of the stream is EPEER after the last whole frame, at any byte", ends},
    {"the largest frame passes in pieces", largest},
    {"more than 64 MiB waiting is EFULL", queue_full},
    {"frames of several sending threads do not mix", many_senders},
    CU_TEST_INFO_NULL,
};

CU_SuiteInfo suite_link = {
    .pName = "proto/link", .pInitFunc = set_up, .pCleanupFunc = tear_down, .pTests = cases};
