"""`python -m exo.main` is the command `exo`."""

from __future__ import annotations

import sys

from exo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
