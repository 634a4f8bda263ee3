"""A look at PromQL: enough to tell which metrics an expression names and which labels it keeps."""

from __future__ import annotations

import re

_KEYWORDS = {"and", "or", "unless", "bool", "offset"}
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTORS = re.compile(r"\{[^}]*\}|\[[^\]]*\]")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_METRIC = re.compile(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()")
_FIRST_BY = re.compile(r"\b(?:sum|max|min|avg)\b(?: by \((?P<labels>[^)]*)\))?")


def metrics_of(expression: str) -> set[str]:
    """The names of metrics and recorded series."""
    bare = _LABELS.sub("", _SELECTORS.sub("", _STRINGS.sub('""', expression)))
    bare = re.sub(r"\boffset\s+\w+", "", bare)
    return set(_METRIC.findall(bare)) - _KEYWORDS


def kept_labels(expression: str) -> set[str] | None:
    """The labels that the outermost aggregation leaves, without `le`; None if there is no aggregation."""
    found = _FIRST_BY.search(expression)
    if found is None:
        return None
    return {label.strip() for label in (found["labels"] or "").split(",")} - {"", "le"}


def family_of(metric: str) -> str:
    """The documented name: a histogram has three series."""
    return re.sub(r"_(?:bucket|sum|count)$", "", metric) if not metric.endswith("_total") else metric
