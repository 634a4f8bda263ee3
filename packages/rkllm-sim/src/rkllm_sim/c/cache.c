/* The key-value cache as a list of keys, with the hash of everything up to each position; prompt cache files. */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t sim_mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t next_state(uint64_t state, sim_key key, size_t position) {
    return sim_mix(state ^ sim_mix(key + ((uint64_t)position << 32)));
}

void cache_start(struct cache *c, uint64_t seed) {
    *c = (struct cache){.room = 256};
    c->keys = sim_alloc(c->room * sizeof *c->keys);
    c->states = sim_alloc((c->room + 1) * sizeof *c->states);
    c->states[0] = sim_mix(seed);
}

void cache_free(struct cache *c) {
    free(c->keys);
    free(c->states);
    *c = (struct cache){0};
}

void cache_truncate(struct cache *c, size_t n) {
    if (n < c->n)
        c->n = n;
}

void cache_push(struct cache *c, sim_key key) {
    if (c->n == c->room) {
        c->room *= 2;
        c->keys = sim_grow(c->keys, c->room * sizeof *c->keys);
        c->states = sim_grow(c->states, (c->room + 1) * sizeof *c->states);
    }
    c->keys[c->n] = key;
    c->states[c->n + 1] = next_state(c->states[c->n], key, c->n);
    c->n++;
}

void cache_remove(struct cache *c, size_t from, size_t to) {
    memmove(c->keys + from, c->keys + to, (c->n - to) * sizeof *c->keys);
    c->n -= to - from;
    for (size_t i = from; i < c->n; i++)
        c->states[i + 1] = next_state(c->states[i], c->keys[i], i);
}

size_t cache_common(const sim_key *a, size_t n_a, const sim_key *b, size_t n_b) {
    size_t n = 0;
    while (n < n_a && n < n_b && a[n] == b[n])
        n++;
    return n;
}

uint64_t model_fingerprint(const struct model *m) {
    const uint64_t parts[] = {m->lm, m->seed, m->vocab.n, (uint64_t)m->embd, (uint64_t)m->words_first};
    uint64_t hash = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        hash = sim_mix(hash ^ parts[i]);
    return hash;
}

static const char first_line[] = "rkllm-sim prompt cache 1\n";

bool prompt_cache_save(const char *path, uint64_t fingerprint, const struct keys *keys) {
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return false;
    fprintf(file, "%smodel %016" PRIx64 "\npositions %zu\n", first_line, fingerprint, keys->n);
    for (size_t i = 0; i < keys->n; i++)
        fprintf(file, "%" PRIx64 "\n", keys->at[i]);
    bool good = !ferror(file);
    return fclose(file) == 0 && good;
}

bool prompt_cache_load(const char *path, uint64_t fingerprint, struct keys *out, struct buf *why) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        buf_format(why, "prompt cache file %s is missing", path);
        return false;
    }
    char line[sizeof first_line] = "";
    uint64_t made_by = 0;
    size_t n = 0;
    *out = (struct keys){0};
    if (fgets(line, sizeof line, file) == NULL) {
        buf_format(why, "prompt cache file %s is empty", path);
    } else if (strcmp(line, first_line) != 0 || fscanf(file, "model %" SCNx64 " positions %zu", &made_by, &n) != 2) {
        buf_format(why, "%s is not a prompt cache file", path);
    } else if (made_by != fingerprint) {
        buf_format(why, "prompt cache file %s was made with another model", path);
    } else {
        while (out->n < n) {
            if ((out->n & (out->n - 1)) == 0)
                out->at = sim_grow(out->at, (out->n ? 2 * out->n : 1) * sizeof *out->at);
            if (fscanf(file, "%" SCNx64, &out->at[out->n]) != 1)
                break;
            out->n++;
        }
        if (out->n < n || n == 0)
            buf_format(why, "prompt cache file %s ends too early", path);
    }
    fclose(file);
    if (why->len) {
        free(out->at);
        *out = (struct keys){0};
    }
    return why->len == 0;
}
