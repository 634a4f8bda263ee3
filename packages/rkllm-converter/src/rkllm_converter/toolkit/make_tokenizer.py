"""Writes the tokenizer.json of a model that has only what it is made from: `python make_tokenizer.py MODEL TARGET`.

Run by the Python that has the toolkit, and with it transformers. A file of its own, for Python 3.9 and later. Code that
comes with a model is not run. Source of the calls: documentation of transformers 4 and 5.
"""

import sys
from pathlib import Path


def main() -> int:
    own = Path(__file__).resolve().parent
    sys.path[:] = [one for one in sys.path if not one or Path(one).resolve() != own]  # only what is installed there
    try:
        from transformers import AutoTokenizer  # noqa: PLC0415 - its absence is told on one line

        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], use_fast=True, trust_remote_code=False)
        tokenizer.backend_tokenizer.save(sys.argv[2])
    except Exception as error:  # noqa: BLE001 - whatever it is, the person at the command line is told its last line
        lines = str(error).strip().splitlines()
        sys.stderr.write(f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
