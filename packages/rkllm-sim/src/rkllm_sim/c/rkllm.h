/*
 * The interface of librkllmrt.so as the simulator offers it: five layouts in one header.
 *
 * RKLLM_SIM_ABI chooses the layout: 10104 (1.1.0 to 1.1.4), 10200 (1.2.0), 10201 (1.2.1b1 only), 10203 (1.2.1 to 1.2.3)
 * or 10300 (1.3.0). Written by hand; a test holds it against the tables of rkllm_facts with a compiler.
 */
#ifndef RKLLM_SIM_RKLLM_H
#define RKLLM_SIM_RKLLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(RKLLM_SIM_ABI)
#error "Say which layout: -DRKLLM_SIM_ABI=10104, 10200, 10201, 10203 or 10300."
#elif RKLLM_SIM_ABI != 10104 && RKLLM_SIM_ABI != 10200 && RKLLM_SIM_ABI != 10201 && RKLLM_SIM_ABI != 10203 && \
    RKLLM_SIM_ABI != 10300
#error "RKLLM_SIM_ABI is none of 10104, 10200, 10201, 10203 and 10300."
#endif

#define RKLLM_SIM_FROM(abi) (RKLLM_SIM_ABI >= (abi))
#define RKLLM_SIM_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

#if RKLLM_SIM_FROM(10200)
/* Bits of enabled_cpus_mask. */
#define CPU0 0x01
#define CPU1 0x02
#define CPU2 0x04
#define CPU3 0x08
#define CPU4 0x10
#define CPU5 0x20
#define CPU6 0x40
#define CPU7 0x80
#endif

typedef void *LLMHandle;

/* --- constants --- */

typedef enum {
    RKLLM_RUN_NORMAL = 0,
    RKLLM_RUN_WAITING = 1,
    RKLLM_RUN_FINISH = 2,
    RKLLM_RUN_ERROR = 3,
#if !RKLLM_SIM_FROM(10200)
    RKLLM_RUN_GET_LAST_HIDDEN_LAYER = 4,
#endif
} LLMCallState;

typedef enum {
    RKLLM_INPUT_PROMPT = 0,
    RKLLM_INPUT_TOKEN = 1,
    RKLLM_INPUT_EMBED = 2,
    RKLLM_INPUT_MULTIMODAL = 3,
} RKLLMInputType;

typedef enum {
    RKLLM_INFER_GENERATE = 0,
    RKLLM_INFER_GET_LAST_HIDDEN_LAYER = 1,
#if RKLLM_SIM_FROM(10200)
    RKLLM_INFER_GET_LOGITS = 2,
#endif
} RKLLMInferMode;

/* --- the load --- */

typedef struct RKLLMExtendParam {
    int32_t base_domain_id;
#if RKLLM_SIM_FROM(10200)
    int8_t embed_flash;
    int8_t enabled_cpus_num;
    uint32_t enabled_cpus_mask;
#endif
#if RKLLM_SIM_FROM(10203)
    uint8_t n_batch;
    int8_t use_cross_attn;
    uint8_t reserved[104];
#elif RKLLM_SIM_FROM(10200)
    uint8_t reserved[106];
#else
    uint8_t reserved[112];
#endif
} RKLLMExtendParam;

typedef struct RKLLMParam {
    const char *model_path;
    int32_t max_context_len;
    int32_t max_new_tokens;
    int32_t top_k;
#if RKLLM_SIM_FROM(10200)
    int32_t n_keep;
#endif
    float top_p;
    float temperature;
    float repeat_penalty;
    float frequency_penalty;
    float presence_penalty;
    int32_t mirostat;
    float mirostat_tau;
    float mirostat_eta;
    bool skip_special_token;
#if RKLLM_SIM_FROM(10300)
    bool ignore_eos_token;
#endif
    bool is_async;
#if !RKLLM_SIM_FROM(10300)
    const char *img_start;
    const char *img_end;
    const char *img_content;
#endif
    RKLLMExtendParam extend_param;
} RKLLMParam;

typedef struct RKLLMLoraAdapter {
    const char *lora_adapter_path;
    const char *lora_adapter_name;
    float scale;
} RKLLMLoraAdapter;

/* --- what a run is given --- */

typedef struct RKLLMEmbedInput {
    float *embed; /* n_tokens rows, each as wide as the model's embeddings */
    size_t n_tokens;
} RKLLMEmbedInput;

typedef struct RKLLMTokenInput {
    int32_t *input_ids;
    size_t n_tokens;
} RKLLMTokenInput;

#if RKLLM_SIM_FROM(10300)
typedef struct RKLLMMultiModalInput {
    char *prompt;
    struct {
        float *image_embed;
        size_t n_image_tokens;
        size_t n_image;
        const char *image_start;
        const char *image_end;
        const char *image_content;
        size_t image_width;
        size_t image_height;
    } image;
    struct {
        float *video_embed;
        size_t n_frame_tokens;
        size_t n_frame_per_video;
        size_t n_video;
        const char *video_start;
        const char *video_end;
        const char *video_content;
        size_t frame_width;
        size_t frame_height;
    } video;
} RKLLMMultiModalInput;
#else
/* 1.2.3 has renamed the type, with the same bytes. */
#if !RKLLM_SIM_FROM(10203)
#define RKLLMMultiModalInput RKLLMMultiModelInput
#endif
typedef struct RKLLMMultiModalInput {
    char *prompt;
    float *image_embed;
    size_t n_image_tokens;
#if RKLLM_SIM_FROM(10201)
    size_t n_image;
    size_t image_width;
    size_t image_height;
#endif
} RKLLMMultiModalInput;
#endif

typedef struct RKLLMInput {
#if RKLLM_SIM_FROM(10203)
    const char *role;
    bool enable_thinking;
#endif
    RKLLMInputType input_type; /* says which member of the union counts */
    union {
        const char *prompt_input;
        RKLLMEmbedInput embed_input;
        RKLLMTokenInput token_input;
        RKLLMMultiModalInput multimodal_input;
    };
} RKLLMInput;

typedef struct RKLLMLoraParam {
    const char *lora_adapter_name;
} RKLLMLoraParam;

typedef struct RKLLMPromptCacheParam {
    int32_t save_prompt_cache;
    const char *prompt_cache_path;
} RKLLMPromptCacheParam;

#if RKLLM_SIM_FROM(10300)
typedef struct RKLLMSamplingParam {
    int32_t top_k;
    float top_p;
    float temperature;
    float repeat_penalty;
    float frequency_penalty;
    float presence_penalty;
    int32_t mirostat;
    float mirostat_tau;
    float mirostat_eta;
} RKLLMSamplingParam;
#endif

typedef struct RKLLMInferParam {
    RKLLMInferMode mode;
    RKLLMLoraParam *lora_params;
    RKLLMPromptCacheParam *prompt_cache_params;
#if RKLLM_SIM_FROM(10300)
    RKLLMSamplingParam *sampling_params;
#endif
#if RKLLM_SIM_FROM(10200)
    int32_t keep_history;
#endif
#if RKLLM_SIM_FROM(10300)
    int32_t max_new_tokens;
#endif
} RKLLMInferParam;

#if RKLLM_SIM_FROM(10203)
typedef struct RKLLMCrossAttnParam {
    float *encoder_k_cache;
    float *encoder_v_cache;
    float *encoder_mask;
    int32_t *encoder_pos;
    int32_t num_tokens;
} RKLLMCrossAttnParam;
#endif

/* --- what a run gives back --- */

typedef struct RKLLMResultLastHiddenLayer {
    const float *hidden_states; /* num_tokens rows of embd_size */
    int32_t embd_size;
    int32_t num_tokens;
} RKLLMResultLastHiddenLayer;

#if RKLLM_SIM_FROM(10200)
typedef struct RKLLMResultLogits {
    const float *logits; /* num_tokens rows of vocab_size */
    int32_t vocab_size;
    int32_t num_tokens;
} RKLLMResultLogits;
#endif

#if RKLLM_SIM_FROM(10203)
typedef struct RKLLMPerfStat {
    float prefill_time_ms;
    int32_t prefill_tokens;
    float generate_time_ms;
    int32_t generate_tokens;
    float memory_usage_mb;
} RKLLMPerfStat;
#endif

typedef struct RKLLMResult {
    const char *text;
    int32_t token_id;
    RKLLMResultLastHiddenLayer last_hidden_layer;
#if RKLLM_SIM_FROM(10200)
    RKLLMResultLogits logits;
#endif
#if RKLLM_SIM_FROM(10203)
    RKLLMPerfStat perf;
#endif
} RKLLMResult;

#if RKLLM_SIM_FROM(10203)
typedef int (*LLMResultCallback)(RKLLMResult *result, void *userdata, LLMCallState state);
#else
typedef void (*LLMResultCallback)(RKLLMResult *result, void *userdata, LLMCallState state);
#endif

#if RKLLM_SIM_FROM(10300)
typedef int (*LLMTokenizerCallback)(void *userdata, const char *text, int32_t text_len, int32_t *tokens,
                                    int32_t n_tokens_max);
typedef int (*LLMGetEmbedCallback)(void *userdata, int32_t *tokens, uint64_t num_tokens, void *embed, uint64_t len);

typedef struct RKLLMCallback {
    LLMResultCallback result_callback;
    void *result_userdata;
    LLMTokenizerCallback tokenizer_callback;
    void *tokenizer_userdata;
    LLMGetEmbedCallback embed_callback;
    void *embed_userdata;
} RKLLMCallback;
#endif

/* --- the functions; 0 for success, another number for a failure --- */

RKLLM_SIM_API RKLLMParam rkllm_createDefaultParam(void);
#if RKLLM_SIM_FROM(10300)
RKLLM_SIM_API int rkllm_init(LLMHandle *handle, RKLLMParam *param, RKLLMCallback *callback);
#else
RKLLM_SIM_API int rkllm_init(LLMHandle *handle, RKLLMParam *param, LLMResultCallback callback);
#endif
RKLLM_SIM_API int rkllm_destroy(LLMHandle handle);

RKLLM_SIM_API int rkllm_run(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata);
RKLLM_SIM_API int rkllm_run_async(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata);
RKLLM_SIM_API int rkllm_abort(LLMHandle handle);
RKLLM_SIM_API int rkllm_is_running(LLMHandle handle); /* 1 while a run is under way */

RKLLM_SIM_API int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter *adapter);
RKLLM_SIM_API int rkllm_load_prompt_cache(LLMHandle handle, const char *path);
RKLLM_SIM_API int rkllm_release_prompt_cache(LLMHandle handle);

#if RKLLM_SIM_FROM(10203)
RKLLM_SIM_API int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int *start_pos, int *end_pos);
RKLLM_SIM_API int rkllm_get_kv_cache_size(LLMHandle handle, int *cache_sizes);
RKLLM_SIM_API int rkllm_set_function_tools(LLMHandle handle, const char *system_prompt, const char *tools,
                                           const char *tool_response_str);
RKLLM_SIM_API int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam *params);
#elif RKLLM_SIM_FROM(10200)
RKLLM_SIM_API int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt);
#endif
#if RKLLM_SIM_FROM(10200)
RKLLM_SIM_API int rkllm_set_chat_template(LLMHandle handle, const char *system_prompt, const char *prompt_prefix,
                                          const char *prompt_postfix);
#endif

#ifdef __cplusplus
}
#endif
#endif
