"""What a release of librkllmrt can do, so that nobody else has to compare version strings.

Sources: "headers" are the tables of this package; "changelog" and "manual" are Rockchip's CHANGELOG.md and SDK manual;
issues are those of airockchip/rknn-llm.
"""

from __future__ import annotations

from rkllm_facts.abi.model import Layout
from rkllm_facts.abi.tables import layout_for_release
from rkllm_facts.abi.versions import Version
from rkllm_facts.errors import UnknownVersion


class Features:
    """The questions about one release.

    `version` may be left out where only the layout is known: what differs between the releases of a layout is then
    answered for the oldest of them. Raises UnknownVersion if the layout does not cover `version`.
    """

    def __init__(self, layout: Layout, version: str | Version | None = None) -> None:
        self.layout = layout
        if version is None:
            self.version = Version.parse(layout.releases[0])
        elif layout_for_release(version) is layout:
            self.version = version if isinstance(version, Version) else Version.parse(version)
        else:
            problem = f"The layout {layout.name} is not the one of librkllmrt {version}."
            raise UnknownVersion(str(version), problem, layout.releases)

    @classmethod
    def of(cls, version: str | Version) -> Features:
        """Of a release. Raises UnknownVersion."""
        return cls(layout_for_release(version), version)

    # --- the load: RKLLMParam, rkllm_init ---

    @property
    def init_takes_callback_struct(self) -> bool:
        """The third argument of rkllm_init is a pointer to RKLLMCallback, else the result callback itself.

        Source: headers, changed with 1.3.0.
        """
        return str(self.layout.functions["rkllm_init"].parameters[2].type) == "ptr<struct RKLLMCallback>"

    @property
    def init_may_hide_failure(self) -> bool:
        """rkllm_init can return 0 after a failed load, so the handle has to be looked at.

        Source: issue 156, for 1.1.x; the maintainer says it is fixed later.
        """
        return self.version < Version(1, 2, 0)

    @property
    def has_n_keep(self) -> bool:
        """RKLLMParam.n_keep: positions kept at the start when the window shifts.

        Source: headers, since 1.2.0.
        """
        return self._has("RKLLMParam", "n_keep")

    @property
    def has_ignore_eos_token(self) -> bool:
        """RKLLMParam.ignore_eos_token: carry on past the end-of-sequence token.

        Source: headers, since 1.3.0.
        """
        return self._has("RKLLMParam", "ignore_eos_token")

    @property
    def has_embed_flash(self) -> bool:
        """RKLLMExtendParam.embed_flash: read word embeddings from storage instead of main memory.

        Source: headers, since 1.2.0.
        """
        return self._has("RKLLMExtendParam", "embed_flash")

    @property
    def has_cpu_mask(self) -> bool:
        """RKLLMExtendParam.enabled_cpus_num and enabled_cpus_mask choose the CPUs; both have to agree.

        Source: headers, since 1.2.0; issue 474.
        """
        return self._has("RKLLMExtendParam", "enabled_cpus_mask")

    @property
    def has_batch(self) -> bool:
        """RKLLMExtendParam.n_batch: inputs that run together.

        Source: headers, since 1.2.1.
        """
        return self._has("RKLLMExtendParam", "n_batch")

    @property
    def image_tags_in_param(self) -> bool:
        """The strings around images are set once for each model, in RKLLMParam.img_start, img_end and img_content.

        Source: headers, 1.1.0 to 1.2.3.
        """
        return self._has("RKLLMParam", "img_start")

    @property
    def image_tags_in_input(self) -> bool:
        """The strings around images are set for each run, in multimodal_input.image.

        Source: headers, since 1.3.0.
        """
        return self._has("RKLLMMultiModalInput", "image.image_start")

    @property
    def has_tokenizer_callback(self) -> bool:
        """A model without a tokenizer of its own asks the callback of RKLLMCallback.

        Source: headers and manual, since 1.3.0.
        """
        return self._has("RKLLMCallback", "tokenizer_callback")

    @property
    def has_embed_callback(self) -> bool:
        """A model without an embedding layer of its own asks the callback of RKLLMCallback.

        Source: headers and manual, since 1.3.0.
        """
        return self._has("RKLLMCallback", "embed_callback")

    @property
    def safe_base_domain(self) -> bool:
        """RKLLMExtendParam.base_domain_id may be another than 0.

        Source: issue 99, a crash with 1.1.x; later demos of Rockchip set it.
        """
        return self.version >= Version(1, 2, 0)

    @property
    def several_models_in_process(self) -> bool:
        """Two handles in one process do not disturb each other.

        Source: changelog of 1.2.2, issues 367 and 383.
        """
        return self.version >= Version(1, 2, 2)

    # --- the run: RKLLMInput, RKLLMInferParam ---

    @property
    def has_role(self) -> bool:
        """RKLLMInput.role: `user` or `tool`.

        Source: headers, since 1.2.1.
        """
        return self._has("RKLLMInput", "role")

    @property
    def has_enable_thinking(self) -> bool:
        """RKLLMInput.enable_thinking, which the built-in chat template reads.

        Source: headers, since 1.2.1.
        """
        return self._has("RKLLMInput", "enable_thinking")

    @property
    def has_keep_history(self) -> bool:
        """RKLLMInferParam.keep_history: 1 carries on the conversation, 0 starts from nothing.

        Source: headers, since 1.2.0.
        """
        return self._has("RKLLMInferParam", "keep_history")

    @property
    def sampling_per_run(self) -> bool:
        """RKLLMInferParam.sampling_params: sampling for one run, else it is fixed by the load.

        Source: headers, since 1.3.0.
        """
        return self._has("RKLLMInferParam", "sampling_params")

    @property
    def max_new_tokens_per_run(self) -> bool:
        """RKLLMInferParam.max_new_tokens: the limit for one run, else it is fixed by the load.

        Source: headers, since 1.3.0.
        """
        return self._has("RKLLMInferParam", "max_new_tokens")

    @property
    def has_logits_mode(self) -> bool:
        """The mode RKLLM_INFER_GET_LOGITS, and RKLLMResult.logits.

        Source: headers, since 1.2.0.
        """
        return "RKLLM_INFER_GET_LOGITS" in self.layout.enums["RKLLMInferMode"].values

    @property
    def reuses_prefix(self) -> bool:
        """A run re-uses the cached positions whose tokens match the beginning of its prompt, keep_history 0 or 1.

        Source: changelog of 1.2.0, issue 432.
        """
        return self.version >= Version(1, 2, 0)

    @property
    def reuses_prefix_of_embeddings(self) -> bool:
        """The same for embedding input; before, such runs need a cleared cache.

        Source: changelog of 1.2.3, issue 278.
        """
        return self.version >= Version(1, 2, 3)

    @property
    def run_without_userdata_takes_that_of_init(self) -> bool:
        """If the userdata of rkllm_run is NULL the callback gets RKLLMCallback.result_userdata, else NULL.

        Source: header of 1.3.0.
        """
        return self._has("RKLLMCallback", "result_userdata")

    # --- the callback: RKLLMResult, LLMCallState ---

    @property
    def result_callback_returns_int(self) -> bool:
        """The result callback returns an int, else nothing. Where an int is expected, 0 goes on and 1 pauses the run.

        Source: headers, changed with 1.2.1.
        """
        return str(self.layout.callbacks["LLMResultCallback"].returns) == "i32"

    @property
    def callback_may_drop_output(self) -> bool:
        """The result callback may also return 2: release the buffer of logits or hidden states.

        Source: header of 1.3.0.
        """
        return self.version >= Version(1, 3, 0)

    @property
    def hidden_layer_has_own_state(self) -> bool:
        """Hidden states come in a callback with state RKLLM_RUN_GET_LAST_HIDDEN_LAYER, else with RKLLM_RUN_NORMAL.

        Source: headers, changed with 1.2.0.
        """
        return "RKLLM_RUN_GET_LAST_HIDDEN_LAYER" in self.layout.enums["LLMCallState"].values

    @property
    def has_logits(self) -> bool:
        """RKLLMResult.logits.

        Source: headers, since 1.2.0.
        """
        return self._has("RKLLMResult", "logits")

    @property
    def has_perf(self) -> bool:
        """RKLLMResult.perf, with the run's counts and times in RKLLM_RUN_FINISH.

        Source: headers and manual, since 1.2.1.
        """
        return self._has("RKLLMResult", "perf")

    # --- the other functions ---

    @property
    def clear_kv_cache_arguments(self) -> int:
        """How many arguments rkllm_clear_kv_cache takes: 2, 4 with ranges to clear, 0 where there is no such function.

        Source: headers, added with 1.2.0, ranges with 1.2.1.
        """
        function = self.layout.functions.get("rkllm_clear_kv_cache")
        return 0 if function is None else len(function.parameters)

    @property
    def has_kv_cache_size(self) -> bool:
        """rkllm_get_kv_cache_size: the positions held, one int for each input of a batch.

        Source: headers, since 1.2.1.
        """
        return "rkllm_get_kv_cache_size" in self.layout.functions

    @property
    def has_chat_template(self) -> bool:
        """rkllm_set_chat_template, which empties the whole cache.

        Source: headers, since 1.2.0; issue 377.
        """
        return "rkllm_set_chat_template" in self.layout.functions

    @property
    def has_function_tools(self) -> bool:
        """rkllm_set_function_tools, which works with the built-in chat template only.

        Source: headers, since 1.2.1; issues 397 and 429.
        """
        return "rkllm_set_function_tools" in self.layout.functions

    @property
    def has_cross_attention(self) -> bool:
        """rkllm_set_cross_attn_params, and RKLLMExtendParam.use_cross_attn.

        Source: headers, since 1.2.1.
        """
        return "rkllm_set_cross_attn_params" in self.layout.functions

    def _has(self, struct: str, path: str) -> bool:
        return self.layout.locate(struct, path) is not None
