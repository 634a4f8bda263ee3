from __future__ import annotations

from collections.abc import Iterator

import pytest

from exo.api.errors import STATUS, headers_of, openai_error, status_of
from exo.types import AuthenticationFailed, ExoError, QueueFull


def classes(root: type[ExoError] = ExoError) -> Iterator[type[ExoError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("exo."):
            yield from classes(child)


def instance(kind: type[ExoError]) -> ExoError:
    error = kind.__new__(kind)
    Exception.__init__(error, "said")
    error.message = "said"
    error.__dict__.update(param=None, retry_after=3)
    return error


@pytest.mark.parametrize("kind", list(classes()), ids=lambda kind: str(kind.__name__))
def test_every_error_has_a_status_of_its_family(kind: type[ExoError]) -> None:
    status = status_of(instance(kind))
    families = {
        "RequestError": range(400, 431),
        "CapacityError": (429, 503, 504),
        "EngineError": (500, 502, 503, 504),
        "StoreError": (400, 409, 500),
        "PullError": (404, 502, 507),
    }
    expected = next((families[parent.__name__] for parent in kind.__mro__ if parent.__name__ in families), (500,))
    assert status in expected
    assert openai_error(instance(kind))["error"]["code"] == kind.code


def test_no_error_is_mapped_to_the_root_by_accident() -> None:
    roots = {child for child in ExoError.__subclasses__() if child.__module__.startswith("exo.")}
    assert roots <= set(STATUS)


def test_headers() -> None:
    assert headers_of(QueueFull("full", retry_after=9)) == [(b"retry-after", b"9")]
    assert headers_of(AuthenticationFailed()) == [(b"www-authenticate", b"Bearer")]
