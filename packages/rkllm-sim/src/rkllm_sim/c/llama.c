/*
 * The language model `llama`: a child process that runs a GGUF file. One line for each message, over a socket pair that is
 * the child's stdin and stdout:
 *
 *   load GGUF N_CTX                                              → ok | error TEXT
 *   run COUNT MAX TEMPERATURE TOP_K TOP_P REPEAT_PENALTY SEED id…  → token ID HEX, for each token; then end eos|cap, or error TEXT
 *   abort                                                        → end aborted; nothing if no run is under way
 */
#define _GNU_SOURCE
#include "sim.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct llama {
    char **argv;
    int ours, theirs;
    pid_t pid;
    pthread_t keeper;
    sem_t started;
    pthread_mutex_t mutex; /* guards gone */
    bool gone;             /* the process has been reaped: its number may belong to another one */
    bool broken;
    struct buf in;
    size_t line; /* where the next line begins in `in` */
    long asked, got;
};

/* --- the process --- */

static void become_child(const struct llama *l, pid_t parent) {
    sigset_t none;
    sigemptyset(&none);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(127);
    if (dup2(l->theirs, 0) < 0 || dup2(l->theirs, 1) < 0)
        _exit(127);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(l->argv[0], l->argv);
    _exit(127);
}

/* The parent-death signal comes when the thread that has forked ends, so that thread has to live as long as the child. */
static void *keep_child(void *data) {
    struct llama *l = data;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become_child(l, parent);
    l->pid = pid;
    close(l->theirs);
    sem_post(&l->started);
    if (pid < 0)
        return NULL;
    siginfo_t info;
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
    }
    pthread_mutex_lock(&l->mutex);
    l->gone = true;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

static bool spawn(struct llama *l) {
    int pair[2];
    sigset_t all, before;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    l->ours = pair[0];
    l->theirs = pair[1];
    sem_init(&l->started, 0, 0);
    pthread_mutex_init(&l->mutex, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the process's signals are for its other threads */
    bool good = pthread_create(&l->keeper, NULL, keep_child, l) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!good) {
        close(l->ours);
        close(l->theirs);
        return false;
    }
    while (sem_wait(&l->started) != 0) {
    }
    return true;
}

void llama_stop(struct llama *l) {
    if (l == NULL)
        return;
    close(l->ours);
    pthread_mutex_lock(&l->mutex);
    if (l->pid > 0 && !l->gone)
        kill(l->pid, SIGKILL);
    pthread_mutex_unlock(&l->mutex);
    pthread_join(l->keeper, NULL);
    sem_destroy(&l->started);
    pthread_mutex_destroy(&l->mutex);
    buf_free(&l->in);
    free(l);
}

/* --- lines --- */

static void send_all(struct llama *l, const char *data, size_t len) {
    while (len && !l->broken) {
        ssize_t n = send(l->ours, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            l->broken = true;
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
}

/* Valid until the next call; NULL once the child is gone. */
static char *read_line(struct llama *l) {
    for (;;) {
        char *from = l->in.data ? l->in.data + l->line : NULL;
        char *end = from ? memchr(from, '\n', l->in.len - l->line) : NULL;
        if (end) {
            *end = '\0';
            l->line = (size_t)(end - l->in.data) + 1;
            return from;
        }
        if (from && l->line) {
            memmove(l->in.data, from, l->in.len - l->line);
            l->in.len -= l->line;
            l->line = 0;
        }
        char chunk[4096];
        ssize_t n = l->broken ? 0 : recv(l->ours, chunk, sizeof chunk, 0);
        if (n > 0) {
            buf_add(&l->in, chunk, (size_t)n);
        } else if (n == 0 || errno != EINTR) {
            l->broken = true;
            return NULL;
        }
    }
}

struct llama *llama_start(const struct model *m, int n_ctx, struct buf *why) {
    struct llama *l = sim_alloc(sizeof *l);
    struct buf message = {0};
    l->argv = m->child;
    if (!spawn(l)) {
        buf_format(why, "cannot start the child process: %s", strerror(errno));
        free(l);
        return NULL;
    }
    buf_format(&message, "load %s %d\n", m->gguf, n_ctx);
    send_all(l, message.data, message.len);
    buf_free(&message);
    const char *answer = read_line(l);
    if (answer && strcmp(answer, "ok") == 0)
        return l;
    if (answer == NULL)
        buf_format(why, "the child process %s ended while it loaded %s", m->child[0], m->gguf);
    else
        buf_format(why, "the child process %s: %s", m->child[0], answer);
    llama_stop(l);
    return NULL;
}

/* --- runs --- */

void llama_begin(struct run *r) {
    struct handle *h = r->h;
    struct llama *l = h->llama;
    const struct sampling *s = r->q->has_sampling ? &r->q->sampling : &h->settings.sampling;
    struct buf message = {0};
    /* The child does not shift its window, so an answer ends where the context does. */
    l->asked = h->settings.max_context - (long)h->cache.n;
    if (r->cap >= 0 && r->cap < l->asked)
        l->asked = r->cap;
    l->got = 0;
    buf_format(&message, "run %zu %ld %g %d %g %g %llu", h->cache.n, l->asked, (double)s->temperature, s->top_k,
               (double)s->top_p, (double)s->repeat_penalty, (unsigned long long)h->model->seed);
    for (size_t i = 0; i < h->cache.n; i++)
        buf_format(&message, " %u", (unsigned)h->cache.keys[i]);
    buf_text(&message, "\n");
    send_all(l, message.data, message.len);
    buf_free(&message);
}

static void over(struct run *r, struct piece *out, enum piece_kind kind) {
    r->llama_over = true;
    out->kind = kind;
}

void llama_next(struct run *r, struct piece *out) {
    struct llama *l = r->h->llama;
    const char *line = read_line(l);
    int used = 0;
    out->id = r->h->model->eos.n ? r->h->model->eos.at[0] : -1;
    if (line && sscanf(line, "token %d %n", &out->id, &used) == 1 && used) {
        l->got++;
        out->kind = PIECE_TOKEN;
        size_t len = strlen(line + used);
        unsigned char *bytes = sim_alloc(len / 2);
        ssize_t n = hex_decode(line + used, len, bytes); /* `-`: no text */
        buf_add(&out->text, bytes, n > 0 ? (size_t)n : 0);
        free(bytes);
    } else if (line && strcmp(line, "end eos") == 0) {
        over(r, out, PIECE_EOS);
    } else if (line && strncmp(line, "end ", 4) == 0) {
        over(r, out, PIECE_CAP);
    } else {
        say('E', "the child process %s", line ? line : "has ended");
        over(r, out, PIECE_ERROR);
    }
}

void llama_end(struct run *r) {
    struct llama *l = r->h->llama;
    if (!r->llama_over && l->got < l->asked)
        send_all(l, "abort\n", 6);
    while (!r->llama_over) {
        struct piece rest = {0};
        llama_next(r, &rest);
        buf_free(&rest.text);
    }
}
