"""The errors of the converter. Each message says what happened, to which named thing, and what to do next.

ConvertError
├── Refused                    what was asked for cannot be done; nothing was downloaded or written
│   ├── IllegalOptions         options that the toolkit or the chip does not allow, all of them, with the legal ones
│   ├── PreflightFailed        the model, this machine or its disk will not do
│   └── BadModels              a models.yaml with mistakes, each with its line and the path of its key
├── SourceError                the model could not be had
│   ├── ModelNotFound          there is no such repository, revision, folder or file
│   ├── GatedModel             its makers want to know who downloads it
│   └── HubUnreachable         no answer from the hub, or a broken one
├── BadCalibration             a file of texts or chats that cannot be used, with its line
├── ToolkitError               about Rockchip's toolkit
│   ├── ToolkitMissing         it is not installed in the Python that was named, or something else is
│   ├── UnknownToolkit         it is of a version that is not known here
│   ├── CallFailed             one of its calls said no, or raised
│   └── ToolkitDied            its process ended by a signal, or without an answer
├── FolderError                the folder of the result is in use, not empty, or cannot be written
└── VerifyFailed               a folder is not what its conversion.json says
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "BadCalibration",
    "BadModels",
    "CallFailed",
    "ConvertError",
    "FolderError",
    "GatedModel",
    "HubUnreachable",
    "IllegalOptions",
    "ModelNotFound",
    "PreflightFailed",
    "Problem",
    "Refused",
    "SourceError",
    "ToolkitDied",
    "ToolkitError",
    "ToolkitMissing",
    "UnknownToolkit",
    "VerifyFailed",
]


_OPTIONS = {"optimization_level": "opt_level"}
"""Fields that people know by another name."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the value of an option will not do; as a text it has the flag before it.

    - `field`: of Options or Request, such as `quant` or `lora`
    - `value`: as it was given, or true or false for a switch; None where it says nothing
    - `sentence`: names other options by their words, as it is for flags and for keys of a file
    """

    field: str
    value: str | bool | None
    sentence: str

    @property
    def option(self) -> str:
        """As the flag is called, with underscores."""
        return _OPTIONS.get(self.field, self.field)

    @property
    def said(self) -> str:
        """The sentence with the value before it, for who names the option by itself."""
        return f"{self.value}: {self.sentence}" if isinstance(self.value, str) else self.sentence

    def __str__(self) -> str:
        no = "no-" if self.value is False else ""
        return f"--{no}{self.option.replace('_', '-')}{' ' if isinstance(self.value, str) else ': '}{self.said}"


class ConvertError(Exception):
    """Base of every error that a person is to read."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refused(ConvertError):
    """What was asked for cannot be done. `problems` has a sentence for each reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class IllegalOptions(Refused):
    """Options that the toolkit or the chip does not allow. `of_options` are the problems that name their option."""

    def __init__(self, problems: Iterable[Problem | str]) -> None:
        told = tuple(problems)
        self.of_options = tuple(one for one in told if isinstance(one, Problem))
        super().__init__(map(str, told))


class PreflightFailed(Refused):
    """The model, this machine or its disk will not do."""


class BadModels(Refused):
    """A models.yaml with mistakes."""


class SourceError(ConvertError):
    """The model could not be had."""


class ModelNotFound(SourceError):
    """There is no such repository, revision, folder or file."""


class GatedModel(SourceError):
    """The model's makers want to know who downloads it."""


class HubUnreachable(SourceError):
    """No answer from the hub, or a broken one."""


class BadCalibration(ConvertError):
    """A file of texts or chats that cannot be used."""


class ToolkitError(ConvertError):
    """About Rockchip's toolkit."""


class ToolkitMissing(ToolkitError):
    """The toolkit is not installed in the Python that was named, or something else of its name is."""


class UnknownToolkit(ToolkitError):
    """The toolkit is of a version that is not known here."""


class CallFailed(ToolkitError):
    """One of the toolkit's calls said no, or raised. `method` is its name."""

    def __init__(self, method: str, message: str) -> None:
        self.method = method
        super().__init__(message)


class ToolkitDied(ToolkitError):
    """The toolkit's process ended by a signal, or without an answer."""


class FolderError(ConvertError):
    """The folder of the result is in use, not empty, or cannot be written."""


class VerifyFailed(ConvertError):
    """A folder is not what its conversion.json says."""
