"""The command line, as a user meets it: real processes, real files, the NumPy backend."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import isometry
from isometry.cli import main
from isometry.common import registry, results, studies
from isometry.common.ops import VOCABULARY

STUDY = "sigmoid-gradient"
COMMANDS = (
    "backends",
    "studies",
    "run",
    "compare",
    "source",
    "identify",
    "grade",
    "recipe",
    "lesson",
    "conform",
    "spec",
)


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def isometry_process(*args, **environment):
    """Start the command in a process that finds the backends of misbehaving.py."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "isometry", *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # in the background SIGINT is ignored, and a child inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ran(*args):
    process = isometry_process(*args)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for(pids):
    """Return the process ids that misbehaving.Hangs writes."""
    deadline = time.monotonic() + 60
    while not pids.exists():
        assert time.monotonic() < deadline, "the backend did not start"
        time.sleep(0.02)
    return [int(pid) for pid in pids.read_text().split()]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "numpy.json"
    assert call("run", STUDY, "--backend", "numpy", "-o", path).exit_code == 0
    return path


# --- help ---------------------------------------------------------------------------------------


def test_help_names_every_command_and_exit_code():
    text = call("--help").output
    assert all(command in text for command in COMMANDS)
    assert all(f"  {code} " in text for code in ("0", "1", "2", "3", "130"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples(command):
    found = call(command, "--help")
    assert found.exit_code == 0
    lines = found.output.splitlines()
    assert any(line.startswith(f"    isometry {command}") for line in lines), found.output
    assert "\\b" not in found.output


def test_version():
    assert isometry.__version__ in call("--version").output


def test_help_imports_click_and_nothing_slow():
    script = (
        "import sys\n"
        "from isometry.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "slow = {'numpy', 'rich', 'matplotlib', 'jsonschema', 'asyncio', 'torch', 'jax'}\n"
        "print(sorted(slow & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# --- lists --------------------------------------------------------------------------------------


def test_studies_lists_every_study_and_parameter(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    text = call("studies").output
    for name in studies.NAMES:
        assert name in text
        for parameter in studies.find(name).parameters:
            assert f"{parameter.name}={parameter.default}" in text


def test_backends_describes_numpy_from_a_process_of_its_own():
    code, out, _ = ran("backends", "numpy", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert (row["name"], row["status"], row["version"]) == ("numpy", "installed", np.__version__)
    assert row["dtypes"] == list(registry.find("numpy").dtypes)


def test_backends_lists_one_that_cannot_start_as_a_row():
    code, out, _ = ran("backends", "numpy", "misbehaving:Threads")
    assert code == 0
    assert "numpy" in out
    assert "crashed" in out
    assert "OMP_NUM_THREADS is" in out


# --- source -------------------------------------------------------------------------------------


def test_source_shows_the_adapters_code_and_what_it_uses():
    text = call("source", "sigmoid_gradient", "--backend", "numpy").output
    assert "isometry.backends.numpy_backend, line" in text
    assert "def sigmoid_gradient(self" in text
    assert "(1 + e)**2" in text
    assert "def tanh" not in text


def test_source_of_what_is_composed_says_where_it_lives():
    text = call("source", "matrix_chain", "--backend", "numpy").output
    assert "composed once for all backends (isometry.common.chains, line" in text
    assert "for steps in _blocks" in text
    assert "isometry.common.contract" in call("source", "initialize", "--backend", "numpy").output


@pytest.mark.parametrize("word", VOCABULARY)
def test_source_shows_every_word_with_its_meaning_and_the_adapters_entry(word):
    found = call("source", f"ops.{word}", "--backend", "numpy")
    assert found.exit_code == 0
    assert f"ops.{word}: what it means (isometry.common.ops" in found.output
    assert f"{word} of backend numpy (isometry.backends.numpy_backend" in found.output
    assert f'"{word}":' in found.output


# --- run ----------------------------------------------------------------------------------------


def test_run_records_a_result(recorded):
    found = results.load(recorded)
    assert (found.study, found.backend, found.seed) == (STUDY, "numpy", 0)
    assert found.passed


def test_run_repeats_bit_for_bit_with_a_seed(tmp_path):
    arguments = ("--backend", "numpy", "--seed", 7, "--set", "chains=100", "--set", "length=50")
    for name in ("a.json", "b.json"):
        call("run", "matrix-chain", *arguments, "-o", tmp_path / name)
    a, b = (results.load(tmp_path / name) for name in ("a.json", "b.json"))
    assert (a.seed, a.parameters) == (7, b.parameters)
    for name, quantity in a.quantities.items():
        np.testing.assert_array_equal(quantity.values, b.quantities[name].values)


def test_run_takes_several_studies_into_a_folder(tmp_path):
    found = call("run", STUDY, "normalization", "--backend", "numpy", "-o", tmp_path)
    assert found.exit_code == 0, found.output
    for name in (STUDY, "normalization"):
        assert results.load(tmp_path / name / "numpy.json").study == name


def test_run_of_a_wrong_backend_exits_1(tmp_path):
    code, out, err = ran("run", STUDY, "--backend", "misbehaving:Wrong", "-o", tmp_path / "w.json")
    assert code == 1, err
    assert "✗ FAIL" in out
    assert not results.load(tmp_path / "w.json").passed


def test_a_bug_is_one_line_and_exits_3(tmp_path):
    arguments = ("run", STUDY, "--backend", "misbehaving:Raises", "-o", tmp_path / "r.json")
    code, _, err = ran(*arguments)
    assert (code, err) == (3, "isometry: ZeroDivisionError: a bug (isometry --debug shows where)\n")
    code, _, err = ran("--debug", *arguments)
    assert code == 3
    assert "Traceback" in err
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_is_one_line_and_leaves_nothing(tmp_path):
    pids = tmp_path / "pids"
    process = isometry_process(
        "run", STUDY, "--backend", "misbehaving:Hangs", "-o", tmp_path / "out" / "h.json", PIDS=pids
    )
    own, helper = wait_for(pids)
    assert own == process.pid
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    os.kill(helper, signal.SIGKILL)  # a backend's own business; it keeps standard error open
    err = process.communicate()[1]
    assert (process.returncode, err) == (130, "isometry: interrupted\n")
    assert not list((tmp_path / "out").iterdir())


# --- what is wrong is said in one line ----------------------------------------------------------

RUN = ("run", STUDY, "--backend", "numpy", "-o", "out.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", STUDY, "--backend", "nunpy", "-o", "x"), "unknown backend 'nunpy': known are"),
        (("run", STUDY, "--backend", "nunpy", "-o", "x"), "did you mean 'numpy'?"),
        (("run", STUDY, "--backend", "no.such:Thing", "-o", "x"), "package.module:Class"),
        (("run", STUDY, "--backend", ":", "-o", "x"), "package.module:Class"),
        (("run", STUDY, "--backend", ".relative:Thing", "-o", "x"), "package.module:Class"),
        (("run", STUDY, "--backend", "numpy", "-o", "."), "-o must name a file"),
        (("run", STUDY, "--backend", "numpy", "-o", ""), "-o must name a file"),
        (("run", "xavie", "--backend", "numpy", "-o", "x"), "did you mean 'xavier'?"),
        ((*RUN, "--set", "lenght=3"), "unknown parameter of sigmoid-gradient 'lenght'"),
        ((*RUN, "--set", "length"), "must read name=value; received 'length'"),
        ((*RUN, "--seed", "-1"), "-1 is not in the range"),
        ((*RUN, "--seed", "x"), "'x' is not a valid int"),
        ((*RUN, "--device", "cuda"), "device 'cuda' does not exist"),
        (("run", STUDY, "--backend", "numpy", "-o", "file/x.json"), "cannot write to the folder"),
        (("run", "xavier", "--backend", "numpy", "-o", "x", "--set", "depth=ten"), "must be int"),
        (("run", "xavier", "--backend", "numpy", "-o", "x", "--set", "depth=-1"), "received -1"),
        (("run", STUDY, "--backend", "numpy"), "Missing option '-o'"),
        (("compare", "xavie"), "did you mean 'xavier'?"),
        (("compare", "absent.json"), "cannot read the result file absent.json"),
        (("compare", "."), "write one with `isometry run"),
        (("compare", "file"), "it is not JSON"),
        (("compare", "absent.json", "--backends", "numpy"), "only files were named"),
        (("compare", STUDY, "--backends", "nunpy"), "did you mean 'numpy'?"),
        (("compare", STUDY, "-o", "file"), "cannot write to the folder file"),
        (("compare", STUDY, "--set", "lenght=3"), "unknown parameter"),
        (("compare", STUDY, "--timeout", "0"), "--timeout must be greater than 0; received 0"),
        (("compare", STUDY, "--timeout", "nan"), "--timeout must be finite; received nan"),
        (("compare", STUDY, "--backends", ","), "must name backends"),
        (("compare", STUDY, "--backends", ""), "must name backends"),
        (("compare", STUDY, "--python", "numpy=/no/python"), "no Python can be executed at"),
        (("compare", STUDY, "--python", f"nunpy={sys.executable}"), "did you mean 'numpy'?"),
        (("compare", STUDY, "--jobs", "0"), "0 is not in the range"),
        (("source", "sigmod", "--backend", "numpy"), "did you mean 'sigmoid'?"),
        (("backends", "nunpy"), "did you mean 'numpy'?"),
        (("comprae",), "No such command 'comprae'"),
    ],
)
def test_usage_errors_exit_2_and_write_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no result")
    found = call(*arguments)
    assert found.exit_code == 2, found.output
    assert message in found.stderr
    assert found.stderr.startswith("isometry: ")
    assert found.stderr.count("\n") == 1
    assert not found.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", [STUDY, "remedies"])
def test_a_folder_of_that_name_is_no_result_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    found = call("compare", name, "--backends", "nunpy")  # it gets as far as that
    assert "did you mean 'numpy'?" in found.output


# --- compare recorded files ---------------------------------------------------------------------


def changed(source, target, change):
    fields = json.loads(source.read_text())
    change(fields)
    target.write_text(json.dumps(fields))
    return target


def test_recorded_files_that_agree_exit_0(recorded, tmp_path):
    other = changed(recorded, tmp_path / "other.json", lambda d: d.update(backend="other"))
    found = call("compare", recorded, other, "-o", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert "✓ agrees" in found.output
    assert "FAIL" not in found.output
    assert (tmp_path / "out" / "index.html").stat().st_size > 1000
    assert str(tmp_path / "out" / "figures") in found.output


def test_recorded_files_that_disagree_exit_1(recorded, tmp_path):
    def double(fields):
        fields["backend"] = "other"
        values = fields["quantities"]["sigmoid_gradient"]["values"]
        fields["quantities"]["sigmoid_gradient"]["values"] = [2 * v for v in values]

    other = changed(recorded, tmp_path / "other.json", double)
    found = call("compare", recorded, other, "-o", tmp_path / "out")
    assert found.exit_code == 1, found.output
    assert "✗ differs" in found.output


def test_a_recorded_file_of_an_unknown_study_is_refused_before_anything_is_written(
    recorded, tmp_path
):
    other = changed(recorded, tmp_path / "other.json", lambda d: d.update(study="future"))
    found = call("compare", other, "-o", tmp_path / "out")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "unknown study in" in found.stderr
    assert not (tmp_path / "out").exists()


def test_page_and_figures_are_those_of_the_last_compare(recorded, tmp_path):
    out = tmp_path / "out"
    assert call("compare", recorded, "-o", out).exit_code == 0
    assert list((out / "figures").iterdir())
    assert ran("compare", STUDY, "--backends", "misbehaving:Crashes", "-o", out)[0] == 3
    assert not list((out / "figures").iterdir())
    assert "misbehaving:Crashes" in (out / "index.html").read_text()


@pytest.mark.parametrize("columns", [80, 120])
def test_five_columns_fit_a_terminal(recorded, tmp_path, monkeypatch, columns):
    names = ("torch", "tensorflow", "jax", "mxnet")
    files = [
        changed(recorded, tmp_path / f"{n}.json", lambda d, n=n: d.update(backend=n)) for n in names
    ]
    monkeypatch.setenv("COLUMNS", str(columns))
    found = call("compare", recorded, *files, "-o", tmp_path / "out").output
    assert all(len(line) <= columns for line in found.splitlines() if str(tmp_path) not in line)
    assert sum(line.count("✓ pass") for line in found.splitlines()) == 5 * len(
        results.load(recorded).checks
    )
    assert all(found.count(f" {name} ") >= 2 for name in names)  # headings are not broken


def test_recorded_files_of_another_seed_are_not_comparable(recorded, tmp_path):
    other = changed(recorded, tmp_path / "other.json", lambda d: d.update(seed=1, backend="other"))
    found = call("compare", recorded, other, "-o", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert "seed is 1 here" in found.output.replace("\n", " ")
    apart = sum(q.ulp is not None for q in results.load(recorded).quantities.values())
    assert f"0 of {apart} arrays agree; {apart} not comparable" in found.output


# --- from Python --------------------------------------------------------------------------------


def test_load_of_no_name_and_no_device():
    with pytest.raises(isometry.InvalidArgument, match="unknown backend None: known are numpy"):
        isometry.load(None)
    with pytest.raises(isometry.InvalidArgument, match=r"device must be a string .* received 3"):
        isometry.load("numpy", device=3)
