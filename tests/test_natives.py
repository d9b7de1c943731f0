"""Each clause on natives finds its own divergence, and none in natives that are as named."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from isometry.common.natives import measure
from isometry.common.natives.findings import VERDICTS
from isometry.common.natives.normalization import fit_eps

sys.path.insert(0, str(Path(__file__).parent))
import natives_by_hand as hand
from natives_by_hand import native


def ask(given, *, layout="out_in"):
    """Return clause -> finding of one native."""
    found = {f.clause: f for _, _, f in measure.findings(hand.library(given, layout=layout)) if f}
    assert {f.verdict for f in found.values()} <= set(VERDICTS)
    return found


@pytest.mark.parametrize("given", hand.RIGHT, ids=lambda n: n.claims)
def test_right_native_is_as_named(given):
    found = ask(given)
    assert found
    wrong = {c: f.measured for c, f in found.items() if f.verdict != "as named"}
    assert not wrong
    assert all(f.false_alarm <= 1e-11 for f in found.values())


def test_other_layout():
    given = native("he_normal", hand.scaled(hand.normal, 2.0, layout="in_out"))
    assert {f.verdict for f in ask(given, layout="in_out").values()} == {"as named"}
    assert ask(given)["he_normal.fan"].verdict == "divergence"


def truncated(draw, scale=1.0, std=1.0):
    return native("truncated_normal", hand.law(draw, scale=scale), std=std)


def leaking(rng, shape):
    return hand.truncated(rng, shape, attempts=4)


def clamped(rng, shape):
    return np.clip(rng.normal(size=shape), -2, 2)


INITIALIZERS = [
    (
        "he_normal.distribution",
        native("he_normal", hand.scaled(hand.unit_truncated, 2.0)),
        "truncated at two",
    ),
    (
        "he_normal.distribution",
        native("he_normal", hand.scaled(hand.unit_uniform, 2.0)),
        "it is uniform",
    ),
    (
        "he_truncated.distribution",
        native("he_truncated", hand.scaled(hand.normal, 2.0)),
        "not truncated",
    ),
    ("he_normal.gain", native("he_normal", hand.scaled(hand.normal)), "that of 1"),
    (
        "he_normal.gain",
        native("he_normal", hand.scaled(hand.truncated, 2.0)),
        "truncated, uncorrected",
    ),
    ("he_normal.gain", native("he_normal", hand.scaled(hand.normal, 2.05)), "none of the"),
    (
        "xavier_normal.gain",
        native("xavier_normal", hand.scaled(hand.normal, 3.0, "fan_avg")),
        "squared bound of a uniform law",
    ),
    (
        "xavier_uniform.gain",
        native("xavier_uniform", hand.scaled(hand.unit_uniform, 1 / 3, "fan_avg")),
        "1/3",
    ),
    (
        "xavier_uniform.support",
        native("xavier_uniform", hand.scaled(hand.unit_uniform, 1.03, "fan_avg")),
        "lie between",
    ),
    ("he_normal.fan", native("he_normal", hand.scaled(hand.normal, 2.0, "fan_avg")), "fan_avg"),
    ("he_normal.fan", native("he_normal", hand.scaled(hand.normal, 2.0, "fan_out")), "fan_out"),
    (
        "he_normal.fan",
        native("he_normal", hand.scaled(hand.normal, 2.0, field=False)),
        "without the receptive field",
    ),
    ("he_normal.fan", native("he_normal", hand.law(hand.normal, scale=0.05)), "no fan at all"),
    (
        "uniform.mean",
        native("uniform", hand.law(hand.uniform, scale=0.5, shift=0.5), scale=1.0),
        "one side of 0",
    ),
    (
        "uniform.support",
        native("uniform", hand.law(hand.uniform, scale=1.001), scale=1.0),
        "lie between",
    ),
    (
        "uniform.std",
        native("uniform", hand.law(hand.uniform, scale=math.sqrt(3)), scale=1.0),
        "standard deviation",
    ),
    ("normal.mean", native("normal", hand.law(hand.normal, shift=0.04), std=1.0), "from the law"),
    ("truncated_normal.std", truncated(hand.truncated), "two standard deviations, uncorrected"),
    (
        "truncated_normal.std",
        truncated(lambda rng, shape: hand.truncated(rng, shape, cut=1.0), 2.0, 2.0),
        "absolute bounds +-2",
    ),
    (
        "truncated_normal.cut",
        truncated(lambda rng, shape: hand.truncated(rng, shape, cut=1.0), 2.0, 2.0),
        "cut there",
    ),
    ("truncated_normal.cut", truncated(hand.normal, 0.02, 0.02), "not cut"),
    ("truncated_normal.cut", truncated(leaking), "4 attempts"),
    ("truncated_normal.distribution", truncated(hand.normal), "not truncated"),
    ("truncated_normal.distribution", truncated(clamped), "none of the candidates"),
    ("orthogonal.gain", native("orthogonal", hand.orthogonal(1.414)), "sqrt(2)"),
    ("orthogonal.haar", native("orthogonal", hand.orthogonal(how="svd")), "SVD of uniforms"),
    ("orthogonal.haar", native("orthogonal", hand.orthogonal(how="qr")), "without the signs"),
    ("orthogonal.orthonormal", native("orthogonal", hand.orthogonal(how="columns")), "away from"),
    ("delta_orthogonal.tap", native("delta_orthogonal", hand.delta_orthogonal(1.0)), "1 entries"),
    ("sparse.zeros", native("sparse", hand.sparse("by chance"), sparsity=0.1), "disconnected"),
    ("normal.seed", native("normal", hand.forgetful, std=1.0), "differ"),
    ("normal.seed-wrap", native("normal", hand.wrapping, std=1.0), "5 + 2**32"),
    ("normal.global-generators", native("normal", hand.from_global, std=1.0), "global generator"),
    ("normal.neighbouring-seeds", native("normal", hand.shared_states, std=1.0), "share 99"),
    ("normal.bfloat16", native("normal", hand.coarse, std=1.0), "128 = 2**7"),
    ("normal.float16", native("normal", hand.coarse, std=1.0), "1024 = 2**10"),
]

OTHERS = [
    ("sigmoid.flush-float32", native("sigmoid", hand.from_value, "gradient"), "16.6355"),
    ("sigmoid.flush-float64", native("sigmoid", hand.from_value, "gradient"), "36.7368"),
    ("sigmoid.flush-float16", native("sigmoid", hand.from_value, "gradient"), "from x = 7.6"),
    ("sigmoid.accuracy", native("sigmoid", hand.from_value, "gradient"), "units in the last"),
    (
        "tanh.flush-float32",
        native("tanh", hand.tanh_from_value, "gradient"),
        "y is 1 to rounding in float32",
    ),
    ("relu.at-zero", native("relu", hand.leaky(0.0, 0.5), "gradient"), "0.5"),
    ("leaky_relu.at-zero", native("leaky_relu", hand.leaky(0.01, 1.0), "gradient"), "is 1;"),
    ("leaky_relu.slope", native("leaky_relu", hand.leaky(0.3, 0.01), "gradient"), "0.3"),
    (
        "softplus.limits",
        native("softplus", hand.overflowing, "gradient"),
        "nan",
    ),
    ("batch_norm.eps", native("batch_norm", hand.batch_norm(eps=1e-3), "batch_norm"), "0.001"),
    (
        "batch_norm.eps",
        native("batch_norm", hand.batch_norm(outside=True), "batch_norm"),
        "outside",
    ),
    ("batch_norm.momentum", native("batch_norm", hand.batch_norm(old=0.99), "batch_norm"), "0.99"),
    (
        "batch_norm.momentum",
        native("batch_norm", hand.batch_norm(momentum=0.1), "batch_norm"),
        "weight of the new",
    ),
    (
        "batch_norm.running-variance",
        native("batch_norm", hand.batch_norm(kept="unbiased"), "batch_norm"),
        "sum/(n - 1)",
    ),
    (
        "batch_norm.updated-in",
        native("batch_norm", hand.batch_norm(where="backward"), "batch_norm"),
        "backward",
    ),
    (
        "batch_norm.inference",
        native("batch_norm", hand.batch_norm(inference="batch"), "batch_norm"),
        "within",
    ),
    (
        "batch_norm.batch-of-one",
        native("batch_norm", hand.batch_norm(one="accepted"), "batch_norm"),
        "accepted",
    ),
    (
        "batch_norm.variance",
        native("batch_norm", hand.batch_norm(moments=hand.fast), "batch_norm"),
        "E[x**2] - E[x]**2",
    ),
    ("layer_norm.eps", native("layer_norm", hand.layer_norm(1e-6), "norm"), "1e-06"),
    (
        "layer_norm.variance",
        native("layer_norm", hand.layer_norm(moments=hand.fast), "norm"),
        "E[x**2] - E[x]**2",
    ),
    (
        "layer_norm.accuracy",
        native("layer_norm", hand.layer_norm(moments=hand.fast), "norm"),
        "largest error",
    ),
    ("global_norm.scope", native("global_norm", hand.clip(each=True), "clipping"), "each tensor"),
    ("tensor_norm.scope", native("tensor_norm", hand.clip(), "clipping"), "one norm of all"),
    ("global_norm.formula", native("global_norm", hand.clip(1e-6), "clipping"), "1e-06"),
    ("global_norm.formula", native("global_norm", hand.clip(1e-8), "clipping"), "1e-08"),
    ("global_norm.below", native("global_norm", hand.always_to_the_limit, "clipping"), "become"),
    ("global_norm.infinite", native("global_norm", hand.clip(guard=False), "clipping"), "silently"),
    ("momentum.paper", native("momentum", hand.momentum(), "optimizer"), "rate outside"),
    (
        "momentum_nesterov.paper",
        native("momentum_nesterov", hand.momentum(inside=True), "optimizer"),
        "no look-ahead",
    ),
    ("adam.paper", native("adam", hand.adam(1e-7, hat=True), "optimizer"), "added before"),
    ("adam.paper", native("adam", hand.adam(1e-7), "optimizer"), "but with eps 1e-07"),
    ("adam.paper", native("adam", hand.adam(betas=(0.8, 0.999)), "optimizer"), "known variant"),
    ("rmsprop.paper", native("rmsprop", hand.rmsprop(old=0.99), "optimizer"), "decay 0.99"),
    ("rmsprop.paper", native("rmsprop", hand.rmsprop(inside=True), "optimizer"), "inside the root"),
    ("adagrad.paper", native("adagrad", hand.adagrad(start=0.1), "optimizer"), "from 0.1 on"),
    (
        "dense.weight",
        native("dense", hand.dense(0.07 / math.sqrt(3), draw=hand.unit_uniform), "layer"),
        "U(+-0.07)",
    ),
    (
        "dense.weight",
        native("dense", hand.dense(1 / math.sqrt(1536), draw=hand.unit_uniform), "layer"),
        "(1/3)/fan_in",
    ),
    ("dense.bias", native("dense", hand.dense(bias=0.1), "layer"), "all 0.1"),
    ("lstm.input", native("lstm", hand.lstm(std=1 / 8), "layer"), "is 4"),
    ("lstm.forget-bias", native("lstm", hand.lstm(forget=0.0), "layer"), "add up to 0"),
    ("lstm.recurrent", native("lstm", hand.lstm("fused"), "layer"), "by 0.25"),
]


@pytest.mark.parametrize(
    ("clause", "given", "words"), INITIALIZERS + OTHERS, ids=[c for c, *_ in INITIALIZERS + OTHERS]
)
def test_clause_finds_its_divergence(clause, given, words):
    finding = ask(given)[clause]
    assert finding.verdict in ("divergence", "difference"), finding.measured
    assert words in finding.measured
    assert finding.consequence
    assert finding.source == "https://example.org"


def test_every_clause_has_a_native_that_it_finds_out():
    tried = {clause.partition(".")[2] for clause, *_ in INITIALIZERS + OTHERS}
    assert tried == {clause.aspect for clause in measure.CLAUSES}


def test_number_of_a_truncated_normal_is_meant_before_or_after_the_cut():
    found = ask(truncated(hand.truncated))
    assert found["truncated_normal.std"].verdict == "difference"
    assert found["truncated_normal.cut"].verdict == "as named"


def test_embedding_is_measured():
    finding = ask(native("embedding", hand.embedding, "layer"))["embedding.weight"]
    assert finding.verdict == "measured"
    assert finding.numbers["std"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("eps", [1e-3, 1e-5, 1e-6, 1.19e-7])
def test_eps_is_read_from_the_outputs(eps):
    assert fit_eps(native("layer_norm", hand.layer_norm(eps), "norm")) == (eps, "inside")


def test_half_precision_that_a_library_lacks():
    given = hand.library(native("normal", hand.law(hand.normal), std=1.0))
    given = type(given)(given.name, given.versions, given.layout, ("float32",), given.natives)
    found = {f.clause: f for _, _, f in measure.findings(given) if f}
    assert found["normal.bfloat16"].verdict == "not run"


def test_flush_in_another_dtype_is_not_run():
    narrow = native("sigmoid", lambda x: hand.from_value(x.astype(np.float32)), "gradient")
    assert ask(narrow)["sigmoid.flush-float64"].verdict == "not run"
