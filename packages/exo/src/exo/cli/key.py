"""`exo key`: a fresh API key, and the line of the key file that lets it in."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from exo.api.keys import Key, check_name, digest_of, limit, new_key
from exo.inference.caller import Caller
from exo.types import ConfigurationError


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:  # noqa: ARG001 - a command's shape
    check_name(flags.name)
    caller = Caller(
        flags.name,
        admin=flags.admin,
        requests=_limit("--requests", flags.requests),
        tokens=_limit("--tokens", flags.tokens),
    )
    key = new_key()
    print(f"The key, for whoever uses it (it is shown only once):\n{key}\n", file=sys.stderr)
    print("The line for the key file:", file=sys.stderr)
    print(Key(digest_of(key), caller).line())
    return 0


def _limit(flag: str, value: str | None) -> int | None:
    try:
        return None if value is None else limit(value)
    except ValueError as error:
        raise ConfigurationError(f"{flag}: {error}, got {value!r}.") from None
