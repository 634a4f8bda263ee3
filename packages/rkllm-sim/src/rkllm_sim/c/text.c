/* Memory, growing buffers, JSON strings, UTF-8, version numbers. */
#include "sim.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *or_end(void *memory) {
    if (memory == NULL) {
        fputs("rkllm-sim: out of memory\n", stderr);
        abort();
    }
    return memory;
}

void *sim_alloc(size_t size) {
    return or_end(calloc(1, size ? size : 1));
}

void *sim_grow(void *old, size_t size) {
    return or_end(realloc(old, size ? size : 1));
}

char *sim_copy(const char *text, size_t len) {
    char *out = sim_alloc(len + 1);
    if (len)
        memcpy(out, text, len);
    return out;
}

char *sim_copy_text(const char *text) {
    return sim_copy(text, text ? strlen(text) : 0);
}

void buf_add(struct buf *b, const void *data, size_t len) {
    if (b->len + len + 1 > b->room) {
        b->room = 2 * b->room + len + 64;
        b->data = sim_grow(b->data, b->room);
    }
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void buf_text(struct buf *b, const char *text) {
    buf_add(b, text, strlen(text));
}

void buf_format(struct buf *b, const char *format, ...) {
    char small[512];
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (len >= 0 && (size_t)len < sizeof small) {
        buf_add(b, small, (size_t)len);
    } else if (len >= 0) {
        char *big = sim_alloc((size_t)len + 1);
        vsnprintf(big, (size_t)len + 1, format, again);
        buf_add(b, big, (size_t)len);
        free(big);
    }
    va_end(again);
}

void buf_free(struct buf *b) {
    free(b->data);
    *b = (struct buf){0};
}

void ids_add(struct ids *list, int32_t id) {
    if ((list->n & (list->n - 1)) == 0)
        list->at = sim_grow(list->at, (list->n ? 2 * list->n : 1) * sizeof *list->at);
    list->at[list->n++] = id;
}

bool ids_hold(const struct ids *list, int32_t id) {
    for (size_t i = 0; i < list->n; i++)
        if (list->at[i] == id)
            return true;
    return false;
}

/* --- UTF-8 --- */

/* How long a character is that begins with this byte; 0 for a byte that begins none. */
static size_t announced(unsigned char first) {
    if (first < 0x80)
        return 1;
    if (first >= 0xC2 && first < 0xE0)
        return 2;
    if (first >= 0xE0 && first < 0xF0)
        return 3;
    return first >= 0xF0 && first < 0xF5 ? 4 : 0;
}

static bool continues(unsigned char first, size_t place, unsigned char byte) {
    if ((byte & 0xC0) != 0x80)
        return false;
    if (place != 1)
        return true;
    /* No overlong forms, surrogates, or numbers above 10FFFF. */
    return !((first == 0xE0 && byte < 0xA0) || (first == 0xED && byte > 0x9F) || (first == 0xF0 && byte < 0x90) ||
             (first == 0xF4 && byte > 0x8F));
}

size_t utf8_length(const char *text, size_t len) {
    const unsigned char *u = (const unsigned char *)text;
    size_t want = announced(u[0]);
    if (want == 0 || want > len)
        return 1;
    for (size_t i = 1; i < want; i++)
        if (!continues(u[0], i, u[i]))
            return 1;
    return want;
}

size_t utf8_unfinished(const char *text, size_t len) {
    const unsigned char *u = (const unsigned char *)text;
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        const unsigned char *at = u + len - back;
        if (announced(*at) <= back)
            continue;
        for (size_t i = 1; i < back; i++)
            if (!continues(at[0], i, at[i]))
                return 0;
        return back;
    }
    return 0;
}

static void add_utf8(struct buf *b, unsigned code) {
    char out[4];
    size_t n = 0;
    if (code < 0x80) {
        out[n++] = (char)code;
    } else {
        if (code < 0x800) {
            out[n++] = (char)(0xC0 | code >> 6);
        } else {
            if (code < 0x10000) {
                out[n++] = (char)(0xE0 | code >> 12);
            } else {
                out[n++] = (char)(0xF0 | code >> 18);
                out[n++] = (char)(0x80 | (code >> 12 & 0x3F));
            }
            out[n++] = (char)(0x80 | (code >> 6 & 0x3F));
        }
        out[n++] = (char)(0x80 | (code & 0x3F));
    }
    buf_add(b, out, n);
}

/* --- JSON --- */

void buf_json(struct buf *b, const char *text, size_t len) {
    buf_text(b, "\"");
    for (size_t i = 0, n; i < len; i += n) {
        unsigned char c = (unsigned char)text[i];
        n = utf8_length(text + i, len - i);
        if (c == '"' || c == '\\') {
            buf_add(b, "\\", 1);
            buf_add(b, &c, 1);
        } else if (c < 0x20 || c == 0x7F) {
            buf_format(b, "\\u%04x", c);
        } else if (c >= 0x80 && n == 1) {
            buf_text(b, "\\ufffd");
        } else {
            buf_add(b, text + i, n);
        }
    }
    buf_text(b, "\"");
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool four_digits(const char **at, unsigned *code) {
    *code = 0;
    for (int i = 0; i < 4; i++, (*at)++) {
        int digit = hex_digit(**at);
        if (digit < 0)
            return false;
        *code = *code << 4 | (unsigned)digit;
    }
    return true;
}

static bool json_escape(struct buf *out, const char **at) {
    static const char letters[] = "bfnrt\"\\/", meaning[] = "\b\f\n\r\t\"\\/";
    char c = *(*at)++;
    if (c != 'u') {
        const char *found = c ? strchr(letters, c) : NULL;
        if (found)
            buf_add(out, &meaning[found - letters], 1);
        return found != NULL;
    }
    unsigned code, low;
    if (!four_digits(at, &code))
        return false;
    if (code >= 0xD800 && code < 0xDC00) {
        if ((*at)[0] != '\\' || (*at)[1] != 'u')
            return false;
        *at += 2;
        if (!four_digits(at, &low) || low < 0xDC00 || low >= 0xE000)
            return false;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    add_utf8(out, code);
    return true;
}

char *json_string(const char **text) {
    const char *at = *text + strspn(*text, " \t");
    struct buf out = {0};
    buf_add(&out, "", 0);
    if (*at++ != '"')
        goto bad;
    while (*at != '"') {
        if (*at == '\0')
            goto bad;
        if (*at != '\\') {
            buf_add(&out, at++, 1);
        } else {
            at++;
            if (!json_escape(&out, &at))
                goto bad;
        }
    }
    *text = at + 1;
    return out.data;
bad:
    buf_free(&out);
    return NULL;
}

ssize_t hex_decode(const char *hex, size_t len, unsigned char *out) {
    if (len % 2)
        return -1;
    for (size_t i = 0; i < len; i += 2) {
        int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);
        if (high < 0 || low < 0)
            return -1;
        out[i / 2] = (unsigned char)(high << 4 | low);
    }
    return (ssize_t)(len / 2);
}

/* --- versions --- */

bool version_parse(const char *text, struct version *out) {
    int used = 0;
    if (sscanf(text, "%4d.%4d.%4d%n", &out->major, &out->minor, &out->patch, &used) != 3)
        return false;
    text += used;
    out->beta = INT_MAX;
    if (*text == 'b') {
        char *end;
        out->beta = (int)strtol(text + 1, &end, 10);
        text = end;
    }
    return *text == '\0';
}

int version_compare(const struct version *a, const struct version *b) {
    const int left[] = {a->major, a->minor, a->patch, a->beta}, right[] = {b->major, b->minor, b->patch, b->beta};
    for (int i = 0; i < 4; i++)
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    return 0;
}
