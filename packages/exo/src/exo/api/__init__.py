"""The HTTP side of a node: one adapter for each dialect, onto the same internal request."""

from exo.api.app import create_app
from exo.api.key_file import KeyFile
from exo.api.keys import KeyRing
from exo.api.server import bind, serve
from exo.api.settings import HttpSettings

__all__ = ["HttpSettings", "KeyFile", "KeyRing", "bind", "create_app", "serve"]
