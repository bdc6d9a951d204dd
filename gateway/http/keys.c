/* keys.c - reads and compares API keys.
 * In:   a file, headers.      Out: an index.
 * Owns: nothing.
 * Why:  see keys.h. */
#include "gateway/http/keys.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static dr_status add(struct dr_keys *k, char *line, const char *path) {
    line += strspn(line, " \t");
    size_t n = strcspn(line, "\r\n");
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t')) n--;
    if (n == 0 || line[0] == '#') return dr_ok();
    if (n > DR_KEY_BYTES_MAX)
        return dr_fail(DR_EUSAGE, "%s: a key of more than %d bytes", path, DR_KEY_BYTES_MAX);
    if (k->n == DR_KEYS_MAX) return dr_fail(DR_EUSAGE, "%s: more than %d keys", path, DR_KEYS_MAX);
    SHA256((const uint8_t *)line, n, k->hash[k->n++]);
    return dr_ok();
}

dr_status dr_keys_read(const char *path, struct dr_keys *out) {
    FILE *f = fopen(path, "re");
    if (!f)
        return dr_fail(errno == ENOENT ? DR_ENOENT : DR_EIO, "--api-key-file %s: cannot be opened: %s", path,
                       strerror(errno));
    struct dr_keys keys = {0};
    char line[2 * DR_KEY_BYTES_MAX];
    dr_status st = dr_ok();
    while (st.code == DR_OK && fgets(line, sizeof line, f)) {
        if (!strchr(line, '\n') && !feof(f))
            st = dr_fail(DR_EUSAGE, "%s: a line of more than %zu bytes", path, sizeof line - 2);
        else
            st = add(&keys, line, path);
    }
    if (st.code == DR_OK && ferror(f)) st = dr_fail(DR_EIO, "--api-key-file %s: cannot be read", path);
    if (st.code == DR_OK && keys.n == 0)
        st = dr_fail(DR_EUSAGE, "--api-key-file %s: it holds no key; expected one a line", path);
    fclose(f);
    OPENSSL_cleanse(line, sizeof line);
    if (st.code == DR_OK) *out = keys;
    return st;
}

static int32_t find(const struct dr_keys *k, const char *key) {
    uint8_t hash[DR_KEY_HASH_BYTES];
    int32_t found = -1;
    SHA256((const uint8_t *)key, strlen(key), hash);
    for (int32_t i = 0; i < k->n; i++)
        if (CRYPTO_memcmp(hash, k->hash[i], sizeof hash) == 0) found = i;
    return found;
}

int32_t dr_keys_find(const struct dr_keys *k, const char *authorization, const char *api_key) {
    int32_t found = -1;
    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0) {
        const char *key = authorization + 7;
        found = find(k, key + strspn(key, " "));
    }
    if (found < 0 && api_key) found = find(k, api_key);
    return found;
}

void dr_keys_tenant(const struct dr_keys *k, int32_t key, const char *salt, char out[33]) {
    uint8_t text[DR_KEY_HASH_BYTES + 256] = {0}, hash[DR_KEY_HASH_BYTES];
    size_t n = strnlen(salt, 256);
    if (key >= 0) memcpy(text, k->hash[key], DR_KEY_HASH_BYTES);
    memcpy(text + DR_KEY_HASH_BYTES, salt, n);
    SHA256(text, DR_KEY_HASH_BYTES + n, hash);
    for (int i = 0; i < 16; i++) snprintf(out + 2 * i, 3, "%02x", hash[i]);
}
