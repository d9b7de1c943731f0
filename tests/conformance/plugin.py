"""pytest plugin of the conformance suite: which backends, modes and dtypes each clause runs on.

``pytest -p isometry.conformance.plugin --pyargs isometry.conformance --backend torch``

A test judges a clause of the specification: ``@pytest.mark.clause(id)``.
It asks for the fixtures `nx`, `mode`, `dtype` (every dtype) or `full_dtype` (float32, float64)
and is run once for each combination that the backend declares. Nothing is ever skipped: a
framework that cannot be imported ends the run with an error.
"""

from __future__ import annotations

import argparse
import gc
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest

from isometry.common import checks, conformity, registry
from isometry.common.contract import CAPABILITIES, Backend
from isometry.common.errors import BackendNotInstalled, InvalidArgument, IsometryError
from isometry.common.statistics.verdicts import Verdict
from isometry.common.streams import MAX_SEED
from isometry.conformance import specification
from isometry.conformance.specification import Clause

AXES = ("nx", "mode", "dtype", "full_dtype")
BACKENDS = pytest.StashKey[tuple[type[Backend], ...]]()
INSTANCES = pytest.StashKey[dict[type[Backend], Backend]]()
EXPECTED = pytest.StashKey[dict[str, str]]()
WHOLE = pytest.StashKey[set[pytest.Item]]()

SEEDS = 1000  # of one run: number k of the run n is seed k + 1000 n


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("isometry", "conformance of a backend")
    group.addoption(
        "--backend",
        action="append",
        default=[],
        metavar="NAME",
        help="backend to judge: a registered name or package.module:Class; repeat or use commas",
    )
    group.addoption(
        "--clause",
        action="append",
        default=[],
        metavar="ID",
        help="judge only this clause; repeat or use commas",
    )
    group.addoption(
        "--profile",
        action="append",
        default=[],
        metavar="P",
        help=f"judge only these: {', '.join(conformity.PROFILES)}; repeat or use commas",
    )
    group.addoption("--smoke", action="store_true", help="judge only what is quick")
    group.addoption(
        "--expect", type=Path, metavar="FILE.toml", help="clauses expected to fail, with reasons"
    )
    group.addoption(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="draw everything anew: the Nth set of seeds",
    )
    group.addoption("--report", type=Path, metavar="FILE.json", help="record every verdict")
    # for `isometry conform`: events as they happen; one that exists is continued
    group.addoption("--journal", type=Path, help=argparse.SUPPRESS)
    # and which process of how many this is: K/N
    group.addoption("--share", default="0/1", help=argparse.SUPPRESS)


def _listed(config: pytest.Config, option: str) -> list[str]:
    return [name for given in config.getoption(option) for name in given.split(",") if name]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "clause(id): the requirement of the specification that a test judges",
    )
    config.stash[INSTANCES] = {}
    recorder = _Recorder(config)
    try:
        config.stash[BACKENDS] = tuple(registry.find(n) for n in _listed(config, "--backend"))
        config.stash[EXPECTED] = _expected(config.getoption("--expect"))
        for name in _listed(config, "--profile"):
            checks.choice("profile", name, conformity.PROFILES)
        if recorder.wanted and len(config.stash[BACKENDS]) != 1:
            raise InvalidArgument("--report and --journal need exactly one --backend")
    except IsometryError as error:
        recorder.refuse(error)
        raise pytest.UsageError(str(error)) from error
    if recorder.wanted:
        config.pluginmanager.register(recorder, "isometry-recorder")


def _expected(path: Path | None) -> dict[str, str]:
    """Return clause -> reason of a file whose tables, named for clauses, have reason and link."""
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"cannot read --expect {path}: {error}") from error
    for clause, table in tables.items():
        entry = table if isinstance(table, dict) else {}
        texts = all(isinstance(text, str) and text.strip() for text in entry.values())
        if not ({"reason"} <= entry.keys() <= {"reason", "link"} and texts):
            raise InvalidArgument(
                f"{path}: clause {clause!r} must be a table with the text reason, and if wanted "
                f'link, such as ["activations.exact"]; received {table!r}'
            )
    return {
        clause: " ".join(filter(None, (table["reason"], table.get("link"))))
        for clause, table in tables.items()
    }


# --- backend x mode x dtype ---------------------------------------------------------------------


def _values(axis: str, cls: type[Backend]) -> tuple[Any, ...]:
    if axis == "nx":
        return (cls,)
    if axis == "mode":
        return ("eager", "compiled") if "compiled" in cls.capabilities else ("eager",)
    if axis == "dtype":
        return cls.dtypes
    return ("float32", "float64")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    axes = [axis for axis in AXES if axis in metafunc.fixturenames]
    if "nx" not in axes:
        return
    backends = metafunc.config.stash[BACKENDS]
    if not backends:
        raise pytest.UsageError(
            f"the conformance suite needs --backend: known are {', '.join(registry.names())}"
        )
    rows: list[tuple[Any, ...]] = []
    for cls in backends:
        grown: list[tuple[Any, ...]] = [()]
        for axis in axes:
            grown = [(*row, value) for row in grown for value in _values(axis, cls)]
        rows += grown
    ids = ["-".join((row[0].name, *row[1:])) for row in rows]
    metafunc.parametrize(axes, rows, ids=ids, indirect=True)


@pytest.fixture
def nx(request: pytest.FixtureRequest) -> Backend:
    """The backend under judgement, loaded once a run."""
    instances = request.config.stash[INSTANCES]
    if request.param not in instances:
        instances[request.param] = request.param()
    return instances[request.param]


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str:
    """``eager``, and ``compiled`` where the backend declares it."""
    return str(request.param)


@pytest.fixture
def dtype(request: pytest.FixtureRequest) -> str:
    """Each dtype of the backend."""
    return str(request.param)


@pytest.fixture
def full_dtype(request: pytest.FixtureRequest) -> str:
    """``float32`` and ``float64``: what linear algebra and normalization are defined for."""
    return str(request.param)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """Seed number k (below 1000) of this run: k itself, unless ``--seed`` asks for others."""
    run: int = request.config.getoption("--seed")
    return lambda k: (k + SEEDS * run) % MAX_SEED


@pytest.fixture
def prepare(nx: Backend, mode: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function as the mode runs it: compiled by the framework, or as it is."""
    return nx.compile if mode == "compiled" else lambda f: f


# --- clauses ------------------------------------------------------------------------------------


def _clause(item: pytest.Item) -> Clause | None:
    if Path(item.path).parent != Path(__file__).parent:
        return None
    mark = item.get_closest_marker("clause")
    found = specification.clauses().get(mark.args[0]) if mark else None
    if found is None:
        raise pytest.UsageError(f"{item.nodeid} names no clause of the specification")
    return found


def _params(item: pytest.Item) -> dict[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _profile(item: pytest.Item, clause: Clause) -> str:
    """Return the profile of a combination of clause and parameters."""
    params = _params(item)
    if params.get("mode") == "compiled":
        return "compiled"
    return "half" if params.get("dtype") in ("float16", "bfloat16") else clause.profile


def _is_smoke(item: pytest.Item, clause: Clause) -> bool:
    """Whether a combination belongs to the smoke test: neither compiled nor in half precision."""
    return clause.smoke and _profile(item, clause) == "core"


def _supports(cls: type[Backend], clause: Clause, profile: str) -> bool:
    """Whether the backend declares what a clause is about; if not, its test judges the refusal."""
    if profile == "second-order":
        return ("hvp" if ".hvp" in clause.id else "jvp") in cls.capabilities
    return profile != "compiled" or "compiled" in cls.capabilities


def _matches(key: str, item: pytest.Item, clause: Clause) -> bool:
    """Whether ``clause`` or ``clause[float16,sigmoid]`` names this combination."""
    name, _, cases = key.removesuffix("]").partition("[")
    case = f"-{item.callspec.id}-" if hasattr(item, "callspec") else ""
    return name == clause.id and all(f"-{c.strip()}-" in case for c in cases.split(",") if c)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    clauses = {item: clause for item in items if (clause := _clause(item))}
    wanted = set(_listed(config, "--clause"))
    if unknown := wanted - specification.clauses().keys():
        raise pytest.UsageError(f"no clause is called {', '.join(sorted(unknown))}")
    _expect(config, clauses)
    profiles = set(_listed(config, "--profile"))
    config.stash[WHOLE] = {
        i for i, c in clauses.items() if not profiles or _profile(i, c) in profiles
    }
    kept = [
        item
        for item in items
        if (clause := clauses.get(item)) is None
        or (
            item in config.stash[WHOLE]
            and (not wanted or clause.id in wanted)
            and (not config.getoption("--smoke") or _is_smoke(item, clause))
        )
    ]
    for item, clause in clauses.items():
        item.user_properties.append(("clause", clause.id))
        item.add_marker(pytest.mark.filterwarnings("error"))  # also where no pyproject says so
    _keep(config, items, kept)


def _expect(config: pytest.Config, clauses: dict[pytest.Item, Clause]) -> None:
    """Mark what is expected to fail, by the file or by the adapter; it then must."""
    given = config.stash[EXPECTED]
    keys, used = set(given), set()
    for item, clause in clauses.items():
        cls = _params(item).get("nx")
        declared = cls.expected_failures if cls else {}
        keys |= declared.keys()
        for key, reason in {**declared, **given}.items():
            if _matches(key, item, clause):
                used.add(key)
                item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
    # of a clause that was not collected, as where one file alone is run, nothing can be said
    collected = {clause.id for clause in clauses.values()}
    missed = {key: key.partition("[")[0] for key in keys - used}
    unknown = [k for k, c in missed.items() if c in collected or c not in specification.clauses()]
    if clauses and unknown:
        text = (
            f"an expected failure must name a clause, or clause[case], of `isometry spec`; "
            f"no clause or case: {', '.join(sorted(unknown))}"
        )
        if recorder := config.pluginmanager.get_plugin("isometry-recorder"):
            recorder.refuse(InvalidArgument(text))
        raise pytest.UsageError(text)


def _keep(config: pytest.Config, items: list[pytest.Item], kept: list[pytest.Item]) -> None:
    chosen = set(kept)
    if dropped := [item for item in items if item not in chosen]:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Iterator[Callable[[Verdict], None]]:
    """Assert a verdict, and that a clause spends no more false alarm than it declares."""
    clause = _clause(request.node)
    declared = clause.false_alarm if clause else 0.0
    spent: list[float] = []

    def judge(verdict: Verdict) -> None:
        spent.append(verdict.false_alarm)
        request.node.user_properties.append(("statistic", asdict(verdict)))
        assert sum(spent) <= declared * (1 + 1e-9), "more false alarm than the clause declares"
        assert verdict.passed, str(verdict)

    yield judge
    request.node.user_properties.append(("false_alarm", sum(spent)))


# --- recording ----------------------------------------------------------------------------------


class _Recorder:
    """Writes down what is planned, what starts and what ended, for a report of the run."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.path: Path | None = config.getoption("--report")
        self.journal: Path | None = config.getoption("--journal")
        self.number, self.shares = map(int, config.getoption("--share").split("/"))
        self.events: list[dict[str, Any]] = []
        self.found: dict[str, dict[str, Any]] = {}
        self.unsupported: set[str] = set()

    @property
    def wanted(self) -> bool:
        return bool(self.path or self.journal)

    def refuse(self, error: IsometryError) -> None:
        absent = isinstance(error, BackendNotInstalled)
        self._tell({"refused": str(error), "absent": absent})

    def _tell(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if self.journal:
            with self.journal.open("a") as file:  # closed, so that a crash loses nothing
                file.write(conformity.dumps(event) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Plan; in a journal that exists, go on after the clauses that ended or crashed."""
        clauses = {item: clause for item in items if (clause := _clause(item))}
        cls = self.config.stash[BACKENDS][0]
        profiles = {item: _profile(item, clause) for item, clause in clauses.items()}
        self.unsupported = {
            item.nodeid for item, c in clauses.items() if not _supports(cls, c, profiles[item])
        }
        if self.journal and self.journal.exists():
            self.events = [json.loads(line) for line in self.journal.read_text().splitlines()]
            ended = {e["end"]: e["found"]["verdict"] for e in self.events if "end" in e}
            lost = {clauses[i] for i in clauses if ended.get(i.nodeid) == "crashed"}
            kept = [i for i in items if i.nodeid not in ended and clauses.get(i) not in lost]
            _keep(self.config, items, kept)
            self._order(items, clauses)
            return
        planned = [
            {
                "clause": clause.id,
                "test": item.nodeid,
                "profile": profiles[item],
            }
            for item, clause in clauses.items()
        ]
        judged = set(profiles.values()) - self._undeclared(profiles)
        about = {
            "backend": cls.name,
            "framework": cls.framework,
            "framework_version": self._version(cls),
            "spec_version": specification.VERSION,
            "seed": self.config.getoption("--seed"),
            "profiles": [p for p in conformity.PROFILES if p in judged],
            "partial": bool(self.config.stash[WHOLE] - set(items)),
            "unsupported": [c for c in CAPABILITIES if c not in cls.capabilities],
            "clauses": {
                name: _text(clause)
                for name, clause in specification.clauses().items()
                if clause in clauses.values()
            },
        }
        self._tell({"about": about, "planned": planned})
        self._order(items, clauses)

    def _order(self, items: list[pytest.Item], clauses: dict[pytest.Item, Clause]) -> None:
        """Put neighbours in the specification side by side, and begin far from other processes.

        Neighbours are about the same shapes, each of which some frameworks compile once a process.
        Of two processes one goes up and one goes down, until they meet.
        """
        about = {clause.id for clause in clauses.values()}
        names = [name for name in specification.clauses() if name in about]
        start = (self.number + self.number % 2) * len(names) // self.shares
        order = names[start:] + names[:start]
        if self.number % 2:
            order.reverse()
        rank = {name: k for k, name in enumerate(order)}
        items.sort(key=lambda item: rank[clauses[item].id])

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Judge the clauses that no other process has taken."""
        if self.journal is None or session.testsfailed:
            return None  # pytest's own loop
        # what is imported and collected stays: to look through it again takes 7 % of JAX's time
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000)
        mine = (item for item in session.items if self._take(item))
        for item, following in pairwise(chain(mine, [None])):
            assert item is not None
            self.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return True

    def _take(self, item: pytest.Item) -> bool:
        """Return whether the item's clause is this process's, which it is if nobody has it yet."""
        clause = _clause(item)
        assert self.journal is not None
        assert clause is not None
        taken = self.journal.with_name(f"taken-{clause.id}")
        try:
            with taken.open("x") as file:
                file.write(str(self.number))
        except FileExistsError:  # also by the process that this one goes on for
            return taken.read_text() == str(self.number)
        return True

    def _undeclared(self, profiles: dict[pytest.Item, str]) -> set[str]:
        """Return the profiles of which the backend supports nothing."""
        supported = {p for item, p in profiles.items() if item.nodeid not in self.unsupported}
        return set(profiles.values()) - supported

    def _version(self, cls: type[Backend]) -> str:
        try:
            return self.config.stash[INSTANCES].setdefault(cls, cls()).version
        except Exception:  # every clause will fail with it, and say why
            return "unknown"

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.found[nodeid] = {"verdict": "not run", "duration": 0.0, "reason": ""}
        self._tell({"start": nodeid})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = self.found[report.nodeid]
        found["duration"] += report.duration
        if report.when == "teardown":  # when everything is said
            properties = report.user_properties
            found["statistics"] = [value for name, value in properties if name == "statistic"]
            found["false_alarm"] = sum(v for name, v in properties if name == "false_alarm")
        expected = getattr(report, "wasxfail", None)
        if expected is not None and report.skipped:
            found |= {"verdict": "expected failure", "reason": expected}
        elif report.failed and report.longreprtext.startswith("[XPASS(strict)]"):
            found |= {"verdict": "unexpected pass", "reason": report.longreprtext}
        elif report.failed:
            found |= {"verdict": "fail", "reason": _reason(report)}
        elif report.when == "call" and report.passed:
            right = "unsupported" if report.nodeid in self.unsupported else "pass"
            found["verdict"] = right

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._tell({"end": nodeid, "found": self.found[nodeid]})

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        report = conformity.assemble(self.events)
        if self.path and report:
            conformity.save(report, self.path)


def _text(clause: Clause) -> dict[str, str]:
    names = ("number", "requires", "source", "oracle", "tolerance", "detects")
    return {name: getattr(clause, name) for name in names}


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash else report.longreprtext
