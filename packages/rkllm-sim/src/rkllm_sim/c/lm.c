/* The language models `hash` and `script`; `llama` is in llama.c. */
#include "sim.h"

#include <limits.h>
#include <string.h>

/* Told apart, so that the word and the length of the answer do not depend on each other. */
#define WORD_SALT UINT64_C(0x776f7264)
#define LENGTH_SALT UINT64_C(0x6c656e67746800)

int32_t hash_next(const struct model *m, uint64_t state) {
    int32_t count = m->words_count > 0 ? m->words_count : 1;
    return m->words_first + (int32_t)(sim_mix(state ^ WORD_SALT) % (uint64_t)count);
}

static void hash_begin(struct run *r) {
    const struct model *m = r->h->model;
    uint64_t span = (uint64_t)(m->answer_max - m->answer_min) + 1;
    r->answer = m->answer_min + (long)(sim_mix(r->h->cache.states[r->h->cache.n] ^ LENGTH_SALT) % span);
}

static void hash_word(struct run *r, struct piece *out) {
    const struct model *m = r->h->model;
    out->kind = PIECE_TOKEN;
    if (r->produced <= r->answer) {
        out->id = hash_next(m, r->h->cache.states[r->h->cache.n]);
    } else {
        out->id = m->eos.n ? m->eos.at[0] : -1;
        if (out->id < 0 || !r->h->settings.ignore_eos)
            out->kind = PIECE_EOS;
        r->answer = LONG_MAX;
    }
    if (out->kind == PIECE_TOKEN)
        vocab_text(&m->vocab, out->id, &out->text);
}

/* --- script --- */

static void script_begin(struct run *r) {
    const struct script *s = &r->h->model->script;
    r->blocks[0] = &s->at[0];
    for (size_t i = 1; i < s->n && r->blocks[1] == NULL; i++)
        if (s->at[i].when == NULL || strstr(r->q->decoded, s->at[i].when))
            r->blocks[1] = &s->at[i];
}

static void next_item(struct run *r) {
    r->item++;
    r->at = 0;
    r->round = 0;
}

/* The next token of a list that is played several times. False once it is over. */
static bool play_ids(struct run *r, const struct script_item *item, struct piece *out) {
    if (item->ids.n == 0 || (item->count >= 0 && r->round >= item->count))
        return false;
    out->kind = PIECE_TOKEN;
    out->id = item->ids.at[r->at++];
    vocab_text(&r->h->model->vocab, out->id, &out->text);
    if (r->at == item->ids.n) {
        r->at = 0;
        r->round++;
    }
    return true;
}

static bool play_bytes(struct run *r, const struct script_item *item, struct piece *out) {
    if (r->at == item->n_bytes)
        return false;
    unsigned char byte = item->bytes[r->at++];
    out->kind = PIECE_TOKEN;
    out->id = vocab_byte(&r->h->model->vocab, byte, 0);
    buf_add(&out->text, &byte, 1);
    return true;
}

static bool play_item(struct run *r, const struct script_item *item, struct piece *out) {
    if (item->kind == SCRIPT_IDS)
        return play_ids(r, item, out);
    if (item->kind == SCRIPT_BYTES)
        return play_bytes(r, item, out);
    if (r->at++)
        return false;
    out->id = 0;
    out->ms = item->ms;
    out->kind = item->kind == SCRIPT_NULL ? PIECE_NULL : item->kind == SCRIPT_ERROR ? PIECE_ERROR : PIECE_WAIT;
    return true;
}

static void script_piece(struct run *r, struct piece *out) {
    for (; r->block < 2; r->block++, r->item = 0) {
        const struct script_block *block = r->blocks[r->block];
        for (; block && r->item < block->n; next_item(r))
            if (play_item(r, &block->at[r->item], out))
                return;
    }
    out->kind = PIECE_EOS;
    out->id = r->h->model->eos.n ? r->h->model->eos.at[0] : -1;
}

/* --- all of them --- */

void lm_begin(struct run *r) {
    enum lm_kind kind = r->h->model->lm;
    if (kind == LM_HASH)
        hash_begin(r);
    else if (kind == LM_SCRIPT)
        script_begin(r);
    else
        llama_begin(r);
}

void lm_next(struct run *r, struct piece *out) {
    enum lm_kind kind = r->h->model->lm;
    r->produced++;
    if (kind == LM_HASH)
        hash_word(r, out);
    else if (kind == LM_SCRIPT)
        script_piece(r, out);
    else
        llama_next(r, out);
}

void lm_end(struct run *r) {
    if (r->h->model->lm == LM_LLAMA)
        llama_end(r);
}
