"""exo: a node that serves language models over HTTP, with engines as plugins."""

__version__ = "0.1.0"
