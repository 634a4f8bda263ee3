/* The exported functions: each checks its arguments, does its work, and writes its line in the call log. */
#include "abi.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALLBACK_OF(function) ((void *)(function))

static int numbered(const char *call, int number, int ret) {
    struct buf line;
    call_begin(&line, call);
    call_int(&line, "handle", number);
    call_end(&line, ret);
    return ret;
}

static int answered(const char *call, const struct handle *h, int ret) {
    return numbered(call, h ? h->number : 0, ret);
}

RKLLMParam rkllm_createDefaultParam(void) {
    answered("rkllm_createDefaultParam", NULL, 0);
    return abi_defaults();
}

/* --- load and end --- */

static void log_init(const struct settings *s, int number, int ret) {
    struct buf line;
    call_begin(&line, "rkllm_init");
    call_int(&line, "handle", number);
    call_text(&line, "model_path", s->model_path);
    call_int(&line, "max_context_len", s->max_context);
    call_int(&line, "max_new_tokens", s->max_new);
    call_int(&line, "n_keep", s->n_keep);
    call_sampling(&line, &s->sampling);
    call_bool(&line, "skip_special_token", s->skip_special);
    call_bool(&line, "ignore_eos_token", s->ignore_eos);
    call_bool(&line, "is_async", s->is_async);
    call_int(&line, "base_domain_id", s->base_domain_id);
    call_int(&line, "embed_flash", s->embed_flash);
    call_int(&line, "enabled_cpus_num", s->cpus_num);
    call_int(&line, "enabled_cpus_mask", s->cpus_mask);
    call_int(&line, "n_batch", s->n_batch);
    call_int(&line, "use_cross_attn", s->use_cross_attn);
    call_end(&line, ret);
}

static int init(LLMHandle *handle, const RKLLMParam *param, void *callback, void *userdata) {
    if (handle)
        *handle = NULL;
    if (handle == NULL || param == NULL || param->model_path == NULL || callback == NULL) {
        say('E', "rkllm_init: %s is NULL", handle == NULL   ? "handle"
                                           : param == NULL  ? "param"
                                           : callback == NULL ? "the result callback"
                                                              : "model_path");
        return answered("rkllm_init", NULL, -1);
    }
    struct settings settings, shown;
    int ret;
    abi_settings(param, &settings);
    shown = settings;
    shown.model_path = sim_copy_text(settings.model_path); /* the load may have freed its own */
    struct handle *h = handle_load(&settings, &ret);
    if (h) {
        h->callback = callback;
        h->callback_userdata = userdata;
        *handle = h;
    }
    log_init(&shown, h ? h->number : 0, ret);
    free(shown.model_path);
    return ret;
}

#if RKLLM_SIM_FROM(10300)
int rkllm_init(LLMHandle *handle, RKLLMParam *param, RKLLMCallback *callback) {
    return init(handle, param, callback ? CALLBACK_OF(callback->result_callback) : NULL,
                callback ? callback->result_userdata : NULL);
}
#else
int rkllm_init(LLMHandle *handle, RKLLMParam *param, LLMResultCallback callback) {
    return init(handle, param, CALLBACK_OF(callback), NULL);
}
#endif

int rkllm_destroy(LLMHandle handle) {
    int number = 0, ret = handle_destroy(handle, &number);
    return numbered("rkllm_destroy", number, ret);
}

/* --- runs --- */

static int refuse(const char *call, const struct handle *h, const char *why) {
    struct buf line;
    say('E', "%s: %s", call, why);
    call_begin(&line, call);
    call_int(&line, "handle", h ? h->number : 0);
    call_text(&line, "event", "refused");
    call_text(&line, "why", why);
    call_end(&line, -1);
    return -1;
}

/* The handle and its request, the run begun; NULL after a refusal. */
static struct request *begin(const char *call, LLMHandle handle, const RKLLMInput *input, const RKLLMInferParam *infer,
                             void *userdata, struct handle **h) {
    const char *why = "there is no such handle";
    struct request *q = NULL;
    *h = handle_use(handle);
    if (*h && !handle_begin_run(*h)) {
        why = "a run is under way";
    } else if (*h) {
        q = abi_request(*h, input, infer, userdata, &why);
        if (q == NULL)
            handle_end_run(*h);
    }
    if (q == NULL) {
        refuse(call, *h, why);
        if (*h)
            handle_leave(*h);
    }
    return q;
}

static int execute(struct handle *h, struct request *q) {
    handle_runs_here(h);
    int ret = run_request(h, q);
    request_free(q);
    handle_end_run(h);
    handle_leave(h);
    return ret;
}

int rkllm_run(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata) {
    struct handle *h;
    struct request *q = begin("rkllm_run", handle, input, infer, userdata, &h);
    return q ? execute(h, q) : -1;
}

struct job {
    struct handle *h;
    struct request *q;
};

static void *run_job(void *data) {
    struct job job = *(struct job *)data;
    free(data);
    execute(job.h, job.q);
    return NULL;
}

int rkllm_run_async(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata) {
    struct handle *h;
    struct request *q = begin("rkllm_run_async", handle, input, infer, userdata, &h);
    if (q == NULL)
        return -1;
    struct job *job = sim_alloc(sizeof *job);
    pthread_t thread;
    *job = (struct job){h, q};
    answered("rkllm_run_async", h, 0); /* before the thread: the handle may be gone by the time it is started */
    if (pthread_create(&thread, NULL, run_job, job) == 0) {
        pthread_detach(thread);
        return 0;
    }
    free(job);
    request_free(q);
    handle_end_run(h);
    refuse("rkllm_run_async", h, "no thread can be started");
    handle_leave(h);
    return -1;
}

int rkllm_abort(LLMHandle handle) {
    struct handle *h = handle_use(handle);
    if (h == NULL)
        return answered("rkllm_abort", NULL, -1);
    handle_abort(h);
    handle_leave(h);
    return 0;
}

int rkllm_is_running(LLMHandle handle) {
    struct handle *h = handle_use(handle);
    if (h == NULL)
        return 0;
    pthread_mutex_lock(&h->mutex);
    bool running = h->running;
    pthread_mutex_unlock(&h->mutex);
    int ret = answered("rkllm_is_running", h, running);
    handle_leave(h);
    return ret;
}

/* --- between runs: each does its work on a handle that is locked and idle --- */

typedef int (*between_runs)(struct handle *h, const void *argument);

static int idle_call(const char *call, LLMHandle handle, between_runs work, const void *argument) {
    struct handle *h = handle_use(handle);
    int ret = -1;
    if (h && handle_lock_idle(h)) {
        ret = work(h, argument);
        pthread_mutex_unlock(&h->mutex);
    }
    answered(call, h, ret);
    if (h)
        handle_leave(h);
    return ret;
}

static int problem(const char *what, const char *which) {
    say('E', "%s: %s", what, which ? which : "(NULL)");
    return -1;
}

static int load_lora(struct handle *h, const void *argument) {
    const RKLLMLoraAdapter *lora = argument;
    if (lora == NULL || lora->lora_adapter_name == NULL)
        return problem("the adapter needs a name", NULL);
    if (lora->lora_adapter_path == NULL || access(lora->lora_adapter_path, R_OK) != 0)
        return problem("the adapter's file is missing", lora->lora_adapter_path);
    for (size_t i = 0; i < h->n_loras; i++)
        if (strcmp(h->loras[i], lora->lora_adapter_name) == 0)
            return problem("an adapter of this name is loaded", lora->lora_adapter_name);
    h->loras = sim_grow(h->loras, (h->n_loras + 1) * sizeof *h->loras);
    h->loras[h->n_loras++] = sim_copy_text(lora->lora_adapter_name);
    return 0;
}

int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter *adapter) {
    return idle_call("rkllm_load_lora", handle, load_lora, adapter);
}

static int load_prompt_cache(struct handle *h, const void *argument) {
    const char *path = argument;
    struct buf why = {0};
    if (path == NULL)
        return problem("the path of the prompt cache is missing", NULL);
    if (h->prompt_cache.n)
        return problem("release the loaded prompt cache first", path);
    bool good = prompt_cache_load(path, model_fingerprint(h->model), &h->prompt_cache, &why);
    if (!good)
        say('E', "%s", why.data);
    buf_free(&why);
    return good ? 0 : -1;
}

int rkllm_load_prompt_cache(LLMHandle handle, const char *path) {
    return idle_call("rkllm_load_prompt_cache", handle, load_prompt_cache, path);
}

static int release_prompt_cache(struct handle *h, const void *argument) {
    (void)argument;
    free(h->prompt_cache.at);
    h->prompt_cache = (struct keys){0};
    return 0;
}

int rkllm_release_prompt_cache(LLMHandle handle) {
    return idle_call("rkllm_release_prompt_cache", handle, release_prompt_cache, NULL);
}

#if RKLLM_SIM_FROM(10200)
struct clear {
    int keep_system;
    const int *start, *end;
};

static void cache_changed(struct handle *h) {
    if (h->n_system > h->cache.n)
        h->n_system = h->cache.n;
    atomic_store(&h->cache_n, (int)h->cache.n);
}

static int clear_range(struct handle *h, int start, int end) {
    if (!h->paused)
        return problem("ranges can be cleared only after a pause", "rkllm_clear_kv_cache");
    if (start < 0 || (end > start && (size_t)end > h->cache.n))
        return problem("the range is not within the cache", "rkllm_clear_kv_cache");
    if (start < end) {
        if (h->n_system > (size_t)start)
            h->n_system = (size_t)start;
        cache_remove(&h->cache, (size_t)start, (size_t)end);
    }
    cache_changed(h);
    return 0;
}

static int clear(struct handle *h, const void *argument) {
    const struct clear *c = argument;
    if ((c->start == NULL) != (c->end == NULL))
        return problem("start_pos and end_pos belong together", "rkllm_clear_kv_cache");
    if (c->start)
        return clear_range(h, c->start[0], c->end[0]);
    cache_truncate(&h->cache, c->keep_system ? h->n_system : 0);
    cache_changed(h);
    return 0;
}

#if RKLLM_SIM_FROM(10203)
int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int *start_pos, int *end_pos) {
    struct clear argument = {keep_system_prompt, start_pos, end_pos};
    return idle_call("rkllm_clear_kv_cache", handle, clear, &argument);
}
#else
int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt) {
    struct clear argument = {keep_system_prompt, NULL, NULL};
    return idle_call("rkllm_clear_kv_cache", handle, clear, &argument);
}
#endif

static void replace(char **place, const char *text) {
    free(*place);
    *place = sim_copy_text(text);
}

static int set_chat_template(struct handle *h, const void *argument) {
    const char *const *parts = argument;
    replace(&h->system, parts[0]);
    replace(&h->prefix, parts[1]);
    replace(&h->postfix, parts[2]);
    h->own_template = true;
    h->empty_template = !*h->system && !*h->prefix && !*h->postfix;
    h->n_system = 0;
    cache_truncate(&h->cache, 0);
    cache_changed(h);
    say('W', "the chat template is set by hand: the model's own one and enable_thinking are off");
    say('I', "system_prompt: %s", h->system);
    say('I', "prompt_prefix: %s", h->prefix);
    say('I', "prompt_postfix: %s", h->postfix);
    return 0;
}

int rkllm_set_chat_template(LLMHandle handle, const char *system_prompt, const char *prompt_prefix,
                            const char *prompt_postfix) {
    const char *const parts[] = {system_prompt, prompt_prefix, prompt_postfix};
    return idle_call("rkllm_set_chat_template", handle, set_chat_template, parts);
}
#endif

#if RKLLM_SIM_FROM(10203)
int rkllm_get_kv_cache_size(LLMHandle handle, int *cache_sizes) {
    struct handle *h = handle_use(handle);
    int ret = h && cache_sizes ? 0 : -1;
    if (ret == 0)
        cache_sizes[0] = atomic_load(&h->cache_n); /* at any time, a run's thread only adds to it */
    answered("rkllm_get_kv_cache_size", h, ret);
    if (h)
        handle_leave(h);
    return ret;
}

static int set_function_tools(struct handle *h, const void *argument) {
    const char *const *parts = argument;
    if (parts[1] == NULL)
        return problem("tools is NULL", "rkllm_set_function_tools");
    if (h->empty_template)
        return problem("tools need a chat template", "rkllm_set_function_tools");
    if (h->own_template) {
        say('W', "the chat template is set by hand: tools are not inserted");
        return 0;
    }
    replace(&h->system, parts[0]);
    replace(&h->tools, parts[1]);
    replace(&h->tool_response, parts[2]);
    return 0;
}

int rkllm_set_function_tools(LLMHandle handle, const char *system_prompt, const char *tools,
                             const char *tool_response_str) {
    const char *const parts[] = {system_prompt, tools, tool_response_str};
    return idle_call("rkllm_set_function_tools", handle, set_function_tools, parts);
}

static int set_cross_attn(struct handle *h, const void *argument) {
    const RKLLMCrossAttnParam *p = argument;
    if (p == NULL || p->encoder_k_cache == NULL || p->encoder_v_cache == NULL || p->num_tokens <= 0)
        return problem("encoder_k_cache, encoder_v_cache and num_tokens are needed", "rkllm_set_cross_attn_params");
    if (h->settings.use_cross_attn == 0)
        return problem("use_cross_attn was not set at init", "rkllm_set_cross_attn_params");
    return 0;
}

int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam *params) {
    return idle_call("rkllm_set_cross_attn_params", handle, set_cross_attn, params);
}
#endif
