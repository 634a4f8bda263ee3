"""An engine for exo that answers with the last user message. Every part of it is explained in docs/PLUGIN_GUIDE.md."""

__version__ = "0.1.0"
