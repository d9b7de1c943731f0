"""A conformance run as data: what each clause found on one backend, and how it is recorded.

The suite runs in child processes that share out the clauses. Each writes a journal, one JSON object
per line: what is planned by all, what starts, what ended and how. A framework that brings its
process down leaves a clause that started and did not end; it reads "crashed", and the clauses after
it run in a new process.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import math
import os
import platform
import tempfile
import time
from asyncio.subprocess import STDOUT, Process
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isometry._version import __version__
from isometry.common import processes
from isometry.common.errors import BackendNotInstalled, InvalidArgument
from isometry.common.processes import gather
from isometry.common.results import write_atomically

__all__ = ["PROFILES", "VERDICTS", "Judgement", "Report", "assemble", "missing", "run", "save"]

SCHEMA = 1
PROFILES = ("core", "gradients", "second-order", "compiled", "half")
VERDICTS = (
    "pass",
    "fail",
    "expected failure",
    "unexpected pass",
    "unsupported",
    "crashed",
    "not run",
)
CRASHES = 10  # a framework that brought down so many processes is asked no more
TESTING = ("pytest", "hypothesis", "mpmath", "ml_dtypes")  # the extra `test`


@dataclass(frozen=True)
class Judgement:
    """The verdict on one clause, for one combination of mode, dtype and case.

    Attributes
    ----------
    clause, test : str
        Identifier of the clause, and of the test that judges this combination.
    profile : str
        One of `PROFILES`.
    verdict : str
        One of `VERDICTS`. "unsupported": the backend declares it cannot, and refuses as promised.
    false_alarm : float
        Upper bound of the probability that a right backend fails; 0 if deterministic.
    duration : float
        Seconds.
    reason : str
        Why it failed, crashed, or is expected to fail; empty otherwise.
    statistics : sequence of mapping
        What each statistical test observed, its limits, sample size and the effect it detects.
    """

    clause: str
    test: str
    profile: str
    verdict: str = "not run"
    false_alarm: float = 0.0
    duration: float = 0.0
    reason: str = ""
    statistics: Sequence[Mapping[str, Any]] = ()

    @property
    def group(self) -> str:
        """Return the clause's name before the dot."""
        return self.clause.partition(".")[0]

    @property
    def case(self) -> str:
        """Return the test's name without its file: function and, in brackets, parameters."""
        return self.test.partition("::")[2]


@dataclass(frozen=True)
class Report:
    """A conformance run on one backend.

    Attributes
    ----------
    backend, framework, framework_version, spec_version : str
    seed : int
        Which set of seeds the suite drew from.
    profiles : sequence of str
        Those judged.
    partial : bool
        Whether clauses of these profiles were left out, as in a smoke test; nothing is claimed.
    unsupported : sequence of str
        Capabilities of the contract that the backend does not declare.
    clauses : mapping
        Clause -> its number, requires, source, oracle, tolerance and detects, as specified.
    judgements : sequence of Judgement
    """

    backend: str
    framework: str
    framework_version: str
    spec_version: str
    seed: int
    profiles: Sequence[str]
    partial: bool
    unsupported: Sequence[str]
    clauses: Mapping[str, Mapping[str, str]]
    judgements: Sequence[Judgement]
    isometry: str = __version__
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)

    def counts(self, group: str | None = None) -> Counter[str]:
        """Return how often each verdict was given, in one group or in all."""
        return Counter(j.verdict for j in self.judgements if group in (None, j.group))

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the groups of clauses, in the order of the specification."""
        return tuple(dict.fromkeys(name.partition(".")[0] for name in self.clauses))

    @property
    def conformant(self) -> tuple[str, ...]:
        """Return the profiles of which every clause passed; none if some were left out."""
        if self.partial:
            return ()
        return tuple(
            p
            for p in self.profiles
            if {j.verdict for j in self.judgements if j.profile == p} == {"pass"}
        )

    @property
    def failed(self) -> bool:
        """Whether a clause failed, passed unexpectedly, or brought its process down."""
        return bool(self.counts().keys() & {"fail", "unexpected pass", "crashed"})

    @property
    def complete(self) -> bool:
        """Whether at least one clause was judged, and none was left out."""
        return bool(self.judgements) and "not run" not in self.counts()


def assemble(events: Iterable[Mapping[str, Any]]) -> Report | None:
    """Return the report that the journals tell, or None if nothing was planned."""
    about: dict[str, Any] | None = None
    rows: dict[str, dict[str, Any]] = {}
    for event in events:
        if "about" in event:
            about = dict(event["about"])
            for row in event["planned"]:  # the same in each journal
                rows.setdefault(row["test"], dict(row))
        elif "end" in event:
            rows[event["end"]] |= event["found"]
    if about is None:
        return None
    return Report(**about, judgements=[Judgement(**row) for row in rows.values()])


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def dumps(value: Mapping[str, Any], *, indent: int | None = None) -> str:
    """Return strict JSON: infinities and NaN become strings."""
    return json.dumps(_finite(value), allow_nan=False, indent=indent)


def save(report: Report, path: Path) -> None:
    """Write ``report.json``."""
    fields = {"schema": SCHEMA, **asdict(report)}
    fields["conformant"] = report.conformant
    for row, judgement in zip(fields["judgements"], report.judgements, strict=True):
        row["group"] = judgement.group
    write_atomically(path, dumps(fields, indent=1).encode())


# --- the child processes ------------------------------------------------------------------------


def missing() -> list[str]:
    """Return the packages of the extra ``test`` that are not installed; imports none of them."""
    return [name for name in TESTING if importlib.util.find_spec(name) is None]


def run(
    backend: str,
    *,
    expect: Path | None,
    smoke: bool,
    profiles: Sequence[str],
    seed: int,
    timeout: float,
    jobs: int,
    tell: Callable[[int, int, str], None],
) -> Report:
    """Judge a backend in child processes and return what they found.

    Parameters
    ----------
    expect : Path, optional
        TOML file of expected failures.
    profiles : sequence of str
        Those to judge; all if empty.
    seed : int
        Which set of seeds to draw from.
    timeout : float
        Seconds for one combination; a process that takes longer is killed, and the rest goes on.
    jobs : int
        How many processes share out the clauses.
    tell : function
        Is told how many combinations of how many are judged, and which is at work.

    Raises
    ------
    BackendNotInstalled, InvalidArgument
        As the child did: of the framework, a name, or the file of expected failures.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after all children are killed.
    RuntimeError
        If no child had planned anything when it ended.
    """
    (suite,) = importlib.import_module("isometry.conformance").__path__
    arguments = [
        *("-c", os.devnull, f"--rootdir={suite}", "-q", "--import-mode=importlib"),
        *("-p", "no:cacheprovider", "-p", "isometry.conformance.plugin"),
        *("--pyargs", "isometry.conformance", f"--backend={backend}", f"--seed={seed}"),
        *([f"--expect={expect.absolute()}"] if expect else []),
        *(["--smoke"] if smoke else []),
        *([f"--profile={','.join(profiles)}"] if profiles else []),
    ]

    def moved(at_work: str) -> None:
        planned = next((share.planned for share in shares if share.planned), 0)
        if planned:
            done = sum("end" in event for share in shares for event in share.events)
            tell(done, planned, at_work.rpartition("::")[2])

    async def every() -> None:
        await gather(share.run() for share in shares)

    with tempfile.TemporaryDirectory() as private:
        shares = [_Share(Path(private), k, jobs, arguments, timeout, moved) for k in range(jobs)]
        processes.run(every())
        report = assemble(event for share in shares for event in share.events)
        if report is None:
            raise shares[0].refusal()
    return report


class _Share:
    """A process, and after a crash the next, that takes clauses until all are judged."""

    def __init__(
        self,
        private: Path,
        number: int,
        jobs: int,
        arguments: Sequence[str],
        timeout: float,
        moved: Callable[[str], None],
    ) -> None:
        self.journal, self.log = private / f"journal-{number}", private / f"log-{number}"
        self.arguments = [*arguments, f"--journal={self.journal}", f"--share={number}/{jobs}"]
        self.jobs, self.timeout, self.moved = jobs, timeout, moved
        self.events: list[dict[str, Any]] = []
        self.died = ""

    @property
    def planned(self) -> int:
        """Return how many combinations all shares have together; 0 if it is not yet known."""
        return len(self.events[0].get("planned", ())) if self.events else 0

    @property
    def at_work(self) -> str:
        """Return the test that started last, if it has not ended."""
        told = (e.get("start", "") for e in reversed(self.events) if e.keys() & {"start", "end"})
        return next(told, "")

    async def run(self) -> None:
        for _ in range(CRASHES):
            await self._child()
            if not self.at_work:
                return
            crashed = {"end": self.at_work, "found": {"verdict": "crashed", "reason": self.died}}
            with self.journal.open("a") as file:
                file.write(dumps(crashed) + "\n")
            self._read()

    async def _child(self) -> None:
        with self.log.open("wb") as log:
            process = await processes.start(
                "pytest", *self.arguments, jobs=self.jobs, stdout=log, stderr=STDOUT
            )
            try:
                if await self._follow(process):
                    self.died = f"its process ended: {processes.death(process.returncode)}"
                else:
                    self.died = f"took longer than {self.timeout:g} s"
            finally:
                await processes.end(process)
        self._read()

    async def _follow(self, process: Process) -> bool:
        """Read the journal until the process ends; return whether it did by itself."""
        at = time.monotonic()
        while process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), timeout=0.2)
            if self._read():
                at = time.monotonic()
                self.moved(self.at_work)
            elif time.monotonic() - at > self.timeout:
                return False
        return True

    def _read(self) -> bool:
        """Read what is new in the journal, but a line that is cut; return whether there was any."""
        text = self.journal.read_text() if self.journal.exists() else ""
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        new = [json.loads(line) for line in lines[len(self.events) :]]
        self.events += new
        return bool(new)

    def refusal(self) -> Exception:
        """Return why nothing was planned."""
        for event in self.events:
            if "refused" in event:
                kind = BackendNotInstalled if event["absent"] else InvalidArgument
                return kind(event["refused"])
        lines = self.log.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no output"
        return RuntimeError(f"the suite did not start ({self.died}): {last}")
