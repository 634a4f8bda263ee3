from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from promql import kept_labels

from exo.cluster.monitoring import dashboard
from exo.cluster.monitoring.panels import COLUMNS, Graph, Row, Target, laid_out

BOARD: dict[str, Any] = json.loads(dashboard())
PANELS: list[dict[str, Any]] = BOARD["panels"]
DRAWN = [panel for panel in PANELS if panel["type"] != "row"]
TITLES = {panel["title"] for panel in DRAWN}
WHAT_THE_ISSUE_NAMES = {
    "Request rate": "exo_requests_total",
    "Active requests": "exo_requests_in_progress",
    "Tokens per second": "exo_tokens_generated_total",
    "Server up": "rkllm_server_up",
    "Latency": "exo_request_duration_seconds",
    "Time to first token": "exo_first_token_latency_seconds",
    "Requests by model": "exo_requests_total",
    "Tokens by model": "exo_prompt_tokens_total",
    "Inference duration": "rkllm_inference_duration_seconds",
    "Errors by type": "exo_errors_total",
}
FURTHER = {"Queue", "NPU load", "Temperature", "Throttling", "Servers by state", "Prefix cache"}
VARIABLES = {"datasource", "node", "model"}
GRAFANAS_OWN = {"__rate_interval"}


def targets() -> list[tuple[str, dict[str, Any]]]:
    return [(panel["title"], target) for panel in DRAWN for target in panel["targets"]]


def test_every_panel_that_was_asked_for_is_there_and_shows_its_metric() -> None:
    for title, metric in WHAT_THE_ISSUE_NAMES.items():
        found = [panel for panel in DRAWN if panel["title"] == title]
        assert any(metric in target["expr"] for panel in found for target in panel["targets"]), title
    assert TITLES >= FURTHER


def test_ids_are_unique_and_titles_are_within_a_row() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0
    row = ""
    seen = set()
    for panel in PANELS:
        row = panel["title"] if panel["type"] == "row" else row
        assert (row, panel["title"], panel["type"]) not in seen
        seen.add((row, panel["title"], panel["type"]))


def test_panels_neither_overlap_nor_leave_the_grid() -> None:
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["w"] > 0
        assert place["h"] > 0
        assert 0 <= place["x"] <= place["x"] + place["w"] <= COLUMNS
    for one, two in itertools.combinations([panel["gridPos"] for panel in PANELS], 2):
        beside = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        below = one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
        assert beside or below, (one, two)


def test_every_line_of_panels_is_full() -> None:
    """No hole is left in the page, unless a row ends there."""
    lines: dict[int, int] = {}
    for panel in PANELS:
        lines[panel["gridPos"]["y"]] = lines.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
    last = {one["gridPos"]["y"] for one, two in itertools.pairwise([*PANELS, {"type": "row"}]) if two["type"] == "row"}
    assert {y for y, width in lines.items() if width != COLUMNS} <= last


@pytest.mark.parametrize("panel", DRAWN, ids=lambda panel: panel["title"])
def test_a_panel_has_what_grafana_needs(panel: dict[str, Any]) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["type"] in {"stat", "timeseries", "state-timeline"}
    assert panel["datasource"] == source
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert panel["fieldConfig"]["overrides"] == []
    values = [step["value"] for step in defaults["thresholds"]["steps"]]
    assert values[0] is None
    assert values[1:] == sorted(values[1:])
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEF")[: len(panel["targets"])]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == source
        assert target["legendFormat"]
    assert panel["options"]["tooltip" if panel["type"] != "stat" else "reduceOptions"]


def test_units_fit_the_metrics() -> None:
    units = {"_seconds": "s", "_ratio": "percentunit", "_celsius": "celsius", "_hertz": "hertz"}
    for panel in DRAWN:
        for target in panel["targets"]:
            found = {
                unit for end, unit in units.items() if re.search(rf"{end}(?:_bucket|_sum|:p95\w*)?\b", target["expr"])
            }
            assert found <= {panel["fieldConfig"]["defaults"]["unit"]}, panel["title"]


@pytest.mark.parametrize(("title", "target"), targets(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_legend_tells_its_series_apart(title: str, target: dict[str, Any]) -> None:
    """A label in a legend has to be there, and the labels that are left have to be in the legend."""
    named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    kept = kept_labels(target["expr"])
    if kept is None:
        assert named, title
        assert named <= {"node", "model", "core", "zone", "device"}
    else:
        assert named == kept


def test_variables_are_defined_and_used() -> None:
    defined = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps([PANELS, BOARD["annotations"]])))
    assert set(defined) == VARIABLES
    assert used == VARIABLES | GRAFANAS_OWN
    assert defined["datasource"]["query"] == "prometheus"
    assert defined["node"]["query"]["query"] == 'label_values(up{job="exo"}, node)'
    assert defined["model"]["query"]["query"] == "label_values(exo_model_info, model)"
    assert next(iter(defined)) == "datasource", "the others are asked of it"


def test_a_variable_of_several_values_is_only_matched_as_a_pattern() -> None:
    for title, target in targets():
        for name in ("node", "model"):
            assert not re.search(rf'[^~]"\${name}"|[^~]=\s*"\${name}', target["expr"]), title


def test_rates_use_the_window_that_fits_the_zoom() -> None:
    for title, target in targets():
        assert set(re.findall(r"\[(.+?)\]", target["expr"])) <= {"$__rate_interval"}, title


def test_the_dashboard_belongs_to_no_grafana_yet() -> None:
    assert BOARD["id"] is None
    assert re.fullmatch(r"[a-z-]{8,40}", BOARD["uid"])
    assert BOARD["schemaVersion"] == 39
    assert BOARD["title"]
    assert "__inputs" not in BOARD, "the data source is a variable"


def test_a_panel_that_does_not_fit_goes_below_the_highest_of_its_line() -> None:
    def panel(width: int, height: int) -> Graph:
        return Graph("t", "d.", "s", (Target("up", "{{node}}"),), width=width, height=height)

    found = laid_out([Row("one", (panel(12, 4), panel(8, 9), panel(8, 5))), Row("two", (panel(24, 3),))])
    places = [tuple(one["gridPos"][key] for key in "xywh") for one in found]
    assert places == [(0, 0, 24, 1), (0, 1, 12, 4), (12, 1, 8, 9), (0, 10, 8, 5), (0, 15, 24, 1), (0, 16, 24, 3)]
    assert [one["id"] for one in found] == [1, 2, 3, 4, 5, 6]
