"""A conformance run as data: what each clause found on one backend, and how it is recorded.

The suite runs in a child process and writes a journal, one JSON object per line: what is planned,
what starts, what ended and how. A framework that brings its process down leaves a clause that
started and did not end; it reads "crashed", and the clauses after it run in a new process.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isometry._version import __version__
from isometry.common.errors import BackendNotInstalled, InvalidArgument
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
    """Return the report that a journal tells, or None if nothing was planned."""
    about: dict[str, Any] | None = None
    rows: dict[str, dict[str, Any]] = {}
    for event in events:
        if "about" in event:
            about = dict(event["about"])
            rows = {row["test"]: dict(row) for row in event["planned"]}
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


# --- the child process --------------------------------------------------------------------------


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
    tell : function
        Is told how many combinations of how many are judged, and which is at work.

    Raises
    ------
    BackendNotInstalled, InvalidArgument
        As the child did: of the framework, a name, or the file of expected failures.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after the child is killed.
    RuntimeError
        If the child ended before it had planned anything.
    """
    (suite,) = importlib.import_module("isometry.conformance").__path__
    command = [
        *(sys.executable, "-P", "-m", "pytest", "-c", os.devnull, f"--rootdir={suite}", "-q"),
        *("--import-mode=importlib", "-p", "no:cacheprovider", "-p", "isometry.conformance.plugin"),
        *("--pyargs", "isometry.conformance", f"--backend={backend}"),
        f"--seed={seed}",
        *([f"--expect={expect.absolute()}"] if expect else []),
        *(["--smoke"] if smoke else []),
        *([f"--profile={','.join(profiles)}"] if profiles else []),
    ]
    with tempfile.TemporaryDirectory() as private, _terminable():
        journal = Path(private) / "journal"
        command.append(f"--journal={journal}")
        for _ in range(CRASHES):
            died = _child(command, Path(private) / "log", journal, timeout, tell)
            events = _read(journal)
            report = assemble(events)
            if report is None:
                raise _refusal(events, died, Path(private) / "log")
            crashed = _unfinished(events)
            if crashed is None:
                break
            found = {"verdict": "crashed", "reason": died}
            with journal.open("a") as file:
                file.write(dumps({"end": crashed, "found": found}) + "\n")
            report = assemble(_read(journal))
    assert report is not None
    return report


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, so that no child outlives this process."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # only the main thread may
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _child(
    command: Sequence[str],
    log: Path,
    journal: Path,
    timeout: float,
    tell: Callable[[int, int, str], None],
) -> str:
    """Run to the end, following the journal; return how it ended."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
            start_new_session=True,
        )
        try:
            if not _follow(child, journal, timeout, tell):
                return f"took longer than {timeout:g} s"
        finally:
            _kill(child)
    code = child.returncode
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"its process ended: {how}"


def _follow(
    child: subprocess.Popen[bytes],
    journal: Path,
    timeout: float,
    tell: Callable[[int, int, str], None],
) -> bool:
    """Tell what the journal says until the child ends; return whether it did by itself."""
    count, moved = 0, time.monotonic()
    while child.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.2)
        events = _read(journal)
        if len(events) > count:
            count, moved = len(events), time.monotonic()
        elif time.monotonic() - moved > timeout:
            return False
        if events and "planned" in events[0]:
            at_work = next((e["start"] for e in reversed(events) if "start" in e), "")
            done = sum("end" in e for e in events)
            tell(done, len(events[0]["planned"]), at_work.rpartition("::")[2])
    return True


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the child, and what it started in its group, if it still runs."""
    if child.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
        child.wait()


def _read(journal: Path) -> list[dict[str, Any]]:
    """Return the events written so far; a line cut by a crash is none."""
    if not journal.exists():
        return []
    whole = [line for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def _unfinished(events: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the test that started last, if it did not end."""
    at_work: str | None = None
    for event in events:
        if "start" in event:
            at_work = event["start"]
        elif "end" in event:
            at_work = None
    return at_work


def _refusal(events: Iterable[Mapping[str, Any]], died: str, log: Path) -> Exception:
    for event in events:
        if "refused" in event:
            kind = BackendNotInstalled if event["absent"] else InvalidArgument
            return kind(event["refused"])
    lines = log.read_text(errors="replace").strip().splitlines()
    return RuntimeError(f"the suite did not start ({died}): {lines[-1] if lines else 'no output'}")
