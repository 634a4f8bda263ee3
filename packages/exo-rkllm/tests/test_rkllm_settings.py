from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo.models import parse_keep_alive
from exo.types import ConfigurationError
from exo_rkllm.settings import NPU_SETTINGS, NpuSettings, parse_cpus
from rkllm_facts.benchmark import rows

HOME = {"HOME": "/home/me"}


def test_the_defaults() -> None:
    assert NpuSettings.from_env(HOME) == NpuSettings(
        lib=None,
        abi=None,
        platform=None,
        root=Path("/"),
        home=Path("/home/me/RKLLAMA"),
        models=None,
        server_host=None,
        server_port=None,
        run_timeout=60,
        run_timeout_per_token=0.15,
        load_timeout=120,
        load_rate=10,
        pad_limit=4096,
        context=4096,
        keep_alive=300,
        max_models=0,
        slots=1,
        cpus=None,
        memory_check=True,
    )


def test_every_value_can_be_set() -> None:
    env = {
        "RKLLM_LIB": "~/sim",
        "RKLLM_ABI": "1.2.2",
        "RKLLM_TARGET_PLATFORM": "RK3588S",
        "RKLLM_ROOT": "/board",
        "RKLLAMA_HOME": "/data/rkllama",
        "RKLLAMA_MODELS": "~/models",
        "RKLLM_SERVER_HOST": "10.0.0.5",
        "RKLLM_SERVER_PORT": "9000",
        "RKLLM_RUN_TIMEOUT": "1.5",
        "RKLLM_RUN_TIMEOUT_PER_TOKEN": "0",
        "RKLLM_LOAD_TIMEOUT": "30",
        "RKLLM_LOAD_RATE": "50",
        "RKLLM_PAD_LIMIT": "10",
        "RKLLM_CONTEXT": "8192",
        "RKLLM_KEEP_ALIVE": "-1",
        "RKLLM_MAX_MODELS": "3",
        "RKLLM_SLOTS": "2",
        "RKLLM_CPUS": "4-6",
        "RKLLM_MEMORY_CHECK": "no",
    }
    assert set(env) == {setting.env for setting in NPU_SETTINGS}
    assert NpuSettings.from_env({**HOME, **env}) == NpuSettings(
        lib=Path("/home/me/sim"),
        abi="1.2.2",
        platform="rk3588",
        root=Path("/board"),
        home=Path("/data/rkllama"),
        models=Path("/home/me/models"),
        server_host="10.0.0.5",
        server_port=9000,
        run_timeout=1.5,
        run_timeout_per_token=0,
        load_timeout=30,
        load_rate=50,
        pad_limit=10,
        context=8192,
        keep_alive=math.inf,
        max_models=3,
        slots=2,
        cpus=(4, 5, 6),
        memory_check=False,
    )


def test_an_empty_variable_counts_as_not_set() -> None:
    assert NpuSettings.from_env({**HOME, **{setting.env: " " for setting in NPU_SETTINGS}}) == NpuSettings.from_env(
        HOME
    )


def test_models_are_below_the_home_of_rkllama() -> None:
    assert NpuSettings.from_env(HOME).models_dir == Path("/home/me/RKLLAMA/models")
    assert NpuSettings.from_env({"RKLLAMA_HOME": "/data"}).models_dir == Path("/data/models")
    assert NpuSettings.from_env({}).models_dir == Path("~/RKLLAMA/models").expanduser()


@pytest.mark.parametrize(
    ("env", "server"),
    [
        ({}, None),
        ({"RKLLM_SERVER_HOST": "board"}, ("board", 8080)),
        ({"RKLLM_SERVER_PORT": "9000"}, ("localhost", 9000)),
        ({"RKLLM_SERVER_HOST": "[::1]", "RKLLM_SERVER_PORT": "1"}, ("[::1]", 1)),
    ],
)
def test_one_variable_is_enough_for_a_server(env: dict[str, str], server: tuple[str, int] | None) -> None:
    assert NpuSettings.from_env({**HOME, **env}).server == server


def test_a_larger_file_may_take_longer_to_load() -> None:
    found = NpuSettings.from_env(HOME)
    assert found.load_seconds(0) == 120
    assert found.load_seconds(8 * 10**9) == 120 + 800


def test_the_allowance_covers_what_rockchip_has_measured() -> None:
    slowest = max(row.ms_per_prompt_token for row in rows()) / 1000
    assert NpuSettings.from_env(HOME).run_timeout_per_token >= 4 * slowest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RKLLM_LIB", "a\0b"),
        ("RKLLM_LIB", "a\nb"),
        ("RKLLM_LIB", "~nobody-of-that-name/lib"),
        ("RKLLM_ROOT", "\0"),
        ("RKLLAMA_HOME", "~nobody-of-that-name"),
        ("RKLLM_ABI", "1.3.1"),
        ("RKLLM_ABI", "1.0.0"),
        ("RKLLM_ABI", "newest"),
        ("RKLLM_SERVER_HOST", "http://board:8080"),
        ("RKLLM_SERVER_HOST", "two words"),
        ("RKLLM_SERVER_PORT", "0"),
        ("RKLLM_SERVER_PORT", "65536"),
        ("RKLLM_SERVER_PORT", "8080/"),
        ("RKLLM_RUN_TIMEOUT", "0"),
        ("RKLLM_RUN_TIMEOUT", "nan"),
        ("RKLLM_RUN_TIMEOUT", "inf"),
        ("RKLLM_RUN_TIMEOUT", "-5"),
        ("RKLLM_RUN_TIMEOUT_PER_TOKEN", "-0.1"),
        ("RKLLM_LOAD_TIMEOUT", "soon"),
        ("RKLLM_PAD_LIMIT", "0"),
        ("RKLLM_PAD_LIMIT", "4_096"),
        ("RKLLM_CONTEXT", "64"),
        ("RKLLM_CONTEXT", "9" * 5000),
        ("RKLLM_CONTEXT", "4096.0"),
        ("RKLLM_KEEP_ALIVE", "for ever"),
        ("RKLLM_SLOTS", "0"),
        ("RKLLM_SLOTS", "²"),
        ("RKLLM_CPUS", "7-4"),
        ("RKLLM_CPUS", "4,,5"),
        ("RKLLM_CPUS", "4-99"),
        ("RKLLM_CPUS", "big"),
        ("RKLLM_MEMORY_CHECK", "perhaps"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        NpuSettings.from_env({**HOME, name: value})


def test_a_refusal_says_the_value_and_what_was_expected() -> None:
    with pytest.raises(ConfigurationError) as caught:
        NpuSettings.from_env({"RKLLM_SLOTS": "many"})
    assert caught.value.message == "RKLLM_SLOTS: expected a whole number from 1 to 16, got 'many'."


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("300", 300),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("0", 0),
        ("0s", 0),
        ("-0", 0),
        ("-1", math.inf),
        ("-1m", math.inf),
        ("+10s", 10),
    ],
)
def test_times_are_read_as_ollama_does(text: str, seconds: float) -> None:
    assert parse_keep_alive(text) == seconds


@pytest.mark.parametrize("text", ["", "-", "5 m", "5d", "m", "1h30", "nan", "inf", "1e3", "--1", "\u0665m", "9" * 400])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        parse_keep_alive(text)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("4-7", (4, 5, 6, 7)), ("7,5,6", (5, 6, 7)), ("0, 4-5", (0, 4, 5)), ("4,4-5", (4, 5)), ("31", (31,))],
)
def test_cpus_by_number_and_range(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpus(text) == cpus


@settings(max_examples=300, deadline=None, database=None)
@given(
    name=st.sampled_from([setting.env for setting in NPU_SETTINGS]),
    value=st.text(max_size=20) | st.text("0123456789.-+hms,", max_size=12),
)
def test_any_value_is_understood_or_refused(name: str, value: str) -> None:
    try:
        found = NpuSettings.from_env({**HOME, name: value})
    except ConfigurationError as error:
        assert name in error.message  # noqa: PT017 - most values are right or wrong by chance
    else:
        assert found.keep_alive >= 0
