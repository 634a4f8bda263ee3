/* Faults: from the model file, from RKLLM_SIM_FAULTS and from the file that RKLLM_SIM_FAULTS_FILE names. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum value { FLAG, NUMBER, WORD };

static const struct kind {
    const char *name;
    enum value value;
    size_t place;
} kinds[] = {
#define FAULT(name, value) {#name, value, offsetof(struct faults, name)}
    FAULT(load_fails, FLAG),       FAULT(null_handle, FLAG),         FAULT(model_newer, FLAG),
    FAULT(wrong_platform, FLAG),   FAULT(context_over_limit, FLAG),  FAULT(cpu_mask, FLAG),
    FAULT(run_fails, FLAG),        FAULT(split_utf8, FLAG),          FAULT(eos_text, FLAG),
    FAULT(load_ms, NUMBER),        FAULT(abort_ignored_ms, NUMBER),  FAULT(error_at, NUMBER),
    FAULT(segv_at, NUMBER),        FAULT(kill_at, NUMBER),           FAULT(exit_at, NUMBER),
    FAULT(hang_at, NUMBER),        FAULT(pad_endless_at, NUMBER),    FAULT(text_null_at, NUMBER),
    FAULT(abort_ends, WORD),       FAULT(oom_second_init, WORD),
#undef FAULT
};

static bool word_value(const char *name, const char *value, long *out) {
    static const char *const ends[] = {"finish", "nothing", "error"};
    if (strcmp(name, "oom_second_init") == 0) {
        *out = value && strcmp(value, "crash") == 0 ? 2 : 1;
        return value == NULL || *out == 2;
    }
    for (long i = 0; value && i < 3; i++)
        if (strcmp(value, ends[i]) == 0) {
            *out = i;
            return true;
        }
    return false;
}

static bool number_value(const char *value, long *out) {
    char *end;
    if (value == NULL || *value == '\0')
        return false;
    *out = strtol(value, &end, 10);
    return *end == '\0' && *out >= 0;
}

static bool apply(const struct fault_line *line, struct faults *out) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, line->name) != 0)
            continue;
        long *place = (long *)((char *)out + kinds[i].place), value = 1;
        bool fits = kinds[i].value == FLAG     ? line->value == NULL
                    : kinds[i].value == NUMBER ? number_value(line->value, &value)
                                               : word_value(line->name, line->value, &value);
        if (fits)
            *place = value;
        else
            fprintf(stderr, "rkllm-sim: the fault %s cannot have the value %s\n", line->name,
                    line->value ? line->value : "(none)");
        return fits;
    }
    fprintf(stderr, "rkllm-sim: there is no fault named %s\n", line->name);
    return false;
}

static struct fault_line *add(struct fault_lines *out, const char *name, size_t name_len) {
    out->at = sim_grow(out->at, (out->n + 1) * sizeof *out->at);
    struct fault_line *line = &out->at[out->n++];
    *line = (struct fault_line){.name = sim_copy(name, name_len)};
    return line;
}

bool fault_parse(const char *text, struct fault_lines *out) {
    text += strspn(text, " \t");
    if (strncmp(text, "fault ", 6) == 0)
        text += 6 + strspn(text + 6, " \t");
    size_t len = strcspn(text, "= \t");
    if (len == 0)
        return false;
    struct fault_line *line = add(out, text, len);
    text += len;
    if (*text == '=') {
        len = strcspn(text + 1, " \t");
        line->value = sim_copy(text + 1, len);
        text += 1 + len;
    }
    text += strspn(text, " \t");
    if (strncmp(text, "when", 4) == 0) {
        text += 4;
        line->when = json_string(&text);
        if (line->when == NULL)
            return false;
    }
    return text[strspn(text, " \t\r")] == '\0';
}

void faults_free(struct fault_lines *lines) {
    for (size_t i = 0; i < lines->n; i++) {
        free(lines->at[i].name);
        free(lines->at[i].value);
        free(lines->at[i].when);
    }
    free(lines->at);
    *lines = (struct fault_lines){0};
}

/* Lines apart by any character of `ends`; empty ones and comments do not count. */
static bool parse_all(char *text, const char *ends, struct fault_lines *out) {
    char *rest = NULL;
    for (char *line = strtok_r(text, ends, &rest); line; line = strtok_r(NULL, ends, &rest)) {
        size_t blank = strspn(line, " \t\r");
        if (line[blank] == '\0' || line[blank] == '#')
            continue;
        if (!fault_parse(line, out)) {
            fprintf(stderr, "rkllm-sim: cannot understand the fault: %s\n", line);
            return false;
        }
    }
    return true;
}

static bool parse_file(const char *path, struct fault_lines *out) {
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return true; /* no faults yet */
    struct buf text = {0};
    char chunk[4096];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, file)) > 0)
        buf_add(&text, chunk, n);
    fclose(file);
    bool good = text.data == NULL || parse_all(text.data, "\n", out);
    buf_free(&text);
    return good;
}

static bool apply_all(const struct fault_lines *lines, const char *prompt, struct faults *out) {
    for (size_t i = 0; i < lines->n; i++) {
        const char *when = lines->at[i].when;
        if ((when == NULL || (prompt && strstr(prompt, when))) && !apply(&lines->at[i], out))
            return false;
    }
    return true;
}

bool faults_collect(const struct fault_lines *model, const char *prompt, struct faults *out) {
    *out = (struct faults){.error_at = -1, .segv_at = -1, .kill_at = -1, .exit_at = -1, .hang_at = -1,
                           .pad_endless_at = -1, .text_null_at = -1};
    struct fault_lines more = {0};
    const char *env = getenv("RKLLM_SIM_FAULTS"), *path = getenv("RKLLM_SIM_FAULTS_FILE");
    char *copy = sim_copy_text(env);
    bool good = parse_all(copy, ",", &more) && (path == NULL || *path == '\0' || parse_file(path, &more)) &&
                apply_all(model, prompt, out) && apply_all(&more, prompt, out);
    free(copy);
    faults_free(&more);
    return good;
}
