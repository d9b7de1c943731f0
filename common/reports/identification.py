"""An identification for people, as a table in the terminal, and for programs, as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isometry.common.laws.distributions import Distribution
from isometry.common.laws.orthogonal import Orthogonal
from isometry.common.laws.rules import Initializer
from isometry.common.statistics.identify import Candidate, Identification
from isometry.common.statistics.known import Law

__all__ = ["document", "terminal"]


def document(found: Identification) -> dict[str, Any]:
    """Return what `found` holds as JSON has it: numbers, texts and lists."""
    whole = asdict(found)
    whole["candidates"] = [
        {
            "law": _law(one.law),
            "formulas": one.formulas,
            "names": one.names,
            "tests": [asdict(test) for test in one.verdicts],
        }
        for one in found.candidates
    ]
    return {"known": found.known, **whole}


def terminal(found: Identification) -> RenderableType:
    """Return the set of laws, what was measured, and both error rates."""
    parts: list[RenderableType] = [_table(found), *map(Text, _said(found))]
    return Group(*parts)


def _table(found: Identification) -> RenderableType:
    if found.closest is not None:
        return Text(f"unknown\nclosest: {found.closest}\n")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("law")
    table.add_column("std", justify="right")
    if found.fan_in:
        table.add_column("var x fan_in", justify="right")
    table.add_column("formula")
    table.add_column("names")
    for one in found.candidates:
        std = _std(one)
        cells = ["" if std is None else f"{std:.5g}"]
        if found.fan_in:
            cells.append("" if std is None else f"{std**2 * found.fan_in:.5g}")
        formulas = "\n".join(dict.fromkeys(one.formulas))
        table.add_row(Text(_law(one.law)), *cells, Text(formulas), Text("\n".join(one.names)))
    return table


def _law(law: Law | Initializer) -> str:
    """Return the law with its parameters to five digits: ``Normal(0, 0.0625)``."""
    if isinstance(law, Distribution):
        numbers = ", ".join(f"{value:.5g}" for value in vars(law).values())
        return f"{type(law).__name__}({numbers})"
    return f"Orthogonal(gain {law.gain:.5g})" if isinstance(law, Orthogonal) else str(law)


def _std(one: Candidate) -> float | None:
    return math.sqrt(one.law.moments[1]) if isinstance(one.law, Distribution) else None


def _said(found: Identification) -> list[str]:
    scaled = f", variance times fan_in {found.std**2 * found.fan_in:.5g}" if found.fan_in else ""
    lines = [
        f"measured: {found.count} weights in {found.dtype}, mean {found.mean:.4g}, "
        f"std {found.std:.5g}{scaled}, from {found.smallest:.5g} to {found.largest:.5g}",
        f"false alarm: the true law is missing here with probability at most {found.false_alarm:g}",
    ]
    if found.detects:
        lines.append(
            f"detects: a law whose std is {found.detects:.2%} off or more is in the set with "
            f"probability at most {found.miss:g}"
        )
    if found.left_out:
        missing = [
            option
            for option, fan in (("--fan-in", found.fan_in), ("--fan-out", found.fan_out))
            if fan is None
        ]
        lines.append(f"not tested: {len(found.left_out)} laws that need {' or '.join(missing)}")
    return lines
