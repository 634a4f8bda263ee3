"""The HTML report of `exo bench` in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser_support import Browser
from support import EXO, Node, run

pytestmark = [pytest.mark.slow, pytest.mark.system]

EVIL = "<img src=x onerror=alert(1)>"
CHARTS = (
    "first-token",
    "speed",
    "concurrency-speed",
    "concurrency-first-token",
    "lengths-first-token",
    "lengths-prefill",
)
TABLE = """
[...document.querySelectorAll("#table-%s tbody tr")].map(
    (row) => [...row.cells].map((cell) => cell.textContent.trim()))
"""
PIXELS = """
(() => {
  const canvas = document.getElementById("chart-%s");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const colors = {};
  for (let place = 0; place < data.length; place += 4) {
    if (data[place + 3] > 127) {
      const color = data.slice(place, place + 3).join(",");
      colors[color] = (colors[color] || 0) + 1;
    }
  }
  return colors;
})()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of a real run: one model answers, the other one is not there and has a name that is HTML."""
    target = tmp_path_factory.mktemp("report")
    short = ("--repeat", "3", "--max-tokens", "8")
    sweeps = ("--concurrency", "1,2,4", "--requests", "4", "--prompt-lengths", "64,256")
    models = ("--model", "dummy", "--model", EVIL)
    with Node("--inference-engine", "dummy", folder=target / "node") as node:
        done = run(EXO, "bench", "--url", node.url, *short, *models, *sweeps, "-o", target)
    assert done.returncode == 1, done.stderr
    return target


@pytest.fixture(scope="module")
def browser(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def page(browser: Browser, folder: Path) -> Browser:
    """A browser of a desktop, with the report in it."""
    browser.look(width=1280, height=900)
    browser.open(folder / "bench.html")
    return browser


def summaries(folder: Path, part: str) -> list[dict[str, Any]]:
    found = json.loads((folder / "bench.json").read_bytes())
    return [one for one in found["summary"] if one["part"] == part]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def test_it_asks_for_nothing_and_says_nothing(page: Browser, folder: Path) -> None:
    assert page.value("document.title").startswith("exo bench: dummy")
    assert page.requests == [(folder / "bench.html").as_uri()]
    assert page.problems == []


def test_the_charts_are_drawn(page: Browser) -> None:
    assert page.value("[...document.querySelectorAll('canvas')].map((one) => one.id)") == [
        f"chart-{name}" for name in CHARTS
    ]
    for name in CHARTS:
        box = page.value(f"JSON.parse(JSON.stringify(document.getElementById('chart-{name}').getBoundingClientRect()))")
        assert box["width"] > 300, name
        assert box["height"] > 200, name
        colors = page.value(PIXELS % name)
        blue = [color for color in colors if int(color.split(",")[2]) > int(color.split(",")[0]) + 60]
        assert sum(colors[color] for color in blue) > 100, f"{name} has nothing of the first model's color: {colors}"


def test_the_numbers_in_the_tables_are_those_of_the_file(page: Browser, folder: Path) -> None:
    rows = page.value(TABLE % "prompts")
    expected = summaries(folder, "prompts")
    assert [row[:2] for row in rows] == [[one["name"], "dummy"] for one in expected]
    assert [one["name"] for one in expected] == ["Math", "Explanation", "Code", "Reasoning", "Creative", "mean"]
    for row, one in zip(rows, expected):
        middle = "mean" if one["name"] == "mean" else "median"
        assert row[2].split(" (")[0] == milliseconds(one["first_token"][middle])
        assert row[3].split(" (")[0] == f"{one['tokens_per_s'][middle]:.1f}"
        assert row[4:] == ["8", row[5], f"0 of {one['requests']}"]
        assert row[5].split(" (")[0] == milliseconds(one["total"][middle])

    rows = page.value(TABLE % "concurrency")
    for row, one in zip(rows, summaries(folder, "concurrency"), strict=True):
        assert row[:2] == [one["name"], "dummy"]
        assert float(row[2]) == pytest.approx(one["total_tokens_per_s"], rel=0.005)
        assert row[4:6] == [milliseconds(one["first_token"]["median"]), milliseconds(one["first_token"]["p95"])]

    rows = page.value(TABLE % "lengths")
    for row, one in zip(rows, summaries(folder, "lengths"), strict=True):
        assert (row[0], float(row[2])) == (one["name"], one["prompt_tokens"]["median"])
        assert row[4].split(" (")[0] == f"{one['prefill_tokens_per_s']['median']:.0f}"


def test_a_name_that_is_html_is_text(page: Browser) -> None:
    (row,) = page.value(TABLE % "errors")
    assert row[0] == EVIL
    assert EVIL in row[3]
    assert page.value("document.images.length") == 0
    assert EVIL in page.value("document.title")
    assert page.problems == []


def test_it_follows_the_users_light_and_dark(page: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, light_chart = page.value(ground), page.value(PIXELS % "speed")
    page.look(width=1280, height=900, dark=True)
    assert page.value(ground) != light
    dark_chart = page.value(PIXELS % "speed")
    assert max(dark_chart, key=dark_chart.get) != max(light_chart, key=light_chart.get)


def test_a_phone_needs_no_scrolling_to_the_side(page: Browser) -> None:
    page.look(width=360, height=740)
    assert page.value("document.documentElement.scrollWidth") == 360
    assert page.value("[...document.querySelectorAll('canvas')].every((one) => one.clientWidth <= 360)")


def test_without_scripts_the_tables_are_there_and_no_empty_charts(page: Browser, folder: Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(folder / "bench.html")
        assert len(page.value(TABLE % "prompts")) == 6
        assert page.value("[...document.querySelectorAll('figure')].every((one) => one.offsetHeight === 0)")
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


def test_no_other_script_runs_in_it(page: Browser) -> None:
    page.value(
        "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = true' }))"
    )
    assert page.value("window.ran === undefined")
    assert page.value("fetch('data:,x').then(() => 'fetched', () => 'refused')") == "refused"
