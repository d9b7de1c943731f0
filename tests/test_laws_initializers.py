"""Initializers where no framework is needed: what they promise, and what is refused."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

import isometry as iso
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Constant, Normal, Sparse, Uniform
from isometry.common.laws.embeddings import Embedding, Tied
from isometry.common.laws.fans import MODES, Fans, fans
from isometry.common.laws.identities import Bilinear, Dirac, Identity
from isometry.common.laws.initializers import initializer
from isometry.common.laws.lsuv import lsuv
from isometry.common.laws.mup import ROLES, MuP
from isometry.common.laws.orthogonal import Orthogonal
from isometry.common.laws.recurrent import Chrono, ForgetGateBias, PerGate
from isometry.common.laws.residual import fixup
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.laws.upsampling import ICNR
from isometry.common.statistics.assertions import assert_law

NX = iso.load("numpy")

# --- tied weights: no other variance has a smaller worst factor ---------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("uses", [("dense", "transposed"), ("lookup", "dense", "transposed")])
def test_the_compromise_is_the_least_wrong_one(mode, uses):
    rule, shape = Tied(VarianceScaling(mode=mode), uses), (30, 7)
    wanted = [fan.by(mode) for fan in rule.fans(shape).values()]

    def worst(fan):
        return max(max(w / fan, fan / w) for w in wanted)

    best = worst(rule.fan(shape))
    assert best == pytest.approx(math.sqrt(max(wanted) / min(wanted)))
    assert all(worst(fan) >= best * (1 - 1e-12) for fan in np.geomspace(0.5, 500, 2000))
    factors = rule.factors(shape).values()
    assert max(max(f, 1 / f) for f in factors) == pytest.approx(best)


def test_one_use_is_the_rule_itself():
    rule = VarianceScaling(1.5, "fan_in", "uniform")
    assert Tied(rule, ("dense",)).resolve((4, 9), "out_in") == rule.resolve((4, 9), "out_in")
    assert Tied(rule, ("transposed",)).resolve((4, 9), "out_in") == rule.resolve((9, 4), "out_in")


def test_the_geometric_average_is_equally_wrong_both_ways():
    both = Fans(8, 2)
    assert both.by("fan_geo_avg") == 4
    assert both.fan_in / both.by("fan_geo_avg") == both.by("fan_geo_avg") / both.fan_out


# --- depth: Fixup -------------------------------------------------------------------------------


@pytest.mark.parametrize(("branches", "layers"), [(1, 2), (16, 2), (50, 3), (9, 4)])
def test_fixup_scales_all_but_the_last_layer(branches, layers):
    *scaled, last = fixup(branches, layers, Orthogonal(3.0))
    assert len(scaled) == layers - 1
    assert last == Constant(0.0)
    product = math.prod(rule.gain / 3 for rule in scaled)
    assert product**2 == pytest.approx(1 / branches)  # of a branch, whatever its layers


def _residual_change(branches, first):
    """Return how far one SGD step moves the output of a linear residual net, per learning rate."""
    rng, width, change = np.random.default_rng(1), 64, 0.0
    x = rng.standard_normal(width)
    direction = rng.standard_normal(width) / math.sqrt(width)  # gradient of the loss in the output
    for _ in range(branches):
        std = math.sqrt(first.resolve((width, width), "out_in").moments[1])
        hidden = rng.normal(0, std, (width, width)) @ x
        # the last layer is 0, so that it alone has a gradient: direction hidden^T
        change += (direction @ direction) * (hidden @ hidden) / width
    return change


def test_fixup_makes_a_step_independent_of_the_depth():
    changes = [_residual_change(n, fixup(n, 2)[0]) for n in (4, 64)]
    assert changes[1] == pytest.approx(changes[0], rel=0.3)
    plain = [_residual_change(n, VarianceScaling(2**0.5)) for n in (4, 64)]
    assert plain[1] > 10 * plain[0]


# --- width: muP ---------------------------------------------------------------------------------

BASE = 64


def _step(width, optimizer, mup):
    """Return the rms change of two hidden preactivations and the output in one training step.

    A net 8 -> width -> width -> 1 of tanh units, its gradient by hand; Adam's first step is a sign.
    """
    rng = np.random.default_rng(2)
    sizes = {"input": (width, 8), "hidden": (width, width), "output": (1, width)}
    base = {"input": Fans(8, BASE), "hidden": Fans(BASE, BASE), "output": Fans(BASE, 1)}
    weights, rates = {}, {}
    for role, shape in sizes.items():
        rule = MuP(role, base[role])
        law = (rule if mup else VarianceScaling()).resolve(shape, "out_in")
        weights[role] = rng.normal(0, math.sqrt(law.moments[1]), shape)
        rates[role] = 0.02 * (rule.learning_rate(optimizer, fans(shape)) if mup else 1.0)
    x = np.random.default_rng(3).standard_normal((16, 8))

    def forward(weights):
        z1 = x @ weights["input"].T
        z2 = np.tanh(z1) @ weights["hidden"].T
        return z1, z2, np.tanh(z2) @ weights["output"].T

    z1, z2, _ = forward(weights)
    error = np.sign(np.random.default_rng(4).standard_normal((16, 1))) / 16
    d2 = error @ weights["output"] * (1 - np.tanh(z2) ** 2)
    d1 = d2 @ weights["hidden"] * (1 - np.tanh(z1) ** 2)
    gradient = {
        "input": d1.T @ x,
        "hidden": d2.T @ np.tanh(z1),
        "output": error.T @ np.tanh(z2),
    }
    moved = {
        role: w - rates[role] * (np.sign(gradient[role]) if optimizer == "adam" else gradient[role])
        for role, w in weights.items()
    }
    pairs = zip(forward(moved), forward(weights), strict=True)
    return np.array([math.sqrt(np.mean(np.square(a - b))) for a, b in pairs])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_layer_learns_alike_at_any_width(optimizer):
    """Each changes as much as at the base width; without muP some vanish or explode."""
    small, large = (_step(width, optimizer, mup=True) for width in (BASE, 16 * BASE))
    assert (np.abs(np.log(large / small)) < math.log(2)).all()
    small, large = (_step(width, optimizer, mup=False) for width in (BASE, 16 * BASE))
    assert (np.abs(np.log(large / small)) > math.log(2.5)).any()


@pytest.mark.parametrize("role", ROLES)
def test_mup_is_nothing_at_the_base_width(role):
    fan = Fans(12, 20)
    rule = MuP(role, fan, 1.5, "uniform")
    assert rule.law(fan) == VarianceScaling(1.5, "fan_in", "uniform").law(fan)
    assert {rule.learning_rate(optimizer, fan) for optimizer in ("sgd", "adam")} == {1.0}


# --- kernels and gates --------------------------------------------------------------------------


def test_bilinear_upsampling_is_linear_interpolation_of_a_ramp():
    """A transposed convolution of stride r: output p is the sum of x[i] w[p + r - i r ...]."""
    size, stride = 6, 3
    (kernel,) = Bilinear().resolve((1, 1, size), "out_in").values[0]
    ramp = np.arange(8.0)
    full = np.zeros(stride * len(ramp) + size)
    for place, value in enumerate(ramp):
        full[stride * place : stride * place + size] += value * kernel
    inner = full[size : stride * len(ramp)]
    np.testing.assert_allclose(np.diff(inner), 1 / stride, rtol=1e-12)


@pytest.mark.parametrize("size", range(2, 14))
def test_mxnets_bilinear_is_off_centre_for_half_of_the_sizes(size):
    f = math.ceil(size / 2)
    top = (2 * f - 1 - f % 2) / 2  # c f in mxnet.initializer.Bilinear
    assert (top == (size - 1) / 2) == (size % 4 in (0, 1))


def test_sub_pixels_shuffled_are_a_resized_image():
    channels, scale = 2, 3
    weight = NX.initialize(
        ICNR(VarianceScaling(), scale), (channels * scale**2, 4, 3, 3), NX.stream(0)
    )
    image = NX.stream(1).normal((1, 4, 5, 6))
    y = NX.ops.conv(image, weight, padding=1)[0]
    blocks = y.reshape(channels, scale, scale, 5, 6).transpose(0, 3, 1, 4, 2)  # pixel_shuffle
    shuffled = blocks.reshape(channels, 5 * scale, 6 * scale)
    nearest = np.repeat(np.repeat(y[:: scale**2], scale, axis=1), scale, axis=2)
    np.testing.assert_array_equal(shuffled, nearest)


def test_gates_drawn_as_one_share_what_each_has_alone():
    shape = (4 * 8, 8)
    one = NX.initialize("orthogonal", shape, NX.stream(2), dtype="float64").reshape(4, 8, 8)
    each = NX.initialize(PerGate(Orthogonal()), shape, NX.stream(2), dtype="float64")
    norms = [np.square(w).sum(axis=(1, 2)) for w in (one, each.reshape(4, 8, 8))]
    np.testing.assert_allclose(norms[0].sum(), 8)
    np.testing.assert_allclose(norms[1], 8)


def test_chrono_forgets_between_two_and_the_longest_number_of_steps():
    bias = NX.initialize(Chrono(50.0), (4 * 4000,), NX.stream(3), dtype="float64")
    steps = 1 / (1 - NX.sigmoid(bias[4000:8000]))
    assert steps.min() >= 2
    assert steps.max() <= 50
    assert (steps < 3).any()
    assert (steps > 49).any()


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
def test_sparse_weights_have_their_law_in_either_layout(layout):
    rule = Sparse(0.25, Normal(0.0, 0.1))
    shape = (900, 400) if layout == "out_in" else (400, 900)
    weight = NX.initialize(rule, shape, NX.stream(4), layout=layout)
    assert_law(weight, rule.resolve(shape, layout), dtype="float32")
    with pytest.raises(AssertionError, match="zeros"):
        assert_law(weight.T, rule.resolve(shape[::-1], layout), dtype="float32")


# --- LSUV ---------------------------------------------------------------------------------------


def _forward(parameters, x):
    first = x @ parameters["first"].T
    return {"first": first, "second": np.maximum(first, 0) @ parameters["second"].T}


def _parameters():
    return {name: np.zeros((5, 5), np.float32) for name in ("first", "second")}


X = np.random.default_rng(5).normal(size=(40, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda p, x: list(p), "by the path of its weight, among first, second; received list"),
        (lambda p, x: {"third": x}, "received ['third']"),
        (lambda p, x: {}, "received []"),
        (
            lambda p, x: {
                **_forward(p, x),
                "second": _forward(p, x)["second"] + 3 * x,
            },
            "layer 'second' must come to variance 1 +- 0.01; received 8.3",
        ),
        (
            lambda p, x: {**_forward(p, x), "second": 0 * x},
            "layer 'second' must vary over the batch; received the same value 0 everywhere",
        ),
        (
            lambda p, x: {**_forward(p, x), "second": _forward(p, x)["second"] / np.float32(0)},
            "layer 'second' must be finite; received",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_lsuv_returns_nothing_half_done(forward, message):
    given = _parameters()
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        lsuv(NX, forward, given, X, NX.stream(6))
    assert all((w == 0).all() for w in given.values())


def test_lsuv_needs_one_division_where_the_net_is_homogeneous():
    scaled = lsuv(NX, _forward, _parameters(), X, NX.stream(7), tolerance=1e-5, attempts=1)
    assert all(abs(np.var(z) - 1) < 1e-5 for z in _forward(scaled, X).values())


# --- refusals -----------------------------------------------------------------------------------

WRONG = {
    "a class": (lambda: initializer(Orthogonal), "received <class"),
    "a path, which can resolve too": (lambda: initializer(Path()), "received PosixPath"),
    "fraction": (lambda: Sparse(1.0, Normal()), "fraction must lie between 0 and 1"),
    "law of zeros": (lambda: Sparse(0.5, Constant(1.0)), "continuous law"),
    "groups": (lambda: Dirac(0), "groups must be at least 1"),
    "groups of an upsampling": (lambda: Bilinear(1.5), "groups must be an integer"),
    "gain": (lambda: Identity(math.inf), "gain must be finite"),
    "rule of gates": (lambda: PerGate("orthogonal"), "rule must be an initializer"),
    "rule of sub-pixels": (lambda: ICNR(None), "rule must be an initializer"),
    "scale": (lambda: ICNR(Normal(), 0), "scale must be at least 1"),
    "order of channels": (lambda: ICNR(Normal(), 2, "RCD"), "unknown mode 'RCD'"),
    "order of gates": (lambda: ForgetGateBias(1.0, "ifg"), "order must be the letters i, f, g"),
    "forget bias": (lambda: ForgetGateBias(math.nan), "value must be finite"),
    "too short": (lambda: Chrono(2.0), "must be greater than 2"),
    "law of an embedding": (lambda: Embedding(Orthogonal()), "need a distribution"),
    "padding": (
        lambda: Embedding(padding=1.0).resolve((3, 2), "out_in"),
        "padding must be an integer",
    ),
    "tied orthogonal": (lambda: Tied(Orthogonal()), "needs a rule with fans"),
    "use": (lambda: Tied(VarianceScaling(), ("densely",)), "did you mean 'dense'"),
    "no use": (lambda: Tied(VarianceScaling(), ()), "at least one use"),
    "depth": (lambda: fixup(0, 2), "branches must be at least 1"),
    "layers": (lambda: fixup(2, 0), "layers must be at least 1"),
    "fixup of a law": (lambda: fixup(2, 2, Normal()), "scales the gain"),
    "role": (lambda: MuP("bias", Fans(1, 1)), "unknown role 'bias'"),
    "base": (lambda: MuP("input", (1, 1)), "base must be the Fans"),
    "base of 0": (lambda: MuP("input", Fans(0, 1)), "fan_in of the base must be at least 1"),
    "optimizer": (
        lambda: MuP("input", Fans(1, 1)).learning_rate("adamw", Fans(1, 1)),
        "unknown optimizer 'adamw': known are sgd, adam",
    ),
    "negative std": (lambda: Normal(0.0, -1.0), "std must be at least 0"),
    "std of NaN": (lambda: Normal(0.0, math.nan), "std must be finite"),
    "infinite bound": (lambda: Uniform(0.0, math.inf), "high must be finite"),
    "negative gain": (lambda: VarianceScaling(-1.0), "gain must be at least 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_rule_is_refused(case):
    call, message = WRONG[case]
    with pytest.raises(InvalidArgument) as caught:
        call()
    assert message in str(caught.value)


def test_orders_of_gates_are_all_there_are():
    for letters in itertools.permutations("ifgo"):
        order = "".join(letters)
        bias = ForgetGateBias(1.0, order).resolve((8,), "out_in").values
        assert bias.tolist() == [float(gate == "f") for gate in order for _ in range(2)]
