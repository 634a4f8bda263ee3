"""What becomes of each field of Anthropic's requests, and of each kind of block in a message.

Fields that are not listed are ignored.
"""

from __future__ import annotations

from exo.api.fields import HONOURED, ONE_TIER, Fields, Handling

_KEEP_ALL = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}

COUNT_TOKENS: Fields = {
    "model": Handling("honoured", "An id or an alias; with `auto` one that the node chooses."),
    "messages": Handling(
        "honoured", "Text of the roles user, assistant and system. The last one is not the assistant's."
    ),
    "system": HONOURED,
    "tools": Handling("honoured", "Custom ones: name, description, input_schema. Arguments are always checked."),
    "tool_choice": HONOURED,
    "thinking": Handling("honoured", "Absent or adaptive leaves it to the model. A budget may be as low as 1."),
    "output_config": Handling("honoured", "`format`; `effort` is a hint, and is ignored."),
    "output_format": Handling("honoured", "The earlier place of output_config.format."),
    "context_management": Handling("refused", "Shorten the conversation yourself.", ({}, {"edits": []}, _KEEP_ALL)),
    "mcp_servers": Handling("refused", "Call them yourself, and send what they offer as tools.", ([],)),
    "cache_control": Handling("ignored", "Also in blocks and tools: the engine decides what it caches."),
    "speed": Handling("ignored", "There is one speed."),
}
MESSAGES: Fields = {
    **COUNT_TOKENS,
    "max_tokens": Handling("honoured", "At least 1; reasoning counts."),
    "stop_sequences": Handling(
        "honoured",
        "Up to 64; empty ones have no effect. The one that ended an answer is told where the engine knows it.",
    ),
    "temperature": HONOURED,
    "top_p": HONOURED,
    "top_k": Handling("honoured", "0 is off."),
    "stream": HONOURED,
    "container": Handling("refused", "No code is run here; leave it out."),
    "thread": Handling("refused", "Conversations are not kept here: send the whole one each time, without it."),
    "compaction": Handling("refused", "Ask for a summary in a message."),
    "diagnostics": Handling("refused", "Leave it out: nothing is known of why the cache was missed."),
    "fallbacks": Handling("ignored", "They stand in where a model may not answer; there is no such rule here."),
    "metadata": Handling("ignored", "A label for Anthropic's own accounts."),
    "service_tier": ONE_TIER,
    "inference_geo": Handling("ignored", "The node is where it is."),
}
BLOCKS: Fields = {
    "text": Handling("honoured", "Texts of a user message are joined by line ends, those of an answer by nothing."),
    "thinking": Handling("honoured", "Its signature is ignored."),
    "redacted_thinking": Handling("ignored", "Only Anthropic can read it."),
    "tool_use": HONOURED,
    "tool_result": Handling("honoured", "Text only; is_error puts `Error: ` before it."),
    "image": Handling("refused", "Images cannot be read here; send text only."),
    "document": Handling("refused", "Documents cannot be read here; send their text in a text block."),
    "search_result": Handling("refused", "Search results cannot be cited here; send their text in a text block."),
    "server_tool_use": Handling("refused", "Anthropic's servers ran that tool; leave the block and its result out."),
    "mcp_tool_use": Handling("refused", "Anthropic's servers made that call; leave the block and its result out."),
    "container_upload": Handling("refused", "No code is run here; leave the block out."),
}
"""By the type of a block; any further type is refused as a wrong value."""
