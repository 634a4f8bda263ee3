/* What rkllm_init does: the log lines, the checks, the load. */
#include "sim.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef RKLLM_SIM_MARKER
#define MARKER "RKLLM SDK (version: " RKLLM_SIM_VERSION " | target: Linux | build: rkllm-sim)"
#else
#define MARKER ""
#endif
/* `used` keeps it in the file: others look for the version there, and the first one is that of something else. */
static const char versions[] __attribute__((used)) = "rknn llm lib version: 2.3.3b0 (rkllm-sim)\0" MARKER;

static char *upper(const char *text) {
    char *out = sim_copy_text(text);
    for (char *at = out; *at; at++)
        *at = (char)toupper((unsigned char)*at);
    return out;
}

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static void say_runtime(void) {
    static const struct version least = {0, 9, 7, 0};
    const char *driver = setting("RKLLM_SIM_DRIVER", "0.9.8");
    char *platform = upper(setting("RKLLM_SIM_PLATFORM", "rk3588"));
    struct version have;
    if (version_parse(driver, &have) && version_compare(&have, &least) < 0)
        say('W', "Warning: Your rknpu driver version is too low, please upgrade to 0.9.7.");
    say('I', "rkllm-runtime version: %s, rknpu driver version: %s, platform: %s", RKLLM_SIM_VERSION, driver, platform);
    free(platform);
}

static void say_model(const struct model *m) {
    char *platform = upper(m->platform), *dtype = upper(m->dtype);
    struct buf line = {0};
    buf_format(&line, "rkllm-toolkit version: %s, max_context_limit: %d, npu_core_num: %d, target_platform: %s",
               m->toolkit, m->max_context, m->npu_cores, platform);
    if (HAS_DTYPE_IN_LOG)
        buf_format(&line, ", model_dtype: %s", dtype);
    say('I', "%s", line.data);
    buf_free(&line);
    free(platform);
    free(dtype);
}

static void say_cpus(const struct settings *s) {
    struct buf line = {0};
    int n = 0;
    for (int cpu = 0; cpu < 32; cpu++)
        if (s->cpus_mask >> cpu & 1)
            buf_format(&line, n++ ? ", %d" : "%d", cpu);
    say('I', "Enabled cpus: [%s]", line.data ? line.data : "");
    say('I', "Enabled cpus num: %d", n);
    buf_free(&line);
}

/* --- checks; each says what is wrong --- */

static bool version_fits(const struct model *m, const struct faults *f) {
    static const struct version oldest = {1, 1, 0, 0};
    struct version model, own;
    if (!version_parse(m->toolkit, &model) || !version_parse(RKLLM_SIM_VERSION, &own)) {
        say('E', "rkllm-toolkit version %s cannot be understood", m->toolkit);
        return false;
    }
    if (version_compare(&model, &oldest) < 0) {
        say('E', "the model was made with rkllm-toolkit %s; convert it again with 1.1.0 or newer", m->toolkit);
        return false;
    }
    if (f->model_newer || version_compare(&model, &own) > 0) {
        say('E', "the model needs rkllm-runtime %s or newer, this is %s", m->toolkit, RKLLM_SIM_VERSION);
        return false;
    }
    return true;
}

static bool platform_fits(const struct model *m, const struct faults *f) {
    const char *here = setting("RKLLM_SIM_PLATFORM", "rk3588");
    if (!f->wrong_platform && strcasecmp(here, m->platform) == 0)
        return true;
    say('E', "the model was made for %s, this board is %s", m->platform, here);
    return false;
}

static bool context_fits(const struct settings *s, const struct model *m, const struct faults *f) {
    if (f->context_over_limit || s->max_context > m->max_context)
        say('E', "max_context_len %d is above the model's max_context_limit %d", s->max_context, m->max_context);
    else if (s->max_context <= 0)
        say('E', "max_context_len is %d", s->max_context);
    else if (s->n_keep >= s->max_context)
        say('E', "n_keep %d has to be less than max_context_len %d", s->n_keep, s->max_context);
    else
        return true;
    return false;
}

static bool cpus_fit(const struct settings *s, const struct model *m, const struct faults *f) {
    int bits = __builtin_popcount(s->cpus_mask);
    if (f->cpu_mask || (HAS_CPU_MASK && bits != s->cpus_num))
        say('E', "enabled_cpus_mask 0x%x has %d CPUs, enabled_cpus_num is %d", s->cpus_mask, bits, s->cpus_num);
    else if (HAS_CPU_MASK && bits < m->npu_cores)
        say('E', "%d CPUs are fewer than the %d NPU cores of the model", bits, m->npu_cores);
    else
        return true;
    return false;
}

static bool batch_fits(const struct settings *s) {
    if (s->n_batch <= 1)
        return true;
    say('E', "n_batch is %d; rkllm-sim runs one input at a time", s->n_batch);
    return false;
}

/* --- the load --- */

static bool take_board(struct handle *h, const struct faults *f) {
    if (board_take(f->oom_second_init > 0, &h->board_lock))
        return true;
    say('E', "no NPU memory for %d MB", h->model->memory_mb);
    if (f->oom_second_init == 2)
        raise(SIGSEGV);
    return false;
}

static bool start(struct handle *h, const struct faults *f) {
    struct buf why = {0};
    long ms = h->model->load_ms + f->load_ms;
    if (!take_board(h, f))
        return false;
    if (ms > 0)
        sleep_until(now_seconds() + (double)ms * 1e-3);
    if (h->model->lm != LM_LLAMA)
        return true;
    h->llama = llama_start(h->model, h->settings.max_context, &why);
    if (h->llama == NULL) {
        say('E', "%s", why.data);
        buf_free(&why);
        board_leave(h->board_lock);
    }
    return h->llama != NULL;
}

static bool load_model(struct handle *h, struct faults *f) {
    struct buf why = {0};
    h->model = model_load(h->settings.model_path, &why);
    if (h->model == NULL) {
        say('E', "%s", why.data);
        buf_free(&why);
        return false;
    }
    if (!faults_collect(&h->model->faults, NULL, f))
        return false;
    if (f->load_fails) {
        say('E', "failed to load model %s", h->settings.model_path);
        return false;
    }
    return true;
}

struct handle *handle_load(struct settings *s, int *ret) {
    struct faults faults;
    struct handle *h = sim_alloc(sizeof *h);
    h->settings = *s;
    *ret = -1;
    pthread_mutex_init(&h->mutex, NULL);
    say_runtime();
    if (HAS_PATH_LINE)
        say('I', "loading rkllm model from %s", s->model_path);
    if (!load_model(h, &faults))
        goto failed;
    if (!version_fits(h->model, &faults))
        goto failed;
    say_model(h->model);
    if (!platform_fits(h->model, &faults) || !context_fits(s, h->model, &faults) || !cpus_fit(s, h->model, &faults) ||
        !batch_fits(s))
        goto failed;
    if (faults.null_handle) {
        say('E', "failed to load model %s", s->model_path);
        *ret = 0;
        goto failed;
    }
    if (!start(h, &faults))
        goto failed;
    say_cpus(s);
    cache_start(&h->cache, h->model->seed);
    handle_register(h);
    *ret = 0;
    return h;
failed:
    handle_free(h);
    return NULL;
}
