"""The scoreboard of natives for people: a table in the terminal, and a page of one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isometry.common.natives.findings import DEVIATING, VERDICTS, Finding
from isometry.common.natives.scoreboard import Measured, Scoreboard, complaints
from isometry.common.reports import html
from isometry.common.reports.html import Cell

__all__ = ["summary", "terminal", "write"]

KIND = {
    "as named": "pass",
    "divergence": "differs",
    "difference": "differs",
    "measured": "absent",
    "not run": "absent",
    "crashed": "fail",
}
STYLE = {"differs": "yellow", "fail": "bold red"}
SHOWN = 20  # complaints in the terminal; the page has all


def summary(board: Scoreboard) -> Cell:
    """Return in one line how many findings deviate, and whether all of that is declared."""
    counts = board.counts()
    deviating = sum(counts[v] for v in DEVIATING)
    text = f"{counts['as named']} of {counts.total()} findings are as named, {deviating} deviate"
    wrong = complaints(board)
    if wrong:
        return Cell(f"{text}; {len(wrong)} not as declared.", "fail")
    absent = [m.name for m in board.libraries if m.status != "measured"]
    if absent:
        return Cell(f"{text}; not measured to the end: {', '.join(absent)}.", "absent")
    return Cell(f"{text}, each for a declared reason.", "pass")


def terminal(board: Scoreboard) -> RenderableType:
    """Return the table of verdicts by library, and a line for what is not as declared."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("library", "versions"):
        table.add_column(column)
    for verdict in VERDICTS:
        table.add_column(verdict, justify="right", style=STYLE.get(KIND[verdict], ""))
    table.add_column("seconds", justify="right")
    for library in board.libraries:
        counts = board.counts(library.name)
        if library.findings:
            numbers = [str(counts[v]) if counts[v] else "" for v in VERDICTS]
        else:
            numbers = [library.status, *[""] * (len(VERDICTS) - 1)]
        table.add_row(library.name, _versions(library), *numbers, f"{library.seconds:.0f}")
    wrong = complaints(board)
    lines = [Text(line) for line in wrong[:SHOWN]]
    if len(wrong) > SHOWN:
        lines.append(Text(f"and {len(wrong) - SHOWN} more in scoreboard.html"))
    lines += [Text(f"{m.status}: {m.name}: {m.detail}") for m in board.libraries if m.detail]
    return Group(table, *lines, Text(summary(board).word, style="bold"))


def _versions(library: Measured) -> str:
    return ", ".join(f"{name} {version}" for name, version in library.versions.items())


# --- the page -----------------------------------------------------------------------------------


def write(board: Scoreboard, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises
    ------
    InvalidArgument
        If the file cannot be written.
    """
    html.write(
        path,
        "natives.html",
        title="Isometry: what the libraries themselves ship, measured",
        summary=summary(board),
        board=board,
        libraries=[{"versions": _versions(m), "measured": m} for m in board.libraries],
        verdicts=VERDICTS,
        groups=list(_groups(board)),
        not_found=board.not_found(),
    )


def _groups(board: Scoreboard) -> Iterator[dict[str, Any]]:
    """Yield the clauses on one name, such as he_normal, with a cell for each library."""
    columns = [m for m in board.libraries if m.findings]
    for claim in dict.fromkeys(clause.partition(".")[0] for clause in board.clauses):
        clauses = {c: p for c, p in board.clauses.items() if c.partition(".")[0] == claim}
        asked = [m for m in columns if any(f.clause in clauses for f in m.findings)]
        yield {
            "name": claim,
            "libraries": [m.name for m in asked],
            "rows": [
                {
                    "clause": clause,
                    "promise": promise,
                    "cells": [
                        [_finding(board, m, f) for f in m.findings if f.clause == clause]
                        for m in asked
                    ],
                }
                for clause, promise in clauses.items()
            ],
        }


def _finding(board: Scoreboard, library: Measured, finding: Finding) -> dict[str, Any]:
    declared = board.declaration(library.name, finding.clause)
    deviates = finding.verdict in DEVIATING
    word = finding.verdict + (" (undeclared)" if deviates and not declared else "")
    return {
        "cell": Cell(word, "fail" if deviates and not declared else KIND[finding.verdict]),
        "declared": declared if deviates else None,
        "deviates": deviates,
        "of": finding,
    }
