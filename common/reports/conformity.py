"""A conformance run for people and CI: terminal, page, Markdown, JUnit XML, and a badge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isometry.common.conformity import VERDICTS, Judgement, Report
from isometry.common.reports import html
from isometry.common.reports.html import Cell

__all__ = ["badge", "claim", "junit", "markdown", "page", "terminal"]

BAD = ("fail", "unexpected pass", "crashed", "not run")
SHOWN = 20  # failures in the terminal; report.json has all


def _columns(report: Report) -> list[str]:
    counts = report.counts()
    return [v for v in VERDICTS if counts[v] or v == "pass"]


def claim(report: Report) -> str:
    """Return in one line which profiles are met, or how many combinations pass."""
    if _whole(report):
        return f"conformant: {', '.join(report.conformant)}"
    counts = report.counts()
    some = f"; conformant: {', '.join(report.conformant)}" if report.conformant else ""
    return f"{counts['pass']} of {counts.total()} pass{some}"


def _whole(report: Report) -> bool:
    """Whether every profile that was judged is met."""
    return bool(report.conformant) and set(report.conformant) == set(report.profiles)


def _title(report: Report) -> str:
    kind = f"{'part of ' if report.partial else ''}profiles {', '.join(report.profiles)}"
    framework = f"{report.framework} {report.framework_version}"
    return f"{report.backend} ({framework}), specification {report.spec_version}, {kind}"


def _reasons(report: Report) -> list[Judgement]:
    return [j for j in report.judgements if j.verdict in BAD and j.verdict != "not run"]


def _first_line(reason: str) -> str:
    return reason.strip().partition("\n")[0]


def terminal(report: Report) -> RenderableType:
    """Return the table of verdicts by group, and a line for each of the first failures."""
    columns = _columns(report)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("clauses")
    for verdict in columns:
        table.add_column(verdict, justify="right", style="bold red" if verdict in BAD else "")
    for group in report.groups:
        counts = report.counts(group)
        table.add_row(group, *(str(counts[v]) if counts[v] else "" for v in columns))
    found = _reasons(report)
    lines = [Text(f"{j.verdict}: {j.test}: {_first_line(j.reason)}") for j in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(Text(f"and {len(found) - SHOWN} more in report.json"))
    if report.unsupported:
        lines.append(Text(f"unsupported: {', '.join(report.unsupported)}"))
    return Group(
        Text(_title(report), style="bold"), table, *lines, Text(claim(report), style="bold")
    )


def markdown(report: Report) -> str:
    """Return the same as GitHub Markdown, for a job summary."""
    columns = _columns(report)
    rows = [["clauses", *columns], ["---", *("---:" for _ in columns)]]
    for group in report.groups:
        counts = report.counts(group)
        rows.append([group, *(str(counts[v]) for v in columns)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    lines = [
        f"- **{j.verdict}** `{j.test}`: `{_first_line(j.reason).replace('`', chr(39))}`"
        for j in _reasons(report)
    ]
    if report.unsupported:
        lines.append(f"- unsupported: {', '.join(report.unsupported)}")
    return "\n".join(
        [f"## {_title(report)}", "", f"**{claim(report)}**", "", table, "", *lines, ""]
    )


def badge(report: Report) -> str:
    """Return the JSON of a shields.io endpoint badge."""
    colour = {"fail": "red", "pass": "brightgreen", "absent": "yellow"}[_colour(report)]
    return json.dumps(
        {"schemaVersion": 1, "label": "isometry", "message": claim(report), "color": colour}
    )


def junit(report: Report) -> bytes:
    """Return JUnit XML: one test case per combination; what is neither pass nor fail is skipped."""
    counts = report.counts()
    suite = ElementTree.Element(
        "testsuite",
        name=f"isometry.{report.backend}",
        tests=str(counts.total()),
        failures=str(counts["fail"] + counts["unexpected pass"]),
        errors=str(counts["crashed"]),
        skipped=str(counts["expected failure"] + counts["unsupported"] + counts["not run"]),
        time=f"{sum(j.duration for j in report.judgements):.3f}",
    )
    tags = {"pass": "", "fail": "failure", "unexpected pass": "failure", "crashed": "error"}
    for j in report.judgements:
        case = ElementTree.SubElement(
            suite, "testcase", classname=j.clause, name=j.case, time=f"{j.duration:.3f}"
        )
        if tag := tags.get(j.verdict, "skipped"):
            message = f"{j.verdict}: {_first_line(j.reason)}"
            ElementTree.SubElement(case, tag, message=message).text = j.reason
    root = ElementTree.Element("testsuites")
    root.append(suite)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root)


# --- the page -----------------------------------------------------------------------------------

_KINDS = {"pass": "pass", **dict.fromkeys(("fail", "unexpected pass", "crashed"), "fail")}


def page(report: Report, path: Path) -> None:
    """Write one page: the counts, and each clause with its requirement, rates and cases."""
    columns = _columns(report)
    clauses = [_clause(report, name) for name in report.clauses]
    html.write(
        path,
        "conformity.html",
        title=f"Conformance of {report.backend}",
        summary=Cell(f"{_capital(claim(report))}.", _colour(report)),
        report=report,
        columns=columns,
        failed=[c for c in clauses if c["cell"].kind == "fail"],
        groups=[
            {
                "name": group,
                "counts": [report.counts(group)[v] for v in columns],
                "clauses": [c for c in clauses if c["name"].startswith(f"{group}.")],
            }
            for group in report.groups
        ],
    )


def _clause(report: Report, name: str) -> Mapping[str, Any]:
    found = [j for j in report.judgements if j.clause == name]
    verdicts = list(dict.fromkeys(j.verdict for j in found))
    worst = max(verdicts, key=_KINDS_ORDER.index)
    return {
        "name": name,
        **report.clauses[name],
        "cell": Cell(worst, _KINDS.get(worst, "absent")),
        "passed": sum(j.verdict == "pass" for j in found),
        "count": len(found),
        "seconds": sum(j.duration for j in found),
        "false_alarm": max(j.false_alarm for j in found),
        "cases": [
            {"judgement": j, "cell": Cell(j.verdict, _KINDS.get(j.verdict, "absent"))}
            for j in found
        ],
    }


_KINDS_ORDER = (  # the later one stands for a clause whose cases differ
    "pass",
    "unsupported",
    "expected failure",
    "not run",
    "crashed",
    "unexpected pass",
    "fail",
)


def _colour(report: Report) -> str:
    if report.failed:
        return "fail"
    return "pass" if _whole(report) else "absent"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
