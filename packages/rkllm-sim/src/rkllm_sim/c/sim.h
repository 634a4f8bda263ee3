/* What the parts of the simulator share. The layouts are seen by abi.c and api.c alone; here a run is told neutrally. */
#ifndef RKLLM_SIM_SIM_H
#define RKLLM_SIM_SIM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* RKLLM_SIM_RELEASE is the release as a number (10202 for 1.2.2): some behaviour differs within one layout. */
enum {
    HAS_CPU_MASK = RKLLM_SIM_ABI >= 10200,
    HAS_PREFIX_REUSE = RKLLM_SIM_ABI >= 10200,
    HAS_HIDDEN_STATE = RKLLM_SIM_ABI < 10200,        /* hidden states come with a state of their own */
    HAS_EMPTY_BEFORE_HIDDEN = RKLLM_SIM_ABI == 10201, /* a NORMAL callback without anything comes first */
    HAS_PATH_LINE = RKLLM_SIM_ABI >= 10200,
    HAS_DTYPE_IN_LOG = RKLLM_SIM_ABI >= 10203,
    HAS_PAUSE = RKLLM_SIM_ABI >= 10203,
    HAS_EMBED_REUSE = RKLLM_SIM_RELEASE >= 10203,
};

#define PAD_ID 151935
#define EMBED_KEY (UINT64_C(1) << 63)

/* --- memory and text: text.c --- */

struct buf {
    char *data;
    size_t len, room;
};

struct ids {
    int32_t *at;
    size_t n;
};

void *sim_alloc(size_t size);                /* zeroed; ends the process when there is no memory */
void *sim_grow(void *old, size_t size);
char *sim_copy(const char *text, size_t len); /* with a NUL behind it */
char *sim_copy_text(const char *text);        /* NULL counts as empty */
void buf_add(struct buf *b, const void *data, size_t len);
void buf_text(struct buf *b, const char *text);
void buf_format(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_json(struct buf *b, const char *text, size_t len); /* with the quotes */
void buf_free(struct buf *b);
void ids_add(struct ids *list, int32_t id);
bool ids_hold(const struct ids *list, int32_t id);

/* A JSON string at *text; *text then points behind it. NULL if there is none. To be freed. */
char *json_string(const char **text);
/* Bytes of hex digits; the number of bytes, or -1. `out` has room for half of `len`. */
ssize_t hex_decode(const char *hex, size_t len, unsigned char *out);
/* How many bytes at the end are the beginning of a character that is not complete yet. */
size_t utf8_unfinished(const char *text, size_t len);
/* The length of the character at text: 1 for whatever is no UTF-8. */
size_t utf8_length(const char *text, size_t len);

struct version {
    int major, minor, patch, beta; /* beta: INT_MAX for the final release */
};
bool version_parse(const char *text, struct version *out);
int version_compare(const struct version *a, const struct version *b);

/* --- vocabulary: vocab.c --- */

struct vocab {
    uint32_t n;
    unsigned char *bytes;
    uint32_t *start; /* n + 1 of them; an id without text has an empty piece */
    uint32_t *table; /* hash table of id + 1 */
    uint32_t slots;
    uint32_t longest[256]; /* by first byte */
};

void vocab_index(struct vocab *v);
void vocab_free(struct vocab *v);
void vocab_text(const struct vocab *v, int32_t id, struct buf *out); /* `[PAD7]` for an id without text */
int32_t vocab_byte(const struct vocab *v, unsigned char byte, int32_t otherwise);
/* Greedy longest match. False if a byte has no token; *bad then tells which one. */
bool vocab_tokenize(const struct vocab *v, const char *text, size_t len, struct ids *out, unsigned char *bad);

/* --- faults: faults.c --- */

struct fault_line {
    char *name, *value, *when;
};

struct fault_lines {
    struct fault_line *at;
    size_t n;
};

enum abort_ends { ABORT_FINISH, ABORT_NOTHING, ABORT_ERROR };

struct faults {
    long load_fails, null_handle, model_newer, wrong_platform, context_over_limit, cpu_mask, run_fails, split_utf8,
        eos_text;
    long oom_second_init; /* 1: fails, 2: crashes */
    long load_ms, abort_ignored_ms, abort_ends;
    long error_at, segv_at, kill_at, exit_at, hang_at, pad_endless_at, text_null_at; /* -1: never */
};

/* One line, with or without `fault ` before it. False if it cannot be understood. */
bool fault_parse(const char *line, struct fault_lines *out);
void faults_free(struct fault_lines *lines);
/* All sources together: `model`, the environment, the file. `prompt` NULL: at init, when no `when` can hold.
   False, and a line on stderr, if a fault is unknown. */
bool faults_collect(const struct fault_lines *model, const char *prompt, struct faults *out);

/* --- model files: model.c, script.c --- */

enum lm_kind { LM_NONE, LM_HASH, LM_SCRIPT, LM_LLAMA };

enum script_kind { SCRIPT_IDS, SCRIPT_BYTES, SCRIPT_NULL, SCRIPT_ERROR, SCRIPT_WAIT };

struct script_item {
    enum script_kind kind;
    struct ids ids;
    long count; /* -1: endless */
    unsigned char *bytes;
    size_t n_bytes;
    double ms;
};

struct script_block {
    char *when; /* NULL: always */
    struct script_item *at;
    size_t n;
};

struct script {
    struct script_block *at; /* the first one is the common beginning */
    size_t n;
};

struct model {
    char *path, *platform, *dtype, *toolkit, *system, *prefix, *postfix, *gguf;
    char **child; /* ends with NULL */
    size_t n_child;
    int max_context, npu_cores, memory_mb, embd, answer_min, answer_max, words_first, words_count, load_ms;
    double prefill_ms, decode_ms;
    enum lm_kind lm;
    uint64_t seed;
    struct ids eos, special;
    struct fault_lines faults;
    struct vocab vocab;
    struct script script;
};

/* NULL, and the reason in `why`, if the file cannot be read. */
struct model *model_load(const char *path, struct buf *why);
void model_free(struct model *m);
bool script_line(struct script *s, const struct vocab *v, const char *line, struct buf *why);
void script_free(struct script *s);

/* --- the cache: cache.c --- */

typedef uint64_t sim_key; /* an id, or the hash of an embedding row with EMBED_KEY set */

struct cache {
    sim_key *keys;
    uint64_t *states; /* states[i]: hash of the seed and of the first i keys with their positions */
    size_t n, room;
};

uint64_t sim_mix(uint64_t x);
void cache_start(struct cache *c, uint64_t seed);
void cache_free(struct cache *c);
void cache_truncate(struct cache *c, size_t n);
void cache_push(struct cache *c, sim_key key);
void cache_remove(struct cache *c, size_t from, size_t to); /* what is behind moves down */
size_t cache_common(const sim_key *a, size_t n_a, const sim_key *b, size_t n_b);

struct keys {
    sim_key *at;
    size_t n;
};

uint64_t model_fingerprint(const struct model *m);
bool prompt_cache_save(const char *path, uint64_t fingerprint, const struct keys *keys);
bool prompt_cache_load(const char *path, uint64_t fingerprint, struct keys *out, struct buf *why);

/* --- logs: log.c --- */

void say(char level, const char *format, ...) __attribute__((format(printf, 2, 3))); /* `I rkllm: …` on stdout */
int log_level(void);
void call_begin(struct buf *b, const char *call);
void call_int(struct buf *b, const char *key, long long value);
void call_bool(struct buf *b, const char *key, bool value);
void call_number(struct buf *b, const char *key, double value); /* null unless it is finite */
void call_text(struct buf *b, const char *key, const char *text); /* NULL: null */
void call_end(struct buf *b, int ret); /* writes the line; frees b */
void call_write(struct buf *b);        /* the same without a return value */

/* --- time and the board: board.c --- */

double now_seconds(void); /* CLOCK_MONOTONIC */
void sleep_until(double when);
void pace_of(const struct model *m, double *prefill_ms, double *decode_ms);
/* Takes the simulated NPU. False if `alone` is asked for and somebody else holds it. */
bool board_take(bool alone, int *lock);
void board_leave(int lock);

/* --- a loaded model --- */

struct sampling {
    int top_k, mirostat;
    float top_p, temperature, repeat_penalty, frequency_penalty, presence_penalty, mirostat_tau, mirostat_eta;
};

struct settings {
    char *model_path, *img_start, *img_end;
    int max_context, max_new, n_keep, base_domain_id, embed_flash, cpus_num, n_batch, use_cross_attn;
    uint32_t cpus_mask;
    bool skip_special, ignore_eos, is_async;
    struct sampling sampling;
};

enum input_kind { INPUT_PROMPT, INPUT_TOKENS, INPUT_EMBED, INPUT_MULTIMODAL };
enum run_mode { MODE_GENERATE, MODE_HIDDEN, MODE_LOGITS };
enum event { EVENT_NORMAL, EVENT_WAITING, EVENT_FINISH, EVENT_ERROR, EVENT_HIDDEN };

/* Pictures or frames of one kind in a multimodal prompt. */
struct media {
    const char *placeholder; /* `<image>` */
    const char *start, *end;
    const float *rows;
    size_t tokens, count;
};

struct request {
    enum input_kind kind;
    enum run_mode mode;
    char *text, *role;    /* as given */
    bool enable_thinking;
    struct keys keys;     /* what is to be evaluated, template included */
    size_t n_system;      /* how many of them are the system prompt */
    bool has_embed;
    char *decoded;        /* what `when` is compared with */
    char *lora;
    bool save_cache;
    char *cache_path;
    bool has_sampling;
    struct sampling sampling;
    bool keep_history;
    int max_new; /* <= 0: as loaded */
    void *userdata;
};

struct perf {
    double prefill_ms, generate_ms, memory_mb;
    int prefilled, generated;
};

struct result {
    enum event event;
    const char *text;
    int32_t id;
    const float *hidden, *logits;
    int width, rows;
    const struct perf *perf; /* with FINISH */
};

struct llama;

struct handle {
    struct handle *next;
    int number, users; /* users: calls under way; guarded by the register of handles */
    struct model *model;
    struct settings settings;
    void *callback, *callback_userdata; /* callback: see abi.c */
    struct cache cache;
    atomic_int cache_n;
    struct keys prompt_cache;
    size_t n_system;
    char **loras;
    size_t n_loras;
    char *system, *prefix, *postfix, *tools, *tool_response;
    bool own_template, empty_template, paused;
    struct llama *llama;
    int board_lock;
    pthread_mutex_t mutex; /* guards running, runner, paused and every setting above against a run */
    bool running, has_runner;
    pthread_t runner; /* the thread that calls the callback */
    _Atomic double abort_at; /* when rkllm_abort was called in this run; 0: it was not */
};

void call_sampling(struct buf *b, const struct sampling *s);
void call_run(const struct handle *h, const struct request *q, long cap); /* the first of a run's two lines */

/* --- abi.c --- */

int abi_emit(struct handle *h, void *userdata, const struct result *r); /* what the callback returns; 0 if nothing */

/* --- prompt.c --- */

bool prompt_from_text(struct handle *h, struct request *q);
bool prompt_from_ids(struct handle *h, struct request *q, const int32_t *ids, size_t n);
bool prompt_from_rows(struct handle *h, struct request *q, const float *rows, size_t n);
bool prompt_from_media(struct handle *h, struct request *q, const struct media *media, size_t n_media);
void request_free(struct request *q);

/* --- runs: run.c, lm.c, llama.c --- */

enum piece_kind { PIECE_TOKEN, PIECE_NULL, PIECE_EOS, PIECE_CAP, PIECE_ERROR, PIECE_WAIT };

struct piece {
    enum piece_kind kind;
    int32_t id;
    struct buf text;
    double ms;
};

struct run {
    struct handle *h;
    struct request *q;
    struct faults faults;
    long cap; /* -1: none */
    size_t prompt_n;
    long produced; /* pieces asked of the language model */
    long answer;   /* hash: tokens of this answer */
    const struct script_block *blocks[2];
    size_t block, item, at;
    long round;
    bool llama_over;
};

void lm_begin(struct run *r);
/* The next piece; its text is only appended to. */
void lm_next(struct run *r, struct piece *out);
void lm_end(struct run *r);
int32_t hash_next(const struct model *m, uint64_t state);

struct llama *llama_start(const struct model *m, int n_ctx, struct buf *why);
void llama_stop(struct llama *l);
void llama_begin(struct run *r);
void llama_next(struct run *r, struct piece *out);
void llama_end(struct run *r);

/* --- init.c --- */

/* What rkllm_init does: checks, log lines, load. Takes what the settings own. NULL, and what to return, if it fails. */
struct handle *handle_load(struct settings *s, int *ret);

/* --- handle.c --- */

void handle_register(struct handle *h);
void handle_free(struct handle *h);      /* of a handle that is not registered, or no longer */
struct handle *handle_use(void *handle); /* NULL if there is no such handle */
void handle_leave(struct handle *h);
int handle_destroy(void *handle, int *number);
bool handle_begin_run(struct handle *h); /* false while one runs */
void handle_runs_here(struct handle *h); /* on the thread that runs */
void handle_end_run(struct handle *h);
bool handle_lock_idle(struct handle *h); /* with the mutex; false, without it, while a run is under way */
void handle_abort(struct handle *h);

/* One inference from beginning to end, with its two lines in the call log. */
int run_request(struct handle *h, struct request *q);

#endif
