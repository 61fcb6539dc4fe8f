"""Every error that mixmerge raises on purpose.

    MixmergeError               something a user can mend; the CLI prints it without a traceback
    ├── RecipeError             a recipe does not hold: carries every Problem found, with file:line
    ├── PluginError             a plugin does not import, misspells a hook, or takes a taken name
    ├── SourceError             a model or a dataset cannot be had, or is not what it claims to be
    ├── CheckpointError         weights are missing, pickled, misaligned, or not finite
    ├── StoreError              the store is locked, full, or damaged
    ├── SandboxError            this host cannot isolate programs as far as is required
    └── StepError               a step failed while running; names its log

A message says where, what and what is allowed, in lower case and without a full stop; `hint` says how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class MixmergeError(Exception):
    """Something a user can mend: `message` says what is wrong, `hint` how to mend it (may be empty)."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[MixmergeError], message: str, hint: str) -> MixmergeError:
    error = kind.__new__(kind)
    MixmergeError.__init__(error, message, hint=hint)
    return error


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe. `where` is `file:line`."""

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"\n  hint: {self.hint}" if self.hint else "")


class RecipeError(MixmergeError):
    """A recipe does not hold. `problems` is every Problem found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        return (RecipeError, (self.problems,))


class PluginError(MixmergeError):
    """A plugin does not import, misspells a hook, or takes a name that is taken."""


class SourceError(MixmergeError):
    """A model or a dataset cannot be had, or is not what it claims to be."""


class CheckpointError(MixmergeError):
    """Weights are missing, pickled, misaligned between checkpoints, or not finite."""


class StoreError(MixmergeError):
    """The store is locked by another run, full, or damaged."""


class SandboxError(MixmergeError):
    """This host cannot isolate programs as far as is required."""


class StepError(MixmergeError):
    """A step failed while running; the message names its log."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """A hint for a name that is not there: what was probably meant, or all there is."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there is {', '.join(names)}" if names else "there is none"
