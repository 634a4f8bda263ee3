/* One inference: prefill, tokens, callbacks, the end. */
#define _GNU_SOURCE
#include "sim.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum end { END_EOS, END_CAP, END_ABORTED, END_ERROR, END_PAUSED, END_CONTEXT };

static const char *const end_names[] = {"eos", "cap", "aborted", "error", "paused", "context"};

struct course {
    struct run run;
    double entered, prefilled_at, first, due; /* due: when the next token comes, by the pace */
    double prefill_ms, decode_ms;
    size_t reused, prefilled;
    long generated;
    bool shifted;
    bool pending; /* the last token has not been evaluated */
    int32_t last;
    struct buf text;  /* bytes that are not a whole character yet */
    struct buf split; /* the rest of a piece that is delivered byte by byte */
    size_t split_at;
    int32_t split_id;
};

static int emit(struct course *c, const struct result *result) {
    return abi_emit(c->run.h, c->run.q->userdata, result);
}

static void cache_changed(struct handle *h) {
    atomic_store(&h->cache_n, (int)h->cache.n);
}

/* --- faults and aborts --- */

static void crash_at(const struct faults *f, long token) {
    if (f->segv_at == token)
        raise(SIGSEGV);
    if (f->kill_at == token)
        kill(getpid(), SIGKILL);
    if (f->exit_at == token)
        _exit(1);
    while (f->hang_at == token)
        pause();
}

static bool aborted(struct course *c) {
    double at = atomic_load(&c->run.h->abort_at);
    return at > 0 && now_seconds() >= at + (double)c->run.faults.abort_ignored_ms * 1e-3;
}

/* --- the context --- */

static size_t kept(const struct handle *h) {
    return h->settings.n_keep > 0 ? (size_t)h->settings.n_keep : 0;
}

/* Makes room at the end: n_keep positions stay, then half of the others go. */
static void shift_window(struct course *c) {
    struct handle *h = c->run.h;
    size_t keep = kept(h);
    size_t drop = (h->cache.n - keep + 1) / 2;
    cache_remove(&h->cache, keep, keep + drop);
    if (h->n_system > keep)
        h->n_system = keep;
    if (!c->shifted) /* once for a run, which may shift a thousand times */
        say('W', "context is full: %zu positions behind the first %zu are dropped", drop, keep);
    c->shifted = true;
}

static void evaluate_last(struct course *c) {
    struct handle *h = c->run.h;
    if (!c->pending)
        return;
    if (h->cache.n >= (size_t)h->settings.max_context)
        shift_window(c);
    cache_push(&h->cache, (sim_key)(uint32_t)c->last);
    c->pending = false;
    cache_changed(h);
}

static size_t positions_to_reuse(struct handle *h, const struct request *q) {
    const struct keys *saved = &h->prompt_cache;
    size_t n = q->keys.n - 1; /* the last position has to be evaluated */
    size_t own = 0, loaded = cache_common(saved->at, saved->n, q->keys.at, n);
    if (HAS_PREFIX_REUSE && (HAS_EMBED_REUSE || !q->has_embed))
        own = cache_common(h->cache.keys, h->cache.n, q->keys.at, n);
    if (saved->n && loaded == 0)
        say('W', "the prompt does not match the loaded prompt cache");
    return own > loaded ? own : loaded;
}

/* False if the prompt does not fit. */
static bool prefill(struct course *c) {
    struct handle *h = c->run.h;
    const struct request *q = c->run.q;
    size_t limit = (size_t)h->settings.max_context;
    if (q->keys.n >= limit) {
        say('E', "the prompt has %zu tokens, max_context_len is %zu", q->keys.n, limit);
        return false;
    }
    bool goes_on = q->keep_history && h->cache.n > 0;
    if (goes_on) {
        while (h->cache.n + q->keys.n >= limit) {
            if (h->cache.n <= kept(h)) {
                say('E', "n_keep leaves no room for a prompt of %zu tokens", q->keys.n);
                return false;
            }
            shift_window(c);
        }
        c->reused = h->cache.n;
    } else {
        c->reused = positions_to_reuse(h, q);
        h->n_system = q->n_system;
        cache_truncate(&h->cache, 0);
    }
    for (size_t i = 0; i < c->reused && !goes_on; i++)
        cache_push(&h->cache, q->keys.at[i]);
    for (size_t i = goes_on ? 0 : c->reused; i < q->keys.n; i++)
        cache_push(&h->cache, q->keys.at[i]);
    c->prefilled = h->cache.n - c->reused;
    c->run.prompt_n = h->cache.n;
    crash_at(&c->run.faults, 0);
    if (c->prefill_ms > 0)
        sleep_until(c->entered + (double)c->prefilled * c->prefill_ms * 1e-3);
    cache_changed(h);
    c->prefilled_at = c->due = now_seconds();
    return true;
}

/* --- tokens --- */

static void await_turn(struct course *c, double ms) {
    if (ms <= 0)
        return;
    double now = now_seconds();
    /* A callback that took longer than a token is not made up for: the board would have waited for it too. */
    if (now > c->due + ms * 1e-3)
        c->due = now;
    c->due += ms * 1e-3;
    sleep_until(c->due);
}

/* One byte of a character of several bytes, or all before the next such character. */
static void take_split(struct course *c, struct piece *out) {
    const struct model *m = c->run.h->model;
    const unsigned char *rest = (const unsigned char *)c->split.data + c->split_at;
    size_t left = c->split.len - c->split_at, n = 1;
    while (rest[0] < 0x80 && n < left && rest[n] < 0x80)
        n++;
    out->kind = PIECE_TOKEN;
    out->id = rest[0] < 0x80 ? c->split_id : vocab_byte(&m->vocab, rest[0], c->split_id);
    buf_add(&out->text, rest, n);
    c->split_at += n;
    if (c->split_at == c->split.len)
        c->split.len = c->split_at = 0;
}

static bool has_high_byte(const struct buf *text) {
    for (size_t i = 0; i < text->len; i++)
        if ((unsigned char)text->data[i] >= 0x80)
            return true;
    return false;
}

static void next_piece(struct course *c, struct piece *out) {
    struct run *r = &c->run;
    out->text.len = 0;
    if (r->faults.pad_endless_at > 0 && c->generated + 1 >= r->faults.pad_endless_at) {
        out->kind = PIECE_TOKEN;
        out->id = PAD_ID;
        vocab_text(&r->h->model->vocab, PAD_ID, &out->text);
        return;
    }
    if (c->split.len == 0) {
        lm_next(r, out);
        if (out->kind != PIECE_TOKEN || !r->faults.split_utf8 || !has_high_byte(&out->text))
            return;
        buf_add(&c->split, out->text.data, out->text.len);
        c->split_id = out->id;
        out->text.len = 0;
    }
    take_split(c, out);
}

static bool is_hidden(const struct course *c, int32_t id) {
    const struct model *m = c->run.h->model;
    return c->run.h->settings.skip_special && (ids_hold(&m->special, id) || ids_hold(&m->eos, id));
}

/* True if the callback asks for a pause. */
static bool deliver(struct course *c, const struct piece *piece) {
    bool null = piece->kind == PIECE_NULL || c->run.faults.text_null_at == c->generated + 1;
    if (c->generated++ == 0)
        c->first = now_seconds();
    c->last = piece->id;
    c->pending = true;
    if (is_hidden(c, piece->id))
        return false;
    int answer;
    buf_add(&c->text, piece->text.data, null ? 0 : piece->text.len);
    if (null || utf8_unfinished(c->text.data, c->text.len) == 0) {
        answer = emit(c, &(struct result){.event = EVENT_NORMAL, .text = null ? NULL : c->text.data, .id = piece->id});
        memset(c->text.data, '#', c->text.len); /* the text is valid in the callback only: let who keeps it notice */
        c->text.len = 0;
    } else {
        answer = emit(c, &(struct result){.event = EVENT_WAITING, .id = -1});
    }
    return HAS_PAUSE && answer == 1 && !c->run.q->keep_history;
}

static void deliver_eos(struct course *c, int32_t id) {
    struct buf text = {0};
    vocab_text(&c->run.h->model->vocab, id, &text);
    emit(c, &(struct result){.event = EVENT_NORMAL, .text = text.data, .id = id});
    buf_free(&text);
}

static enum end one_token(struct course *c, struct piece *piece, bool *over) {
    const struct run *r = &c->run;
    *over = true;
    if (r->cap >= 0 && c->generated >= r->cap)
        return END_CAP;
    await_turn(c, c->decode_ms);
    crash_at(&r->faults, c->generated + 1);
    if (r->faults.error_at == c->generated + 1)
        return END_ERROR;
    if (aborted(c))
        return END_ABORTED;
    evaluate_last(c);
    for (next_piece(c, piece); piece->kind == PIECE_WAIT; next_piece(c, piece)) {
        await_turn(c, piece->ms);
        if (aborted(c))
            return END_ABORTED;
    }
    if (piece->kind == PIECE_EOS) {
        if (r->faults.eos_text && !r->h->settings.skip_special && piece->id >= 0)
            deliver_eos(c, piece->id);
        return END_EOS;
    }
    if (piece->kind == PIECE_CAP || piece->kind == PIECE_ERROR)
        return piece->kind == PIECE_CAP ? END_CAP : END_ERROR;
    *over = deliver(c, piece);
    return END_PAUSED;
}

static enum end generate(struct course *c) {
    struct piece piece = {0};
    bool over = false;
    enum end end = END_EOS;
    lm_begin(&c->run);
    while (!over)
        end = one_token(c, &piece, &over);
    lm_end(&c->run);
    buf_free(&piece.text);
    return end;
}

/* --- hidden states and logits --- */

static float unit(uint64_t bits) {
    return (float)(int32_t)(bits >> 40) / 8388608.0F - 1.0F;
}

static void fill_row(const struct model *m, enum run_mode mode, uint64_t state, float *row, size_t width) {
    float scale = mode == MODE_LOGITS ? 8.0F : 1.0F;
    for (size_t i = 0; i < width; i++)
        row[i] = scale * unit(sim_mix(state + i));
    if (mode == MODE_LOGITS && m->lm == LM_HASH && (size_t)hash_next(m, state) < width)
        row[hash_next(m, state)] = 16.0F; /* the likeliest token is the one that would come */
}

static enum end deliver_rows(struct course *c) {
    struct handle *h = c->run.h;
    enum run_mode mode = c->run.q->mode;
    size_t width = mode == MODE_HIDDEN ? (size_t)h->model->embd : h->model->vocab.n;
    if (aborted(c))
        return END_ABORTED;
    float *rows = malloc(c->prefilled * width * sizeof *rows);
    if (rows == NULL) {
        say('E', "no memory for %zu rows of %zu floats", c->prefilled, width);
        return END_ERROR;
    }
    for (size_t i = 0; i < c->prefilled; i++)
        fill_row(h->model, mode, h->cache.states[c->reused + i + 1], rows + i * width, width);
    struct result result = {.event = EVENT_NORMAL, .id = -1, .width = (int)width, .rows = (int)c->prefilled};
    if (mode == MODE_HIDDEN && HAS_EMPTY_BEFORE_HIDDEN)
        emit(c, &(struct result){.event = EVENT_NORMAL, .text = "", .id = -1});
    if (mode == MODE_HIDDEN && HAS_HIDDEN_STATE)
        result.event = EVENT_HIDDEN;
    *(mode == MODE_HIDDEN ? &result.hidden : &result.logits) = rows;
    emit(c, &result);
    free(rows);
    return END_EOS;
}

/* --- the whole run --- */

static void log_return(const struct course *c, enum end end, int ret) {
    struct buf line;
    call_begin(&line, "rkllm_run");
    call_int(&line, "handle", c->run.h->number);
    call_text(&line, "event", "return");
    call_int(&line, "reused", (long long)c->reused);
    call_int(&line, "prefilled", (long long)c->prefilled);
    call_int(&line, "generated", c->generated);
    call_number(&line, "t_enter", c->entered);
    call_number(&line, "t_first", c->generated ? c->first : -INFINITY);
    call_bool(&line, "aborted", end == END_ABORTED);
    call_text(&line, "end", end_names[end]);
    call_end(&line, ret);
}

static int finish(struct course *c, enum end end) {
    const struct handle *h = c->run.h;
    long ends = c->run.faults.abort_ends;
    struct perf perf = {.prefill_ms = (c->prefilled_at - c->entered) * 1e3,
                        .generate_ms = (now_seconds() - c->prefilled_at) * 1e3,
                        .memory_mb = h->model->memory_mb,
                        .prefilled = (int)c->prefilled,
                        .generated = (int)c->generated};
    if (end == END_ERROR || end == END_CONTEXT || (end == END_ABORTED && ends == ABORT_ERROR)) {
        emit(c, &(struct result){.event = EVENT_ERROR, .id = -1});
        return -1;
    }
    if (log_level() > 0)
        say('I', "prefill %d tokens in %.2f ms, generate %d tokens in %.2f ms, memory %d MB", perf.prefilled,
            perf.prefill_ms, perf.generated, perf.generate_ms, h->model->memory_mb);
    if (end == END_PAUSED || (end == END_ABORTED && ends == ABORT_NOTHING))
        return 0;
    if (end == END_ABORTED || c->run.q->mode != MODE_LOGITS)
        emit(c, &(struct result){.event = EVENT_FINISH, .id = -1, .perf = &perf});
    return 0;
}

static void save_prompt_cache(const struct course *c) {
    const struct request *q = c->run.q;
    const char *path = q->cache_path ? q->cache_path : "./prompt_cache.bin";
    if (!prompt_cache_save(path, model_fingerprint(c->run.h->model), &q->keys))
        say('W', "cannot write the prompt cache file %s", path);
}

static enum end course_of(struct course *c) {
    const struct request *q = c->run.q;
    if (!prefill(c))
        return END_CONTEXT;
    enum end end = q->mode == MODE_GENERATE ? generate(c) : deliver_rows(c);
    if (q->save_cache && end != END_ERROR)
        save_prompt_cache(c);
    if (end == END_PAUSED)
        c->run.h->paused = true;
    return end;
}

int run_request(struct handle *h, struct request *q) {
    int max_new = q->max_new > 0 ? q->max_new : h->settings.max_new;
    struct course c = {.run = {.h = h, .q = q, .cap = max_new > 0 ? max_new : -1}, .entered = now_seconds()};
    buf_add(&c.text, "", 0);
    pace_of(h->model, &c.prefill_ms, &c.decode_ms);
    call_run(h, q, c.run.cap);
    if (log_level() > 1)
        say('I', "prompt: %zu tokens, cache: %zu of %d: %s", q->keys.n, h->cache.n, h->settings.max_context, q->decoded);
    enum end end = END_ERROR;
    int ret = -1;
    if (faults_collect(&h->model->faults, q->decoded, &c.run.faults) && !c.run.faults.run_fails) {
        end = course_of(&c);
        ret = finish(&c, end);
    }
    log_return(&c, end, ret);
    buf_free(&c.text);
    buf_free(&c.split);
    return ret;
}
