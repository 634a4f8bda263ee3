/* What the library prints, and the call log: JSON lines in the file that RKLLM_SIM_LOG names. */
#define _GNU_SOURCE
#include "sim.h"

#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void say(char level, const char *format, ...) {
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int len = vasprintf(&text, format, args);
    va_end(args);
    if (len < 0)
        return;
    printf("%c rkllm: %s\n", level, text);
    fflush(stdout); /* who starts a worker reads these lines from a pipe */
    free(text);
}

int log_level(void) {
    const char *level = getenv("RKLLM_LOG_LEVEL");
    return level ? atoi(level) : 0;
}

void call_begin(struct buf *b, const char *call) {
    *b = (struct buf){0};
    buf_format(b, "{\"t\":%.6f,\"pid\":%d,\"tid\":%ld,\"call\":\"%s\"", now_seconds(), (int)getpid(),
               (long)syscall(SYS_gettid), call);
}

void call_int(struct buf *b, const char *key, long long value) {
    buf_format(b, ",\"%s\":%lld", key, value);
}

void call_bool(struct buf *b, const char *key, bool value) {
    buf_format(b, ",\"%s\":%s", key, value ? "true" : "false");
}

void call_number(struct buf *b, const char *key, double value) {
    if (isfinite(value))
        buf_format(b, ",\"%s\":%.6f", key, value);
    else
        buf_format(b, ",\"%s\":null", key);
}

void call_text(struct buf *b, const char *key, const char *text) {
    buf_format(b, ",\"%s\":", key);
    if (text)
        buf_json(b, text, strlen(text));
    else
        buf_text(b, "null");
}

void call_end(struct buf *b, int ret) {
    call_int(b, "ret", ret);
    call_write(b);
}

void call_write(struct buf *b) {
    const char *path = getenv("RKLLM_SIM_LOG");
    buf_text(b, "}\n");
    if (path && *path) {
        int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        /* One write for one line: those of several threads and processes do not mix. */
        if (fd < 0 || write(fd, b->data, b->len) != (ssize_t)b->len)
            fprintf(stderr, "rkllm-sim: cannot write the call log %s\n", path);
        if (fd >= 0)
            close(fd);
    }
    buf_free(b);
}

void call_sampling(struct buf *line, const struct sampling *s) {
    buf_format(line, ",\"sampling\":{\"top_k\":%d", s->top_k);
    call_number(line, "top_p", (double)s->top_p);
    call_number(line, "temperature", (double)s->temperature);
    call_number(line, "repeat_penalty", (double)s->repeat_penalty);
    call_number(line, "frequency_penalty", (double)s->frequency_penalty);
    call_number(line, "presence_penalty", (double)s->presence_penalty);
    call_int(line, "mirostat", s->mirostat);
    call_number(line, "mirostat_tau", (double)s->mirostat_tau);
    call_number(line, "mirostat_eta", (double)s->mirostat_eta);
    buf_text(line, "}");
}

void call_run(const struct handle *h, const struct request *q, long cap) {
    static const char *const kinds[] = {"prompt", "tokens", "embed", "multimodal"};
    static const char *const modes[] = {"generate", "hidden", "logits"};
    struct buf line;
    call_begin(&line, "rkllm_run");
    call_int(&line, "handle", h->number);
    call_text(&line, "event", "enter");
    call_text(&line, "input", kinds[q->kind]);
    call_int(&line, "n_tokens", (long long)q->keys.n);
    buf_text(&line, ",\"tokens\":[");
    for (size_t i = 0; i < q->keys.n; i++)
        if (q->keys.at[i] & EMBED_KEY)
            buf_text(&line, i ? ",null" : "null");
        else
            buf_format(&line, i ? ",%u" : "%u", (unsigned)q->keys.at[i]);
    buf_text(&line, "]");
    call_text(&line, "text", q->text);
    call_text(&line, "mode", modes[q->mode]);
    call_bool(&line, "keep_history", q->keep_history);
    call_int(&line, "max_new_tokens", cap);
    if (q->has_sampling)
        call_sampling(&line, &q->sampling);
    else
        buf_text(&line, ",\"sampling\":null");
    call_text(&line, "role", q->role);
    call_bool(&line, "enable_thinking", q->enable_thinking);
    call_text(&line, "lora", q->lora);
    call_write(&line);
}
