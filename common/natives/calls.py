"""From a table of calls to natives: the text of a call is what runs.

So what a report prints is what was measured. The tables are those of the modules beside the
adapters; no text from elsewhere is ever evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from isometry.common.natives import Native

__all__ = ["called", "evaluate", "natives"]


def evaluate(call: str, names: dict[str, Any]) -> Any:
    """Run ``first; second; last`` with these names, and return the value of the last."""
    *before, last = call.split("; ")
    for expression in before:
        eval(expression, names)
    return eval(last, names)


def called(call: str) -> str:
    """Return the dotted name of the function that a call is about."""
    return call.rpartition("; ")[2].partition("(")[0].lstrip("[")


def natives(
    table: Mapping[str, Sequence[Sequence[Any]]],
    runs: Mapping[str, Callable[..., Any]],
    source: Callable[[str], str],
) -> tuple[Native, ...]:
    """Return one native for each row of a table.

    Parameters
    ----------
    table : mapping
        Kind -> rows (claims, call) or (claims, call, settings), as in `Native`.
    runs : mapping
        Kind -> function of the call, and of what `isometry.common.natives` says for the kind.
    source : callable
        Page of the library's documentation from the call.
    """
    return tuple(
        Native(kind, claims, call, partial(runs[kind], call), source(call), *settings)
        for kind, rows in table.items()
        for claims, call, *settings in rows
    )
