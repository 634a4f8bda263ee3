"""The settings of `rkllama`: those of the node, with RKLLAMA_ in place of EXO_, and its own."""

from __future__ import annotations

import dataclasses

from exo.cli.settings import SERVE_SETTINGS as NODE_SETTINGS
from exo.cli.settings import Setting
from exo.cli.values import folder, text
from exo_rkllm.settings import DEFAULT_SERVER_PORT

_NOT_HERE = frozenset({"engine", "models_dir", "home", "no_preload"})
_CHANGED = {
    "port": {"default": str(DEFAULT_SERVER_PORT), "flags": ("--port",)},
    "default_model": {
        "help": "model to load at start, and for requests that name none, `auto` to choose for each; "
        "without it the first by name, on demand"
    },
    "api_keys_file": {"help": "file of hashed API keys, one line each as `exo key NAME` prints it"},
}

MODELS = Setting(
    "models",
    "RKLLAMA_MODELS",
    "",
    folder,
    "folder of the models, default RKLLAMA_HOME/models",
    ("--models",),
    "DIR",
)
PLATFORM = Setting(
    "platform",
    "RKLLM_TARGET_PLATFORM",
    "",
    text,  # NpuSettings checks it
    "chip that models have to be made for; without it the one that is found",
    ("--target_platform", "--target-platform"),
    "CHIP",
)


def _own(setting: Setting) -> Setting:
    changed = dataclasses.replace(setting, env=setting.env.replace("EXO_", "RKLLAMA_", 1))
    return dataclasses.replace(changed, **_CHANGED.get(setting.name, {}))  # type: ignore[arg-type]  # fields of Setting


SERVE_SETTINGS = (*(_own(setting) for setting in NODE_SETTINGS if setting.name not in _NOT_HERE), MODELS, PLATFORM)
_BY_NAME = {setting.name: setting for setting in SERVE_SETTINGS}
CLIENT_SETTINGS = (
    dataclasses.replace(_BY_NAME["host"], help="address of the server to ask"),
    dataclasses.replace(_BY_NAME["port"], help="port of the server to ask"),
    MODELS,
    Setting("api_key", "RKLLAMA_API_KEY", "", text, "API key for the server that is asked", ("--api-key",), "KEY"),
)
