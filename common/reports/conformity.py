"""A conformance run for people: a table in the terminal, Markdown for a CI job, and a badge."""

from __future__ import annotations

import json

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isometry.common.conformity import VERDICTS, Judgement, Report

__all__ = ["badge", "claim", "markdown", "terminal"]

BAD = ("fail", "unexpected pass", "crashed", "not run")
SHOWN = 20  # failures in the terminal; report.json has all


def _columns(report: Report) -> list[str]:
    counts = report.counts()
    return [v for v in VERDICTS if counts[v] or v == "pass"]


def claim(report: Report) -> str:
    """Return in one line which profiles are met, or how many combinations pass."""
    if report.conformant and set(report.conformant) == set(report.profiles):
        return f"conformant: {', '.join(report.conformant)}"
    counts = report.counts()
    some = f"; conformant: {', '.join(report.conformant)}" if report.conformant else ""
    return f"{counts['pass']} of {counts.total()} pass{some}"


def _title(report: Report) -> str:
    kind = "smoke test" if report.smoke else f"profiles {', '.join(report.profiles)}"
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
    whole = set(report.conformant) == set(report.profiles) and bool(report.conformant)
    colour = "red" if report.failed else "brightgreen" if whole else "yellow"
    return json.dumps(
        {"schemaVersion": 1, "label": "isometry", "message": claim(report), "color": colour}
    )
