"""The errors of this package's Python part, each with a message for the person at the command line.

SimulatorError
├── BadOptions        options that contradict each other, or a value that cannot be
├── BadScript         a script record that the library would refuse, with its line
├── BadTokenizer      a tokenizer's files that are missing, broken or of a kind that is not known here
├── BadGguf           a GGUF file that cannot be read or used
└── UnknownProfile    a pace that no benchmark row has
"""

from __future__ import annotations

__all__ = ["BadGguf", "BadOptions", "BadScript", "BadTokenizer", "SimulatorError", "UnknownProfile"]


class SimulatorError(ValueError):
    """Base of the errors that a command prints as one sentence."""


class BadOptions(SimulatorError):
    """Options that contradict each other, or a value that cannot be."""


class BadScript(SimulatorError):
    """A script record that the library would refuse; the message has its line."""


class BadTokenizer(SimulatorError):
    """A tokenizer's files are missing, broken or of a kind that is not known here; the message names the file."""


class BadGguf(SimulatorError):
    """A GGUF file cannot be read or used; the message names it."""


class UnknownProfile(SimulatorError):
    """No benchmark row has these names; the message lists near ones."""
