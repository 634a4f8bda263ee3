/* Reads a model file; the README of rkllm-sim describes it. */
#include "sim.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    char *at; /* the rest of the file; lines end with a NUL once they are read */
    int line;
};

static char *read_file(const char *path) {
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return NULL;
    struct buf text = {0};
    static const size_t chunk = 1 << 16;
    char *piece = sim_alloc(chunk);
    size_t n;
    while ((n = fread(piece, 1, chunk, file)) > 0)
        buf_add(&text, piece, n);
    free(piece);
    bool good = !ferror(file);
    fclose(file);
    buf_add(&text, "", 0);
    if (good)
        return text.data;
    buf_free(&text);
    return NULL;
}

/* NULL at the end, and for a last line that is not ended. */
static char *next_line(struct reader *r) {
    char *line = r->at, *end = strchr(line, '\n');
    if (end == NULL)
        return NULL;
    *end = '\0';
    r->at = end + 1;
    r->line++;
    return line;
}

/* --- values --- */

static bool whole(const char **text, long long least, long long most, long long *out) {
    char *end;
    *out = strtoll(*text, &end, 10);
    bool good = end != *text && *out >= least && *out <= most;
    *text = end + strspn(end, " \t\r");
    return good;
}

static bool one_int(const char *text, long long least, int *out) {
    long long value;
    bool good = whole(&text, least, INT_MAX, &value) && *text == '\0';
    *out = good ? (int)value : 0;
    return good;
}

static bool two_ints(const char *text, long long least, int *first, int *second) {
    long long a, b;
    bool good = whole(&text, least, INT_MAX, &a) && whole(&text, least, INT_MAX, &b) && *text == '\0';
    *first = good ? (int)a : 0;
    *second = good ? (int)b : 0;
    return good;
}

static bool milliseconds(const char *text, double *out) {
    char *end;
    *out = strtod(text, &end);
    return end != text && *out >= 0 && end[strspn(end, " \t\r")] == '\0';
}

static bool id_list(const char *text, struct ids *out) {
    long long id;
    while (*text) {
        if (!whole(&text, 0, INT32_MAX, &id))
            return false;
        ids_add(out, (int32_t)id);
    }
    return true;
}

static bool word(const char *text, char **out) {
    free(*out);
    *out = sim_copy(text, strcspn(text, " \t\r"));
    return **out != '\0';
}

static bool quoted(const char *text, char **out) {
    free(*out);
    *out = json_string(&text);
    return *out && text[strspn(text, " \t\r")] == '\0';
}

/* The rest of the line, quoted or not. */
static bool path_value(const char *text, char **out) {
    if (*text == '"')
        return quoted(text, out);
    free(*out);
    *out = sim_copy(text, strcspn(text, "\r"));
    return **out != '\0';
}

static bool command(const char *text, struct model *m) {
    char *part;
    while ((part = json_string(&text)) != NULL) {
        m->child = sim_grow(m->child, (m->n_child + 2) * sizeof *m->child);
        m->child[m->n_child++] = part;
        m->child[m->n_child] = NULL;
    }
    return m->n_child > 0 && text[strspn(text, " \t\r")] == '\0';
}

static bool language_model(const char *text, struct model *m) {
    static const char *const names[] = {"", "hash", "script", "llama"};
    for (int i = LM_HASH; i <= LM_LLAMA; i++)
        if (strcmp(text, names[i]) == 0)
            m->lm = (enum lm_kind)i;
    return m->lm != LM_NONE;
}

static bool seed_value(const char *text, uint64_t *out) {
    char *end;
    *out = strtoull(text, &end, 10);
    return end != text && end[strspn(end, " \t\r")] == '\0';
}

/* One `key value…` line. False if the key is not known or the value does not fit. */
static bool setting(struct model *m, const char *line) {
    size_t len = strcspn(line, " \t\r");
    const char *value = line + len + strspn(line + len, " \t");
#define IS(word) (len == sizeof(word) - 1 && strncmp(line, word, len) == 0)
    if (IS("toolkit")) return word(value, &m->toolkit);
    if (IS("platform")) return word(value, &m->platform);
    if (IS("dtype")) return word(value, &m->dtype);
    if (IS("max_context")) return one_int(value, 1, &m->max_context);
    if (IS("npu_cores")) return one_int(value, 1, &m->npu_cores);
    if (IS("memory_mb")) return one_int(value, 0, &m->memory_mb);
    if (IS("embd")) return one_int(value, 1, &m->embd);
    if (IS("lm")) return language_model(value, m);
    if (IS("seed")) return seed_value(value, &m->seed);
    if (IS("answer")) return two_ints(value, 0, &m->answer_min, &m->answer_max) && m->answer_min <= m->answer_max;
    if (IS("words")) return two_ints(value, 0, &m->words_first, &m->words_count) && m->words_count > 0;
    if (IS("eos")) return id_list(value, &m->eos);
    if (IS("special")) return id_list(value, &m->special);
    if (IS("prefill_ms")) return milliseconds(value, &m->prefill_ms);
    if (IS("decode_ms")) return milliseconds(value, &m->decode_ms);
    if (IS("load_ms")) return one_int(value, 0, &m->load_ms);
    if (IS("system")) return quoted(value, &m->system);
    if (IS("prefix")) return quoted(value, &m->prefix);
    if (IS("postfix")) return quoted(value, &m->postfix);
    if (IS("gguf")) return path_value(value, &m->gguf);
    if (IS("child")) return command(value, m);
    if (IS("fault")) return fault_parse(value, &m->faults);
#undef IS
    return len == 0 || *line == '#';
}

/* --- the parts of the file --- */

static bool read_vocab(struct reader *r, struct vocab *v, int n) {
    size_t used = 0, room = (size_t)n * 8 + 64;
    v->n = (uint32_t)n;
    v->start = sim_alloc(((size_t)n + 1) * sizeof *v->start);
    v->bytes = sim_alloc(room);
    for (int id = 0; id < n; id++) {
        char *line = next_line(r);
        if (line == NULL)
            return false;
        size_t len = strcspn(line, "\r");
        if (len != 1 || *line != '-') {
            if (used + len / 2 > room) {
                room = 2 * room + len;
                v->bytes = sim_grow(v->bytes, room);
            }
            ssize_t bytes = len ? hex_decode(line, len, v->bytes + used) : -1;
            if (bytes < 0)
                return false;
            used += (size_t)bytes;
        }
        v->start[id + 1] = (uint32_t)used;
    }
    vocab_index(v);
    return true;
}

static bool read_script(struct reader *r, struct model *m, struct buf *why) {
    for (char *line; (line = next_line(r)) != NULL;) {
        if (strcmp(line, "end") == 0)
            return true;
        if (!script_line(&m->script, &m->vocab, line, why))
            return false;
    }
    return false;
}

static bool read_lines(struct reader *r, struct model *m, struct buf *why) {
    static const char last[] = "rkllm-toolkit version: ";
    int n;
    for (char *line; (line = next_line(r)) != NULL;) {
        if (strncmp(line, last, sizeof last - 1) == 0) {
            if (m->toolkit && strcmp(line + sizeof last - 1, m->toolkit) == 0 && *r->at == '\0')
                return true;
            buf_text(why, "the last line does not name the toolkit of the model");
            return false;
        }
        if (strncmp(line, "vocab ", 6) == 0) {
            if (m->vocab.start != NULL || !one_int(line + 6, 1, &n) || !read_vocab(r, &m->vocab, n))
                return false;
        } else if (strcmp(line, "script") == 0) {
            if (m->vocab.start == NULL || !read_script(r, m, why))
                return false;
        } else if (!setting(m, line)) {
            return false;
        }
    }
    buf_text(why, "the file is cut off");
    return false;
}

/* What is missing; NULL if nothing is. */
static const char *lacks(const struct model *m) {
    if (m->vocab.start == NULL)
        return "a vocabulary";
    if (m->lm == LM_NONE)
        return "a line `lm`";
    if (m->lm == LM_HASH && m->words_count == 0)
        return "a line `words`";
    if (m->lm == LM_SCRIPT && m->script.n == 0)
        return "a script";
    if (m->lm == LM_LLAMA && (m->gguf == NULL || m->child == NULL))
        return "a line `gguf` or `child`";
    return NULL;
}

/* A relative gguf path counts from the folder of the model file. */
static void resolve_gguf(struct model *m) {
    const char *slash = strrchr(m->path, '/');
    if (m->gguf == NULL || *m->gguf == '/' || slash == NULL)
        return;
    struct buf full = {0};
    buf_add(&full, m->path, (size_t)(slash - m->path) + 1);
    buf_text(&full, m->gguf);
    free(m->gguf);
    m->gguf = full.data;
}

struct model *model_load(const char *path, struct buf *why) {
    char *text = read_file(path);
    if (text == NULL) {
        buf_format(why, "cannot read %s", path);
        return NULL;
    }
    struct reader reader = {.at = text};
    struct model *m = sim_alloc(sizeof *m);
    *m = (struct model){.path = sim_copy_text(path), .platform = sim_copy_text("rk3588"), .dtype = sim_copy_text("w8a8"),
                        .max_context = 4096, .npu_cores = 3, .memory_mb = 900, .embd = 64, .seed = 1,
                        .answer_min = 8, .answer_max = 40};
    struct buf reason = {0};
    const char *first = next_line(&reader), *missing = NULL;
    if (first == NULL || strcmp(first, "rkllm-sim model 1") != 0)
        buf_format(why, "%s is not a model of rkllm-sim", path);
    else if (!read_lines(&reader, m, &reason))
        buf_format(why, "%s, line %d: %s", path, reader.line, reason.len ? reason.data : "cannot be understood");
    else if ((missing = lacks(m)) != NULL)
        buf_format(why, "%s lacks %s", path, missing);
    buf_free(&reason);
    free(text);
    if (why->len) {
        model_free(m);
        return NULL;
    }
    resolve_gguf(m);
    return m;
}

void model_free(struct model *m) {
    if (m == NULL)
        return;
    char *const texts[] = {m->path, m->platform, m->dtype, m->toolkit, m->system, m->prefix, m->postfix, m->gguf};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    for (size_t i = 0; i < m->n_child; i++)
        free(m->child[i]);
    free(m->child);
    free(m->eos.at);
    free(m->special.at);
    faults_free(&m->faults);
    vocab_free(&m->vocab);
    script_free(&m->script);
    free(m);
}
