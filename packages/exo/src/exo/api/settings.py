"""What the HTTP side can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from exo.api.key_file import Keys
from exo.api.keys import KeyRing


@dataclass(frozen=True)
class HttpSettings:
    """Sizes are in bytes, times in seconds.

    `prefix` begins the variables that messages name. `allowed_hosts` are further names by which clients may call a node
    that listens on loopback, `allowed_origins` web pages of other sites that may use it.
    """

    prefix: str = "EXO_"
    host: str = "127.0.0.1"
    port: int = 52415
    keys: Keys = field(default_factory=KeyRing)
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()
    max_body: int = 16 * 1024 * 1024
    max_header: int = 64 * 1024
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 75.0
    write_timeout: float = 60.0
    heartbeat: float = 30.0
    grace: float = 10.0
    log_prompts: bool = False
