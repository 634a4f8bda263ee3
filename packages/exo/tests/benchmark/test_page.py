"""The HTML page: one file, in which every name from outside is text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest
from measured_server import measured, sample

from exo.benchmark.charts import charts
from exo.benchmark.page.render import as_html, chart_library, json_in_html
from exo.benchmark.report import make_report
from exo.benchmark.results import Run, Settings
from exo.benchmark.statistics import summarise

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&\u2028'\""
VENDOR = resources.files("exo.benchmark").joinpath("vendor")


class Page(HTMLParser):
    """What a browser would see: each script's and style's text, every tag, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text: list[str] = []
        self._within = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in self.raw:
            self._within = tag
            self.raw[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._within:
            self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within:
            self.raw[self._within][-1] += data
        else:
            self.text.append(data)

    def first(self, tag: str, **attributes: str) -> dict[str, str | None]:
        return next(found for name, found in self.tags if name == tag and attributes.items() <= found.items())


def sweeps(model: str = "one") -> Run:
    return measured(
        [
            sample(model=model),
            sample(model=model, first_token=1.0, error=None),
            sample(model=model, error=f"{EVIL} said the server"),
            sample(model=model, part="concurrency", level=2),
            sample("128", model=model, part="lengths"),
        ],
        settings=Settings(models=(model,), concurrency=(2,), prompt_lengths=(128,)),
    )


@pytest.fixture(scope="module")
def evil() -> Page:
    return Page(as_html(make_report(sweeps(EVIL), sweeps(EVIL))))


def test_names_and_messages_are_text(evil: Page) -> None:
    assert EVIL in evil.text
    assert f"{EVIL} said the server" in evil.text
    assert [found for tag, found in evil.tags if tag == "img"] == []
    assert len(evil.raw["script"]) == 3
    assert not [name for _, found in evil.tags for name in found if name.startswith("on")]


def test_the_data_of_the_charts_is_json_and_cannot_end_its_element(evil: Page) -> None:
    data = evil.raw["script"][0]
    assert not set("<>&\u2028\u2029") & set(data)
    found = json.loads(data)
    assert found[0]["series"][0]["label"] == EVIL
    assert [chart["id"] for chart in found] == [
        "first-token",
        "speed",
        "concurrency-speed",
        "concurrency-first-token",
        "lengths-first-token",
        "lengths-prefill",
    ]


def test_only_what_the_page_brings_may_run(evil: Page) -> None:
    policy = evil.first("meta", **{"http-equiv": "Content-Security-Policy"})["content"] or ""
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))

    def hashes(texts: list[str]) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts
        )

    assert rules == {
        "default-src": "'none'",
        "script-src": hashes(evil.raw["script"][1:]),
        "style-src": hashes(evil.raw["style"]),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not [name for _, found in evil.tags for name in found if name == "style"]


def test_nothing_is_fetched(evil: Page) -> None:
    addresses = [found.get(name) or "" for _, found in evil.tags for name in ("src", "href") if name in found]
    assert addresses == ["data:,", "#results"]
    assert "sourceMappingURL" not in evil.raw["script"][1]


def test_every_chart_is_described_and_has_its_table() -> None:
    page = Page(as_html(make_report(sweeps())))
    drawn = [found for tag, found in page.tags if tag == "canvas"]
    assert len(drawn) == 6
    assert all(found["role"] == "img" and found["aria-label"] for found in drawn)
    tables = [found["id"] for tag, found in page.tags if tag == "table"]
    assert tables == ["table-prompts", "table-concurrency", "table-lengths", "table-errors"]
    regions = [found for _, found in page.tags if found.get("class") == "scroll"]
    assert all(found["tabindex"] == "0" and found["role"] == "region" for found in regions)


def test_the_charts_have_the_numbers_of_the_sums() -> None:
    run = sweeps()
    first, *_ = charts(run.settings.models, summarise(run))
    point = first.series[0].points[0]
    assert (first.labels, first.y) == (("Math", "mean"), "s")
    assert point is not None
    assert (point.y, point.low, point.high) == (0.75, 0.5, 1.0)


def test_short_times_are_drawn_in_milliseconds() -> None:
    run = measured([sample(first_token=0.25)])
    first, *_ = charts(run.settings.models, summarise(run))
    point = first.series[0].points[0]
    assert first.y == "ms"
    assert point is not None
    assert point.y == 250.0


def test_without_a_number_there_is_no_chart() -> None:
    run = measured([sample(error="no")])
    assert charts(run.settings.models, summarise(run)) == []
    assert json_in_html([]) == "[]"
    assert "<figure" not in as_html(make_report(run))


def test_the_library_is_the_one_that_was_published() -> None:
    lines = [line.split() for line in VENDOR.joinpath("SHA256SUMS").read_text().splitlines()]
    assert [name for _, name in lines] == ["chart.umd.min.js", "LICENSE"]
    for expected, name in lines:
        assert hashlib.sha256(VENDOR.joinpath(name).read_bytes()).hexdigest() == expected


def test_the_library_is_put_in_whole_but_for_the_address_of_its_map() -> None:
    published = VENDOR.joinpath("chart.umd.min.js").read_text(encoding="utf-8")
    assert re.sub(r"//# sourceMappingURL=.*\n?", "", published).rstrip("\n") == chart_library().rstrip("\n")


@pytest.mark.parametrize(
    ("folder", "name", "end"),
    [
        ("vendor", "chart.umd.min.js", "</script"),
        ("page", "report.js", "</script"),
        ("vendor", "chart.umd.min.js", "<!--"),
        ("page", "report.js", "<!--"),
        ("page", "report.css", "</style"),
    ],
)
def test_nothing_that_is_put_in_ends_its_element_too_early(folder: str, name: str, end: str) -> None:
    text = resources.files("exo.benchmark").joinpath(folder).joinpath(name).read_text(encoding="utf-8")
    assert end not in text.lower()
    assert "\r" not in text, "a browser would read it otherwise than it was hashed"
