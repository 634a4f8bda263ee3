/* From what a run is given to the keys that are evaluated: templates, tokens, embeddings, pictures. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_key(struct keys *keys, sim_key key) {
    if ((keys->n & (keys->n - 1)) == 0)
        keys->at = sim_grow(keys->at, (keys->n ? 2 * keys->n : 1) * sizeof *keys->at);
    keys->at[keys->n++] = key;
}

static bool add_tokens(struct handle *h, struct request *q, const char *text, size_t len) {
    struct ids ids = {0};
    unsigned char bad = 0;
    bool good = vocab_tokenize(&h->model->vocab, text, len, &ids, &bad);
    for (size_t i = 0; good && i < ids.n; i++)
        add_key(&q->keys, (sim_key)ids.at[i]);
    free(ids.at);
    if (!good)
        say('E', "the vocabulary has no token for the byte 0x%02x of the prompt", bad);
    return good;
}

static void add_rows(struct handle *h, struct request *q, const float *rows, size_t n) {
    size_t width = (size_t)h->model->embd;
    for (size_t row = 0; row < n; row++) {
        uint64_t hash = 0;
        for (size_t i = 0; i < width; i++) {
            uint32_t bits;
            memcpy(&bits, rows + row * width + i, sizeof bits);
            hash = (hash ^ bits) * UINT64_C(0x9e3779b97f4a7c15);
            hash ^= hash >> 29;
        }
        add_key(&q->keys, sim_mix(hash) | EMBED_KEY);
    }
    q->has_embed = true;
}

/* --- the template --- */

static bool starts_conversation(const struct handle *h, const struct request *q) {
    return !q->keep_history || h->cache.n == 0;
}

static void add_system(const struct handle *h, struct buf *out) {
    if (h->own_template) {
        buf_text(out, h->system);
    } else if (h->tools) {
        /* The tools' system prompt takes the place of the template's. */
        buf_format(out, "%s\n%s\n", h->system, h->tools);
    } else if (h->model->system) {
        buf_text(out, h->model->system);
    }
}

/* Everything but the system prompt. */
static void add_turn(const struct handle *h, const struct request *q, struct buf *out) {
    const char *prefix = h->own_template ? h->prefix : h->model->prefix;
    const char *postfix = h->own_template ? h->postfix : h->model->postfix;
    bool answers_tool = q->role && strcmp(q->role, "tool") == 0 && h->tools && !h->own_template;
    if (prefix)
        buf_text(out, prefix);
    if (answers_tool)
        buf_format(out, "<%s>\n%s\n</%s>", h->tool_response, q->text, h->tool_response);
    else
        buf_text(out, q->text);
    if (postfix)
        buf_text(out, postfix);
}

static bool begin_text(struct handle *h, struct request *q, struct buf *turn) {
    struct buf system = {0};
    buf_add(&system, "", 0);
    if (starts_conversation(h, q))
        add_system(h, &system);
    bool good = add_tokens(h, q, system.data, system.len);
    q->n_system = q->keys.n;
    add_turn(h, q, turn);
    buf_text(&system, turn->data);
    q->decoded = system.data;
    return good;
}

bool prompt_from_text(struct handle *h, struct request *q) {
    struct buf turn = {0};
    bool good = begin_text(h, q, &turn) && add_tokens(h, q, turn.data, turn.len);
    buf_free(&turn);
    return good;
}

bool prompt_from_ids(struct handle *h, struct request *q, const int32_t *ids, size_t n) {
    struct buf decoded = {0};
    buf_add(&decoded, "", 0);
    bool good = true;
    for (size_t i = 0; good && i < n; i++) {
        good = ids[i] >= 0;
        add_key(&q->keys, (sim_key)(uint32_t)ids[i]);
        vocab_text(&h->model->vocab, ids[i], &decoded);
        if (!good)
            say('E', "token %zu of the input is %d", i, ids[i]);
    }
    for (size_t i = 0; i < decoded.len; i++)
        if (decoded.data[i] == '\0') /* it is searched as a C string */
            decoded.data[i] = ' ';
    q->decoded = decoded.data;
    return good;
}

bool prompt_from_rows(struct handle *h, struct request *q, const float *rows, size_t n) {
    q->decoded = sim_copy_text("");
    add_rows(h, q, rows, n);
    return true;
}

/* --- pictures --- */

static size_t places_of(const struct media *m, const char *text) {
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, m->placeholder)) != NULL; at++)
        n++;
    return n;
}

static bool media_fit(const struct media *m, const char *text, size_t places) {
    if (m->rows == NULL && places == 0)
        return true;
    if (m->rows == NULL || m->tokens == 0 || m->count == 0)
        say('E', "the prompt has %s, but embedding, number of tokens or count is not set", m->placeholder);
    else if (places == 0)
        say('E', "the prompt has to contain %s: %s", m->placeholder, text);
    else if (places > m->count)
        say('E', "the prompt has %zu times %s, the input %zu embeddings", places, m->placeholder, m->count);
    else
        return true;
    return false;
}

/* The placeholder that comes first in the text; NULL if none does. */
static const char *first_place(const char *text, const struct media *media, size_t n_media, size_t *which) {
    const char *first = NULL;
    for (size_t i = 0; i < n_media; i++) {
        const char *found = media[i].rows ? strstr(text, media[i].placeholder) : NULL;
        if (found && (first == NULL || found < first)) {
            first = found;
            *which = i;
        }
    }
    return first;
}

static bool add_media(struct handle *h, struct request *q, const char *text, const struct media *media, size_t n_media,
                      size_t *left) {
    size_t done[4] = {0}, which = 0;
    const char *place;
    while ((place = first_place(text, media, n_media, &which)) != NULL) {
        const struct media *m = &media[which];
        /* The last placeholder takes all that are left: the frames of a video follow each other. */
        size_t n = --left[which] ? 1 : m->count - done[which];
        if (!add_tokens(h, q, text, (size_t)(place - text)) || !add_tokens(h, q, m->start, strlen(m->start)))
            return false;
        add_rows(h, q, m->rows + done[which] * m->tokens * (size_t)h->model->embd, n * m->tokens);
        if (!add_tokens(h, q, m->end, strlen(m->end)))
            return false;
        done[which] += n;
        text = place + strlen(m->placeholder);
    }
    return add_tokens(h, q, text, strlen(text));
}

bool prompt_from_media(struct handle *h, struct request *q, const struct media *media, size_t n_media) {
    struct buf turn = {0};
    size_t left[4] = {0}, rows = 0;
    bool good = begin_text(h, q, &turn);
    for (size_t i = 0; good && i < n_media; i++) {
        left[i] = places_of(&media[i], turn.data);
        good = media_fit(&media[i], turn.data, left[i]);
        rows += media[i].rows != NULL;
    }
    if (good && rows == 0) {
        say('E', "a multimodal input needs an embedding");
        good = false;
    }
    good = good && add_media(h, q, turn.data, media, n_media, left);
    buf_free(&turn);
    return good;
}

void request_free(struct request *q) {
    free(q->text);
    free(q->role);
    free(q->keys.at);
    free(q->decoded);
    free(q->lora);
    free(q->cache_path);
    free(q);
}
