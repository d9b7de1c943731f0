"""The scoreboard of the libraries that this project measures: what is known of them is found.

What is asserted here is what was first found by hand, from their sources; the code that measures
knows nothing of it.
"""

import pytest

from isometry.common.natives import scoreboard

ENGINES = ("keras on tensorflow", "keras on jax", "keras on torch")
NAMES = (
    "torch.nn",
    "tensorflow",
    *ENGINES,
    "jax.nn",
    "flax.linen",
    "flax.nnx",
    "optax",
    "mxnet.gluon",
)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    folder = tmp_path_factory.mktemp("natives")
    return scoreboard.run([], folder, lambda done, total, at_work: None)


@pytest.fixture(scope="module")
def found(board):
    """Return a function of library and clause: its findings, by what is called."""

    def findings(library, clause):
        (of,) = (m for m in board.libraries if m.name == library)
        rows = [f for f in of.findings if f.clause == clause]
        assert rows, (library, clause)
        return {f.call: f for f in rows}

    return findings


@pytest.fixture(scope="module")
def only(found):
    def finding(library, clause, call=""):
        (one,) = (f for text, f in found(library, clause).items() if call in text)
        return one

    return finding


def test_all_are_measured_and_as_declared(board):
    assert {m.name for m in board.libraries} >= set(NAMES)
    assert [(m.name, m.detail) for m in board.libraries if m.status != "measured"] == []
    assert scoreboard.complaints(board) == []
    assert (board.failed, board.complete) == (False, True)


@pytest.mark.parametrize("library", ["jax.nn", *ENGINES])
def test_normals_of_jax_and_keras_are_truncated(only, library):
    for family in ("xavier", "lecun"):
        finding = only(library, f"{family}_normal.distribution")
        assert finding.verdict == "divergence"
        assert finding.numbers["distance_truncated"] < 0.006 < finding.numbers["distance_normal"]


@pytest.mark.parametrize("library", ["torch.nn", "mxnet.gluon"])
def test_normals_of_torch_and_mxnet_are_not(found, library):
    for finding in found(library, "xavier_normal.distribution").values():
        assert finding.verdict == "as named"
        assert finding.numbers["largest"] > 4


@pytest.mark.parametrize("library", ["jax.nn", *ENGINES])
def test_truncated_normals_of_jax_and_keras_are_uncorrected(found, library):
    for finding in found(library, "truncated_normal.std").values():
        assert finding.numbers["std_ratio"] == pytest.approx(0.8796, abs=0.005)
        assert "uncorrected" in finding.measured


def test_bounds_of_torch_are_absolute(only):
    narrow = only("torch.nn", "truncated_normal.cut", "std=0.02")
    wide = only("torch.nn", "truncated_normal.cut", "std=2.0")
    assert narrow.numbers["largest"] > 4.5
    assert wide.numbers["largest"] * 2.0 == pytest.approx(2.0, rel=1e-4)


def test_xavier_of_mxnet_has_three_times_the_variance(only):
    finding = only("mxnet.gluon", "xavier_normal.gain")
    assert finding.numbers["variance_ratio"] == pytest.approx(3, rel=0.02)


def test_he_of_mxnet_divides_by_the_average_fan(only):
    assert "fan_avg" in only("mxnet.gluon", "he_normal.fan", "MSRAPrelu()").measured
    assert only("mxnet.gluon", "he_normal.fan", "slope=0").verdict == "as named"


def test_orthogonal_of_mxnet(only):
    assert only("mxnet.gluon", "orthogonal.gain").numbers["gain"] == pytest.approx(1.414, abs=1e-5)
    assert only("mxnet.gluon", "orthogonal.haar").numbers["positive determinants"] < 0.2
    assert only("torch.nn", "orthogonal.haar").verdict == "as named"


def test_seeds_of_mxnet_overlap(only):
    shared = only("mxnet.gluon", "normal.neighbouring-seeds").numbers["shared"]
    assert shared == pytest.approx(0.876, abs=0.01)


@pytest.mark.parametrize(
    ("library", "clause"),
    [
        ("jax.nn", "normal.bfloat16"),
        ("jax.nn", "uniform.bfloat16"),
        ("keras on jax", "uniform.bfloat16"),
        ("keras on tensorflow", "uniform.bfloat16"),
    ],
)
def test_bfloat16_samplers_of_128_values(only, library, clause):
    assert only(library, clause).numbers["distinct"] == 128


def test_tail_of_keras_on_torch(only):
    finding = only("keras on torch", "truncated_normal.cut", "stddev=0.02")
    assert finding.verdict == "divergence"
    assert "4 attempts" in finding.measured
    assert only("keras on tensorflow", "truncated_normal.cut", "0.02").verdict == "as named"


@pytest.mark.parametrize(
    ("library", "call", "dtype", "first"),
    [
        ("torch.nn", "", "float32", 16.635532),
        ("jax.nn", "", "float32", 16.635532),
        ("tensorflow", "", "float32", 16.635532),
        ("mxnet.gluon", "mx.nd.sigmoid", "float32", 16.635532),
        ("mxnet.gluon", "Activation", "float32", 17.328680),
        ("torch.nn", "", "float64", 36.7368005697),
        ("mxnet.gluon", "mx.nd.sigmoid", "float64", 36.7368005697),
    ],
)
def test_sigmoid_flushes(only, library, call, dtype, first):
    finding = only(library, f"sigmoid.flush-{dtype}", call)
    assert finding.numbers["first_zero"] == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize(
    ("library", "eps", "old"),
    [
        ("torch.nn", 1e-5, 0.9),
        *((name, 1e-3, 0.99) for name in ENGINES),
        ("flax.linen", 1e-5, 0.99),
        ("flax.nnx", 1e-5, 0.99),
        ("mxnet.gluon", 1e-5, 0.9),
    ],
)
def test_batch_norm_conventions(only, library, eps, old):
    assert only(library, "batch_norm.eps").numbers["eps"] == pytest.approx(eps, rel=0.01)
    momentum = only(library, "batch_norm.momentum")
    assert momentum.numbers["old_weight"] == pytest.approx(old, abs=1e-3)
    assert ("weight of the new" in momentum.measured) == (library == "torch.nn")
    ratio = only(library, "batch_norm.running-variance").numbers["ratio"]
    assert ratio == pytest.approx(8 / 7 if library == "torch.nn" else 1, rel=1e-3)
    where = only(library, "batch_norm.updated-in").measured
    assert ("backward" in where) == (library == "mxnet.gluon")


def test_unstable_variances(only):
    unstable = {
        (library, clause)
        for library in (*ENGINES, "torch.nn", "mxnet.gluon", "flax.linen", "flax.nnx")
        for clause in ("batch_norm.variance", "layer_norm.variance", "group_norm.variance")
        if only(library, clause).verdict == "divergence"
    }
    flax = {
        (f"flax.{api}", f"{n}.variance")
        for api in ("linen", "nnx")
        for n in ("batch_norm", "layer_norm", "group_norm")
    }
    keras = {("keras on torch", "batch_norm.variance"), ("keras on torch", "group_norm.variance")}
    assert unstable == flax | keras
