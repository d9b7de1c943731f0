"""A grading for people, as text in the terminal, and for programs, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from isometry.common.grading.grader import Grade, Grading

__all__ = ["document", "terminal"]

_STYLES = {"right": "green", "wrong": "bold red", "not graded": "bold yellow"}


def document(found: Grading) -> dict[str, Any]:
    """Return what `found` holds as JSON has it, with the outcome of the file."""
    return {"outcome": found.outcome, **asdict(found)}


def terminal(found: Grading) -> RenderableType:
    """Return each function with its answer, the claims below it, and the error rates."""
    if not found.grades:
        return Group(_verdict(found.file, found.outcome), Text(f"  {found.said}"))
    parts = [part for grade in found.grades for part in _parts(grade)]
    return Group(*parts, *([Text(found.said)] if found.said else []))


def _verdict(name: str, outcome: str) -> Text:
    return Text(f"{name}: ").append(outcome, style=_STYLES[outcome])


def _parts(grade: Grade) -> list[Text]:
    lines = [_verdict(grade.function, grade.outcome), Text(f"  {grade.said}")]
    for finding in grade.findings:
        word = "yes" if finding.passed else "no"
        detail = f" ({finding.said})" if finding.passed and finding.said else ""
        lines.append(Text(f"  - {finding.claim}: {word}{detail}"))
    if grade.rates:
        lines.append(Text(f"  {grade.rates}", style="dim"))
    return lines
