/* keys.h - who may ask.
 * In:   a file of keys, one a line; the headers of a request.      Out: yes and which, or no.
 * Owns: SHA-256 of each key; the keys themselves are forgotten after reading.
 * Why:  comparing hashes in constant time tells an attacker nothing by its duration. */
#pragma once

#include "common/status.h"

enum { DR_KEYS_MAX = 256, DR_KEY_BYTES_MAX = 512, DR_KEY_HASH_BYTES = 32 };

struct dr_keys {
    int32_t n; /* 0: everyone may ask */
    uint8_t hash[DR_KEYS_MAX][DR_KEY_HASH_BYTES];
};

#ifdef __cplusplus
extern "C" {
#endif

/* Empty lines and lines that begin with # are skipped; blanks around a key are not part of it.
 * Fails: ENOENT, EIO; EUSAGE for no key at all, too many or too long ones. Texts never quote the file. */
DR_FALLIBLE dr_keys_read(const char *path, struct dr_keys *out);

/* Index of the key that authorization ("Bearer KEY") or api_key (KEY) names; either may be NULL. -1: none.
 * Compares with all keys whatever it finds. */
int32_t dr_keys_find(const struct dr_keys *k, const char *authorization, const char *api_key);

/* 32 hex digits that stand for (key, salt): with a request's salt the unit of cache sharing, with "" the unit
 * of fairness. key -1: no key. */
void dr_keys_tenant(const struct dr_keys *k, int32_t key, const char *salt, char out[33]);

#ifdef __cplusplus
}
#endif
