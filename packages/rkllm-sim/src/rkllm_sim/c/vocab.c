/* The vocabulary: ids to bytes, and text to ids by the greedy longest match. */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_step(uint64_t hash, unsigned char byte) {
    return (hash ^ byte) * UINT64_C(0x100000001b3);
}

#define HASH_START UINT64_C(0xcbf29ce484222325)

static uint32_t *slot_of(const struct vocab *v, uint64_t hash, const unsigned char *text, uint32_t len) {
    for (uint64_t i = hash ^ hash >> 32;; i++) {
        uint32_t *slot = &v->table[i & (v->slots - 1)];
        if (*slot == 0)
            return slot;
        uint32_t id = *slot - 1;
        if (v->start[id + 1] - v->start[id] == len && memcmp(v->bytes + v->start[id], text, len) == 0)
            return slot;
    }
}

void vocab_index(struct vocab *v) {
    for (v->slots = 16; v->slots < 2 * v->n; v->slots *= 2) {
    }
    v->table = sim_alloc(v->slots * sizeof *v->table);
    for (uint32_t id = 0; id < v->n; id++) {
        const unsigned char *text = v->bytes + v->start[id];
        uint32_t len = v->start[id + 1] - v->start[id];
        if (len == 0)
            continue;
        uint64_t hash = HASH_START;
        for (uint32_t i = 0; i < len; i++)
            hash = hash_step(hash, text[i]);
        uint32_t *slot = slot_of(v, hash, text, len);
        if (*slot == 0) /* of two ids with the same text the first one is used */
            *slot = id + 1;
        if (v->longest[text[0]] < len)
            v->longest[text[0]] = len;
    }
}

void vocab_free(struct vocab *v) {
    free(v->bytes);
    free(v->start);
    free(v->table);
}

void vocab_text(const struct vocab *v, int32_t id, struct buf *out) {
    if (id >= 0 && (uint32_t)id < v->n && v->start[id] < v->start[id + 1])
        buf_add(out, v->bytes + v->start[id], v->start[id + 1] - v->start[id]);
    else
        buf_format(out, "[PAD%d]", id);
}

int32_t vocab_byte(const struct vocab *v, unsigned char byte, int32_t otherwise) {
    uint32_t slot = *slot_of(v, hash_step(HASH_START, byte), &byte, 1);
    return slot ? (int32_t)slot - 1 : otherwise;
}

bool vocab_tokenize(const struct vocab *v, const char *text, size_t len, struct ids *out, unsigned char *bad) {
    const unsigned char *u = (const unsigned char *)text;
    for (size_t at = 0; at < len;) {
        uint64_t hash = HASH_START;
        uint32_t best = 0, best_len = 0, longest = v->longest[u[at]];
        for (uint32_t n = 1; n <= longest && at + n <= len; n++) {
            hash = hash_step(hash, u[at + n - 1]);
            uint32_t slot = *slot_of(v, hash, u + at, n);
            if (slot) {
                best = slot;
                best_len = n;
            }
        }
        if (best == 0) {
            *bad = u[at];
            return false;
        }
        ids_add(out, (int32_t)best - 1);
        at += best_len;
    }
    return true;
}
