from __future__ import annotations

import pytest

from exo.inference.remote.settings import RemoteSettings, checked_url, host_of
from exo.types import ConfigurationError

URL = "http://board:8080"


def test_the_defaults() -> None:
    assert RemoteSettings.from_env({"EXO_REMOTE_URL": URL}) == RemoteSettings(
        url=URL, dialect="auto", api_key="", slots=4, timeout=300.0, connect_timeout=5.0
    )


def test_every_variable_is_read() -> None:
    env = {
        "EXO_REMOTE_URL": URL,
        "EXO_REMOTE_DIALECT": "OpenAI",
        "EXO_REMOTE_API_KEY": " key ",
        "EXO_REMOTE_SLOTS": "7",
        "EXO_REMOTE_TIMEOUT": "1.5",
        "EXO_REMOTE_CONNECT_TIMEOUT": "2",
    }
    assert RemoteSettings.from_env(env) == RemoteSettings(URL, "openai", "key", 7, 1.5, 2.0)


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(RemoteSettings(URL, api_key="secret"))


def test_a_url_of_the_caller_stands_in_for_the_variable() -> None:
    assert RemoteSettings.from_env({"EXO_REMOTE_URL": "nonsense"}, url=URL).url == URL


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://board:8080/", "http://board:8080"),
        ("https://board", "https://board"),
        (" http://[::1]:8080/llm/ ", "http://[::1]:8080/llm"),
        ("http://board:8000/v1", "http://board:8000"),
        ("http://board:8000/v1/", "http://board:8000"),
    ],
)
def test_urls(text: str, url: str) -> None:
    assert checked_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        *("", "board:8080", "ftp://board", "http://", "http://board:port", "http://board:0", "http://board:99999"),
        *("http://board?x=1", "http://board#x", "http://bo ard", "http://me:word@board", "http://board/\0"),
    ],
)
def test_a_url_that_makes_no_sense_names_the_variable(text: str) -> None:
    with pytest.raises(ConfigurationError, match="EXO_REMOTE_URL"):
        checked_url(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EXO_REMOTE_DIALECT", "anthropic"),
        ("EXO_REMOTE_API_KEY", "schlüssel"),
        ("EXO_REMOTE_API_KEY", "a\nb"),
        ("EXO_REMOTE_SLOTS", "0"),
        ("EXO_REMOTE_SLOTS", "many"),
        ("EXO_REMOTE_TIMEOUT", "0"),
        ("EXO_REMOTE_TIMEOUT", "nan"),
        ("EXO_REMOTE_CONNECT_TIMEOUT", "soon"),
    ],
)
def test_a_value_that_makes_no_sense_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        RemoteSettings.from_env({"EXO_REMOTE_URL": URL, name: value})


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://board", "board:80"), ("https://board/x", "board:443"), ("http://[::1]:8080", "[::1]:8080")],
)
def test_the_name_of_a_server(url: str, host: str) -> None:
    assert host_of(url) == host
