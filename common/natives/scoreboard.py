"""The scoreboard: each library measured in a process of its own, and what is declared of it."""

from __future__ import annotations

import datetime
import importlib.resources
import platform
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isometry._version import __version__
from isometry.common import checks, isolation, processes, registry
from isometry.common.conformity import dumps
from isometry.common.errors import InvalidArgument
from isometry.common.natives.findings import DEVIATING, Finding
from isometry.common.natives.measure import CLAUSES, registered
from isometry.common.results import write_atomically

__all__ = [
    "Declaration",
    "Measured",
    "Scoreboard",
    "complaints",
    "declarations",
    "measure",
    "names",
    "run",
    "save",
]

SCHEMA = 1
TIMEOUT = 600.0  # seconds for one library, its import included
CRASHES = 5  # a library that brought down so many processes is asked no more
ENGINES = {"keras": ("tensorflow", "jax", "torch")}
"""Libraries that fix their engine at import by KERAS_BACKEND: a row for each."""

BACKEND = {
    "torch.nn": "torch",
    "tensorflow": "tensorflow",
    "jax.nn": "jax",
    "mxnet.gluon": "mxnet",
}
"""Library -> the backend whose extra installs it; any other is the distribution of its name."""


@dataclass(frozen=True)
class Declaration:
    """A deviation that is known of a library, and why it is there."""

    library: str
    clause: str
    reason: str
    link: str


@dataclass(frozen=True)
class Measured:
    """What became of one library.

    Attributes
    ----------
    name : str
        ``"keras on jax"``.
    status : {"measured", "not run", "crashed", "timed out"}
    detail : str
        Why it was not measured to its end, and how to install it; empty if it was.
    """

    name: str
    status: str
    detail: str
    versions: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Scoreboard:
    """Library x clause, with verdicts; what is declared beside what was found."""

    libraries: Sequence[Measured]
    declared: Sequence[Declaration]
    created: str
    isometry: str = __version__
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)

    @property
    def clauses(self) -> dict[str, str]:
        """Return clause -> promise, of all that any library was asked, in the clauses' order."""
        promised = {f.clause: f.promise for library in self.libraries for f in library.findings}
        claims = dict.fromkeys(claim for clause in CLAUSES for claim in clause.claims)
        order = [f"{claim}.{c.aspect}" for claim in claims for c in CLAUSES if claim in c.claims]
        return {clause: promised[clause] for clause in order if clause in promised}

    def declaration(self, library: str, clause: str) -> Declaration | None:
        """Return what is declared of a clause in a library."""
        return next((d for d in self.declared if (d.library, d.clause) == (library, clause)), None)

    def undeclared(self) -> list[tuple[str, Finding]]:
        """Return library and finding of each deviation without a reason."""
        return [
            (library.name, finding)
            for library in self.libraries
            for finding in library.findings
            if finding.verdict in DEVIATING and not self.declaration(library.name, finding.clause)
        ]

    def not_found(self) -> list[Declaration]:
        """Return what is declared of a library that was measured, and was not found."""
        deviating = {
            (library.name, f.clause)
            for library in self.libraries
            for f in library.findings
            if f.verdict in DEVIATING
        }
        whole = {library.name for library in self.libraries if library.status == "measured"}
        return [
            d
            for d in self.declared
            if d.library in whole and (d.library, d.clause) not in deviating
        ]

    def counts(self, library: str | None = None) -> Counter[str]:
        """Return how often each verdict was given, to one library or to all."""
        return Counter(
            f.verdict for m in self.libraries if library in (None, m.name) for f in m.findings
        )

    @property
    def failed(self) -> bool:
        """Whether something crashed, or is not as declared."""
        broken = any(m.status in ("crashed", "timed out") for m in self.libraries)
        return bool(broken or self.counts()["crashed"] or self.undeclared() or self.not_found())

    @property
    def complete(self) -> bool:
        """Whether every library was measured."""
        return all(m.status == "measured" for m in self.libraries)


def declarations() -> list[Declaration]:
    """Return what is declared of the libraries that this project measures.

    An entry of ``declared.toml`` names libraries and clauses, and stands for each pair of them.
    """
    text = importlib.resources.files(__package__).joinpath("declared.toml").read_text()
    return [
        Declaration(library, clause, entry["reason"], entry["link"])
        for entry in tomllib.loads(text)["declared"]
        for library in entry["libraries"]
        for clause in entry["clauses"]
    ]


def save(board: Scoreboard, path: Path) -> None:
    """Write ``scoreboard.json``: each finding with the reason declared for it, if there is one."""
    document: dict[str, Any] = {"schema": SCHEMA, **asdict(board)}
    del document["declared"]
    for library in document["libraries"]:
        for finding in library["findings"]:
            reason = board.declaration(library["name"], finding["clause"])
            deviates = finding["verdict"] in DEVIATING
            finding["declared"] = asdict(reason) if reason and deviates else None
    document["not_found"] = [asdict(d) for d in board.not_found()]
    write_atomically(path, dumps(document, indent=1).encode())


# --- measuring ----------------------------------------------------------------------------------


def names() -> tuple[str, ...]:
    """Return the names of all libraries that are registered, one for each engine."""
    return tuple(_rows(registered()))


def _rows(entries: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return library -> name of its entry point, and engine or nothing."""
    rows = {}
    for entry in entries:
        for engine in ENGINES.get(entry, ("",)):
            rows[f"{entry} on {engine}" if engine else entry] = (entry, engine)
    return rows


def measure(
    libraries: Sequence[str], sheet: str, tell: Callable[[int, int, str], None]
) -> list[Measured]:
    """Measure libraries, each in a process of its own, as many at once as there are cores.

    Parameters
    ----------
    libraries : sequence of str
        Of `names`, or ``"keras"`` for all its engines; all if empty.
    sheet : str
        Which questions are asked, of `isometry.common.natives.measure.SHEETS`.
    tell : function
        Is told how many questions of how many are answered, and which was asked last.

    Raises
    ------
    InvalidArgument
        If a library is unknown.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after all children are killed.
    """
    rows = _rows(registered())
    for name in libraries:
        checks.choice("library", name, (*rows, *ENGINES))
    chosen = {
        name: row
        for name, row in rows.items()
        if not libraries or name in libraries or row[0] in libraries
    }
    if not chosen:
        raise InvalidArgument("no library is registered in the entry points 'isometry.natives'")
    children = {name: _Child(name) for name in chosen}

    def told(name: str, event: Mapping[str, Any]) -> None:
        children[name].hear(event)
        done, total = (sum(c.progress[k] for c in children.values()) for k in (0, 1))
        tell(done, total, children[name].at_work)

    pending = dict(chosen)
    for _ in range(CRASHES):
        programs = {
            name: isolation.Program(
                "isometry.common.natives.measure",
                (entry, str(children[name].questions), sheet),
                {"KERAS_BACKEND": engine} if engine else {},
            )
            for name, (entry, engine) in pending.items()
        }
        jobs = processes.cores()
        ended = isolation.follow(programs, timeout=TIMEOUT, jobs=jobs, tell=told)
        pending = {name: pending[name] for name in programs if children[name].died(*ended[name])}
        if not pending:
            break
    return [child.measured() for child in children.values()]


def run(
    libraries: Sequence[str], folder: Path, tell: Callable[[int, int, str], None]
) -> Scoreboard:
    """Measure libraries by the scoreboard's clauses and write ``scoreboard.json`` into a folder.

    Libraries, `tell` and errors are those of `measure`.
    """
    board = Scoreboard(
        measure(libraries, "scoreboard", tell),
        declarations(),
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    save(board, folder / "scoreboard.json")
    return board


class _Child:
    """What the processes of one library have told so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: dict[str, str] = {}
        self.findings: list[Finding] = []
        self.asked: dict[str, Any] | None = None  # and not answered yet
        self.clause = ""
        self.questions = self.total = 0
        self.status, self.detail, self.seconds = "not run", "", 0.0

    @property
    def progress(self) -> tuple[int, int]:
        return self.questions - bool(self.asked), self.total

    @property
    def at_work(self) -> str:
        return f"{self.name} {self.clause}"

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in an event."""
        match dict(event):
            case {"isometry": "library", "versions": versions, "total": total}:
                self.versions, self.total = versions, total
            case {"isometry": "asked", **question}:
                self.asked, self.clause = question, question["clause"]
                self.questions += 1
            case {"isometry": "found", **found}:
                self.findings.append(Finding(**found))
                self.asked = None
            case {"isometry": "failed", "status": status, "message": message}:
                self.status, self.detail = status, f"{message}: {_install(self.name)}"
            case {"isometry": "end", "seconds": seconds}:
                self.status, self.asked = "measured", None
                self.seconds += seconds

    def died(self, status: str, detail: str) -> bool:
        """Take in how a process ended; return whether another one may answer the rest."""
        if self.status == "measured" or self.detail:
            return False
        if self.asked is None:
            self.status, self.detail = status, detail
            return False
        words = f"its process ended: {detail}"
        self.findings.append(Finding(**self.asked, verdict="crashed", measured=words))
        self.asked = None
        if status == "timed out":
            self.status, self.detail = status, detail
        return status == "crashed"

    def measured(self) -> Measured:
        """Return what became of the library."""
        if self.status == "not run" and not self.detail:
            self.status, self.detail = "crashed", f"{CRASHES} of its processes ended"
        return Measured(
            self.name, self.status, self.detail, self.versions, self.findings, self.seconds
        )


def _install(name: str) -> str:
    entry, _, engine = name.partition(" on ")
    backend = BACKEND.get(entry)
    if backend:
        return registry.install_hint(backend)
    distribution = entry.partition(".")[0]
    both = f"pip install {distribution}"
    return f"{both} && {registry.install_hint(engine)}" if engine else both


def complaints(board: Scoreboard) -> list[str]:
    """Return a line for everything that is not as declared."""
    found = dict.fromkeys((library, finding.clause) for library, finding in board.undeclared())
    lines = [f"undeclared: {library}, {clause}" for library, clause in found]
    lines += [f"declared, not found: {d.library}, {d.clause}" for d in board.not_found()]
    lines += [
        f"crashed: {library.name}, {finding.clause}: {finding.measured}"
        for library in board.libraries
        for finding in library.findings
        if finding.verdict == "crashed"
    ]
    return lines
