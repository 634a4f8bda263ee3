"""Puts the page together. What runs in it is named by its hash in the page's Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

import jinja2
import msgspec
from markupsafe import Markup

from exo.benchmark.charts import Chart, charts
from exo.benchmark.figures import middle, rate, seconds
from exo.benchmark.report import Report
from exo.benchmark.statistics import MEAN

_JSON_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def as_html(report: Report) -> str:
    """Every name from outside is text: Jinja2 escapes it in the tables, the data of the charts is JSON."""
    library, script, style = chart_library(), _file("page", "report.js"), _file("page", "report.css")
    drawn = charts(report.run.settings.models, report.summaries)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_file("page", "report.html.jinja")).render(
        report=report,
        tiles=_tiles(report),
        charts=drawn,
        policy=_policy(scripts=(library, script), style=style),
        library=Markup(library),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - as above
        style=Markup(style),  # noqa: S704 - as above
        data=Markup(json_in_html(drawn)),  # noqa: S704 - it has no < and no & any more
    )


def chart_library() -> str:
    """Chart.js, without the line that sends whoever uses developer tools for a file that is not there."""
    lines = _file("vendor", "chart.umd.min.js").split("\n")
    return "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL="))


def json_in_html(drawn: list[Chart]) -> str:
    """JSON that neither ends the element in which it stands nor begins another one."""
    text = msgspec.json.encode(drawn).decode()
    for sign, escaped in _JSON_ESCAPES.items():
        text = text.replace(sign, escaped)
    return text


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """For each model its name, tokens/s and time to first token, over all prompts."""
    return [
        (one.model, middle(one.tokens_per_s, rate, mean=True), middle(one.first_token, seconds, mean=True))
        for one in report.summaries
        if one.part == "prompts" and one.name == MEAN
    ]


def _policy(*, scripts: tuple[str, ...], style: str) -> str:
    allowed = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _file(folder: str, name: str) -> str:
    return resources.files("exo.benchmark").joinpath(folder).joinpath(name).read_text(encoding="utf-8")
