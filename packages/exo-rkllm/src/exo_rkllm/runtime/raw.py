"""The functions of librkllmrt.so as they are, each under its C prototype. No decisions here: see model.py."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from exo_rkllm.runtime.ctypes_types import Types
from exo_rkllm.runtime.errors import NotInThisVersion


class RawLibrary:
    """One attribute for each function that some supported header declares; calling one that this layout does not have
    raises NotInThisVersion. Every call lets other Python threads run meanwhile, callbacks included."""

    def __init__(self, library: ctypes.CDLL, types: Types) -> None:
        self.types = types

        def bind(name: str) -> Callable[..., Any]:
            if name not in types.functions:
                return _absent(name, types.layout.name)
            function = library[name]  # by subscript it is an object of its own, which nobody else has typed
            function.restype, function.argtypes = types.functions[name]
            return function

        # The result is longer than 16 bytes: the caller passes its address unseen (x8 on aarch64, rdi on x86_64).
        # RKLLMParam rkllm_createDefaultParam(void);
        self.create_default_param = bind("rkllm_createDefaultParam")
        # up to 1.2.3: int rkllm_init(LLMHandle *handle, RKLLMParam *param, LLMResultCallback callback);
        # from 1.3.0:  int rkllm_init(LLMHandle *handle, RKLLMParam *param, RKLLMCallback *callback);
        self.init = bind("rkllm_init")
        # int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter *lora_adapter);
        self.load_lora = bind("rkllm_load_lora")
        # int rkllm_load_prompt_cache(LLMHandle handle, const char *prompt_cache_path);
        self.load_prompt_cache = bind("rkllm_load_prompt_cache")
        # int rkllm_release_prompt_cache(LLMHandle handle);
        self.release_prompt_cache = bind("rkllm_release_prompt_cache")
        # int rkllm_destroy(LLMHandle handle);
        self.destroy = bind("rkllm_destroy")
        # int rkllm_run(LLMHandle handle, RKLLMInput *rkllm_input, RKLLMInferParam *rkllm_infer_params, void *userdata);
        self.run = bind("rkllm_run")
        # int rkllm_run_async(LLMHandle handle, RKLLMInput *rkllm_input, RKLLMInferParam *rkllm_infer_params,
        #                     void *userdata);
        self.run_async = bind("rkllm_run_async")
        # int rkllm_abort(LLMHandle handle);
        self.abort = bind("rkllm_abort")
        # int rkllm_is_running(LLMHandle handle);
        self.is_running = bind("rkllm_is_running")
        # 1.2.0, 1.2.1b1: int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt);
        # from 1.2.1:     int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int *start_pos,
        #                                          int *end_pos);
        self.clear_kv_cache = bind("rkllm_clear_kv_cache")
        # from 1.2.1: int rkllm_get_kv_cache_size(LLMHandle handle, int *cache_sizes);
        self.get_kv_cache_size = bind("rkllm_get_kv_cache_size")
        # from 1.2.0: int rkllm_set_chat_template(LLMHandle handle, const char *system_prompt,
        #                                         const char *prompt_prefix, const char *prompt_postfix);
        self.set_chat_template = bind("rkllm_set_chat_template")
        # from 1.2.1: int rkllm_set_function_tools(LLMHandle handle, const char *system_prompt, const char *tools,
        #                                          const char *tool_response_str);
        self.set_function_tools = bind("rkllm_set_function_tools")
        # from 1.2.1: int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam *cross_attn_params);
        self.set_cross_attn_params = bind("rkllm_set_cross_attn_params")


def _absent(name: str, version: str) -> Callable[..., Any]:
    def refuse(*_arguments: object) -> Any:
        raise NotInThisVersion(name, version)

    return refuse
