"""Tables and progress in the terminal. A verdict is always a word; colour only repeats it."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from isometry.common.isolation import Inspection, Outcome
from isometry.common.reports.agreement import Agreement, Claim, Difference, Shared
from isometry.common.results import Check, Result
from isometry.common.source import Listing
from isometry.common.studies import Study

__all__ = [
    "Bar",
    "Board",
    "agreement",
    "backends",
    "console",
    "failures",
    "listings",
    "outcomes",
    "result",
    "studies",
    "summary",
]

SLOW = 2.0  # seconds after which a run shows its progress

# verdict -> mark and style; a verdict that is not listed is one of something gone wrong
_GOOD, _ABSENT, _BAD = ("✓ ", "green"), ("", "dim"), ("✗ ", "bold red")
_VERDICT = {
    **dict.fromkeys(("pass", "ran", "agrees"), _GOOD),
    **dict.fromkeys(("not installed", "not run", "reference"), _ABSENT),
    "not comparable": ("", "yellow"),
}


def console(*, stderr: bool = False) -> Console:
    """Return a console that replaces what the stream cannot encode instead of failing.

    A file or a pipe has no width of its own; the tables of five backends need 120 columns.
    """
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(stderr=stderr, highlight=False, width=120 if piped else None)


def _word(word: str, number: str = "") -> Text:
    """Return a verdict, marked where the terminal has the marks, with its number below it."""
    mark, style = _VERDICT.get(word, _BAD)
    if "utf" not in (sys.stdout.encoding or "").lower():
        mark = ""
    text = Text(mark + word, style=style)
    return text.append(f"\n{number}", style="default not bold") if number else text


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _number(value: float) -> str:
    return f"{value:.5g}"


# --- compare ------------------------------------------------------------------------------------


def outcomes(rows: Sequence[Outcome]) -> RenderableType:
    """Return the table of what ran, studies across, and a line for each thing that did not."""
    columns = list(dict.fromkeys(row.study for row in rows))
    table = _table("What ran", "backend", *columns)
    cells = {(row.backend, row.study): row for row in rows}
    for backend in dict.fromkeys(row.backend for row in rows):
        found = [cells.get((backend, study)) for study in columns]
        table.add_row(
            backend,
            *(
                _word(o.status, f"{o.seconds:.1f} s" if o.status == "ran" else "")
                if o
                else _word("not run")
                for o in found
            ),
        )
    return Group(table, failures(rows))


def failures(rows: Iterable[Outcome]) -> Text:
    """Return one line for each different reason why something did not run."""
    reasons: dict[str, list[Outcome]] = {}
    for row in rows:
        if row.status != "ran":
            reasons.setdefault(f"{row.status}: {row.detail}", []).append(row)
    lines = []
    for reason, group in reasons.items():
        backends = ", ".join(dict.fromkeys(row.backend for row in group))
        names = ", ".join(dict.fromkeys(row.study for row in group))
        about = backends if group[0].status == "not installed" else f"{backends}, {names}"
        lines.append(f"{about}: {reason}\n")
    return Text("".join(lines))


def agreement(study: Agreement) -> RenderableType:
    """Return the verdicts on one study: claims, then arrays that ought to be the same."""
    parts: list[RenderableType] = []
    if study.claims:
        table = _table(f"{study.study}: claims", "claim", *study.backends)
        for claim in study.claims:
            table.add_row(*_claim(claim, study.backends))
        parts.append(table)
    if study.shared:
        table = _table(
            f"{study.study}: distance from {study.reference}", "quantity", *study.backends
        )
        for row in study.shared:
            table.add_row(*_shared(row, study.backends))
        parts.append(table)
    return Group(*parts)


def summary(outcomes: Sequence[Outcome], studies: Iterable[Agreement]) -> str:
    """Return in one line how many claims hold, arrays agree, and studies did not run."""
    verdicts = list(studies)
    checks = [c for a in verdicts for claim in a.claims for c in claim.checks.values()]
    arrays = [d.verdict for a in verdicts for s in a.shared for d in s.differences.values()]
    absent = dict.fromkeys(o.backend for o in outcomes if o.status == "not installed")
    lost = sum(o.status not in ("ran", "not installed") for o in outcomes)
    parts = [f"{sum(c.passed for c in checks)} of {len(checks)} checks pass"]
    agreeing, compared = arrays.count("agrees"), len(arrays) - arrays.count("reference")
    if compared:
        parts.append(f"{agreeing} of {compared} arrays agree")
    for verdict in ("not comparable", "not run"):
        if verdict in arrays:
            parts.append(f"{arrays.count(verdict)} {verdict}")
    if lost:
        parts.append(f"{lost} of {len(outcomes)} runs gave no result")
    if absent:
        parts.append(f"not installed: {', '.join(absent)}")
    return "; ".join(parts)


def _claim(row: Claim, backends: Sequence[str]) -> Iterable[RenderableType]:
    first = next(iter(row.checks.values()))
    yield Text(f"{row.claim}\n{_expected(first)}")
    for backend in backends:
        yield _check(row.checks.get(backend), first)


def _expected(check: Check) -> str:
    unit = "" if check.unit == "1" else f" {check.unit}"
    return f"{_number(check.expected)} ± {_number(check.bound)}{unit}"


def _check(check: Check | None, first: Check) -> Text:
    if check is None:
        return _word("not run")
    number = _number(check.observed)
    if (check.expected, check.bound) != (first.expected, first.bound):
        number += f"\nexpected {_expected(check)}"
    return _word("pass" if check.passed else "FAIL", number)


def _shared(row: Shared, backends: Sequence[str]) -> Iterable[RenderableType]:
    yield Text(f"{row.quantity}\n0 ± {row.budget} ULP")
    for backend in backends:
        yield _difference(row.differences[backend])


def _difference(difference: Difference) -> Text:
    if difference.verdict == "reference":
        return _word("reference")
    number = "" if difference.ulp is None else f"{_number(difference.ulp)} ULP"
    return _word(difference.verdict, "\n".join(filter(None, (number, difference.detail))))


def result(found: Result) -> RenderableType:
    """Return the claims and the finding of one result."""
    table = _table(f"{found.study} on {found.backend}", "claim", "expected", "observed")
    for check in found.checks:
        table.add_row(Text(check.claim), Text(_expected(check)), _check(check, check))
    return Group(table, Text(found.finding + "\n"))


# --- lists --------------------------------------------------------------------------------------


def backends(rows: Sequence[Inspection]) -> RenderableType:
    """Return the table of backends; below it what keeps one away, and expected failures."""
    table = _table("", "backend", "framework", "device", "dtypes", "capabilities")
    for row in rows:
        if row.status == "installed":
            table.add_row(
                row.name,
                f"{row.framework} {row.version}",
                row.device,
                ", ".join(row.dtypes),
                ", ".join(row.capabilities) or "none",
            )
        else:
            table.add_row(row.name, _word(row.status))
    absent = [Text(f"{row.name}: {row.detail}\n") for row in rows if row.detail]
    reasons = [
        Text(f"{row.name}: expected failure of {clause}: {reason}\n")
        for row in rows
        for clause, reason in row.expected_failures.items()
    ]
    return Group(table, *absent, *reasons)


def studies(rows: Iterable[Study]) -> RenderableType:
    """Return each study's question and its parameters with their defaults."""
    parts: list[RenderableType] = []
    for study in rows:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for p in study.parameters:
            table.add_row("", Text(f"{p.name}={p.default}", overflow="fold"), Text(p.help))
        parts += [Text(study.name, style="bold"), Text(study.question), table, Text()]
    return Group(*parts)


def listings(rows: Iterable[Listing], *, colour: bool) -> RenderableType:
    """Return source code, highlighted for a terminal and plain for a pipe."""
    parts: list[RenderableType] = []
    for row in rows:
        where = f"{row.module}, line {row.line}" if row.line else row.module
        parts.append(Text(f"# {row.title} ({where})", style="bold"))
        parts.append(
            Syntax(row.code, "python", theme="ansi_dark", background_color="default")
            if colour
            else Text(row.code)
        )
    return Group(*parts)


# --- progress -----------------------------------------------------------------------------------


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
    )


class Bar(AbstractContextManager["Bar"]):
    """Progress of one run, on standard error, if that is a terminal and the run is slow."""

    def __init__(self) -> None:
        self._bar = _progress()
        self._task: TaskID | None = None
        self._started = time.monotonic()

    def tell(self, done: int, total: int, what: str) -> None:
        """Show that `done` of `total` is done, and what is at work."""
        if time.monotonic() - self._started < SLOW or not self._bar.console.is_terminal:
            return
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(what)
        self._bar.update(self._task, completed=done, total=total, description=what)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar.live.is_started:  # elsewhere than in a terminal, stopping prints an empty line
            self._bar.stop()


class Board(AbstractContextManager["Board"]):
    """Progress of several backends: a bar for each in a terminal, elsewhere a line per study."""

    def __init__(self, work: Mapping[str, int]) -> None:
        """Take the number of studies of each backend."""
        self._bar = _progress()
        self._tasks = {
            name: self._bar.add_task(f"{name}: waiting", total=count)
            for name, count in work.items()
        }
        self._done = dict.fromkeys(work, 0)

    def progress(self, backend: str, study: str, done: int, total: int) -> None:
        """Show how far a study is."""
        self._bar.update(
            self._tasks[backend],
            description=f"{backend}: {study}",
            completed=self._done[backend] + done / max(total, 1),
        )

    def finished(self, outcome: Outcome) -> None:
        """Show that a study has ended."""
        backend = outcome.backend
        self._done[backend] += 1
        absent = outcome.status == "not installed"
        text = f"{backend}: " + ("" if absent else f"{outcome.study} ") + outcome.status
        self._bar.update(self._tasks[backend], description=text, completed=self._done[backend])
        if self._bar.console.is_terminal or (absent and self._done[backend] > 1):
            return  # an absent framework is said once, not for every study
        self._bar.console.print(Text(text if absent else f"{text} in {outcome.seconds:.1f} s"))

    def __enter__(self) -> Board:
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar.live.is_started:  # elsewhere than in a terminal, stopping prints an empty line
            self._bar.stop()
