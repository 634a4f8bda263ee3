"""A program for an environment with the library transformers: its prompts and their tokens, for given conversations.

Reads {"folder": …, "conversations": [{"messages": …, "tools": …, "variables": …}, …]} from stdin, where `folder` holds
tokenizer files and `variables` are further ones for the template. Writes [{"text": …, "ids": …}, …] to stdout.
"""

from __future__ import annotations

import json
import sys

from transformers import AutoTokenizer  # it is in that environment only


def main() -> None:
    asked = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(asked["folder"])
    made = []
    for one in asked["conversations"]:
        text, ids = (
            tokenizer.apply_chat_template(
                one["messages"], tools=one["tools"], tokenize=tokenize, add_generation_prompt=True, **one["variables"]
            )
            for tokenize in (False, True)
        )
        made.append({"text": text, "ids": ids})
    json.dump(made, sys.stdout)


if __name__ == "__main__":
    main()
