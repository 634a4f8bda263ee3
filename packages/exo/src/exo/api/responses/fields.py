"""What becomes of each field of a request of the Responses API. Fields that are not listed are ignored."""

from __future__ import annotations

from exo.api.fields import CACHE, HONOURED, ONE_TIER, Fields, Handling

_LABEL = Handling("ignored", "A label for OpenAI's own accounts; the response repeats it.")

RESPONSES: Fields = {
    "model": Handling(
        "honoured", "An id or an alias; without it the default model, with `auto` one that the node chooses."
    ),
    "input": Handling(
        "honoured",
        "A text, or messages, reasoning, function_call and function_call_output, text only. Others are refused, "
        "item_reference among them; encrypted reasoning is ignored.",
    ),
    "instructions": Handling("honoured", "Not carried over by previous_response_id."),
    "previous_response_id": Handling("honoured", "Within a bounded store in memory, each key its own."),
    "store": Handling("honoured", "True by default; only complete and incomplete answers are stored."),
    "stream": HONOURED,
    "stream_options": Handling("ignored", "There is no obfuscation to be switched off."),
    "max_output_tokens": Handling("honoured", "At least 1; reasoning counts."),
    "temperature": HONOURED,
    "top_p": HONOURED,
    "tools": Handling("honoured", "Functions, whose arguments are always checked. OpenAI's own tools are refused."),
    "tool_choice": Handling("honoured", "auto, none, required, one function by name, or allowed_tools."),
    "parallel_tool_calls": HONOURED,
    "max_tool_calls": Handling("ignored", "It bounds OpenAI's own tools, which are not run here."),
    "text": Handling("honoured", "`format`, json_schema always strict; `verbosity` is a hint, and is ignored."),
    "reasoning": Handling(
        "honoured", "`effort`: none and minimal switch reasoning off, all others on. Nothing is summed up."
    ),
    "include": Handling(
        "honoured", "message.output_text.logprobs; all others are about what no answer has: reasoning comes in clear."
    ),
    "top_logprobs": Handling("honoured", "0 to 20, without `include` too."),
    "metadata": Handling("honoured", "The response repeats it."),
    "background": Handling("refused", "Wait for the answer, or stream it.", (False,)),
    "conversation": Handling("refused", "Use previous_response_id."),
    "prompt": Handling("refused", "Send the text itself: no prompts are kept here."),
    "truncation": Handling("refused", "Shorten the conversation yourself.", ("disabled",)),
    "context_management": Handling("refused", "Shorten the conversation yourself.", ([],)),
    "moderation": Handling("refused", "Nothing is moderated here; leave it out."),
    "service_tier": ONE_TIER,
    "user": _LABEL,
    "safety_identifier": _LABEL,
    "prompt_cache_key": Handling("ignored", "The engine decides what it caches; the response repeats it."),
    "prompt_cache_options": CACHE,
    "prompt_cache_retention": CACHE,
}
