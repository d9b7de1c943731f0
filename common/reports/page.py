"""One self-contained page: what ran, what holds, what differs, and how to repeat it.

The file makes no request: figures are inlined, there is no script, and its own content security
policy forbids anything else. It is read on a phone, printed, and listened to, so verdicts are
words, tables scroll in their own box, and every figure carries a text alternative.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isometry.common import studies
from isometry.common.isolation import Outcome
from isometry.common.reports import figures as drawings
from isometry.common.reports import html
from isometry.common.reports.agreement import Agreement, Claim, Shared, distinct
from isometry.common.reports.html import Cell
from isometry.common.results import Check, Result

__all__ = ["write"]

Results = Mapping[str, Sequence[Result]]


NOT_RUN = Cell("not run", "absent")
_STATUS = {"ran": "pass", "not installed": "absent"}  # any other is a failure
_DIFFERENCE = {"reference": "pass", "agrees": "pass", "differs": "fail"}  # any other is absent


def write(
    results: Results,
    outcomes: Sequence[Outcome],
    agreement: Mapping[str, Agreement],
    figures: Iterable[Path],
    path: Path,
) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    results : mapping of str to sequence of Result
        Study -> one result per backend that ran it, in the order of the columns.
    outcomes : sequence of Outcome
        What became of each study on each backend; empty if results were given as files.
    agreement : mapping of str to Agreement
        Study -> its verdicts, for every study with a result.
    figures : iterable of Path
        What `figures.draw` wrote; the SVG files are inlined.
    path : Path
        The file to write; an existing one is replaced in one step.

    Raises
    ------
    InvalidArgument
        If the file cannot be written.
    """
    files = {file.stem: file for file in figures if file.suffix == ".svg"}
    html.write(
        path,
        "page.html",
        title=_title(agreement),
        summary=_summary(outcomes, agreement),
        outcomes=_outcomes(results, outcomes),
        provenance=_provenance(results),
        studies=[_study(name, row, agreement[name], files) for name, row in results.items() if row],
        command=_command(results),
    )


def _number(value: float) -> str:
    """Return six significant digits: enough to tell backends apart, short enough for a phone."""
    return f"{value:.6g}"


# --- what ran ---------------------------------------------------------------------------------


def _title(agreement: Mapping[str, Agreement]) -> str:
    names = list(dict.fromkeys(name for a in agreement.values() for name in a.backends))
    if len(names) > 1:
        return f"Isometry: {', '.join(names[:-1])} and {names[-1]} side by side"
    return f"Isometry: the {names[0]} backend against theory" if names else "Isometry: nothing ran"


def _summary(outcomes: Sequence[Outcome], agreement: Mapping[str, Agreement]) -> Cell:
    made = [check for a in agreement.values() for row in a.claims for check in row.checks.values()]
    failed = sum(not check.passed for check in made)
    differ = sum(not row.passed for a in agreement.values() for row in a.shared)
    lost = sum(outcome.status not in _STATUS for outcome in outcomes)
    wrong = [
        f"{count} {what}"
        for count, what in (
            (failed, f"of {len(made)} checks failed"),
            (differ, "of the shared quantities differed"),
            (lost, "of the runs did not end"),
        )
        if count
    ]
    if wrong:
        return Cell(f"Not all as promised: {', '.join(wrong)}.", "fail")
    if not made:
        return Cell("No study ran.", "absent")
    differences = [
        difference
        for a in agreement.values()
        for row in a.shared
        for difference in row.differences.values()
        if difference.verdict != "reference"
    ]
    apart = sum(d.verdict == "not comparable" for d in differences)
    note = f" {apart} of {len(differences)} arrays are not comparable." if apart else ""
    return Cell(f"All as promised: {len(made)} of {len(made)} checks hold.{note}", "pass")


def _outcomes(results: Results, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the table of what ran, and a note for each thing that did not."""
    cells = {(o.backend, o.study): Cell(o.status, _STATUS.get(o.status, "fail")) for o in outcomes}
    for study, row in results.items():
        for name in distinct(row):
            cells.setdefault((name, study), Cell("ran", "pass"))
    names = list(dict.fromkeys(study for _, study in cells))
    notes = {_what(o): o.detail for o in outcomes if o.status != "ran"}
    return {
        "studies": names,
        "rows": [
            {"backend": b, "cells": [cells.get((b, study), NOT_RUN) for study in names]}
            for b in dict.fromkeys(backend for backend, _ in cells)
        ],
        "notes": notes,
    }


def _what(outcome: Outcome) -> str:
    if outcome.status == "not installed":  # once for all studies
        return f"{outcome.backend}: not installed"
    return f"{outcome.backend}, {outcome.study}: {outcome.status}"


def _provenance(results: Results) -> list[dict[str, str]]:
    by_backend: dict[str, list[Result]] = {}
    for row in results.values():
        for name, result in zip(distinct(row), row, strict=True):
            by_backend.setdefault(name, []).append(result)
    return [
        {
            "backend": name,
            "versions": ", ".join(f"{k} {v}" for k, v in rows[0].versions.items()),
            "device": rows[0].device,
            "seed": ", ".join(str(seed) for seed in dict.fromkeys(r.seed for r in rows)),
            "created": min(r.created for r in rows),
            "seconds": f"{sum(r.seconds for r in rows):.1f}",
            "platform": rows[0].platform,
        }
        for name, rows in by_backend.items()
    ]


# --- one study --------------------------------------------------------------------------------


def _study(
    name: str, results: Sequence[Result], agreement: Agreement, files: Mapping[str, Path]
) -> dict[str, Any]:
    study = studies.find(name)
    findings: dict[str, list[str]] = {}
    for backend, result in zip(agreement.backends, results, strict=True):
        findings.setdefault(result.finding, []).append(backend)
    asked = {b: r.parameters for b, r in zip(agreement.backends, results, strict=True)}
    if all(r.parameters == results[0].parameters for r in results):
        asked = {"value": results[0].parameters}
    return {
        "name": name,
        "question": study.question,
        "findings": [(", ".join(who), text) for text, who in findings.items()],
        "figures": [
            {"name": d.name, "source": _inline(files[d.name]), "alt": d.alt, "caption": d.caption}
            for d in drawings.DRAWINGS.get(name, ())
            if d.name in files
        ],
        "backends": agreement.backends,
        "reference": agreement.reference,
        "claims": [_claim(row, agreement.backends) for row in agreement.claims],
        "shared": [_shared(row, agreement.backends) for row in agreement.shared],
        "asked": asked,
        "parameters": [
            (p.name, [parameters.get(p.name, "") for parameters in asked.values()], p.help)
            for p in study.parameters
        ],
        "command": _run_command(results[0]),
    }


def _inline(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _claim(row: Claim, backends: Sequence[str]) -> dict[str, Any]:
    first = next(iter(row.checks.values()))

    def cell(check: Check | None) -> Cell:
        if check is None:
            return NOT_RUN
        same = (check.expected, check.bound) == (first.expected, first.bound)
        return Cell(
            "pass" if check.passed else "FAIL",
            "pass" if check.passed else "fail",
            _number(check.observed),
            "" if same else f"here {_number(check.expected)} ± {_number(check.bound)}",
        )

    rate = f"; false alarm at most {first.false_alarm:.0e}" if first.false_alarm else ""
    return {
        "claim": row.claim,
        "source": first.source + rate,
        "expected": _number(first.expected),
        "bound": _number(first.bound),
        "unit": "" if first.unit == "1" else first.unit,
        "cells": [cell(row.checks.get(backend)) for backend in backends],
    }


def _shared(row: Shared, backends: Sequence[str]) -> dict[str, Any]:
    cells = []
    for backend in backends:
        d = row.differences.get(backend)
        if d is None:
            cells.append(NOT_RUN)
            continue
        number = "" if d.ulp is None or d.verdict == "reference" else f"{_number(d.ulp)} ULP"
        cells.append(Cell(d.verdict, _DIFFERENCE.get(d.verdict, "absent"), number, d.detail))
    return {"quantity": row.quantity, "budget": row.budget, "cells": cells}


# --- how to repeat it -------------------------------------------------------------------------


def _run_command(result: Result) -> str:
    words = ["isometry", "run", result.study, "--backend", result.backend]
    words += ["--seed", str(result.seed), "-o", f"{result.study}.json"]
    for name, value in result.parameters.items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)


def _command(results: Results) -> str:
    every = [result for row in results.values() for result in row]
    words = ["isometry", "compare", *results]
    if every:
        words += ["--backends", ",".join(dict.fromkeys(result.backend for result in every))]
    if len({result.seed for result in every}) == 1:
        words += ["--seed", str(every[0].seed)]
    defaults = {
        (name, p.name): p.default for name in results for p in studies.find(name).parameters
    }
    changed = {
        f"{name}={value}"
        for result in every
        for name, value in result.parameters.items()
        if defaults.get((result.study, name), value) != value
    }
    for setting in sorted(changed):
        words += ["--set", setting]
    return shlex.join(words)
