"""Mutate an adapter's source and let the conformance suite judge each mutant.

``python tests/mutation/run.py torch --record tests/mutation/recorded`` changes one thing of
``isometry.backends.torch_backend`` at a time, in memory, and counts the changes that the suite
notices (killed) and those that it does not (survived). A survivor stands in `explained.toml` with
the reason why it is no fault; one that does not is an error. Those explained are not run again,
for they would take most of the time, unless ``--all`` asks whether each still survives.

The framework is imported and the suite collected once. Each mutant is judged in a fork of that
process, up to the first failure, by the tests that ran the changed lines of the right adapter,
quick ones first; what survives them without an explanation faces all the others too.

With ``--record``, a run that was cut off goes on where it stopped, as long as the adapter and what
judges it are the same: what is judged so far stands in FOLDER/MODULE.unfinished.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import coverage
import pytest
from operators import Mutant, mutants

from isometry import conformance
from isometry.common import registry
from isometry.conformance.plugin import BACKENDS, INSTANCES

HERE = Path(__file__).parent
FILES = {"mxnet": ("mxnet_backend", "mxnet_graph")}  # every other backend: NAME_backend alone
SUITE = [str(path) for path in sorted(Path(conformance.__file__).parent.glob("test_*.py"))]

KILLED, SURVIVED, TIMED_OUT, EXPLAINED = "killed", "survived", "timed out", "explained"
MEMORY = 8 * 2**30  # bytes more than at the fork: a mutant may ask for any amount
IMPORT = "import"  # the coverage context of what no test runs


def explained(module: str) -> dict[str, str]:
    """Return mutant -> reason why it is no fault, of `explained.toml`."""
    tables = tomllib.loads((HERE / "explained.toml").read_text(encoding="utf-8"))
    return {name: entry["reason"] for entry in tables.get(module, ()) for name in entry["mutants"]}


@dataclass
class Coverage:
    """What ran in the right adapter: line -> tests, test -> seconds."""

    tests: dict[int, set[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def covering(self, mutant: Mutant) -> list[str]:
        """Return the tests that run the changed lines, the quickest first.

        All others follow if the lines run also where the adapter is imported or made.
        """
        for lines in (mutant.lines, mutant.statement):
            found = set().union(*(self.tests.get(line, set()) for line in lines))
            if found:
                break
        every = sorted(self.seconds, key=self.seconds.__getitem__)
        first = [test for test in every if test in found]
        return [*first, *(t for t in every if t not in found)] if IMPORT in found else first


class Journal:
    """The outcomes of one run, in a file from which a later run of the same code goes on.

    The code is all of the package that the collected suite has loaded: adapter, clauses, laws.
    """

    def __init__(self, file: Path | None) -> None:
        self.file, self.outcomes, self.seconds = file, [], 0.0
        if file is None:
            return
        loaded = (m for name, m in sys.modules.items() if name.partition(".")[0] == "isometry")
        digest = hashlib.sha256()
        for path in sorted({m.__file__ for m in loaded if getattr(m, "__file__", None)}):
            digest.update(Path(path).read_bytes())
        code = digest.hexdigest()
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        if lines[:1] == [code]:
            for line in lines[1:]:
                outcome, seconds = line.split("\t")
                self.outcomes.append(outcome)
                self.seconds += float(seconds)
        else:
            file.write_text(f"{code}\n", encoding="utf-8")

    def add(self, outcome: str, seconds: float) -> None:
        self.outcomes.append(outcome)
        self.seconds += seconds
        if self.file:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(f"{outcome}\t{seconds:.2f}\n")


class Runner:
    """A pytest plugin that runs the collected suite once for each mutant."""

    def __init__(
        self, backend: str, module: str, options: argparse.Namespace, unfinished: Path | None
    ) -> None:
        self.backend, self.module = backend, f"isometry.backends.{module}"
        self.only, self.all = options.only, options.all
        self.explained, self.unfinished = explained(module), unfinished
        self.outcomes: dict[str, str] = {}

    # --- the loop, in the parent ---

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        source = Path(importlib.util.find_spec(self.module).origin).read_text(encoding="utf-8")
        self.journal = Journal(self.unfinished)
        with tempfile.TemporaryDirectory() as folder:
            self.file = Path(folder) / f"{self.module.rpartition('.')[2]}.py"
            ran = self._measure(session, source)
            found = [mutant for mutant in mutants(source) if self.only in mutant.name]
            for k, mutant in enumerate(found):
                if k == len(self.journal.outcomes):
                    start = time.perf_counter()
                    outcome = self._judge(session, mutant, ran)
                    self.journal.add(outcome, time.perf_counter() - start)
                outcome = self.journal.outcomes[k]
                if outcome == EXPLAINED:  # when it was judged; the reason may be gone
                    outcome = self._judge(session, mutant, ran)
                # of two places with one text, the worse outcome stands
                if self.outcomes.get(mutant.name) != SURVIVED:
                    self.outcomes[mutant.name] = outcome
                if outcome == SURVIVED and mutant.name not in self.explained:
                    print(f"{k + 1}/{len(found)} survived: {mutant.name}", flush=True)
        return True

    def _judge(self, session: pytest.Session, mutant: Mutant, ran: Coverage) -> str:
        if mutant.name in self.explained and not self.all:
            return EXPLAINED
        first = ran.covering(mutant)
        outcome = self._run(session, mutant, first, ran) if first else SURVIVED
        if outcome == SURVIVED and mutant.name not in self.explained:
            others = sorted(ran.seconds.keys() - set(first), key=ran.seconds.__getitem__)
            outcome = self._run(session, mutant, others, ran)
        return outcome

    def _run(self, session: pytest.Session, mutant: Mutant, tests: list[str], ran: Coverage) -> str:
        self.file.write_text(mutant.text, encoding="utf-8")
        limit = 20 + 5 * sum(ran.seconds[test] for test in tests)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _confine(limit)
                self._substitute(session)
                code = int(_failed(session, tests))
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            return TIMED_OUT
        return SURVIVED if status == 0 else KILLED

    # --- in the child ---

    def _substitute(self, session: pytest.Session) -> None:
        """Put the module of `self.file` in the place of the right one, for all collected tests."""
        adapter = registry.find(self.backend).__module__
        _load(self.module, self.file)
        if adapter != self.module:
            _load(adapter, Path(sys.modules[adapter].__file__))
        cls = registry.find(self.backend)
        session.config.stash[BACKENDS] = (cls,)
        for item in session.items:
            if hasattr(item, "callspec") and "nx" in item.callspec.params:
                item.callspec.params["nx"] = cls

    def _measure(self, session: pytest.Session, source: str) -> Coverage:
        """Run the right adapter, in a child too: the parent's framework stays unused."""
        self.file.write_text(source, encoding="utf-8")
        answer = self.file.with_suffix(".json")
        child = os.fork()
        if child == 0:
            try:
                answer.write_text(json.dumps(self._covered(session)), encoding="utf-8")
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        found = json.loads(answer.read_text())
        if found["failed"]:
            raise pytest.UsageError(f"the right adapter fails: {', '.join(found['failed'])}")
        tests = {int(line): set(tests) for line, tests in found["tests"].items()}
        return Coverage(tests, found["seconds"])

    def _covered(self, session: pytest.Session) -> dict[str, object]:
        measured = coverage.Coverage(
            data_file=None, include=[str(self.file)], context=None, config_file=False
        )
        measured.start()
        seconds, failed = {}, []
        for item, following in zip(session.items, [*session.items[1:], None], strict=True):
            measured.switch_context(IMPORT)
            # anew: a framework that has traced a function runs no line of it again
            self._substitute(session)
            cls = registry.find(self.backend)
            session.config.stash[INSTANCES][cls] = cls()  # its lines belong to every test
            measured.switch_context(item.nodeid)
            before, start = session.testsfailed, time.perf_counter()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds[item.nodeid] = time.perf_counter() - start
            if session.testsfailed > before:
                failed.append(item.nodeid)
        measured.stop()
        lines = measured.get_data().contexts_by_lineno(str(self.file))
        return {"tests": lines, "seconds": seconds, "failed": failed}


def _load(name: str, file: Path) -> ModuleType:
    """Import a file under a name, in place of what has the name."""
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    package, _, attribute = name.rpartition(".")
    setattr(sys.modules[package], attribute, module)
    spec.loader.exec_module(module)
    return module


def _quiet() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _confine(limit: float) -> None:
    """End this process after `limit` seconds, or where it asks for much memory."""
    _quiet()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(limit))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _failed(session: pytest.Session, tests: list[str]) -> bool:
    """Run these tests up to the first that fails."""
    items = {item.nodeid: item for item in session.items}
    chosen = [items[test] for test in tests]
    for item, following in zip(chosen, [*chosen[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return True
    return False


# --- the command --------------------------------------------------------------------------------


def judge(
    backend: str, module: str, options: argparse.Namespace, unfinished: Path | None
) -> dict[str, object]:
    """Return what became of the mutants of one file, with the circumstances."""
    runner = Runner(backend, module, options, unfinished)
    code = pytest.main(
        [
            *("-p", "isometry.conformance.plugin", "-p", "no:terminal", "-p", "no:cacheprovider"),
            *("-p", "no:faulthandler", "--capture=no", "--rootdir", str(HERE.parents[1])),
            *("-o", "addopts=--import-mode=importlib", "--backend", backend, *SUITE),
        ],
        plugins=[runner],
    )
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"pytest ended with {code!r}")
    framework = registry.find(backend).framework
    names = ("isometry", "mutmut", "pytest")
    survivors = sorted(n for n, outcome in runner.outcomes.items() if outcome == SURVIVED)
    alive = {n for n, outcome in runner.outcomes.items() if outcome in (SURVIVED, EXPLAINED)}
    return {
        "module": module,
        "backend": backend,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {framework: registry.load(backend).version}
        | {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in names},
        "minutes": round(runner.journal.seconds / 60, 1),
        "mutants": len(runner.outcomes),
        **dict(sorted(Counter(runner.outcomes.values()).items())),
        "survivors": survivors,
        "unexplained": [name for name in survivors if name not in runner.explained],
        "stale": [] if options.only else sorted(runner.explained.keys() - alive),
    }


# most mutants compile what the right adapter did: JAX keeps it from one process to the next
_CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def _unfinished(folder: Path, module: str) -> Path:
    return folder / f"{module}.unfinished"


def _report(found: dict[str, object], folder: Path | None) -> bool:
    """Print what one file's mutants became, record it, and return whether all is explained."""
    module = found["module"]
    for name in found["stale"]:
        print(f"{module}: explained, but killed or gone: {name}")
    for name in found["unexplained"]:
        print(f"{module}: survived without an explanation: {name}")
    print({k: v for k, v in found.items() if not isinstance(v, list)})
    if folder:
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{module}.json").write_text(text, encoding="utf-8")
        _unfinished(folder, module).unlink()
    return not (found["stale"] or found["unexplained"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("backends", nargs="+", metavar="BACKEND")
    parser.add_argument("--only", default="", metavar="TEXT", help="mutants whose name has TEXT")
    parser.add_argument("--all", action="store_true", help="run those explained, too")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="write MODULE.json there")
    options = parser.parse_args()
    if options.only and options.record:
        parser.error("--record is for whole runs: leave out --only")
    sys.dont_write_bytecode = True
    explained = True
    with tempfile.TemporaryDirectory() as cache:
        os.environ.update(_CACHE, JAX_COMPILATION_CACHE_DIR=cache)
        for backend in options.backends:
            for module in FILES.get(backend, (f"{backend}_backend",)):
                unfinished = options.record and _unfinished(options.record, module)
                found = judge(backend, module, options, unfinished)
                explained &= _report(found, options.record)
    return 0 if explained else 1


if __name__ == "__main__":
    sys.exit(main())
