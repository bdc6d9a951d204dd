/* bpe.c - see bpe.h.
 * In:   merges, pieces.      Out: ids.
 * Owns: the hash of merges; the caller's scratch while a call runs.
 * Why:  merging order is the tokenizer: lowest rank first, leftmost on ties, one pair at a time. */
#include "gateway/text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "common/size.h"

#define NO_PAIR UINT64_MAX
enum { NONE = -1 };

struct dr_bpe_symbol {
    uint32_t id; /* DR_NO_ID: joined into its left neighbour */
    int32_t prev, next;
};

static uint64_t pair_of(uint32_t left, uint32_t right) {
    return (uint64_t)left << 32 | right;
}

static size_t hash_of(uint64_t pair) { /* the finaliser of MurmurHash3 */
    pair = (pair ^ pair >> 33) * 0xFF51AFD7ED558CCDu;
    pair = (pair ^ pair >> 33) * 0xC4CEB9FE1A85EC53u;
    return (size_t)(pair ^ pair >> 33);
}

/* The merge of this pair, or NULL. */
static const struct dr_bpe_merge *find(const struct dr_bpe *b, uint32_t left, uint32_t right) {
    uint64_t pair = pair_of(left, right);
    for (size_t i = hash_of(pair) & b->slot_mask; b->slot[i].pair != NO_PAIR; i = (i + 1) & b->slot_mask)
        if (b->slot[i].pair == pair) return &b->slot[i];
    return NULL;
}

static void put(struct dr_bpe *b, struct dr_bpe_merge merge) {
    size_t i = hash_of(merge.pair) & b->slot_mask;
    while (b->slot[i].pair != NO_PAIR && b->slot[i].pair != merge.pair) i = (i + 1) & b->slot_mask;
    b->slot[i] = merge;
}

/* A merge of the file as its two texts. */
struct halves {
    const char *text[2];
    size_t bytes[2];
};

static dr_status read_halves(const json_t *merge, size_t i, struct halves *h) {
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' '))
            return dr_fail(DR_EINVAL, "model.merges[%zu]: expected two tokens with one space between", i);
        h->text[0] = text;
        h->bytes[0] = (size_t)(space - text);
        h->text[1] = space + 1;
        h->bytes[1] = json_string_length(merge) - h->bytes[0] - 1;
        return dr_ok();
    }
    if (!json_is_array(merge) || json_array_size(merge) != 2 || !json_is_string(json_array_get(merge, 0)) ||
        !json_is_string(json_array_get(merge, 1)))
        return dr_fail(DR_EINVAL, "model.merges[%zu]: expected \"A B\" or [\"A\", \"B\"]", i);
    for (size_t k = 0; k < 2; k++) {
        h->text[k] = json_string_value(json_array_get(merge, k));
        h->bytes[k] = json_string_length(json_array_get(merge, k));
    }
    return dr_ok();
}

static dr_status read_merge(const json_t *vocab, const json_t *merge, size_t i, struct dr_bpe_merge *out) {
    struct halves h = {.text = {NULL, NULL}};
    DR_TRY(read_halves(merge, i, &h));
    const json_t *id[3] = {NULL, NULL, NULL};
    char joined[2 * DR_VOCAB_TOKEN_BYTES_MAX];
    for (size_t k = 0; k < 2; k++) {
        id[k] = json_object_getn(vocab, h.text[k], h.bytes[k]);
        if (!id[k])
            return dr_fail(DR_EINVAL, "model.merges[%zu]: its %s part is not in model.vocab", i,
                           k ? "right" : "left");
        memcpy(joined + (k ? h.bytes[0] : 0), h.text[k],
               h.bytes[k]); /* tokens of the vocabulary are short enough */
    }
    id[2] = json_object_getn(vocab, joined, h.bytes[0] + h.bytes[1]);
    if (!id[2]) return dr_fail(DR_EINVAL, "model.merges[%zu]: its result is not in model.vocab", i);
    *out = (struct dr_bpe_merge){
        .pair = pair_of((uint32_t)json_integer_value(id[0]), (uint32_t)json_integer_value(id[1])),
        .rank = (uint32_t)i,
        .id = (uint32_t)json_integer_value(id[2]),
    };
    return dr_ok();
}

static dr_status read_merges(struct dr_bpe *b, const json_t *vocab, json_t *merges) {
    size_t i;
    json_t *merge;
    json_array_foreach(merges, i, merge) {
        struct dr_bpe_merge m;
        DR_TRY(read_merge(vocab, merge, i, &m));
        put(b, m);
    }
    return dr_ok();
}

dr_status dr_bpe_init(struct dr_bpe *b, const struct dr_vocab *vocab, const json_t *vocab_json,
                      json_t *merges, bool ignore_merges) {
    DR_ASSERT(!ignore_merges || vocab->slot);
    if (!json_is_array(merges)) return dr_fail(DR_EINVAL, "model.merges: expected an array");
    size_t n = json_array_size(merges), room = 16;
    if (n > DR_BPE_MERGES_MAX)
        return dr_fail(DR_EINVAL, "model.merges: %zu merges, at most %d are accepted", n, DR_BPE_MERGES_MAX);
    while (room < 2 * n) room *= 2;
    struct dr_bpe fresh = {.vocab = vocab, .slot_mask = room - 1, .ignore_merges = ignore_merges};
    fresh.slot = malloc(room * sizeof *fresh.slot);
    if (!fresh.slot) return dr_fail(DR_EFULL, "no memory for %zu merges", n);
    for (size_t i = 0; i < room; i++) fresh.slot[i].pair = NO_PAIR;
    dr_status st = read_merges(&fresh, vocab_json, merges);
    if (st.code != DR_OK) {
        dr_bpe_fini(&fresh);
        return st;
    }
    *b = fresh;
    return st;
}

void dr_bpe_fini(struct dr_bpe *b) {
    free(b->slot);
    *b = (struct dr_bpe){0};
}

void dr_bpe_scratch_fini(struct dr_bpe_scratch *scratch) {
    free(scratch->symbol);
    free(scratch->heap);
    *scratch = (struct dr_bpe_scratch){0};
}

static dr_status scratch_reserve(struct dr_bpe_scratch *s, size_t n) {
    if (n <= s->room) return dr_ok();
    size_t room = dr_size_align(n, 256);
    dr_bpe_scratch_fini(s);
    s->symbol = malloc(room * sizeof *s->symbol);
    s->heap = malloc(3 * room * sizeof *s->heap);
    if (!s->symbol || !s->heap) {
        dr_bpe_scratch_fini(s);
        return dr_fail(DR_EFULL, "no memory to merge a piece of %zu bytes", n);
    }
    s->room = room;
    return dr_ok();
}

/* A heap of rank << 32 | position, smallest first: of equal ranks the leftmost comes out. At most n - 1 first
 * pairs and two more a merge, of which there are at most n - 1: 3n entries are enough. */
static void heap_push(uint64_t *heap, size_t *n, uint64_t key) {
    size_t i = (*n)++;
    while (i > 0 && heap[(i - 1) / 2] > key) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n) {
    uint64_t top = heap[0], last = heap[--*n];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < *n) {
        if (child + 1 < *n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= last) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static void offer(const struct dr_bpe *b, struct dr_bpe_scratch *s, size_t *n_heap, int32_t left) {
    if (left == NONE || s->symbol[left].next == NONE) return;
    const struct dr_bpe_merge *m = find(b, s->symbol[left].id, s->symbol[s->symbol[left].next].id);
    if (m) heap_push(s->heap, n_heap, (uint64_t)m->rank << 32 | (uint32_t)left);
}

static void merge_all(const struct dr_bpe *b, struct dr_bpe_scratch *s, size_t n) {
    size_t n_heap = 0;
    for (size_t i = 0; i + 1 < n; i++) offer(b, s, &n_heap, (int32_t)i);
    while (n_heap > 0) {
        uint64_t key = heap_pop(s->heap, &n_heap);
        struct dr_bpe_symbol *left = &s->symbol[(uint32_t)key];
        if (left->id == DR_NO_ID || left->next == NONE) continue;
        struct dr_bpe_symbol *right = &s->symbol[left->next];
        const struct dr_bpe_merge *m = find(b, left->id, right->id);
        if (!m || m->rank != key >> 32)
            continue; /* one of the two has grown since: a newer entry stands for it */
        left->id = m->id;
        right->id = DR_NO_ID;
        left->next = right->next;
        if (right->next != NONE) s->symbol[right->next].prev = (int32_t)(uint32_t)key;
        offer(b, s, &n_heap, left->prev);
        offer(b, s, &n_heap, (int32_t)(uint32_t)key);
    }
}

dr_status dr_bpe_encode(const struct dr_bpe *b, struct dr_bpe_scratch *scratch, const uint8_t *piece,
                        size_t n, struct dr_ids *out) {
    if (n == 0) return dr_ok();
    DR_ASSERT(n <= (size_t)1 << 24);
    if (b->ignore_merges) {
        uint32_t id = dr_vocab_find(b->vocab, piece, n);
        if (id != DR_NO_ID) return dr_ids_push(out, id);
    }
    DR_TRY(scratch_reserve(scratch, n));
    for (size_t i = 0; i < n; i++) {
        uint32_t id = b->vocab->byte_id[piece[i]];
        DR_ASSERT(id != DR_NO_ID); /* absent only for bytes that valid UTF-8 never has */
        scratch->symbol[i] = (struct dr_bpe_symbol){
            .id = id, .prev = (int32_t)i - 1, .next = i + 1 < n ? (int32_t)i + 1 : NONE};
    }
    merge_all(b, scratch, n);
    for (int32_t i = 0; i != NONE; i = scratch->symbol[i].next)
        DR_TRY(dr_ids_push(out, scratch->symbol[i].id));
    return dr_ok();
}
