from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from exo.cli import settings
from exo.cli.settings import SERVE_SETTINGS, Setting
from exo.types import ConfigurationError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for setting in SERVE_SETTINGS:
        setting.add_to(parser)
    return parser.parse_args(arguments)


def by_name(name: str) -> Setting:
    return next(setting for setting in SERVE_SETTINGS if setting.name == name)


def test_defaults() -> None:
    chosen = settings.read(SERVE_SETTINGS, parse(), {})
    assert (chosen["host"], chosen["port"], chosen["engine"], chosen["no_auth"]) == ("127.0.0.1", 52415, None, False)
    assert settings.models_dir(chosen) == Path("~/.cache/exo/models").expanduser()


def test_a_flag_wins_over_the_variable_and_that_over_the_default() -> None:
    env = {"EXO_PORT": "5", "EXO_HOME": "/home-of-exo", "EXO_LOG_JSON": "yes"}
    assert settings.read(SERVE_SETTINGS, parse("--port", "6"), env)["port"] == 6
    chosen = settings.read(SERVE_SETTINGS, parse("--chatgpt-api-port", "7"), env)
    assert (chosen["port"], chosen["log_json"]) == (7, True)
    assert settings.models_dir(chosen) == Path("/home-of-exo/models")
    assert settings.read(SERVE_SETTINGS, parse(), env)["port"] == 5


def test_an_empty_variable_counts_as_unset() -> None:
    assert settings.read(SERVE_SETTINGS, parse(), {"EXO_PORT": ""})["port"] == 52415


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "-1"),
        ("port", "70000"),
        ("port", "five"),
        ("queue_limit", "1.5"),
        ("grace", "-1"),
        ("grace", "nan"),
        ("grace", "inf"),
        ("grace", "soon"),
        ("no_auth", "perhaps"),
        ("log_level", "loud"),
        ("max_body", "10"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(name: str, text: str) -> None:
    setting = by_name(name)
    with pytest.raises(ConfigurationError, match=setting.env):
        setting.value(None, {setting.env: text})


def test_a_wrong_flag_is_named_with_its_flag() -> None:
    with pytest.raises(ConfigurationError, match="--port"):
        settings.read(SERVE_SETTINGS, parse("--port", "x"), {})


def test_lists() -> None:
    assert by_name("api_keys").value(None, {"EXO_API_KEYS": "a, b,,"}) == ("a", "b")


def test_no_two_settings_share_a_name_a_flag_or_a_variable() -> None:
    for part in (
        [setting.name for setting in SERVE_SETTINGS],
        [setting.env for setting in SERVE_SETTINGS],
        [flag for setting in SERVE_SETTINGS for flag in setting.flags],
    ):
        assert len(part) == len(set(part))


def test_every_default_is_accepted_by_its_own_parser() -> None:
    for setting in SERVE_SETTINGS:
        if setting.default:
            setting.parse(setting.default)
