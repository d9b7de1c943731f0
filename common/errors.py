"""Every error this project raises on purpose: what was received, what is allowed, the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BackendNotInstalled",
    "InvalidArgument",
    "IsometryError",
    "ResultFileError",
    "Unsupported",
    "unknown_name",
]


class IsometryError(Exception):
    """Base of all deliberate errors; the command line prints it as one line."""


class InvalidArgument(IsometryError, ValueError):
    """An argument has the wrong name, value, shape, dtype or type."""


class ResultFileError(InvalidArgument):
    """A result file is damaged, foreign, or written by a newer schema."""


class BackendNotInstalled(IsometryError, ImportError):
    """The framework of a known backend cannot be imported here."""


class Unsupported(IsometryError, NotImplementedError):
    """A capability that the backend does not declare was asked for."""


def unknown_name(kind: str, received: object, known: Iterable[str]) -> InvalidArgument:
    """Return the error for a name that is not in a list, with the nearest one that is.

    >>> print(unknown_name("backend", "troch", ["numpy", "torch"]))
    unknown backend 'troch': known are numpy, torch; did you mean 'torch'?
    """
    names = list(known)
    message = f"unknown {kind} {received!r}: known are {', '.join(names)}"
    close = difflib.get_close_matches(str(received), names, n=1)
    return InvalidArgument(message + (f"; did you mean {close[0]!r}?" if close else ""))
