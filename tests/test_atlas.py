"""The defaults atlas: libraries written by hand in real processes, and each question by itself."""

import io
import json
import math
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from isometry.cli import main
from isometry.common.natives import atlas, laws, optimizers
from isometry.common.natives.measure import SHEETS, findings
from isometry.common.reports import atlas as reports

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import natives_by_hand as hand  # noqa: E402


def asked(*natives):
    """Return clause -> finding of a library with these natives."""
    library = hand.library(*natives)
    return {f.clause: f for _, _, f in findings(library, 0, SHEETS["atlas"]) if f}


def layer(claims, run):
    return asked(hand.native(claims, run, "layer"))


# --- the whole ----------------------------------------------------------------------------------


@pytest.fixture
def measured(registered, tmp_path):
    names = registered("defaults", "absent")
    done = CliRunner().invoke(main, ["compare", "--natives", *names, "-o", str(tmp_path / "out")])
    return done, tmp_path / "out"


def test_the_command_writes_table_json_page_and_markdown(measured):
    done, folder = measured
    assert done.exit_code == 3, done.output  # one of the two is not installed
    assert "No module named 'absent'" in done.output
    assert "uniform, from" not in done.output
    recorded = json.loads((folder / "atlas.json").read_text())
    assert recorded["schema"] == atlas.SCHEMA
    of_defaults = recorded["libraries"][0]
    assert of_defaults["versions"] == {"numpy": np.__version__}
    found = {f["clause"]: f for f in of_defaults["findings"]}
    assert found["dense.weight"]["measured"] == (
        "w (256, 512): normal, variance 1/fan_in (lecun_normal)"
    )
    assert found["batch_norm.eps"]["measured"] == "0.001, inside the square root"
    assert {f["verdict"] for f in found.values()} == {"measured"}
    text = (folder / "atlas.md").read_text()
    assert found["rmsprop.form"]["measured"] == "0.99, from 0, not centered"
    for words in ("# The defaults atlas", "## dense", "lecun_normal", f"numpy {np.__version__}"):
        assert words in text


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.boxes, self.styled, self.scripts = [], set(), 0

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.boxes += [attrs["id"]] if attrs.get("type") == "checkbox" else []
        self.styled |= set(attrs.get("class", "").split())
        self.scripts += tag == "script" or any(name.startswith("on") for name in attrs)


def test_the_page_filters_libraries_and_topics_without_a_script(measured):
    _, folder = measured
    text = (folder / "atlas.html").read_text()
    page = _Page()
    page.feed(text)
    topics = [line for line in text.splitlines() if line.startswith("<h2 id=")]
    assert len(page.boxes) == 2 + len(topics) - 1  # libraries, and topics but the first table
    assert page.scripts == 0
    for box in page.boxes:
        assert f"body:has(#{box}:not(:checked)) .{box} {{ display: none; }}" in text
        assert box in page.styled
    assert text.count("http://") == 0
    assert text.count("https://") == text.count("https://example.org")


def test_natives_takes_no_options_of_studies():
    done = CliRunner().invoke(main, ["compare", "--natives", "--backends", "numpy"])
    assert done.exit_code == 2
    assert "say how to run studies" in done.output
    assert CliRunner().invoke(main, ["compare", "--natives", "torhc.nn"]).exit_code == 2


def test_libraries_that_agree_share_a_row():
    finding = asked(hand.native("momentum", hand.momentum(), "optimizer"))["momentum.form"]
    row = {"status": "measured", "detail": "", "findings": [finding]}
    same = [atlas.Measured(name, **row) for name in ("one", "two")]
    board = atlas.Atlas(same, "2026-01-01T00:00:00+00:00")
    (topic,) = board.topics
    assert [row.library for row in topic.rows] == ["one", "two"]
    assert "| one, two | " in reports.markdown(board)
    console = Console(width=160, file=io.StringIO())
    console.print(reports.terminal(board))
    assert console.file.getvalue().count("a new rate acts") == 1
    assert (board.failed, board.complete) == (False, True)


# --- laws of layers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (hand.dense(), "normal, variance 1/fan_in (lecun_normal)"),
        (
            hand.dense(math.sqrt(1 / 3 / 512), draw=hand.unit_uniform),
            "uniform, variance 1/(3 fan_in)",
        ),
        (
            hand.dense(math.sqrt(2 / 768), draw=hand.unit_truncated),
            "truncated normal, variance 2/(fan_in + fan_out) (xavier_truncated)",
        ),
        (hand.dense(0.07, draw=hand.uniform), "uniform, from -0.07 to 0.07"),
        (hand.dense(0.11), "unknown; closest: "),
    ],
)
def test_the_law_of_a_weight_is_named_with_its_numbers(run, words):
    found = layer("dense", run)
    assert f"w (256, 512): {words}" in found["dense.weight"].measured
    numbers = found["dense.weight"].numbers
    w = run(0)["weight/w"].astype(np.float64)
    assert math.isclose(numbers["variance_times_fan_in"], 512 * np.mean(w**2))
    assert 0 < numbers["detects"] < 0.03
    assert found["dense.bias"].measured == "b (256,): constant 0"


def test_fans_counted_from_the_stored_shape_are_said():
    text = layer("conv2d_depthwise", hand.depthwise)["conv2d_depthwise.weight"].measured
    assert "2/(fan_in + fan_out) (xavier_uniform), where fan_in is 576 and fan_out 9" in text
    assert "not 9 and 9" in text


def test_gates_and_orthogonal_matrices():
    found = layer("lstm", hand.lstm())
    assert found["lstm.bias"].measured == "b (1024,): by gate 0, 1, 0, 0"
    fused = layer("lstm", hand.lstm("fused", forget=0.0))
    assert fused["lstm.recurrent"].measured == "w (1024, 256): orthogonal"
    assert fused["lstm.bias"].measured == "b (1024,): constant 0"
    # four orthogonal blocks are not one
    assert found["lstm.recurrent"].measured == "w (1024, 256): orthogonal, in each of 4 gates"


def test_small_arrays_are_drawn_often_enough_to_be_named():
    def run(seed=0):
        b = np.random.default_rng(seed).uniform(-1, 1, 256) / math.sqrt(512)
        return hand.dense()(seed) | {"bias/b": b.astype(np.float32)}

    found = layer("dense", run)["dense.bias"]
    assert found.measured == "b (256,): uniform, variance 1/(3 fan_in)"
    assert 0.05 < found.numbers["detects"] < 0.2


def test_parameters_alike_are_told_together_and_none_is_said():
    def run(seed=0):
        return {f"scale/{k}": np.ones(3, np.float32) for k in "ab"}

    found = layer("layer_norm_layer", run)
    assert found["layer_norm_layer.scale"].measured == "a, b (3,): constant 1"
    assert found["layer_norm_layer.shift"].measured == "there is none"


def test_the_fans_are_those_of_the_sizes():
    assert laws.FANS["conv2d_grouped"] == (144, 288)
    assert laws.FANS["conv2d_transposed"] == laws.FANS["conv2d"]


# --- optimizers ---------------------------------------------------------------------------------


def optimizer(claims, run):
    return {
        clause: f.measured for clause, f in asked(hand.native(claims, run, "optimizer")).items()
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "v <- 0.9 v + g, w <- w - rate v: a new rate acts on the whole velocity"),
        ({"inside": True}, "v <- 0.9 v + rate g, w <- w - v: the velocity keeps its old rates"),
        ({"first": 0.1}, "v <- 0.9 v + 0.1 g, w <- w - rate v"),
        ({"first": 0.5}, "none of the formulas in use"),
    ],
)
def test_the_form_of_momentum(options, words):
    assert optimizer("momentum", hand.momentum(**options)) == {"momentum.form": words}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nesterov": True}, "v <- 0.9 v + g, w <- w - rate (g + 0.9 v): a new rate acts"),
        ({"nesterov": True, "inside": True}, "v <- 0.9 v + rate g, w <- w - (rate g + 0.9 v): "),
        ({}, "plain momentum: no step looks ahead"),
        ({"first": 0.5, "nesterov": True}, "none of the formulas in use"),
    ],
)
def test_the_form_of_nesterovs_momentum(options, words):
    (text,) = optimizer("momentum_nesterov", hand.momentum(**options)).values()
    assert text.startswith(words)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("old", "words"), [(0.0, "0: each step is rate g"), (0.95, "0.95")])
def test_momentum_and_rate_by_default(old, nesterov, words):
    for default, rate in ((0.003, "0.003"), (None, "there is none: the call has to say it")):
        run = hand.momentum(old=old, nesterov=nesterov, default=default)
        found = optimizer("momentum_default", run)
        assert found == {"momentum_default.default": words, "momentum_default.rate": rate}


def test_settings_of_one_optimizer_share_its_topic():
    claims = ("momentum", "momentum_default", "momentum_nesterov", "momentum_decay")
    natives = [hand.native(c, hand.momentum(), "optimizer") for c in claims]
    natives.append(hand.native("adagrad_eps", hand.adagrad(), "optimizer"))
    row = {"status": "measured", "detail": "", "findings": list(asked(*natives).values())}
    board = atlas.Atlas([atlas.Measured("one", **row)], "2026-01-01T00:00:00+00:00")
    found = {topic.name: list(topic.questions) for topic in board.topics}
    assert found == {
        "momentum": ["rate", "default", "form", "nesterov", "decay"],
        "adagrad": ["eps"],
    }


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
def test_weight_decay_with_momentum(inside, decoupled):
    run = hand.momentum(inside=inside, decay=optimizers.L2, decoupled=decoupled)
    (text,) = optimizer("momentum_decay", run).values()
    assert text.startswith("decoupled: w loses rate decay w" if decoupled else "coupled: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decoupled": False}, "coupled: decay w is added to the gradient"),
        ({"decoupled": True}, "decoupled: w loses rate decay w beside the step"),
        ({"decoupled": True, "by_rate": False}, "whatever the rate"),
    ],
)
def test_weight_decay_in_adam(options, words):
    (text,) = optimizer("adam_decay", hand.adam(decay=optimizers.L2, **options)).values()
    assert words in text


@pytest.mark.parametrize("eps", [1e-8, 1e-7])
@pytest.mark.parametrize("hat", [False, True])
def test_the_eps_of_adam_and_its_place(eps, hat):
    text = optimizer("adam", hand.adam(eps, hat))["adam.eps"]
    assert text.startswith(f"{eps:g}, added {'before it' if hat else 'after the correction'}")


@pytest.mark.parametrize(
    ("decay", "by_rate", "words"),
    [
        (0.0, True, "0: weights do not decay"),
        (0.01, True, "0.01, times the rate"),
        (0.004, True, "0.004, times the rate"),
        (0.01, False, "0.01, whatever the rate"),
    ],
)
def test_weight_decay_by_default(decay, by_rate, words):
    run = hand.adam(decay=decay, decoupled=True, by_rate=by_rate)
    assert optimizer("adamw", run)["adamw.default-decay"].startswith(words)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.98), (0.5, 0.9), (0.95, 0.9999)])
@pytest.mark.parametrize("hat", [False, True])
def test_the_betas_of_adam(betas, hat):
    found = optimizer("adam", hand.adam(hat=hat, betas=betas))
    assert found["adam.betas"] == "{} and {}".format(*betas)
    assert found["adam.eps"].startswith(f"1e-08, added {'before it' if hat else 'after the'}")
    assert found["adam.rate"] == "0.001"


@pytest.mark.parametrize("old", [0.9, 0.99, 0.999, 0.95])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "from 0, not centered"),
        ({"start": 1.0}, "from 1, not centered"),
        ({"corrected": True}, "from 0 and corrected for it, not centered"),
        ({"centered": True}, "from 0, centered (less the squared mean)"),
        ({"centered": True, "start": 1.0}, "from 1, centered (less the squared mean)"),
    ],
)
def test_the_mean_square_of_rmsprop(old, options, words):
    found = optimizer("rmsprop", hand.rmsprop(old=old, **options))
    assert found["rmsprop.form"] == f"{old}, {words}"


@pytest.mark.parametrize(("eps", "inside"), [(1e-8, False), (1e-7, True), (1e-8, True)])
@pytest.mark.parametrize("options", [{}, {"corrected": True}, {"centered": True, "old": 0.99}])
def test_the_eps_of_rmsprop_and_its_place(eps, inside, options):
    text = optimizer("rmsprop", hand.rmsprop(eps, inside, **options))["rmsprop.eps"]
    assert text.startswith(f"{eps:g}, {'inside' if inside else 'outside'} the root")


@pytest.mark.parametrize(("eps", "inside"), [(1e-10, False), (1e-7, True)])
@pytest.mark.parametrize("start", [0.0, 0.1, 1.0])
def test_the_start_and_the_eps_of_adagrad(eps, inside, start):
    found = optimizer("adagrad", hand.adagrad(eps, inside, start))
    assert found["adagrad.start"] == f"{start:g}"
    if start:  # it hides eps
        assert "adagrad.eps" not in found
    else:
        place = "inside" if inside else "outside"
        assert found["adagrad.eps"].startswith(f"{eps:g}, {place} the root")


def test_what_is_no_formula_in_use_is_not_named():
    none = "none of the formulas in use"
    for claims, run in {
        "adam": hand.adam(betas=(0.9, 0.85)),
        "rmsprop": hand.rmsprop(old=0.85),
        "adagrad": hand.adagrad(power=1.5),
    }.items():
        found = optimizer(claims, run)
        assert found[f"{claims}.eps"] == none
        assert none in {text for clause, text in found.items() if not clause.endswith("eps")}


# --- conventions --------------------------------------------------------------------------------


def test_the_conventions_of_batch_norm_and_clipping():
    run = hand.batch_norm(eps=1e-3, kept="unbiased", where="backward", momentum=0.1)
    found = asked(
        hand.native("batch_norm", run, "batch_norm"),
        hand.native("global_norm", hand.clip(1e-6), "clipping"),
    )
    texts = {clause: f.measured for clause, f in found.items()}
    assert texts["batch_norm.eps"] == "0.001, inside the square root"
    assert "momentum=0.1 is the weight of the new value" in texts["batch_norm.momentum"]
    assert texts["batch_norm.running-variance"].startswith("unbiased, sum/(n - 1)")
    assert texts["batch_norm.updated-in"] == "in the backward pass"
    assert "limit / (norm + 1e-06)" in texts["global_norm.formula"]
