"""Side by side, each in its own process: what crashes, hangs or is absent becomes a row."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isometry.common import isolation, processes, results
from isometry.common.isolation import Work

HERE = Path(__file__).parent
STUDY, OTHER = "sigmoid-gradient", "normalization"


class Silent:
    """A watcher that keeps what it is told."""

    def __init__(self):
        self.told = []

    def progress(self, backend, study, done, total):
        assert 0 <= done <= total

    def finished(self, outcome):
        self.told.append(outcome)


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Compare backends on studies; the children find misbehaving.py."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))

    def run(*backends, studies=(STUDY,), timeout=120.0, jobs=2, interpreter=sys.executable):
        watcher = Silent()
        outcomes = isolation.compare(
            [Work(name, {s: {} for s in studies}, interpreter) for name in backends],
            folder=tmp_path / "results",
            seed=3,
            timeout=timeout,
            jobs=jobs,
            watcher=watcher,
        )
        assert sorted(map(str, watcher.told)) == sorted(map(str, outcomes))
        return outcomes

    return run


def gone(pid, patience=10.0):
    """Whether a process ends soon; one that nobody has reaped has ended."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.02)


def test_a_backend_runs_several_studies(compare, tmp_path):
    outcomes = compare("numpy", studies=(STUDY, OTHER))
    assert [(o.study, o.status) for o in outcomes] == [(STUDY, "ran"), (OTHER, "ran")]
    for outcome in outcomes:
        found = results.load(outcome.path)
        assert (found.study, found.backend, found.seed) == (outcome.study, "numpy", 3)


def test_a_crash_costs_one_study_of_one_backend(compare):
    outcomes = compare("misbehaving:Crashes", "numpy", studies=(STUDY, OTHER))
    assert [o.status for o in outcomes] == ["crashed", "ran", "ran", "ran"]
    assert outcomes[0].detail.startswith("killed by SIGSEGV")
    assert outcomes[0].path is None


def test_a_crash_removes_the_result_of_an_earlier_run(compare, tmp_path):
    old = isolation.result_path(tmp_path / "results", STUDY, "misbehaving:Crashes")
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    compare("misbehaving:Crashes")
    assert not old.exists()


def test_a_bug_and_a_wrong_argument_are_told_in_one_line(compare):
    raises, threads = compare("misbehaving:Raises", "misbehaving:Threads")
    assert raises.status == "crashed"
    assert raises.detail.startswith("ZeroDivisionError: a bug")
    assert threads.status == "refused"


def test_the_cores_are_shared_out(compare, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (outcome,) = compare("misbehaving:Threads", jobs=1)
    assert outcome.detail == f"OMP_NUM_THREADS is {processes.cores()}"
    (outcome,) = compare("misbehaving:Threads", jobs=10_000)
    assert outcome.detail == "OMP_NUM_THREADS is 1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (outcome,) = compare("misbehaving:Threads")
    assert outcome.detail == "OMP_NUM_THREADS is 7"


def test_a_hanging_backend_is_killed_with_all_it_started(compare, tmp_path):
    started = time.monotonic()
    hangs, ran = compare("misbehaving:Hangs", "numpy", timeout=10)
    assert time.monotonic() - started < 60
    assert (hangs.status, ran.status) == ("timed out", "ran")
    assert "10 s" in hangs.detail
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_an_interpreter_without_isometry_or_that_is_none_is_a_crash(compare, tmp_path):
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    (outcome,) = compare("numpy", interpreter=str(bare))
    assert outcome.status == "crashed"
    assert "No module named isometry" in outcome.detail
    (outcome,) = compare("numpy", interpreter=str(tmp_path))
    assert "does not start" in outcome.detail


def test_inspection_of_a_backend_that_cannot_start_is_a_row(compare):
    numpy, broken = isolation.inspect(["numpy", "misbehaving:Threads"])
    assert (numpy.status, numpy.framework, numpy.detail) == ("installed", "numpy", "")
    assert broken.status == "crashed"


# --- through the command line -------------------------------------------------------------------


@pytest.fixture
def absent(tmp_path):
    """Register a backend whose framework is not there, as a package would."""
    package = tmp_path / "site" / "absent-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: absent\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[isometry.backends]\nabsent = no_such:Backend\n")
    return str(package.parent)


def command(*args, path="", **environment):
    found = os.pathsep.join(filter(None, (str(HERE), path)))  # an empty part would be this folder
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "isometry", "compare", *map(str, args)],
        env={**os.environ, "PYTHONPATH": found, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # in the background SIGINT is ignored, and a child inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_compare_lays_side_by_side_what_ran_and_says_what_did_not(tmp_path):
    chosen = "numpy,misbehaving:Wrong,misbehaving:Crashes"
    process = command(STUDY, "--backends", chosen, "-o", tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    for words in ("✓ pass", "✗ FAIL", "✗ differs", "✗ crashed", "killed by SIGSEGV"):
        assert words in out
    assert "wrong" in out  # under its own name, as in its result
    assert (tmp_path / "index.html").exists()
    assert list((tmp_path / "figures").iterdir())


@pytest.mark.parametrize(("backend", "word"), [("Crashes", "crashed"), ("Hangs", "timed out")])
def test_a_named_backend_that_is_lost_exits_3(tmp_path, backend, word):
    process = command(
        *(STUDY, "--backends", f"numpy,misbehaving:{backend}", "--timeout", 10, "-o", tmp_path),
        PIDS=str(tmp_path / "pids"),
    )
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 3
    assert word in out


def test_an_absent_backend_matters_only_if_it_was_named(tmp_path, absent):
    process = command(STUDY, "--backends", "numpy,absent", "-o", tmp_path, path=absent)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "absent: not installed: backend 'absent' is not installed" in out
    assert 'pip install "isometry[absent]"' in out

    process = command(STUDY, "-o", tmp_path, path=absent)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "absent: not installed" in out


def test_a_parameter_that_the_study_refuses_exits_2(tmp_path):
    process = command("xavier", "--backends", "numpy", "--set", "depth=-1", "-o", tmp_path)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "received -1" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_takes_its_children_along(tmp_path, number):
    pids = tmp_path / "pids"
    process = command(
        STUDY, "--backends", "misbehaving:Hangs", "-o", tmp_path / "out", PIDS=str(pids)
    )
    wait_for(pids)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "isometry: interrupted\n"
    assert all(gone(int(pid)) for pid in pids.read_text().split())
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
