"""A conformance run as data: what each clause found on one backend, and how it is recorded.

The suite runs in a child process and writes a journal, one JSON object per line: what is planned,
what starts, what ended and how. A framework that brings its process down leaves a clause that
started and did not end; it reads "crashed", and the clauses after it run in a new process.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    clause, number, test : str
        Identifier and number of the clause, and the test that judges this combination.
    profile : str
        One of `PROFILES`.
    source : str
        Where the requirement comes from.
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
    number: str
    test: str
    profile: str
    source: str
    verdict: str = "not run"
    false_alarm: float = 0.0
    duration: float = 0.0
    reason: str = ""
    statistics: Sequence[Mapping[str, Any]] = ()

    @property
    def group(self) -> str:
        """Return the clause's name before the dot."""
        return self.clause.partition(".")[0]


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
    smoke : bool
        Whether only the quick clauses ran; then nothing is claimed.
    unsupported : sequence of str
        Capabilities of the contract that the backend does not declare.
    judgements : sequence of Judgement
    """

    backend: str
    framework: str
    framework_version: str
    spec_version: str
    seed: int
    profiles: Sequence[str]
    smoke: bool
    unsupported: Sequence[str]
    judgements: Sequence[Judgement]
    isometry: str = __version__
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)

    def counts(self, group: str | None = None) -> Counter[str]:
        """Return how often each verdict was given, in one group or in all."""
        return Counter(j.verdict for j in self.judgements if group in (None, j.group))

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the groups of clauses, in the order of the suite."""
        return tuple(dict.fromkeys(j.group for j in self.judgements))

    @property
    def conformant(self) -> tuple[str, ...]:
        """Return the profiles of which every clause passed; none after a smoke test."""
        if self.smoke:
            return ()
        return tuple(
            p
            for p in self.profiles
            if (verdicts := {j.verdict for j in self.judgements if j.profile == p}) == {"pass"}
            and verdicts
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
    folder: Path,
    expect: Path | None,
    smoke: bool,
    profiles: Sequence[str],
    tell: Callable[[int, int, str], None],
) -> Report:
    """Judge a backend in child processes and return what they found.

    Parameters
    ----------
    folder : Path
        Where pytest writes ``junit.xml``.
    expect : Path, optional
        TOML file of expected failures.
    profiles : sequence of str
        Those to judge; all if empty.
    tell : function
        Is told how many combinations of how many are judged, and which is at work.

    Raises
    ------
    BackendNotInstalled, InvalidArgument
        As the child did: of the framework, a name, or the file of expected failures.
    RuntimeError
        If the child ended before it had planned anything.
    """
    command = [
        *(sys.executable, "-P", "-m", "pytest", "-c", os.devnull, f"--rootdir={folder}", "-q"),
        *("--import-mode=importlib", "-p", "no:cacheprovider", "-p", "isometry.conformance.plugin"),
        *("--pyargs", "isometry.conformance", f"--backend={backend}"),
        f"--junitxml={folder / 'junit.xml'}",
        *([f"--expect={expect.absolute()}"] if expect else []),
        *(["--smoke"] if smoke else []),
        *([f"--profile={','.join(profiles)}"] if profiles else []),
    ]
    with tempfile.TemporaryDirectory() as private:
        journal = Path(private) / "journal"
        for _ in range(CRASHES):
            died = _child([*command, f"--journal={journal}"], Path(private) / "log", journal, tell)
            events = _read(journal)
            report = assemble(events)
            if report is None:
                raise _refusal(events, died, Path(private) / "log")
            crashed = _unfinished(events)
            if crashed is None:
                break
            found = {"verdict": "crashed", "reason": f"its process ended: {died}"}
            with journal.open("a") as file:
                file.write(dumps({"end": crashed, "found": found}) + "\n")
            report = assemble(_read(journal))
    assert report is not None
    return report


def _child(
    command: Sequence[str], log: Path, journal: Path, tell: Callable[[int, int, str], None]
) -> str:
    """Run to the end, following the journal; return how it ended."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=0.2)
                events = _read(journal)
                if events and "planned" in events[0]:
                    at_work = next((e["start"] for e in reversed(events) if "start" in e), "")
                    done = sum("end" in e for e in events)
                    tell(done, len(events[0]["planned"]), at_work.rpartition("::")[2])
                if child.returncode is not None:
                    break
        finally:  # also of what it started in its group, and when this process is interrupted
            if child.returncode is None:
                if hasattr(os, "killpg"):
                    os.killpg(child.pid, signal.SIGKILL)
                else:
                    child.kill()
                child.wait()
    code = child.returncode
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


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
