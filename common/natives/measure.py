"""Measure one library in this process: ``python -P -m isometry.common.natives.measure torch.nn``.

What it finds is told as JSON lines on standard error (`isometry.common.isolation.emit`), finding by
finding. A library that brings the process down loses that answer alone: another process goes on
after that question, whose number is the second argument. The third says which questions are asked,
those of the scoreboard or of the atlas.
"""

from __future__ import annotations

import functools
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import EntryPoint, entry_points

from isometry.common.isolation import emit
from isometry.common.natives import (
    Library,
    Native,
    adaptive,
    clipping,
    conventions,
    gradients,
    initializers,
    laws,
    layers,
    normalization,
    optimizers,
    orthogonal,
    papers,
    samplers,
)
from isometry.common.natives.findings import Clause, Finding

__all__ = ["CLAUSES", "GROUP", "SHEETS", "findings", "main", "registered"]

GROUP = "isometry.natives"

CLAUSES: tuple[Clause, ...] = (
    *initializers.CLAUSES,
    *samplers.CLAUSES,
    *orthogonal.CLAUSES,
    *layers.CLAUSES,
    *gradients.CLAUSES,
    *normalization.CLAUSES,
    *clipping.CLAUSES,
    *papers.CLAUSES,
)
SHEETS: Mapping[str, tuple[Clause, ...]] = {
    "scoreboard": CLAUSES,
    "atlas": (*laws.CLAUSES, *conventions.CLAUSES, *optimizers.CLAUSES, *adaptive.CLAUSES),
}
"""Which questions are asked: those with a verdict, or those of what a default is."""


def registered() -> dict[str, EntryPoint]:
    """Return name -> entry point of every library that is registered; imports none of them."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _remembering(native: Native) -> Native:
    """Return the native with its last draws remembered: clauses share them."""
    if native.kind != "initializer":
        return native
    return replace(native, run=functools.lru_cache(maxsize=8)(native.run))


def findings(
    library: Library, skip: int = 0, clauses: Sequence[Clause] = CLAUSES
) -> Iterator[tuple[Native, Clause, Finding | None]]:
    """Ask every clause of every native but the first `skip` questions.

    Yields None before each question, and then the answer, if the question has a meaning.
    """
    asked = 0
    for given in library.natives:
        native = _remembering(given)  # here, so that its draws are forgotten with it
        for clause in clauses:
            asked += native.claims in clause.claims
            if native.claims not in clause.claims or asked <= skip:
                continue
            yield native, clause, None
            started = time.perf_counter()
            found = clause.ask(native, library)
            if found is not None:
                yield native, clause, replace(found, seconds=time.perf_counter() - started)


def main(name: str, skip: str = "0", sheet: str = "scoreboard") -> int:
    """Measure a registered library and tell what is found."""
    clauses = SHEETS[sheet]
    started = time.perf_counter()
    try:
        library = registered()[name].load()()
    except ImportError as error:
        emit("failed", status="not run", message=f"{error}")
        return 1
    total = sum(n.claims in c.claims for n in library.natives for c in clauses)
    emit("library", name=library.name, versions=dict(library.versions), total=total)
    for native, clause, found in findings(library, int(skip), clauses):
        if found is None:
            emit(
                "asked",
                clause=f"{native.claims}.{clause.aspect}",
                call=native.call,
                promise=clause.promise,
                source=native.source,
            )
        else:
            emit("found", **asdict(found))
    emit("end", seconds=time.perf_counter() - started)
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # a library's own; what is measured says it in words
    sys.exit(main(*sys.argv[1:]))
