"""The settings of the engine rkllm and of the command rkllama, from environment variables.

docs/SETTINGS.md lists the same. Whatever makes no sense raises ConfigurationError, which names variable and value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exo.models import parse_keep_alive
from exo.types import ConfigurationError
from exo_rkllm.detection import target_platform
from rkllm_facts.abi import SUPPORTED, layout_for_release
from rkllm_facts.errors import FactsError

DEFAULT_SERVER_HOST = "localhost"
DEFAULT_SERVER_PORT = 8080
HIGHEST_CPU = 31
"""The runtime takes its CPUs as a mask of 32 bits."""

_HOST = re.compile(r"[A-Za-z0-9._:%\[\]-]{1,255}", re.ASCII)


@dataclass(frozen=True)
class Setting:
    """One variable. `default` is written as in the variable; empty means: None where nothing is set."""

    name: str
    env: str
    default: str
    parse: Callable[[str], Any]
    help: str

    def value(self, env: Mapping[str, str]) -> Any:
        """The value in force. Raises ConfigurationError."""
        given = env.get(self.env, "").strip() or self.default
        if not given:
            return None
        try:
            return self.parse(_plain(given))
        except ValueError as error:
            raise ConfigurationError(f"{self.env}: {error}, got {given!r}.") from None


@dataclass(frozen=True)
class NpuSettings:
    """All settings. Times are in seconds; the defaults and their reasons are in `NPU_SETTINGS`."""

    lib: Path | None
    abi: str | None
    platform: str | None
    root: Path
    home: Path
    models: Path | None
    server_host: str | None
    server_port: int | None
    run_timeout: float
    run_timeout_per_token: float
    load_timeout: float
    load_rate: int
    pad_limit: int
    context: int
    keep_alive: float
    max_models: int
    slots: int
    cpus: tuple[int, ...] | None
    memory_check: bool

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> NpuSettings:
        """Read them all. Raises ConfigurationError for the first that makes no sense."""
        found = {setting.name: setting.value(env) for setting in NPU_SETTINGS}
        # "~" is that of the environment that was handed in, which may not be the one of this process
        found["home"] = _under_home("RKLLAMA_HOME", found["home"], env)
        found["lib"] = found["lib"] and _under_home("RKLLM_LIB", found["lib"], env)
        found["models"] = found["models"] and _under_home("RKLLAMA_MODELS", found["models"], env)
        return cls(**found)

    @property
    def models_dir(self) -> Path:
        """The models of rkllama; the engine of a node reads them too, after those of the node's own store."""
        return self.models or self.home / "models"

    @property
    def server(self) -> tuple[str, int] | None:
        """Host and port of the server to use in place of the NPU here; None if neither variable is set."""
        if self.server_host is None and self.server_port is None:
            return None
        return self.server_host or DEFAULT_SERVER_HOST, self.server_port or DEFAULT_SERVER_PORT

    def load_seconds(self, size: int) -> float:
        """Seconds that a model file of `size` bytes may take to load."""
        return self.load_timeout + size / (self.load_rate * 1e6)


def parse_cpus(text: str) -> tuple[int, ...]:
    """CPU numbers in order: `4-7`, `4,5,6,7`, `0,4-7`. Raises ValueError."""
    expected = f"expected CPU numbers from 0 to {HIGHEST_CPU}, such as 4-7 or 4,5,6,7"
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r" *([0-9]{1,3})(?:-([0-9]{1,3}))? *", part, re.ASCII)
        if match is None:
            raise ValueError(expected)
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last > HIGHEST_CPU:
            raise ValueError(expected)
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def _plain(text: str) -> str:
    if not text.isprintable():  # a NUL above all, which no path may hold
        raise ValueError("expected a text without control characters")
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        expected = f"expected a number of seconds from {low:g} to {high:g}"
        try:
            seconds = float(text)
        except ValueError:
            raise ValueError(expected) from None
        if not low <= seconds <= high:
            raise ValueError(expected)
        return seconds

    return parse


def _yes_or_no(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("expected yes or no")


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("expected a host name or an address, without http:// and without a port")
    return text


def _abi(text: str) -> str:
    try:
        layout_for_release(text)
    except FactsError:
        raise ValueError(f"expected a release of the runtime whose layout is known: {', '.join(SUPPORTED)}") from None
    return text


def _platform(text: str) -> str:
    try:
        return target_platform(text)
    except ConfigurationError as error:
        raise ValueError(error.message.rstrip(".")) from None


def _under_home(name: str, path: Path, env: Mapping[str, str]) -> Path:
    home = env.get("HOME")
    if home and path.parts[:1] == ("~",):
        return Path(home, *path.parts[1:])
    try:
        return path.expanduser()
    except RuntimeError as error:  # no such user, or a user without a home
        raise ConfigurationError(f"{name}: {error} Got {str(path)!r}.") from None


NPU_SETTINGS = (
    Setting(
        "lib",
        "RKLLM_LIB",
        "",
        Path,
        "runtime library `librkllmrt.so` or the folder that holds it; overrides the search for an NPU",
    ),
    Setting("abi", "RKLLM_ABI", "", _abi, "layout to assume for a library whose version is not known, such as `1.2.3`"),
    Setting(
        "platform",
        "RKLLM_TARGET_PLATFORM",
        "",
        _platform,
        "chip that models have to be made for, such as `rk3588`; without it the one that is found",
    ),
    Setting("root", "RKLLM_ROOT", "/", Path, "folder that stands for `/` when the board is looked at"),
    Setting("home", "RKLLAMA_HOME", "~/RKLLAMA", Path, "folder of rkllama; models are in its `models`"),
    Setting("models", "RKLLAMA_MODELS", "", Path, "folder of the models, in place of `models` in RKLLAMA_HOME"),
    Setting("server_host", "RKLLM_SERVER_HOST", "", _host, "host of an rkllama server to use in place of the NPU here"),
    Setting("server_port", "RKLLM_SERVER_PORT", "", _whole(1, 65535), "its port; `8080` if only the host is set"),
    # The first token of the longest prompt is what RKLLM_RUN_TIMEOUT_PER_TOKEN is for; later ones take 0.35 s at most.
    Setting(
        "run_timeout",
        "RKLLM_RUN_TIMEOUT",
        "60",
        _seconds(0.1, 86_400),
        "seconds without a sign of life after which a run is killed",
    ),
    # Rockchip's slowest row takes 0.036 s per prompt token. Four times that: a 7B model has twice the weights of the
    # largest one measured, and a board that is too hot runs at half its clock.
    Setting(
        "run_timeout_per_token",
        "RKLLM_RUN_TIMEOUT_PER_TOKEN",
        "0.15",
        _seconds(0, 60),
        "seconds more for each token of the prompt, until the first token of the answer",
    ),
    # What a load takes besides reading the file.
    Setting(
        "load_timeout",
        "RKLLM_LOAD_TIMEOUT",
        "120",
        _seconds(0.1, 86_400),
        "seconds that a model may take to load, and more for its size",
    ),
    # A slow card reads 20 MB/s; half of that leaves room for a board that is busy.
    Setting(
        "load_rate",
        "RKLLM_LOAD_RATE",
        "10",
        _whole(1, 100_000),
        "megabytes of the model's file that are read in a second at least, for the time that a load may take",
    ),
    Setting(
        "pad_limit",
        "RKLLM_PAD_LIMIT",
        "4096",
        _whole(1, 1_000_000),
        "`[PAD…]` tokens in a row after which a run is ended",
    ),
    Setting(
        "context",
        "RKLLM_CONTEXT",
        "4096",
        _whole(128, 131_072),
        "context in tokens of models whose Modelfile and card name none",
    ),
    Setting(
        "keep_alive",
        "RKLLM_KEEP_ALIVE",
        "5m",
        parse_keep_alive,
        "time that an idle model stays loaded: `1h30m`, seconds, 0 (unload at once), -1 (for ever)",
    ),
    Setting(
        "max_models",
        "RKLLM_MAX_MODELS",
        "0",
        _whole(0, 64),
        "models in memory at the same time; 0 for as many as fit",
    ),
    # Two runs at once on the same NPU cores only slow each other down.
    Setting("slots", "RKLLM_SLOTS", "1", _whole(1, 16), "runs at the same time on this board"),
    Setting("cpus", "RKLLM_CPUS", "", parse_cpus, "CPUs for the runtime, `4-7` or `4,5,6,7`; without it the big ones"),
    Setting(
        "memory_check", "RKLLM_MEMORY_CHECK", "yes", _yes_or_no, "refuse to load a model that does not fit into memory"
    ),
)
"""Every variable in one table."""
