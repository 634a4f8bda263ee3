"""`rkllm-convert` with a batch that calls converter_fake_model.py: `converter_batch_program.py BEHAVIOUR batch ...`."""

from __future__ import annotations

import sys
from pathlib import Path

from rkllm_converter.batch import running
from rkllm_converter.cli.main import main

FAKE = Path(__file__).with_name("converter_fake_model.py")


if __name__ == "__main__":
    running.PROGRAM = (sys.executable, str(FAKE), sys.argv[1])
    raise SystemExit(main(sys.argv[2:]))
