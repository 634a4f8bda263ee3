/* From the structs of a layout to the simulator's own, and back. */
#include "abi.h"

#include <string.h>

/* --- RKLLMParam --- */

RKLLMParam abi_defaults(void) {
    RKLLMParam p;
    memset(&p, 0, sizeof p); /* the padding too: who probes the layout looks at every byte */
    p.max_context_len = 512;
    p.max_new_tokens = -1;
    p.top_k = 40;
    p.top_p = 0.9F;
    p.temperature = 0.8F;
    p.repeat_penalty = 1.1F;
    p.mirostat_tau = 5.0F;
    p.mirostat_eta = 0.1F;
#if RKLLM_SIM_FROM(10200)
    p.n_keep = -1;
    p.extend_param.enabled_cpus_num = 4;
    p.extend_param.enabled_cpus_mask = CPU4 | CPU5 | CPU6 | CPU7;
#endif
#if RKLLM_SIM_FROM(10203)
    p.extend_param.n_batch = 1;
#endif
    return p;
}

void abi_settings(const RKLLMParam *p, struct settings *out) {
    *out = (struct settings){
        .model_path = sim_copy_text(p->model_path),
        .max_context = p->max_context_len,
        .max_new = p->max_new_tokens,
        .n_keep = -1,
        .base_domain_id = p->extend_param.base_domain_id,
        .cpus_num = 4,
        .cpus_mask = 0xF0,
        .n_batch = 1,
        .skip_special = p->skip_special_token,
        .is_async = p->is_async,
        .sampling = {.top_k = p->top_k,
                     .top_p = p->top_p,
                     .temperature = p->temperature,
                     .repeat_penalty = p->repeat_penalty,
                     .frequency_penalty = p->frequency_penalty,
                     .presence_penalty = p->presence_penalty,
                     .mirostat = p->mirostat,
                     .mirostat_tau = p->mirostat_tau,
                     .mirostat_eta = p->mirostat_eta},
    };
#if RKLLM_SIM_FROM(10200)
    out->n_keep = p->n_keep;
    out->embed_flash = p->extend_param.embed_flash;
    out->cpus_num = p->extend_param.enabled_cpus_num;
    out->cpus_mask = p->extend_param.enabled_cpus_mask;
#endif
#if RKLLM_SIM_FROM(10203)
    out->n_batch = p->extend_param.n_batch;
    out->use_cross_attn = p->extend_param.use_cross_attn;
#endif
#if RKLLM_SIM_FROM(10300)
    out->ignore_eos = p->ignore_eos_token;
#else
    out->img_start = sim_copy_text(p->img_start);
    out->img_end = sim_copy_text(p->img_end);
#endif
}

/* --- RKLLMInput and RKLLMInferParam --- */

#define OR_EMPTY(text) ((text) ? (text) : "")

static bool multimodal(struct handle *h, struct request *q, const RKLLMMultiModalInput *in) {
    q->text = sim_copy_text(in->prompt);
#if RKLLM_SIM_FROM(10300)
    const struct media media[] = {
        {"<image>", OR_EMPTY(in->image.image_start), OR_EMPTY(in->image.image_end), in->image.image_embed,
         in->image.n_image_tokens, in->image.n_image},
        {"<video>", OR_EMPTY(in->video.video_start), OR_EMPTY(in->video.video_end), in->video.video_embed,
         in->video.n_frame_tokens * in->video.n_frame_per_video, in->video.n_video},
    };
    return prompt_from_media(h, q, media, 2);
#else
    struct media media = {"<image>", h->settings.img_start, h->settings.img_end, in->image_embed, in->n_image_tokens, 1};
#if RKLLM_SIM_FROM(10201)
    media.count = in->n_image;
#endif
    return prompt_from_media(h, q, &media, 1);
#endif
}

/* NULL, or why the input is refused. */
static const char *read_input(struct handle *h, struct request *q, const RKLLMInput *in) {
    bool good = false;
    switch (in->input_type) {
    case RKLLM_INPUT_PROMPT:
        q->kind = INPUT_PROMPT;
        if (in->prompt_input == NULL)
            return "prompt_input is NULL";
        q->text = sim_copy_text(in->prompt_input);
        good = prompt_from_text(h, q);
        break;
    case RKLLM_INPUT_TOKEN:
        q->kind = INPUT_TOKENS;
        if (in->token_input.input_ids == NULL)
            return "input_ids is NULL";
        good = prompt_from_ids(h, q, in->token_input.input_ids, in->token_input.n_tokens);
        break;
    case RKLLM_INPUT_EMBED:
        q->kind = INPUT_EMBED;
        if (in->embed_input.embed == NULL)
            return "embed is NULL";
        good = prompt_from_rows(h, q, in->embed_input.embed, in->embed_input.n_tokens);
        break;
    case RKLLM_INPUT_MULTIMODAL:
        q->kind = INPUT_MULTIMODAL;
        if (in->multimodal_input.prompt == NULL)
            return "prompt of the multimodal input is NULL";
        good = multimodal(h, q, &in->multimodal_input);
        break;
    default:
        return "input_type is none of the header's";
    }
    if (!good)
        return "the input cannot be used";
    if (q->has_embed && h->model->lm == LM_LLAMA)
        return "a llama model takes no embeddings";
    return q->keys.n ? NULL : "the input is empty";
}

static bool known_lora(const struct handle *h, const char *name) {
    for (size_t i = 0; i < h->n_loras; i++)
        if (strcmp(h->loras[i], name) == 0)
            return true;
    return false;
}

static const char *read_infer(const struct handle *h, struct request *q, const RKLLMInferParam *in) {
    switch (in->mode) {
    case RKLLM_INFER_GENERATE:
        q->mode = MODE_GENERATE;
        break;
    case RKLLM_INFER_GET_LAST_HIDDEN_LAYER:
        q->mode = MODE_HIDDEN;
        break;
#if RKLLM_SIM_FROM(10200)
    case RKLLM_INFER_GET_LOGITS:
        q->mode = MODE_LOGITS;
        break;
#endif
    default:
        return "mode is none of the header's";
    }
    if (in->lora_params) {
        q->lora = sim_copy_text(in->lora_params->lora_adapter_name);
        if (!known_lora(h, q->lora))
            return "no adapter of that name is loaded";
    }
    if (in->prompt_cache_params) {
        q->save_cache = in->prompt_cache_params->save_prompt_cache != 0;
        const char *path = in->prompt_cache_params->prompt_cache_path;
        q->cache_path = path ? sim_copy_text(path) : NULL;
    }
#if RKLLM_SIM_FROM(10200)
    q->keep_history = in->keep_history != 0;
#endif
#if RKLLM_SIM_FROM(10300)
    q->max_new = in->max_new_tokens;
    const RKLLMSamplingParam *s = in->sampling_params;
    q->has_sampling = s != NULL;
    if (s)
        q->sampling = (struct sampling){.top_k = s->top_k,
                                        .top_p = s->top_p,
                                        .temperature = s->temperature,
                                        .repeat_penalty = s->repeat_penalty,
                                        .frequency_penalty = s->frequency_penalty,
                                        .presence_penalty = s->presence_penalty,
                                        .mirostat = s->mirostat,
                                        .mirostat_tau = s->mirostat_tau,
                                        .mirostat_eta = s->mirostat_eta};
#endif
    return NULL;
}

struct request *abi_request(struct handle *h, const RKLLMInput *input, const RKLLMInferParam *infer, void *userdata,
                            const char **why) {
    if (input == NULL || infer == NULL) {
        *why = input ? "infer_params is NULL" : "input is NULL";
        return NULL;
    }
    struct request *q = sim_alloc(sizeof *q);
    q->userdata = userdata ? userdata : h->callback_userdata;
#if RKLLM_SIM_FROM(10203)
    q->role = input->role ? sim_copy_text(input->role) : NULL;
    q->enable_thinking = input->enable_thinking;
#endif
    *why = read_infer(h, q, infer); /* first: the history decides about the system prompt */
    if (*why == NULL)
        *why = read_input(h, q, input);
    if (*why == NULL)
        return q;
    request_free(q);
    return NULL;
}

/* --- RKLLMResult --- */

int abi_emit(struct handle *h, void *userdata, const struct result *r) {
    static const LLMCallState states[] = {
        [EVENT_NORMAL] = RKLLM_RUN_NORMAL,
        [EVENT_WAITING] = RKLLM_RUN_WAITING,
        [EVENT_FINISH] = RKLLM_RUN_FINISH,
        [EVENT_ERROR] = RKLLM_RUN_ERROR,
#if !RKLLM_SIM_FROM(10200)
        [EVENT_HIDDEN] = RKLLM_RUN_GET_LAST_HIDDEN_LAYER,
#endif
    };
    RKLLMResult out;
    memset(&out, 0, sizeof out);
    out.text = r->text;
    out.token_id = r->id;
    if (r->hidden) {
        out.last_hidden_layer.hidden_states = r->hidden;
        out.last_hidden_layer.embd_size = r->width;
        out.last_hidden_layer.num_tokens = r->rows;
    }
#if RKLLM_SIM_FROM(10200)
    if (r->logits) {
        out.logits.logits = r->logits;
        out.logits.vocab_size = r->width;
        out.logits.num_tokens = r->rows;
    }
#endif
#if RKLLM_SIM_FROM(10203)
    if (r->perf) {
        out.perf.prefill_time_ms = (float)r->perf->prefill_ms;
        out.perf.prefill_tokens = r->perf->prefilled;
        out.perf.generate_time_ms = (float)r->perf->generate_ms;
        out.perf.generate_tokens = r->perf->generated;
        out.perf.memory_usage_mb = (float)r->perf->memory_mb;
    }
    return ((LLMResultCallback)h->callback)(&out, userdata, states[r->event]);
#else
    ((LLMResultCallback)h->callback)(&out, userdata, states[r->event]);
    return 0;
#endif
}
