/* The register of handles, and who may do what while a run is under way. */
#include "sim.h"

#include <stdlib.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the list and every `users` */
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;
static struct handle *handles;
static int last_number;

void handle_register(struct handle *h) {
    pthread_mutex_lock(&mutex);
    h->number = ++last_number;
    h->next = handles;
    handles = h;
    pthread_mutex_unlock(&mutex);
}

struct handle *handle_use(void *wanted) {
    pthread_mutex_lock(&mutex);
    struct handle *h = handles;
    while (h && h != wanted)
        h = h->next;
    if (h)
        h->users++;
    pthread_mutex_unlock(&mutex);
    if (h == NULL)
        say('E', "there is no handle %p", wanted);
    return h;
}

void handle_leave(struct handle *h) {
    pthread_mutex_lock(&mutex);
    h->users--;
    pthread_cond_broadcast(&left);
    pthread_mutex_unlock(&mutex);
}

static void settings_free(struct settings *s) {
    free(s->model_path);
    free(s->img_start);
    free(s->img_end);
}

void handle_free(struct handle *h) {
    char *const texts[] = {h->system, h->prefix, h->postfix, h->tools, h->tool_response};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    for (size_t i = 0; i < h->n_loras; i++)
        free(h->loras[i]);
    free(h->loras);
    free(h->prompt_cache.at);
    cache_free(&h->cache);
    llama_stop(h->llama);
    model_free(h->model);
    settings_free(&h->settings);
    pthread_mutex_destroy(&h->mutex);
    free(h);
}

/* True if a run is under way. */
static bool request_abort(struct handle *h) {
    pthread_mutex_lock(&h->mutex);
    bool running = h->running;
    if (running && atomic_load(&h->abort_at) <= 0)
        atomic_store(&h->abort_at, now_seconds());
    pthread_mutex_unlock(&h->mutex);
    return running;
}

static bool is_own_run(struct handle *h) {
    pthread_mutex_lock(&h->mutex);
    bool own = h->has_runner && pthread_equal(h->runner, pthread_self());
    pthread_mutex_unlock(&h->mutex);
    return own;
}

int handle_destroy(void *wanted, int *number) {
    struct handle *h = handle_use(wanted);
    if (h == NULL)
        return -1;
    *number = h->number;
    if (is_own_run(h)) {
        say('E', "rkllm_destroy inside the callback would wait for itself");
        handle_leave(h);
        return -1;
    }
    pthread_mutex_lock(&mutex);
    struct handle **place = &handles;
    while (*place && *place != h)
        place = &(*place)->next;
    bool first = *place == h; /* of two threads that destroy it */
    if (first)
        *place = h->next;
    pthread_mutex_unlock(&mutex);
    if (!first) {
        handle_leave(h);
        return -1;
    }
    request_abort(h);
    pthread_mutex_lock(&mutex);
    while (h->users > 1)
        pthread_cond_wait(&left, &mutex);
    pthread_mutex_unlock(&mutex);
    board_leave(h->board_lock);
    handle_free(h);
    return 0;
}

bool handle_lock_idle(struct handle *h) {
    pthread_mutex_lock(&h->mutex);
    if (!h->running)
        return true;
    pthread_mutex_unlock(&h->mutex);
    say('E', "a run is under way");
    return false;
}

bool handle_begin_run(struct handle *h) {
    if (!handle_lock_idle(h))
        return false;
    h->running = true;
    h->paused = false;
    atomic_store(&h->abort_at, 0.0);
    pthread_mutex_unlock(&h->mutex);
    return true;
}

void handle_runs_here(struct handle *h) {
    pthread_mutex_lock(&h->mutex);
    h->runner = pthread_self();
    h->has_runner = true;
    pthread_mutex_unlock(&h->mutex);
}

void handle_end_run(struct handle *h) {
    pthread_mutex_lock(&h->mutex);
    h->has_runner = false;
    h->running = false;
    pthread_mutex_unlock(&h->mutex);
}

void handle_abort(struct handle *h) {
    bool running = request_abort(h);
    struct buf line;
    call_begin(&line, "rkllm_abort");
    call_int(&line, "handle", h->number);
    call_bool(&line, "running", running);
    call_end(&line, 0);
}
