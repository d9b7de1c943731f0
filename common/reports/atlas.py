"""The defaults atlas for people: tables in the terminal and in Markdown, and a page of one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isometry.common.natives.atlas import Atlas, Row, Topic
from isometry.common.natives.findings import Finding
from isometry.common.natives.scoreboard import Measured
from isometry.common.reports import html
from isometry.common.reports.html import Cell

__all__ = ["markdown", "summary", "terminal", "write"]

QUESTION = "Measured, not copied: what you get when you write nothing."


def summary(atlas: Atlas) -> Cell:
    """Return in one line how much was measured."""
    findings = [f for m in atlas.libraries for f in m.findings]
    crashed = sum(f.verdict == "crashed" for f in findings)
    text = f"{len(findings)} defaults of {len(_told(atlas))} libraries"
    absent = [m.name for m in atlas.libraries if m.status != "measured"]
    if crashed or atlas.failed:
        return Cell(f"{text}; {crashed} crashed.", "fail")
    if absent:
        return Cell(f"{text}; not measured to the end: {', '.join(absent)}.", "absent")
    return Cell(f"{text}, all measured.", "pass")


def _told(atlas: Atlas) -> list[Measured]:
    """Return the libraries that have an answer, or none for a reason."""
    return [m for m in atlas.libraries if m.findings or m.detail]


def _versions(library: Measured) -> str:
    return ", ".join(f"{name} {version}" for name, version in library.versions.items())


def _merged(topic: Topic) -> Iterator[tuple[list[str], Row]]:
    """Yield the libraries of which the same call has the same answers, and one of their rows."""
    groups: dict[tuple[str, ...], tuple[list[str], Row]] = {}
    for row in topic.rows:
        key = (*row.calls, *(_text(row, question) for question in topic.questions))
        groups.setdefault(key, ([], row))[0].append(row.library)
    yield from groups.values()


def _text(row: Row, question: str) -> str:
    found = row.cells.get(question)
    return found.measured if found else ""


def _shown(row: Row, question: str) -> str:
    """Return what was found, and for a law how well it is told."""
    found = row.cells.get(question)
    if not found:
        return ""
    return found.measured + "".join(f"; {text}" for text in _numbers(found))


def _numbers(found: Finding) -> list[str]:
    """Return the numbers beside a law: variance times fan_in, and how well a std is told."""
    name = "variance_times_fan_in"
    texts = [
        f"variance times fan_in{key.removeprefix(name)} {value:.3g}"
        for key, value in found.numbers.items()
        if key.startswith(name)
    ]
    if "detects" in found.numbers:
        texts.append(f"std told to {found.numbers['detects']:.1%}")
    return texts


# --- terminal -----------------------------------------------------------------------------------


def terminal(atlas: Atlas) -> RenderableType:
    """Return a table for each topic: a row for all libraries that agree."""
    parts: list[RenderableType] = []
    for topic in atlas.topics:
        table = Table(box=box.SIMPLE_HEAD, title=topic.name, title_justify="left")
        for column in ("library", "call", *topic.questions):
            table.add_column(column, overflow="fold")
        for libraries, row in _merged(topic):
            cells = [Text(_shown(row, question)) for question in topic.questions]
            table.add_row(Text("\n".join(libraries)), Text(row.name), *cells)
        parts.append(table)
    parts += [Text(f"{m.status}: {m.name}: {m.detail}") for m in atlas.libraries if m.detail]
    return Group(*parts, Text(summary(atlas).word, style="bold"))


# --- Markdown -----------------------------------------------------------------------------------


def markdown(atlas: Atlas) -> str:
    """Return the atlas as a page of documentation."""
    lines = [
        "# The defaults atlas",
        "",
        f"{QUESTION} Every law is identified among all that are known, as `isometry identify`",
        "does it, and each function is called as shown. `isometry compare --natives` measures this",
        f"page anew. Python {atlas.python}, {atlas.platform}, {atlas.created[:10]}.",
        "",
        *_table(("library", "versions"), [(m.name, _versions(m)) for m in _told(atlas)]),
    ]
    for topic in atlas.topics:
        lines += ["", f"## {topic.name}", ""]
        lines += [f"- {question}: {meaning}" for question, meaning in topic.questions.items()]
        rows = [
            (", ".join(libraries), _calls(row), *(_shown(row, q) for q in topic.questions))
            for libraries, row in _merged(topic)
        ]
        lines += ["", *_table(("library", "call", *topic.questions), rows)]
    return "\n".join(lines) + "\n"


def _calls(row: Row) -> str:
    return "<br>".join(f"`{call}`" for call in row.calls)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]


# --- the page -----------------------------------------------------------------------------------


def write(atlas: Atlas, path: Path) -> None:
    """Write the page, whole or not at all; its filters are styles, so that it needs no script.

    Raises
    ------
    InvalidArgument
        If the file cannot be written.
    """
    topics = atlas.topics
    html.write(
        path,
        "atlas.html",
        title="Isometry: the defaults atlas",
        summary=summary(atlas),
        atlas=atlas,
        topics=topics,
        libraries=[
            {"id": f"l{k}", "of": m, "versions": _versions(m)} for k, m in enumerate(_told(atlas))
        ],
        ids={m.name: f"l{k}" for k, m in enumerate(_told(atlas))},
        numbers=_numbers,
    )
