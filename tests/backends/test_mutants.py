"""The conformance suite can fail: each deliberately wrong backend fails the clause it breaks.

Runs the suite inside this process, once for each fault, on the clause that names the fault and up
to its first failure. That the right adapter passes the same clause, the suite itself says.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from isometry import conformance

HERE = Path(__file__).parents[1]
# the suite finds a mutant by its importable name, as anyone's backend
sys.path.insert(0, str(HERE))
import mutants  # noqa: E402
from mutants import page  # noqa: E402

# one example that fails is enough; a smaller one need not be looked for
settings.register_profile("mutants", settings(), phases=(Phase.explicit, Phase.generate))
settings.load_profile("mutants")

PAGE = HERE.parent / "docs" / "mutants.md"
# the installed suite, as anyone runs it
SUITE = {
    path: path.read_text(encoding="utf-8")
    for path in sorted(Path(conformance.__file__).parent.glob("test_*.py"))
}
# how a clause says that a backend is wrong; any other exception is an accident, unless the clause
# is about exceptions or warnings
FINDINGS = (AssertionError, pytest.fail.Exception)
OF_ITS_OWN = {"errors": (*FINDINGS, Exception), "streams.quiet": (Warning,)}


class Narrowed:
    """Runs one case of a clause, if one is given, and keeps what its tests raised."""

    def __init__(self, case: str):
        self.case, self.raised = case, []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        if self.case:
            items[:] = [i for i in items if f"-{self.case}-" in f"-{i.callspec.id}-"]

    def pytest_runtest_makereport(self, call):
        if call.excinfo:
            self.raised.append(call.excinfo.value)


def _judge(backend: str, clause: str, case: str) -> list[BaseException]:
    """Return what the tests of a clause raised, up to the first failure."""
    narrowed = Narrowed(case)
    code = pytest.main(
        [
            *("-p", "isometry.conformance.plugin"),
            # the last one collects garbage at the end, seconds in a process with a framework
            *(f"-pno:{name}" for name in ("terminal", "cacheprovider", "unraisableexception")),
            *("--rootdir", str(HERE.parent), "-o", "addopts=--import-mode=importlib", "-x"),
            *("--backend", backend, "--clause", clause),
            *(str(path) for path, text in SUITE.items() if f'"{clause}"' in text),
        ],
        plugins=[narrowed],
    )
    assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), "nothing was run"
    return narrowed.raised


def pytest_generate_tests(metafunc):
    """Over the adapters of ``--backend``."""
    given = metafunc.config.getoption("--backend")
    adapters = [name for names in given for name in names.split(",")]
    if "fault" in metafunc.fixturenames:
        pairs = [(f, a) for a in adapters for f in mutants.FAULTS if mutants.applies(f, a)]
        metafunc.parametrize(("fault", "adapter"), pairs)
    elif "adapter" in metafunc.fixturenames:
        metafunc.parametrize("adapter", adapters)


def test_mutant_fails_its_clause(fault, adapter):
    _, clause, case = mutants.FAULTS[fault]
    raised = _judge(f"mutants:{fault}_{adapter}", clause, case)
    assert raised, f"{clause} passes"
    findings = OF_ITS_OWN.get(clause.partition(".")[0], OF_ITS_OWN.get(clause, FINDINGS))
    assert isinstance(raised[0], findings), f"{clause} did not judge: {raised[0]!r}"


def test_the_page_is_current(adapter):
    written = PAGE.read_text(encoding="utf-8")
    assert page.rows(written, adapter) == page.rows(page.write([adapter]), adapter)


def test_enough_mutants_on_each_adapter(adapter):
    assert len(mutants.FAULTS) == sum(len(module.FAULTS) for module in mutants.MODULES) >= 80
    assert sum(mutants.applies(name, adapter) for name in mutants.FAULTS) >= 20


def test_every_clause_was_seen_to_fail():
    judged = re.compile(r'clause\("([\w.-]+)"\)(?:(?!clause\().)*?\ndef \w+\(\s*nx\b', re.DOTALL)
    clauses = {found for text in SUITE.values() for found in judged.findall(text)}
    for path, text in SUITE.items():  # and those that are the keys of a table of cases
        group = path.stem.removeprefix("test_")
        clauses |= set(re.findall(rf'^    "({group}\.[\w-]+)": [{{(]', text, re.MULTILINE))
    assert clauses == {fault.clause for fault in mutants.FAULTS.values()}
