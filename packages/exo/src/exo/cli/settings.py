"""Every setting of the node in one table: flag, environment variable, default. docs/SETTINGS.md lists the same."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exo.cli import values
from exo.types import ConfigurationError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 52415


@dataclass(frozen=True)
class Setting:
    """One setting: a flag wins over the variable, the variable over the default (written as in the variable).

    `flags` may be empty. A setting with `metavar` None is a switch: its flag takes no value.
    """

    name: str
    env: str
    default: str
    parse: Callable[[str], Any]
    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = "VALUE"

    def add_to(self, parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
        """Add the flag. A command's own parser takes argparse.SUPPRESS, so that flags before the command count too."""
        if not self.flags:
            return
        help_text = f"{self.help} (variable {self.env}{f', default {self.default}' if self.default else ''})"
        if self.metavar is None:
            parser.add_argument(
                *self.flags, dest=self.name, action="store_const", const="yes", default=default, help=help_text
            )
        else:
            parser.add_argument(*self.flags, dest=self.name, metavar=self.metavar, default=default, help=help_text)

    def value(self, flag: str | None, env: Mapping[str, str]) -> Any:
        """The value in force, None where nothing is set and there is no default. Raises ConfigurationError."""
        given, source = (flag, self.flags[0]) if flag is not None else (env.get(self.env), self.env)
        given = given or self.default
        if not given:
            return None
        try:
            return self.parse(given)
        except ValueError as error:
            raise ConfigurationError(f"{source}: {error}, got {given!r}.") from None


HOST = Setting("host", "EXO_HOST", DEFAULT_HOST, values.text, "address to listen on", ("--host",), "ADDRESS")
PORT = Setting(
    "port",
    "EXO_PORT",
    str(DEFAULT_PORT),
    values.whole(0, 65535),
    "port to listen on, 0 for a free one",
    ("--port", "--chatgpt-api-port"),
    "PORT",
)
ENGINE = Setting(
    "engine",
    "EXO_INFERENCE_ENGINE",
    "",
    values.text,
    "engine to use; without it the first device detector that answers chooses, else llamacpp",
    ("--inference-engine",),
    "NAME",
)
MODELS_DIR = Setting(
    "models_dir", "EXO_MODELS_DIR", "", values.folder, "model store, default EXO_HOME/models", ("--models-dir",), "DIR"
)
HOME = Setting("home", "EXO_HOME", "~/.cache/exo", values.folder, "folder for everything that exo keeps")
LOG_LEVEL = Setting(
    "log_level",
    "EXO_LOG_LEVEL",
    "info",
    values.one_of("debug", "info", "warning", "error"),
    "least important level that is logged",
    ("--log-level",),
    "LEVEL",
)
LOG_JSON = Setting(
    "log_json", "EXO_LOG_JSON", "no", values.yes_or_no, "log one JSON object per line", ("--log-json",), None
)
DEFAULT_MODEL = Setting(
    "default_model",
    "EXO_DEFAULT_MODEL",
    "",
    values.text,
    "model for requests that name none, `auto` to choose for each; without it the first by name that can be loaded",
    ("--default-model",),
    "ID",
)
ROUTING_RULES = Setting(
    "routing_rules",
    "EXO_ROUTING_RULES",
    "",
    values.path,
    "rules by which `auto` chooses a model, laid over the packaged ones",
    ("--routing-rules",),
    "FILE",
)

SERVE_SETTINGS = (
    HOST,
    PORT,
    ENGINE,
    DEFAULT_MODEL,
    ROUTING_RULES,
    MODELS_DIR,
    HOME,
    Setting(
        "no_preload",
        "EXO_NO_PRELOAD",
        "no",
        values.yes_or_no,
        "load the default model with the first request, not at start",
        ("--no-preload",),
        None,
    ),
    Setting(
        "queue_limit",
        "EXO_QUEUE_LIMIT",
        "128",
        values.whole(0, 100_000),
        "requests that may wait for a slot; further ones get status 429",
        ("--queue-limit",),
        "N",
    ),
    Setting(
        "request_timeout",
        "EXO_REQUEST_TIMEOUT",
        "3600",
        values.seconds,
        "longest time for a request in seconds, queue included; 0 for none",
        ("--request-timeout",),
        "SECONDS",
    ),
    Setting(
        "grace",
        "EXO_GRACE",
        "10",
        values.seconds,
        "seconds that running answers may go on after SIGTERM or Ctrl-C",
        ("--grace",),
        "SECONDS",
    ),
    Setting("api_keys", "EXO_API_KEYS", "", values.words, "API keys, separated by commas"),
    Setting(
        "api_keys_file",
        "EXO_API_KEYS_FILE",
        "",
        values.path,
        "file of hashed API keys, one line each as `exo key NAME` prints it",
        ("--api-keys-file",),
        "FILE",
    ),
    Setting(
        "no_auth",
        "EXO_NO_AUTH",
        "no",
        values.yes_or_no,
        "allow listening beyond loopback without keys",
        ("--no-auth",),
        None,
    ),
    Setting(
        "node_name",
        "EXO_NODE_NAME",
        "",
        values.node_name,
        "name of this node among others, default the host name",
        ("--node-name",),
        "NAME",
    ),
    Setting(
        "no_announce",
        "EXO_NO_ANNOUNCE",
        "no",
        values.yes_or_no,
        "keep away from mDNS: neither announce this node nor look for others",
        ("--no-announce",),
        None,
    ),
    Setting(
        "cluster_secret_file",
        "EXO_CLUSTER_SECRET_FILE",
        "",
        values.path,
        "file with the secret that the nodes of a cluster share, of 32 characters and more",
        ("--cluster-secret-file",),
        "FILE",
    ),
    Setting("allowed_hosts", "EXO_ALLOWED_HOSTS", "", values.words, "further host names of this node, for browsers"),
    Setting(
        "allowed_origins", "EXO_ALLOWED_ORIGINS", "", values.words, "web pages of other sites that may use the node"
    ),
    Setting("max_body", "EXO_MAX_BODY", "16777216", values.whole(1024, 1 << 34), "largest request body in bytes"),
    Setting(
        "header_timeout", "EXO_HEADER_TIMEOUT", "10", values.some_seconds, "seconds for a request's headers to arrive"
    ),
    Setting("body_timeout", "EXO_BODY_TIMEOUT", "30", values.some_seconds, "seconds for a request's body to arrive"),
    Setting("idle_timeout", "EXO_IDLE_TIMEOUT", "75", values.some_seconds, "seconds that an unused connection is kept"),
    Setting("write_timeout", "EXO_WRITE_TIMEOUT", "60", values.some_seconds, "seconds that a client may stop reading"),
    Setting(
        "log_prompts", "EXO_LOG_PROMPTS", "no", values.yes_or_no, "log the text of prompts", ("--log-prompts",), None
    ),
    LOG_LEVEL,
    LOG_JSON,
    Setting(
        "disable_tui",
        "EXO_DISABLE_TUI",
        "no",
        values.yes_or_no,
        "no live status line on a terminal",
        ("--disable-tui",),
        None,
    ),
)
API_KEY = Setting(
    "api_key", "EXO_API_KEY", "", values.text, "API key for the node that is asked", ("--api-key",), "KEY"
)
STORE_SETTINGS = (MODELS_DIR, HOME)
RUN_SETTINGS = (
    dataclasses.replace(HOST, help="address of the node to ask"),
    dataclasses.replace(PORT, help="port of the node to ask"),
    dataclasses.replace(ENGINE, help="engine to use where no node answers"),
    *STORE_SETTINGS,
    API_KEY,
)


def read(settings: tuple[Setting, ...], flags: argparse.Namespace, env: Mapping[str, str]) -> dict[str, Any]:
    """The values in force, by name. Raises ConfigurationError."""
    return {setting.name: setting.value(getattr(flags, setting.name, None), env) for setting in settings}


def service_options(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The part of SERVE_SETTINGS that InferenceService takes. Reads routing rules; raises ConfigurationError."""
    return {
        "make_chooser": make_chooser(chosen["routing_rules"]),
        "queue_limit": chosen["queue_limit"],
        "default_model": chosen["default_model"],
        "request_timeout": chosen["request_timeout"] or None,
    }


def make_chooser(rules: Path | None) -> Callable[[], Any]:
    """What makes the router. A file of one's own is read now, so that a mistake in it is known at start."""

    def make() -> Any:
        from exo.routing import Router, read_rules  # noqa: PLC0415 - with the first request to `auto`

        return Router(read_rules(rules))

    if rules is None:
        return make
    router = make()
    return lambda: router


def models_dir(chosen: Mapping[str, Any]) -> Path:
    """The model store's root."""
    root: Path = chosen["models_dir"] or chosen["home"] / "models"
    return root
