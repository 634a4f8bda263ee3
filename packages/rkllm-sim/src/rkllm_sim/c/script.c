/* The lines of a script, see lm.c for how they are played. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct script_block *add_block(struct script *s, char *when) {
    s->at = sim_grow(s->at, (s->n + 1) * sizeof *s->at);
    s->at[s->n] = (struct script_block){.when = when};
    return &s->at[s->n++];
}

static struct script_item *add_item(struct script *s, enum script_kind kind) {
    struct script_block *block = s->n ? &s->at[s->n - 1] : add_block(s, NULL);
    block->at = sim_grow(block->at, (block->n + 1) * sizeof *block->at);
    block->at[block->n] = (struct script_item){.kind = kind, .count = 1};
    return &block->at[block->n++];
}

static bool at_end(const char *text) {
    return text[strspn(text, " \t\r")] == '\0';
}

/* `7` or `endless`. */
static bool count_of(const char **text, long *out) {
    char *end;
    *text += strspn(*text, " \t");
    if (strncmp(*text, "endless", 7) == 0) {
        *text += 7;
        *out = -1;
        return true;
    }
    *out = strtol(*text, &end, 10);
    bool good = end != *text && *out >= 0;
    *text = end;
    return good;
}

static bool add_text(struct script_item *item, const struct vocab *v, const char **text, struct buf *why) {
    char *content = json_string(text);
    unsigned char bad = 0;
    if (content == NULL)
        return false;
    bool good = vocab_tokenize(v, content, strlen(content), &item->ids, &bad);
    free(content);
    if (!good)
        buf_format(why, "the vocabulary has no token for the byte 0x%02x", bad);
    return good;
}

static bool add_bytes(struct script_item *item, const char *text) {
    text += strspn(text, " \t");
    size_t len = strcspn(text, " \t\r");
    item->bytes = sim_alloc(len / 2 + 1);
    ssize_t n = hex_decode(text, len, item->bytes);
    if (n < 0)
        return false;
    item->n_bytes = (size_t)n;
    return at_end(text + len);
}

static bool begin_block(struct script *s, char *when) {
    if (s->n == 0)
        add_block(s, NULL); /* no common beginning */
    add_block(s, when);
    return true;
}

bool script_line(struct script *s, const struct vocab *v, const char *line, struct buf *why) {
    size_t len = strcspn(line, " \t\r");
    const char *rest = line + len;
#define IS(word) (len == sizeof(word) - 1 && strncmp(line, word, len) == 0)
    if (len == 0 || *line == '#')
        return true;
    if (IS("text"))
        return add_text(add_item(s, SCRIPT_IDS), v, &rest, why) && at_end(rest);
    if (IS("repeat")) {
        struct script_item *item = add_item(s, SCRIPT_IDS);
        return count_of(&rest, &item->count) && add_text(item, v, &rest, why) && at_end(rest);
    }
    if (IS("pad")) {
        struct script_item *item = add_item(s, SCRIPT_IDS);
        long id = PAD_ID;
        bool good = count_of(&rest, &item->count) && (at_end(rest) || (count_of(&rest, &id) && id >= 0));
        ids_add(&item->ids, (int32_t)id);
        return good && at_end(rest);
    }
    if (IS("token")) {
        long id = 0;
        bool good = count_of(&rest, &id) && id >= 0;
        ids_add(&add_item(s, SCRIPT_IDS)->ids, (int32_t)id);
        return good && at_end(rest);
    }
    if (IS("bytes"))
        return add_bytes(add_item(s, SCRIPT_BYTES), rest);
    if (IS("wait")) {
        char *end;
        struct script_item *item = add_item(s, SCRIPT_WAIT);
        item->ms = strtod(rest, &end);
        return end != rest && item->ms >= 0 && at_end(end);
    }
    if (IS("null"))
        return add_item(s, SCRIPT_NULL) && at_end(rest);
    if (IS("error"))
        return add_item(s, SCRIPT_ERROR) && at_end(rest);
    if (IS("otherwise"))
        return at_end(rest) && begin_block(s, NULL);
    if (IS("when")) {
        char *when = json_string(&rest);
        return when && begin_block(s, when) && at_end(rest);
    }
#undef IS
    return false;
}

void script_free(struct script *s) {
    for (size_t i = 0; i < s->n; i++) {
        for (size_t k = 0; k < s->at[i].n; k++) {
            free(s->at[i].at[k].ids.at);
            free(s->at[i].at[k].bytes);
        }
        free(s->at[i].at);
        free(s->at[i].when);
    }
    free(s->at);
}
