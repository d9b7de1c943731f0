"""pytest plugin of the conformance suite: which backends, modes and dtypes each clause runs on.

``pytest -p isometry.conformance.plugin --pyargs isometry.conformance --backend torch``

A test is a clause of the specification: ``@pytest.mark.clause(id, source=..., false_alarm=...)``.
It asks for the fixtures `nx`, `mode`, `dtype` (every dtype) or `full_dtype` (float32, float64)
and is run once for each combination that the backend declares. Nothing is ever skipped: a
framework that cannot be imported ends the run with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isometry.common import registry
from isometry.common.contract import Backend
from isometry.common.errors import IsometryError
from isometry.common.statistics.verdicts import Verdict

AXES = ("nx", "mode", "dtype", "full_dtype")
BACKENDS = pytest.StashKey[tuple[type[Backend], ...]]()
INSTANCES = pytest.StashKey[dict[type[Backend], Backend]]()


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


def _listed(config: pytest.Config, option: str) -> list[str]:
    return [name for given in config.getoption(option) for name in given.split(",") if name]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "clause(id, *, source, false_alarm=0.0): the requirement that a test judges, where it "
        "comes from, and the most false alarm that one run of it may spend",
    )
    try:
        config.stash[BACKENDS] = tuple(registry.find(n) for n in _listed(config, "--backend"))
    except IsometryError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[INSTANCES] = {}


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
def prepare(nx: Backend, mode: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function as the mode runs it: compiled by the framework, or as it is."""
    return nx.compile if mode == "compiled" else lambda f: f


# --- clauses ------------------------------------------------------------------------------------


def _clause(item: pytest.Item) -> pytest.Mark | None:
    if Path(item.path).parent != Path(__file__).parent:
        return None
    mark = item.get_closest_marker("clause")
    if mark is None or not mark.args or not mark.kwargs.get("source"):
        raise pytest.UsageError(f"{item.nodeid} states no clause id and source")
    return mark


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = set(_listed(config, "--clause"))
    clauses = {item: mark for item in items if (mark := _clause(item))}
    unknown = wanted - {mark.args[0] for mark in clauses.values()}
    if unknown:
        raise pytest.UsageError(f"no clause is called {', '.join(sorted(unknown))}")
    for item, mark in clauses.items():
        item.user_properties.append(("clause", mark.args[0]))
        item.add_marker(pytest.mark.filterwarnings("error"))  # also where no pyproject says so
        params = item.callspec.params if hasattr(item, "callspec") else {}
        reason = params["nx"].expected_failures.get(mark.args[0]) if "nx" in params else None
        if reason is not None:
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
    if wanted:
        kept = [i for i in items if i not in clauses or clauses[i].args[0] in wanted]
        config.hook.pytest_deselected(items=[i for i in items if i not in kept])
        items[:] = kept


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Iterator[Callable[[Verdict], None]]:
    """Assert a verdict, and that a clause spends no more false alarm than it declares."""
    mark = _clause(request.node)
    declared = mark.kwargs.get("false_alarm", 0.0) if mark else 0.0
    spent: list[float] = []

    def judge(verdict: Verdict) -> None:
        spent.append(verdict.false_alarm)
        assert sum(spent) <= declared * (1 + 1e-9), "more false alarm than the clause declares"
        assert verdict.passed, str(verdict)

    yield judge
    request.node.user_properties.append(("false_alarm", sum(spent)))
