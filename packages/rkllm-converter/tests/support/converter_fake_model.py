"""Stands in for `rkllm-convert`: does what BEHAVIOUR/NAME.json says, NAME being the folder that it is to make.

Called as `converter_fake_model.py BEHAVIOUR model --output=FOLDER ...`. Each call is a line in BEHAVIOUR/calls. Keys:
`lines` for stderr; `answer`, more keys of the result; `exit` and `says` instead of an answer; `signal` to die by;
`waits`: until it is ended.
"""

# ruff: noqa: T201 - a program that prints

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    behaviour, arguments = Path(sys.argv[1]), sys.argv[2:]
    flags = dict(one.partition("=")[::2] for one in arguments if one.startswith("--"))
    folder = Path(flags["--output"])
    file = behaviour / f"{folder.name}.json"
    orders: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with (behaviour / "calls").open("a", encoding="utf-8") as calls:
        calls.write(json.dumps({"pid": os.getpid(), "name": folder.name, "arguments": arguments}) + "\n")
    try:
        return _work(orders, folder, flags)
    except KeyboardInterrupt:
        (behaviour / f"{folder.name}.cleaned").touch()
        return 130


def _work(orders: dict[str, Any], folder: Path, flags: dict[str, str]) -> int:
    for line in orders.get("lines", ["loading", "building"]):
        print(line, file=sys.stderr, flush=True)
    while orders.get("waits"):
        time.sleep(0.05)
    if "signal" in orders:
        os.kill(os.getpid(), orders["signal"])
    if "exit" in orders:
        print(orders.get("says", ""))
        return int(orders["exit"])
    status = "planned" if "--dry-run" in flags else "done"
    if "--if-changed" in flags and (folder / "whole").exists() and status == "done":
        status = "unchanged"
    answer = {"status": status, "folder": str(folder), "seconds": 1.0, "file_mb": 1952.4, "error": None}
    answer |= {"tokens_per_s": 16.66, "fits": True, **orders.get("answer", {})}
    if answer["status"] == "done":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "whole").touch()
    print(json.dumps(answer))
    return 0 if answer["status"] in ("done", "unchanged", "planned") else 1


if __name__ == "__main__":
    raise SystemExit(main())
