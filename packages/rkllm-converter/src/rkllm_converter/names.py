"""Names that more than one part of this program judges."""

from __future__ import annotations

import re

__all__ = ["REPOSITORY"]

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+", re.ASCII)
"""`owner/name`, as the hub has them."""
