"""``isometry conform``, as a user meets it: real processes, right, wrong and crashing backends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from isometry.common import conformity

CLAUSE = "activations.exact"


def conform(*args, **environment):
    return subprocess.run(
        [sys.executable, "-P", "-m", "isometry", "conform", *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def alive(pid):
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def verdicts(folder, clause=None):
    rows = json.loads((folder / "report.json").read_text())["judgements"]
    return {row["verdict"] for row in rows if clause in (None, row["clause"])}


def expected(tmp_path, clause):
    path = tmp_path / "expect.toml"
    path.write_text(f'["{clause}"]\nreason = "known"\nlink = "https://example.org/1"\n')
    return path


def test_right_backend_conforms(tmp_path):
    found = conform("numpy", "-o", tmp_path)
    assert found.returncode == 0, found.stderr
    assert "conformant: core, gradients, second-order, half" in found.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["conformant"] == ["core", "gradients", "second-order", "half"]
    assert verdicts(tmp_path) == {"pass", "unsupported"}
    assert verdicts(tmp_path, "compiled.equals-eager") == {"unsupported"}
    law = next(r for r in report["judgements"] if r["statistics"])
    assert law["statistics"][0]["count"] > 0
    assert law["false_alarm"] == sum(s["false_alarm"] for s in law["statistics"]) > 0
    suite = next(ElementTree.parse(tmp_path / "junit.xml").getroot().iter("testsuite"))
    assert int(suite.get("tests")) == len(report["judgements"])
    assert json.loads((tmp_path / "badge.json").read_text())["color"] == "brightgreen"
    assert "**conformant: core" in (tmp_path / "summary.md").read_text()


def test_the_page_is_one_file_that_names_every_clause(tmp_path):
    conform("misbehaving:Wrong", "--profile", "core", "-o", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    page = (tmp_path / "report.html").read_text()
    assert all(f"{clause['number']} {name}" in page for name, clause in report["clauses"].items())
    assert "<script" not in page
    assert "What failed" in page
    assert "details open" in page


def test_report_keeps_its_schema(tmp_path):
    conform("misbehaving:Crashes", "--smoke", "-o", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    schema = json.loads((Path(conformity.__file__).parent / "conformity.schema.json").read_text())
    jsonschema.validate(report, schema)
    del report["seed"]
    with pytest.raises(jsonschema.ValidationError, match="seed"):
        jsonschema.validate(report, schema)


def test_other_seeds_draw_anew(tmp_path):
    seen = []
    for seed in (0, 1, 1):
        found = conform("numpy", "--seed", seed, "--profile", "core", "-o", tmp_path / "out")
        assert found.returncode == 0, found.stdout
        rows = json.loads((tmp_path / "out" / "report.json").read_text())["judgements"]
        seen.append([s["observed"] for r in rows for s in r["statistics"] if s["false_alarm"]])
    assert seen[0] != seen[1] == seen[2]


def test_a_case_that_never_ends_is_killed_and_the_rest_judged(tmp_path):
    found = conform(
        *("misbehaving:Hangs", "--smoke", "--timeout", 5, "-o", tmp_path), PIDS=str(tmp_path / "p")
    )
    assert found.returncode == 1, found.stderr
    rows = json.loads((tmp_path / "report.json").read_text())["judgements"]
    assert any(r["reason"] == "took longer than 5 s" for r in rows if r["verdict"] == "crashed")
    assert verdicts(tmp_path, "streams.determinism") == {"pass"}


def test_an_expected_failure_may_name_one_case(tmp_path):
    expect = expected(tmp_path, "activations.exact[float32,sigmoid_gradient]")
    found = conform(
        *("misbehaving:Wrong", "--profile", "core", "--expect", expect, "-o", tmp_path / "out")
    )
    assert found.returncode == 1  # float64 fails, too
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["judgements"]
    found = {r["test"]: r["verdict"] for r in rows if r["verdict"] not in ("pass", "unsupported")}
    assert set(found.values()) == {"fail", "expected failure"}
    assert all("float32" in t for t, v in found.items() if v == "expected failure")


def test_smoke_claims_nothing(tmp_path):
    found = conform("numpy", "--smoke", "-o", tmp_path)
    assert found.returncode == 0, found.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert {r["group"] for r in report["judgements"]} == {
        "activations",
        "arrays",
        "identity",
        "streams",
    }
    assert report["conformant"] == []


def test_profile_judges_no_other(tmp_path):
    assert conform("numpy", "--profile", "second-order", "-o", tmp_path).returncode == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {r["profile"] for r in report["judgements"]} == {"second-order"}


def test_wrong_backend_fails_by_name(tmp_path):
    found = conform("misbehaving:Wrong", "--profile", "core", "-o", tmp_path)
    assert found.returncode == 1, found.stderr
    assert "fail" in verdicts(tmp_path, CLAUSE)
    assert "fail: " in found.stdout
    assert json.loads((tmp_path / "badge.json").read_text())["color"] == "red"


def test_crash_is_a_verdict_and_the_rest_is_judged(tmp_path):
    found = conform("misbehaving:Crashes", "--smoke", "-o", tmp_path)
    assert found.returncode == 1, found.stderr
    rows = json.loads((tmp_path / "report.json").read_text())["judgements"]
    crashed = [r for r in rows if r["verdict"] == "crashed"]
    assert crashed
    assert all("SIGSEGV" in r["reason"] for r in crashed)
    assert verdicts(tmp_path, "streams.determinism") == {"pass"}


def test_expected_failure_must_fail(tmp_path):
    expect = expected(tmp_path, "identity.declarations")
    found = conform("numpy", "--smoke", "--expect", expect, "-o", tmp_path / "out")
    assert found.returncode == 1, found.stderr
    assert verdicts(tmp_path / "out", "identity.declarations") == {"unexpected pass"}


def test_expected_failure_that_fails_is_no_error(tmp_path):
    expect = expected(tmp_path, "identity.declarations")
    found = conform("misbehaving:Nameless", "--smoke", "--expect", expect, "-o", tmp_path / "out")
    assert found.returncode == 0, found.stdout
    assert verdicts(tmp_path / "out", "identity.declarations") == {"expected failure"}
    assert json.loads((tmp_path / "out" / "badge.json").read_text())["color"] == "yellow"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["no.such"]\nreason = "x"\n', "no clause or case: no.such"),
        ('["arrays.copies"]\nlink = "x"\n', "must be a table with the text reason"),
        ("[", "cannot read --expect"),
    ],
)
def test_wrong_expectations_exit_2(tmp_path, text, message):
    expect = tmp_path / "expect.toml"
    expect.write_text(text)
    found = conform("numpy", "--smoke", "--expect", expect, "-o", tmp_path / "out")
    assert (found.returncode, found.stdout) == (2, "")
    assert message in found.stderr


def test_an_adapter_that_expects_no_case_exits_2(tmp_path):
    found = conform("misbehaving:Miscased", "--smoke", "-o", tmp_path / "out")
    assert (found.returncode, found.stdout) == (2, "")
    assert "no clause or case: activations.exact[float31]" in found.stderr


def test_processes_share_out_all_clauses(tmp_path):
    found = {}
    for jobs in (1, 3):
        conform("misbehaving:Wrong", "--profile", "core", "--jobs", jobs, "-o", tmp_path)
        rows = json.loads((tmp_path / "report.json").read_text())["judgements"]
        found[jobs] = [(row["test"], row["verdict"]) for row in rows]
    assert found[1] == found[3]
    assert {verdict for _, verdict in found[1]} == {"pass", "fail"}


def test_usage_and_missing_extra(tmp_path):
    assert conform("nunpy", "-o", tmp_path / "out").returncode == 2
    assert conform("numpy", "--profile", "cor", "-o", tmp_path / "out").returncode == 2
    assert not (tmp_path / "out").exists()
    # a Python whose search path has all but pytest: found by no finder
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, importlib.machinery as m\n"
        "find = m.PathFinder.find_spec\n"
        "m.PathFinder.find_spec = classmethod("
        "lambda c, n, *a: None if n == 'pytest' else find(n, *a))\n"
    )
    found = conform("numpy", "-o", tmp_path / "out", PYTHONPATH=str(tmp_path))
    assert found.returncode == 3
    assert 'pip install "isometry[test]"' in found.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_exits_130_and_kills_the_child(tmp_path, sent):
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "isometry", "conform", "misbehaving:Hangs", "-o", tmp_path],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "PIDS": str(tmp_path / "pids"),
        },
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "pids").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert not any(alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())
