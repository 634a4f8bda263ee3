"""What a benchmark says at its end: a table for people, JSON for machines."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"


@dataclass
class Row:
    """One figure. `runs` are the single measurements behind `value`; `goal` is empty where none is set."""

    what: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None
    runs: Sequence[float] = ()


def at_most(what: str, runs: Sequence[float], unit: str, limit: float) -> Row:
    """The median of runs against an upper limit."""
    value = statistics.median(runs)
    return Row(what, value, unit, f"≤ {limit:,g}", value <= limit, runs)


def at_least(what: str, runs: Sequence[float], unit: str, limit: float) -> Row:
    """The median of runs against a lower limit."""
    value = statistics.median(runs)
    return Row(what, value, unit, f"≥ {limit:,g}", value >= limit, runs)


def plain(what: str, runs: Sequence[float], unit: str) -> Row:
    """The median of runs, without a goal."""
    return Row(what, statistics.median(runs), unit, runs=runs)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def machine() -> dict[str, Any]:
    """Description of the machine, without any name that belongs to it."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def publish(name: str, settings: dict[str, Any], rows: Sequence[Row]) -> None:
    """Print the table and write results/NAME.json."""
    about = machine()
    print(f"\n{name}: {about['processor']}, {about['cores']} cores, {about['system']}, {about['python']}")
    print(f"load average {about['load_average'][0]} in the last minute; medians of the runs\n")
    print(table(rows))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    content = {
        "name": name,
        "time": when,
        "machine": about,
        "settings": settings,
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    print(f"\nwritten to bench/results/{path.name}\n")


def table(rows: Sequence[Row]) -> str:
    lines = [("what", "measured", "unit", "goal", "", "lowest", "highest")]
    for row in rows:
        verdict = "" if row.met is None else "met" if row.met else "MISSED"
        low, high = (_number(min(row.runs)), _number(max(row.runs))) if row.runs else ("", "")
        lines.append((row.what, _number(row.value), row.unit, row.goal, verdict, low, high))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]  # as many as there are columns
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    numbers = {1, 5, 6}
    cells = [cell.rjust(w) if i in numbers else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))]
    return "  ".join(cells).rstrip()


def _number(value: float) -> str:
    if value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Hardware"))}
    return ", ".join(sorted(names)) or platform.machine()
