"""What becomes of each field of OpenAI's requests, and of those that llama-server adds.

Fields that are not listed are ignored, as llama-server does.
"""

from __future__ import annotations

from exo.api.fields import CACHE, HONOURED, ONE_TIER, Fields, Handling

_LABEL = Handling("ignored", "A label for OpenAI's own accounts.")
_RUN: Fields = {
    "model": Handling(
        "honoured", "An id or an alias; without it the default model, with `auto` one that the node chooses."
    ),
    "n": Handling("honoured", "1 to 16. Each choice is a run of its own, with its own seed: seed, seed + 1, …"),
    "stream": HONOURED,
    "stream_options": Handling("honoured", "`include_usage`; there is no obfuscation to be switched off."),
    "max_tokens": Handling("honoured", "At least 1. Without it an answer may be as long as the context."),
    "stop": Handling("honoured", "A text, or a list of up to 64; empty ones have no effect."),
    "seed": Handling("honoured", "llama.cpp may still differ by the state of its cache, as llama-server."),
    "temperature": HONOURED,
    "top_p": HONOURED,
    "top_k": Handling("honoured", "llama-server's; 0 is off."),
    "min_p": Handling("honoured", "llama-server's."),
    "repeat_penalty": Handling("honoured", "llama-server's."),
    "presence_penalty": HONOURED,
    "frequency_penalty": HONOURED,
    "logit_bias": Handling("refused", "Leave it out: numbers of tokens differ from model to model.", ({},)),
    "grammar": Handling("refused", "Use response_format of /v1/chat/completions.", ("",)),
    "json_schema": Handling("refused", "Use response_format of /v1/chat/completions.", ({},)),
    "user": _LABEL,
}

CHAT: Fields = {
    "messages": Handling("honoured", "Text only. Texts of one message are joined by line ends; `name` is ignored."),
    **_RUN,
    "max_completion_tokens": Handling("honoured", "Goes before max_tokens."),
    "tools": Handling("honoured", "Functions; arguments are checked with `strict` and without it."),
    "tool_choice": Handling("honoured", "Also one function by name, or allowed_tools."),
    "parallel_tool_calls": HONOURED,
    "response_format": Handling("honoured", "json_schema always is strict."),
    "logprobs": HONOURED,
    "top_logprobs": HONOURED,
    "reasoning_effort": Handling("honoured", "none and minimal switch reasoning off, all others on."),
    "thinking_budget_tokens": Handling("honoured", "llama-server's; -1 is no bound."),
    "chat_template_kwargs": Handling("honoured", "llama-server's; enable_thinking, and nothing else."),
    "functions": Handling("refused", "Use tools.", ([],)),
    "function_call": Handling("refused", "Use tool_choice.", ("none", "auto")),
    "modalities": Handling("refused", "Answers are text.", ([], ["text"])),
    "audio": Handling("refused", "Answers are text.", ({},)),
    "prediction": Handling("refused", "Leave it out: it would save no time here.", ({},)),
    "web_search_options": Handling("refused", "There is no search here; send a tool that searches."),
    "moderation": Handling("refused", "Nothing is moderated here; leave it out."),
    "store": Handling("refused", "Answers are not stored; leave it out.", (False,)),
    "metadata": _LABEL,
    "safety_identifier": _LABEL,
    "verbosity": Handling("ignored", "A hint."),
    "service_tier": ONE_TIER,
    "prompt_cache_key": CACHE,
    "prompt_cache_options": CACHE,
    "prompt_cache_retention": CACHE,
}
COMPLETIONS: Fields = {
    "prompt": Handling("honoured", "A text or several, each with n choices; numbers of tokens are refused."),
    **_RUN,
    "echo": Handling("honoured", "Not together with logprobs: those of the prompt are not known."),
    "best_of": Handling("honoured", "1 or n: nothing is chosen among more answers than are sent."),
    "logprobs": Handling("honoured", "0 to 20."),
    "suffix": Handling("refused", "Text cannot be filled in before a suffix here; leave it out.", ("",)),
}
EMBEDDINGS: Fields = {
    "input": Handling("honoured", "A text or up to 2048, none of them empty; numbers of tokens are refused."),
    "model": Handling("honoured", "An id or an alias; without it, and with `auto`, the default model."),
    "encoding_format": HONOURED,
    "dimensions": Handling("honoured", "Vectors are cut to that many numbers and scaled to length 1."),
    "user": _LABEL,
}
