"""Automatic choice of a model: a pure function of the request, the models that can be served, and the node's state."""

from exo.routing.judgement import Counted, Judgement
from exo.routing.router import Explanation, Router
from exo.routing.rules import Rules
from exo.routing.rules_reader import packaged_text, read_rules

__all__ = ["Counted", "Explanation", "Judgement", "Router", "Rules", "packaged_text", "read_rules"]
