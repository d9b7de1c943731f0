"""The conformance suite can fail: each deliberately wrong backend fails the clause it breaks.

Runs the suite inside this process, once for each fault: the right adapter and the mutant side by
side on the one clause. The right one must pass all of it, and the mutant must not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from isometry import conformance
from isometry.common import registry

HERE = Path(__file__).parents[1]
# the suite finds a mutant by its importable name, as anyone's backend
sys.path.insert(0, str(HERE))
import mutants  # noqa: E402

# the installed suite, as anyone runs it
SUITE = [str(path) for path in sorted(Path(conformance.__file__).parent.glob("test_*.py"))]


class Outcomes:
    """Collects the tests that passed and failed; expected failures are neither."""

    def __init__(self):
        self.passed, self.failed = [], []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(f"{report.nodeid}: {report.longreprtext}")
        elif report.passed and report.when == "call":
            self.passed.append(report.nodeid)


def _judge(backend: str, clause: str) -> Outcomes:
    outcomes = Outcomes()
    code = pytest.main(
        [
            *("-p", "isometry.conformance.plugin", "-p", "no:terminal", "-p", "no:cacheprovider"),
            *("--rootdir", str(HERE.parent), "-o", "addopts=--import-mode=importlib"),
            *("--backend", backend, "--clause", clause, *SUITE),
        ],
        plugins=[outcomes],
    )
    assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    assert outcomes.passed or outcomes.failed
    return outcomes


def _expected_to_fail(clause: str, adapter: str) -> bool:
    return clause in registry.find(adapter).expected_failures


def _applies(fault: str, adapter: str) -> bool:
    """Whether an adapter can have this fault: NumPy may use NumPy, some arrays never change."""
    clause = mutants.FAULTS[fault][1]
    immutable = adapter in ("jax", "tensorflow")
    return (
        not _expected_to_fail(clause, adapter)
        and not (fault == "NumpyBits" and adapter == "numpy")
        and not (fault == "InputMutated" and immutable)
    )


def pytest_generate_tests(metafunc):
    """Over the adapters of ``--backend``."""
    given = metafunc.config.getoption("--backend")
    adapters = [name for names in given for name in names.split(",")]
    if "fault" in metafunc.fixturenames:
        pairs = [(f, a) for a in adapters for f in mutants.FAULTS if _applies(f, a)]
        metafunc.parametrize(("fault", "adapter"), pairs)
    elif "clause" in metafunc.fixturenames:
        clauses = sorted({clause for _, clause in mutants.FAULTS.values()})
        pairs = [(c, a) for a in adapters for c in clauses if not _expected_to_fail(c, a)]
        metafunc.parametrize(("clause", "adapter"), pairs)


def test_right_adapter_passes_the_clause(clause, adapter):
    assert _judge(adapter, clause).failed == []


def test_mutant_fails_its_clause(fault, adapter):
    clause = mutants.FAULTS[fault][1]
    assert _judge(f"mutants:{fault}_{adapter}", clause).failed
