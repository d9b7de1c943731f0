"""Every backend in a process of its own: one that crashes or hangs takes no other along.

The command line is the protocol: a backend's studies run as ``python -m isometry run STUDY ...
--backend B``, which records one result file per study and reports progress as JSON lines on
standard error. A study that brings its process down costs itself only: those after it are started
again in a new process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from isometry.common import results
from isometry.common.errors import BackendNotInstalled, IsometryError
from isometry.common.processes import cores, death, end, gather, run, start

__all__ = [
    "Inspection",
    "Outcome",
    "Program",
    "Watcher",
    "Work",
    "compare",
    "emit",
    "follow",
    "inspect",
    "result_path",
    "status_of",
]


@dataclass(frozen=True)
class Outcome:
    """What became of one study on one backend.

    Attributes
    ----------
    backend : str
        As it was asked for: a registered name, or a reference ``package.module:Class``.
    study : str
    status : {"ran", "not installed", "refused", "crashed", "timed out"}
        "refused": it named a wrong argument, or a capability the backend does not have.
    detail : str
        One line: why it did not run, and how to install it if it is not installed; empty if it
        ran.
    path : Path or None
        The result file, if it ran.
    seconds : float
        Wall time from the start of the study (of the process, for the first) to its end.
    """

    backend: str
    study: str
    status: str
    detail: str = ""
    path: Path | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Inspection:
    """What a backend says about itself, asked in a process of its own.

    Attributes
    ----------
    name : str
    status : {"installed", "not installed", "crashed", "timed out"}
    detail : str
        How to install it, or the last line of what went wrong; empty if installed.
    framework, version, device : str
        Distribution and its version; the default device.
    dtypes, capabilities : sequence of str
    expected_failures : mapping of str to str
        Clause of the conformance suite -> why this framework cannot meet it.
    """

    name: str
    status: str
    detail: str = ""
    framework: str = ""
    version: str = ""
    device: str = ""
    dtypes: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    expected_failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """The studies that one backend is asked, in one process as long as it lasts.

    Attributes
    ----------
    backend : str
        A registered name, or a reference ``package.module:Class``.
    studies : dict of str to dict
        Study -> the parameters to set, as strings.
    interpreter : str
        The Python in which the backend is installed, and this version of isometry with it.
    """

    backend: str
    studies: dict[str, dict[str, str]]
    interpreter: str = sys.executable


class Watcher(Protocol):
    """Told what happens while it happens; called from the thread that called `compare`."""

    def progress(self, backend: str, study: str, done: int, total: int) -> None:
        """A study has done this much of its work."""

    def finished(self, outcome: Outcome) -> None:
        """A study has come to its end, good or bad."""


# --- what the child says ------------------------------------------------------------------------

_MARK = "isometry"


def emit(event: str, **fields: object) -> None:
    """Report an event to the parent: one JSON line on standard error.

    Events are ``progress`` (study, done, total), ``end`` (study) and ``failed`` (status, message).
    """
    print(json.dumps({_MARK: event, **fields}), file=sys.stderr, flush=True)


def status_of(error: Exception) -> str:
    """Return the status of an `Outcome` whose study ended in this error."""
    if isinstance(error, BackendNotInstalled):
        return "not installed"
    return "refused" if isinstance(error, IsometryError) else "crashed"


def _parse(line: str) -> dict[str, Any] | None:
    """Return the event of a line, or None if it is something else, such as a framework's log."""
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and _MARK in event:
            return event
    return None


# --- where and how it runs ----------------------------------------------------------------------


def result_path(folder: Path, study: str, backend: str) -> Path:
    """Return where the result of a study on a backend is recorded."""
    return folder / study / (re.sub(r"[^\w.-]+", "-", backend) + ".json")


# --- studies ------------------------------------------------------------------------------------


def compare(
    work: Sequence[Work],
    *,
    folder: Path,
    seed: int,
    timeout: float,
    jobs: int,
    watcher: Watcher,
) -> list[Outcome]:
    """Run the studies of several backends, one process per backend, `jobs` of them at once.

    Parameters
    ----------
    folder : Path
        Where results are recorded, see `result_path`; those of an earlier run are removed first.
    timeout : float
        Seconds that each study may take; the first one's include importing the framework.

    Returns
    -------
    list of Outcome
        One for each backend and study, in the order of `work`.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after all children are killed.
    """

    async def one(item: Work, gate: asyncio.Semaphore) -> list[Outcome]:
        outcomes: list[Outcome] = []
        async with gate:
            while pending := dict(list(item.studies.items())[len(outcomes) :]):
                rest = Work(item.backend, pending, item.interpreter)
                outcomes += await _Child(rest, folder, seed, timeout, jobs, watcher).run()
        return outcomes

    async def every() -> list[Outcome]:
        gate = asyncio.Semaphore(jobs)
        groups = await gather(one(item, gate) for item in work)
        return [outcome for group in groups for outcome in group]

    return run(every())


class _Child:
    """One process on its way through a backend's studies, until it ends or has to be ended."""

    def __init__(
        self, work: Work, folder: Path, seed: int, timeout: float, jobs: int, watcher: Watcher
    ) -> None:
        self.work, self.timeout, self.jobs, self.watcher = work, timeout, jobs, watcher
        self.paths = {study: result_path(folder, study, work.backend) for study in work.studies}
        settings = dict(kv for values in work.studies.values() for kv in values.items())
        output = folder if len(self.paths) > 1 else next(iter(self.paths.values()))
        self.arguments = [
            "run",
            *work.studies,
            f"--backend={work.backend}",
            f"--seed={seed}",
            *(f"--set={name}={value}" for name, value in settings.items()),
            f"--output={output}",
            "--progress=json",
        ]
        self.outcomes: list[Outcome] = []
        self.failure: tuple[str, str] | None = None
        self.last = ""  # line on standard error that is no event
        self.started = time.monotonic()

    @property
    def complete(self) -> bool:
        return len(self.outcomes) == len(self.paths)

    async def run(self) -> list[Outcome]:
        """Return an outcome for at least the first study; the others need a new process."""
        for path in self.paths.values():
            with contextlib.suppress(OSError):  # the child will say what is wrong with the folder
                results.remove(path)
        try:
            process = await start(
                "isometry", *self.arguments, jobs=self.jobs, interpreter=self.work.interpreter
            )
        except OSError as error:
            self._finish("crashed", f"{self.work.interpreter} does not start: {error.strerror}")
            return self.outcomes
        try:
            async with asyncio.timeout(self.timeout) as deadline:
                await self._listen(process, deadline)
                if not self.complete:
                    self._died(await process.wait())
        except TimeoutError:
            self._finish("timed out", f"no result in {self.timeout:g} s; --timeout allows more")
        finally:
            await end(process)
        return self.outcomes

    async def _listen(self, process: Process, deadline: asyncio.Timeout) -> None:
        """Follow the events until all studies are recorded or the process says no more."""
        assert process.stderr is not None
        async for raw in process.stderr:
            line = raw.decode(errors="replace").strip()
            match _parse(line):
                case {"isometry": "progress", "study": study, "done": done, "total": total}:
                    self.watcher.progress(self.work.backend, study, done, total)
                case {"isometry": "end"}:
                    self._finish("ran")
                    deadline.reschedule(asyncio.get_running_loop().time() + self.timeout)
                    if self.complete:
                        return
                case {"isometry": "failed", "status": status, "message": message}:
                    self.failure = (status, message)
                case _:
                    self.last = line or self.last

    def _died(self, returncode: int) -> None:
        if self.failure is None:
            self._finish("crashed", death(returncode, self.last))
            return
        self._finish(*self.failure)
        while self.failure[0] == "not installed" and not self.complete:
            self._finish(*self.failure)

    def _finish(self, status: str, detail: str = "") -> None:
        study, path = list(self.paths.items())[len(self.outcomes)]
        now = time.monotonic()
        outcome = Outcome(
            self.work.backend,
            study,
            status,
            detail,
            path if status == "ran" else None,
            now - self.started,
        )
        self.started = now
        self.outcomes.append(outcome)
        self.watcher.finished(outcome)


# --- backends -----------------------------------------------------------------------------------


def inspect(names: Sequence[str], *, timeout: float = 120.0) -> list[Inspection]:
    """Ask each backend about itself, in a process of its own; `cores()` of them at once.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after all children are killed.
    """
    jobs = min(cores(), max(1, len(names)))

    async def every() -> list[Inspection]:
        gate = asyncio.Semaphore(jobs)
        return await gather(_inspect(name, gate, timeout, jobs) for name in names)

    return run(every())


async def _inspect(name: str, gate: asyncio.Semaphore, timeout: float, jobs: int) -> Inspection:
    async with gate:
        process = await start(
            "isometry", "backends", name, "--here", "--json", jobs=jobs, stdout=PIPE
        )
        try:
            async with asyncio.timeout(timeout):
                output, log = await process.communicate()
        except TimeoutError:
            return Inspection(name, "timed out", f"no answer in {timeout:g} s")
        finally:
            await end(process)
    lines = log.decode(errors="replace").strip().splitlines()
    if process.returncode != 0:
        return Inspection(name, "crashed", death(process.returncode, lines[-1] if lines else ""))
    # a framework may greet on standard output before the answer
    return Inspection(**json.loads(output.splitlines()[-1])[0])


# --- any module ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """A module of isometry that is run in a process of its own and tells events.

    Attributes
    ----------
    module : str
    arguments : sequence of str
    environment : mapping
        Variables to set for it.
    """

    module: str
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def follow(
    programs: Mapping[str, Program],
    *,
    timeout: float,
    jobs: int,
    tell: Callable[[str, Mapping[str, Any]], None],
) -> dict[str, tuple[str, str]]:
    """Run programs, `jobs` of them at once, and pass on each event with the program's name.

    Returns
    -------
    dict
        Name -> status ("ran", "crashed", "timed out") and one line on how it ended.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after all children are killed.
    """

    async def one(name: str, program: Program, gate: asyncio.Semaphore) -> tuple[str, str]:
        async with gate:
            process = await start(
                program.module, *program.arguments, jobs=jobs, environment=program.environment
            )
            last = ""
            try:
                async with asyncio.timeout(timeout):
                    assert process.stderr is not None
                    async for raw in process.stderr:
                        line = raw.decode(errors="replace").strip()
                        if event := _parse(line):
                            tell(name, event)
                        else:
                            last = line or last
                    code = await process.wait()
            except TimeoutError:
                return "timed out", f"no end in {timeout:g} s"
            finally:
                await end(process)
        return ("ran", "") if code == 0 else ("crashed", death(code, last))

    async def every() -> dict[str, tuple[str, str]]:
        gate = asyncio.Semaphore(jobs)
        ended = await gather(one(name, program, gate) for name, program in programs.items())
        return dict(zip(programs, ended, strict=True))

    return run(every())
