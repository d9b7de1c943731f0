"""Writes docs/mutants.md: ``cd tests && python -m mutants.page > ../docs/mutants.md``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import mutants

HEAD = """\
# Mutants: the proof that the suite can fail

A conformance suite that has never failed proves nothing, so each of these {count} backends is
wrong on purpose: an adapter with one small fault (`tests/mutants/`), of the kind that issue
trackers report. The suite must fail on each, by an assertion in the clause that names the fault,
and `tox` sees to it on every adapter. A mutant is left out of an adapter (·) only where it cannot
exist: there is no compiler or second derivative to be wrong, arrays never change, or the adapter
declares that it fails the clause anyway.

| mutant | fault | clause | {adapters} |
|---|---|---|{rules}|
"""
MARKUP = str.maketrans({"*": r"\*", "|": r"\|"})


def write(adapters: Sequence[str] = mutants.ADAPTERS) -> str:
    """Return the page, with a column for each adapter."""
    head = HEAD.format(
        count=len(mutants.FAULTS),
        adapters=" | ".join(adapters),
        rules="|".join(":-:" for _ in adapters),
    )
    lines = [
        f"| {name} | {fault.sentence.translate(MARKUP)} | `{fault.clause}` | "
        + " | ".join("x" if mutants.applies(name, a) else "·" for a in adapters)
        + " |"
        for name, fault in mutants.FAULTS.items()
    ]
    return head + "\n".join(lines) + "\n"


def rows(page: str, adapter: str) -> list[tuple[str, ...]]:
    """Return mutant, fault, clause, and whether the adapter has it, row by row."""
    table = [
        tuple(cell.strip() for cell in line.replace(r"\|", "\0").strip("|").split("|"))
        for line in page.splitlines()
        if line.startswith("|")
    ]
    column = table[0].index(adapter)
    return [(*row[:3], row[column]) for row in table]


if __name__ == "__main__":
    sys.stdout.write(write())
