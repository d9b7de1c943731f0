"""The study signal-propagation: right on NumPy, refuses what it must, and its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.networks.fully_connected import NORMS
from isometry.common.networks.on_digits import SHORTCUTS, Options, subject

STUDY = "signal-propagation"
SMALL = {"depth": 8, "width": 64, "networks": 4, "steps": 2, "examples": 16}
PRODUCT = "every layer is W r + b of the reference's signal: largest share of the bound"
OUTER = "the gradient in every W is the sum of (gradient in z) r^T: largest share of the bound"
LENGTH = "each layer's step of the signal's length follows its law"
ACROSS = "each layer's step of further rows across the first, the cosine's, follows its law"
BACK = "each layer's step of the gradient across the signal follows its law"
FORTH_ALL = "growth of ln ||h||**2 over all layers"
BACK_ALL = "growth of ln ||dL/dz||**2 from the last to the first over all layers"
KEEPS = "every layer with orthogonal weights keeps every length: largest relative change"


def run(backend=None, seed=1, **parameters):
    return studies.run(STUDY, backend or NumpyBackend(), seed=seed, parameters=SMALL | parameters)


def failed(backend, **parameters):
    return {check.claim for check in run(backend, **parameters).checks if not check.passed}


def test_every_claim_holds_by_default():
    told = []
    result = studies.run(
        STUDY, NumpyBackend(), tell=lambda done, total, _: told.append((done, total))
    )
    assert {check.claim for check in result.checks} == {
        PRODUCT,
        OUTER,
        LENGTH,
        ACROSS,
        FORTH_ALL,
        BACK_ALL,
    }
    assert result.passed
    assert sum(check.false_alarm for check in result.checks) <= 1e-7
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert told[-1][0] == told[-1][1]
    assert result.finding.endswith(".")
    study = studies.find(STUDY)
    assert study.question.endswith("?")
    assert all(parameter.help for parameter in study.parameters)


@pytest.mark.parametrize(
    ("parameters", "claims"),
    [
        ({"activation": "tanh"}, {PRODUCT, OUTER, LENGTH, ACROSS, BACK}),
        ({"activation": "sigmoid", "bias": 0.5}, {PRODUCT, OUTER, LENGTH, ACROSS, BACK}),
        ({"activation": "linear"}, {PRODUCT, OUTER, LENGTH, ACROSS, BACK, FORTH_ALL, BACK_ALL}),
        ({"bias": 0.3}, {PRODUCT, OUTER, LENGTH, ACROSS}),
        ({"initializer": "orthogonal", "activation": "tanh"}, {PRODUCT, OUTER, KEEPS}),
        ({"initializer": "he_uniform"}, {PRODUCT, OUTER}),
        ({"initializer": "zeros"}, {PRODUCT, OUTER}),
        ({"dtype": "float32", "activation": "leaky_relu"}, {PRODUCT, OUTER, LENGTH, ACROSS, BACK}),
        *(
            ({"normalization": kind, "place": place, "shortcut": shortcut, "bias": 0.1}, None)
            for kind in NORMS
            for place in ("preactivation", "activation")
            for shortcut in SHORTCUTS
        ),
    ],
    ids=str,
)
def test_claims_hold_for_every_kind_of_net(parameters, claims):
    result = run(**parameters)
    assert [check for check in result.checks if not check.passed] == []
    assert {check.claim for check in result.checks} == (claims or {PRODUCT, OUTER, LENGTH, ACROSS})
    theory = {name for name in result.quantities if name.startswith("theory/")}
    assert len(theory) == (0 if "normalization" in parameters else 3)


@pytest.mark.parametrize(
    ("family", "parameters", "claims"),
    [
        ("convolutional", {"depth": 4, "bias": 0.3}, {LENGTH, ACROSS}),
        ("convolutional", {"depth": 4, "initializer": "delta_orthogonal"}, {KEEPS}),
        ("recurrent", {"bias": 0.3, "activation": "tanh"}, {LENGTH, ACROSS}),
        ("recurrent", {"initializer": "orthogonal"}, set()),
        ("lstm", {"bias": 0.3, "dtype": "float32"}, {LENGTH, ACROSS}),
        ("attention", {"depth": 4}, {LENGTH, ACROSS}),
        ("attention", {"shortcut": "residual", "normalization": "layer"}, {LENGTH, ACROSS}),
        (
            "attention",
            {"normalization": "layer", "place": "activation", "dtype": "float32"},
            {LENGTH, ACROSS},
        ),
        ("attention", {"dtype": "float32", "depth": 20}, {LENGTH, ACROSS}),
        ("attention", {"initializer": "orthogonal", "depth": 4}, {KEEPS}),
        ("attention", {"initializer": "orthogonal", "depth": 4, "dtype": "float32"}, {KEEPS}),
        ("autoencoder", {"bias": 0.3, "activation": "sigmoid"}, {LENGTH, ACROSS}),
        ("autoencoder", {"initializer": "orthogonal"}, {KEEPS}),
        ("message_passing", {}, {LENGTH, ACROSS}),
        ("message_passing", {"activation": "linear", "dtype": "float32"}, {LENGTH, ACROSS}),
    ],
    ids=str,
)
def test_claims_hold_in_every_family(family, parameters, claims):
    result = run(**{"family": family, "networks": 3} | parameters)
    assert [check for check in result.checks if not check.passed] == []
    assert {check.claim for check in result.checks} == claims | {PRODUCT, OUTER}
    q = {name: quantity.values for name, quantity in result.quantities.items()}
    depth = (SMALL | parameters)["depth"]
    assert len(q["second moment"]) == len(q["cosine"]) == depth + 1
    assert len(q["distance"]) == len(q["gradient variance"]) == depth
    assert len(q["dead"]) == depth - (family in ("convolutional", "autoencoder"))
    assert q["second moment"][0] == pytest.approx(1)
    assert (q["distance"] > 0).all()
    assert family.replace("_", " ") in result.finding.lower()


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        ("convolutional", {"initializer": "xavier_normal", "bias": 0.2, "activation": "sigmoid"}),
        ("convolutional", {"initializer": "delta_orthogonal", "activation": "tanh"}),
        ("recurrent", {"initializer": "xavier_normal", "bias": 0.2, "activation": "tanh"}),
        ("recurrent", {"initializer": "orthogonal", "activation": "linear"}),
    ],
    ids=str,
)
def test_wide_nets_of_other_families_are_near_theory(family, parameters):
    wide = {"depth": 4, "width": 96 if family == "convolutional" else 400, "steps": 1}
    result = run(family=family, **wide | parameters)
    q = {name: quantity.values for name, quantity in result.quantities.items()}
    theory = {name.removeprefix("theory/") for name in q if name.startswith("theory/")}
    assert theory == {"second moment", "cosine", "gradient variance"}
    for name in theory:
        assert q[name].shape == q[f"theory/{name}"].shape
        # the last of a convolutional net are 10 outputs, of 16 examples that are alike
        np.testing.assert_allclose(q[name][:-1], q[f"theory/{name}"][:-1], rtol=0.15)


def test_a_digit_s_neighbours_become_alike():
    """What graph convolutions do: the nodes of one graph lose what tells them apart."""
    cosines = {
        family: run(family=family, activation="linear").quantities["cosine"].values
        for family in ("message_passing", "fully_connected")
    }
    assert cosines["message_passing"][-1] > 0.9 > cosines["fully_connected"][-1]


def test_the_distance_is_that_of_the_weights():
    """All weights together move by the rate; an autoencoder's two uses are one weight."""
    result = run(family="autoencoder", steps=1, networks=1, rate=0.03, initializer="orthogonal")
    distance = result.quantities["distance"].values
    np.testing.assert_array_equal(distance, distance[::-1])
    assert len(set(distance)) == SMALL["depth"] / 2
    # four orthogonal matrices of 64 units, hence of one norm
    assert np.mean(np.square(distance)) == pytest.approx(0.03**2)


def test_measures_what_they_say():
    result = run(networks=1)
    q = {name: quantity.values for name, quantity in result.quantities.items()}
    np.testing.assert_allclose(q["second moment"], q["variance"] + q["mean"] ** 2)
    assert q["second moment"][0] == pytest.approx(1)
    np.testing.assert_allclose(q["histogram"].sum(axis=1), 1)
    # a ReLU's derivative is 0 for half of all values
    np.testing.assert_allclose(q["saturated"], 0.5, atol=0.2)
    assert (q["dead"] <= q["saturated"]).all()
    assert q["dead"].max() > 0.05
    assert len(q["dead"]) == SMALL["depth"] - 1
    assert len(q["gradient variance"]) == len(q["distance"]) == SMALL["depth"]
    assert (q["distance"] > 0).all()
    twice = run(activation="relu", rate=0.1, steps=1).quantities["distance"].values
    once = run(activation="relu", rate=0.05, steps=1).quantities["distance"].values
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-9)


def test_wide_nets_are_near_theory():
    result = run(activation="tanh", width=400, depth=5, initializer="xavier_normal", bias=0.2)
    q = {name: quantity.values for name, quantity in result.quantities.items()}
    for name in ("second moment", "gradient variance"):
        np.testing.assert_allclose(q[name], q[f"theory/{name}"], rtol=0.25)
    np.testing.assert_allclose(q["cosine"], q["theory/cosine"], atol=0.1)


# --- broken backends -----------------------------------------------------------------------------


class LeakyMask(NumpyBackend):
    """A ReLU that lets half of a negative value through."""

    def relu(self, x, /):
        return self.leaky_relu(x, slope=0.5)


class LostGradient(NumpyBackend):
    """Loses a third of every gradient in the first layers."""

    def value_and_gradient(self, f, /):
        inner = super().value_and_gradient(f)

        def value_and_gradient(parameters, *args):
            value, gradient = inner(parameters, *args)
            return value, {
                path: a / 3 if path == "stack0/offset" else a for path, a in gradient.items()
            }

        return value_and_gradient


class TooLarge(NumpyBackend):
    """Draws normal values a quarter too large."""

    def stream(self, seed, /):
        stream = super().stream(seed)
        normal = stream.normal
        stream.normal = lambda shape, **options: 1.25 * normal(shape, **options)
        return stream


@pytest.mark.parametrize(
    ("broken", "parameters", "claim"),
    [
        (LeakyMask, {}, PRODUCT),
        (LeakyMask, {}, LENGTH),
        (LeakyMask, {}, FORTH_ALL),
        (TooLarge, {"activation": "tanh"}, LENGTH),
        (TooLarge, {"activation": "tanh"}, ACROSS),
        (TooLarge, {"activation": "tanh"}, BACK),
        (TooLarge, {"activation": "linear"}, FORTH_ALL),
        (TooLarge, {"activation": "linear"}, BACK_ALL),
        (LostGradient, {"activation": "tanh"}, BACK),
        (LostGradient, {"activation": "sigmoid"}, OUTER),
        *(
            (broken, parameters, claim)
            for parameters in (
                {"family": "convolutional", "depth": 3},
                {"family": "recurrent"},
                {"family": "autoencoder"},
                {"family": "message_passing"},
            )
            for broken, claim in ((TooLarge, LENGTH), (TooLarge, ACROSS), (LeakyMask, PRODUCT))
        ),
        (TooLarge, {"family": "lstm"}, LENGTH),
        (TooLarge, {"family": "attention", "depth": 2}, ACROSS),
        (LostGradient, {}, BACK_ALL),
    ],
)
def test_catches(broken, parameters, claim):
    assert claim in failed(broken(), networks=24, **parameters)


class NotOrthogonal(NumpyBackend):
    """Returns one column of Q a little too long, or not at all."""

    def __init__(self, factor):
        super().__init__()
        qr = self.ops.qr

        def stretched(x, /):
            q, r = qr(x)
            return q * np.where(np.arange(q.shape[-1]) == 0, factor, 1.0), r

        self.ops.qr = stretched


@pytest.mark.parametrize("factor", [1 + 1e-6, 0.0])
def test_catches_weights_that_are_not_orthogonal(factor):
    assert failed(NotOrthogonal(factor), initializer="orthogonal") == {KEEPS}
    delta = {"family": "convolutional", "initializer": "delta_orthogonal", "depth": 3}
    assert failed(NotOrthogonal(factor), **delta) == {KEEPS}


class WrongSigmoid(NumpyBackend):
    """Takes sigmoid for a half of what it is given, as a hard one's slope."""

    def sigmoid(self, x, /):
        return super().sigmoid(0.5 * x)


class WrongNorm(NumpyBackend):
    """Divides by the unbiased variance."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        n = x.shape[-1]
        return super().layer_norm(x, scale * ((n - 1) / n) ** 0.5, shift, axis=axis, eps=eps)


class WrongSoftmax(NumpyBackend):
    """Takes powers of 2 for those of e."""

    def __init__(self):
        super().__init__()
        exp = self.ops.exp
        self.ops.exp = lambda x, /: exp(x * np.log(2))


@pytest.mark.parametrize(
    ("broken", "parameters"),
    [
        (WrongSigmoid, {"family": "lstm"}),
        (WrongNorm, {"family": "attention", "normalization": "layer"}),
        (WrongNorm, {"family": "attention", "normalization": "layer", "place": "activation"}),
        (WrongSoftmax, {"family": "attention"}),
    ],
    ids=str,
)
def test_catches_a_wrong_signal_in_both_dtypes(broken, parameters):
    for dtype in ("float32", "float64"):
        small = {"networks": 2, "depth": 4, "initializer": "xavier_normal", "dtype": dtype}
        assert PRODUCT in failed(broken(), **parameters | small)


@pytest.mark.parametrize(
    ("family", "path"),
    [
        ("convolutional", "stack1"),
        ("recurrent", "steps"),
        ("lstm", "steps"),
        ("attention", "projection"),
        ("attention", "output"),
        ("autoencoder", "stack1/decoder"),
        ("message_passing", "layers"),
    ],
)
def test_catches_a_lost_gradient_in_every_family(family, path):
    class Lost(NumpyBackend):
        def value_and_gradient(self, f, /):
            inner = super().value_and_gradient(f)

            def evaluate(parameters, *args):
                value, gradient = inner(parameters, *args)
                lost = f"{path}/offset"
                return value, {k: a * 0.999 if k == lost else a for k, a in gradient.items()}

            return evaluate

    small = {"networks": 1, "depth": 4, "dtype": "float32", "initializer": "xavier_normal"}
    assert OUTER in failed(Lost(), family=family, **small)


# --- what the bounds must stand, and where checks may say nothing --------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shared_weights_add_up_their_roundings(dtype):
    """A linear layer of identities keeps every number: sums over 100 steps round the most."""
    parameters = {"family": "recurrent", "initializer": "identity", "activation": "linear"}
    result = run(**parameters, examples=2, depth=100, networks=1, dtype=dtype)
    assert [check for check in result.checks if not check.passed] == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("place", ["preactivation", "activation"])
def test_rows_of_every_block_are_seen_in_deep_attention(place, dtype):
    given = {"family": "attention", "normalization": "layer", "place": place, "dtype": dtype}
    deep = {"depth": 20, "shortcut": "residual", "initializer": "xavier_normal", "networks": 2}
    result = run(**given, **deep)
    for check in result.checks:
        assert check.passed
        if check.claim in (LENGTH, ACROSS):
            assert "shared by the 40 maps" in check.source


def test_vanishing_gradients_are_no_overflow():
    small = {"activation": "relu", "initializer": "lecun_uniform", "dtype": "float32"}
    result = run(**small, depth=280, examples=4, networks=1)
    assert result.passed
    assert np.isfinite(result.quantities["distance"].values).all()


def test_rows_below_the_smallest_number_are_left_out():
    tiny = {"initializer": "lecun_normal", "dtype": "float32", "examples": 4, "networks": 2}
    assert run(**tiny, activation="leaky_relu", depth=290, bias=1e-30).passed
    assert run(**tiny, family="message_passing", depth=290).passed
    with pytest.raises(InvalidArgument, match="the signal of 290 layers vanishes in float32"):
        run(**tiny, depth=290)
    orthogonal = {"initializer": "orthogonal", "examples": 2, "networks": 1, "dtype": "float32"}
    assert run(**orthogonal, depth=290).passed
    assert run(**orthogonal, depth=270, family="autoencoder").passed


def test_squares_need_not_be_numbers():
    """Signals of 1e-170 in float64, whose squares are 0; the moments of 1e160 are refused."""
    deep = {"examples": 2, "networks": 1, "steps": 1}
    assert run(**deep, initializer="lecun_normal", depth=1150).passed
    with pytest.raises(InvalidArgument, match="second moment of 1100 layers overflows float64"):
        run(**deep, activation="linear", depth=1100)


def test_saturated_units_give_no_false_alarm():
    for parameters in ({"bias": 80.0, "dtype": "float32"}, {"bias": 600.0}):
        result = run(activation="tanh", **parameters)
        assert result.passed
        assert BACK not in {check.claim for check in result.checks}


def test_large_biases_hide_small_rows():
    lost = {"family": "lstm", "bias": 1e6, "dtype": "float32", "networks": 6}
    assert run(**lost).passed


def test_gradients_of_weights_overflow_alone():
    large = {"activation": "linear", "dtype": "float32", "depth": 248, "examples": 512}
    with pytest.raises(InvalidArgument, match=r"gradients in weights overflow float32 at layer"):
        run(**large, networks=1)


def test_the_gradient_is_judged_in_batches_of_any_size():
    result = run(activation="tanh", examples=100)
    assert BACK in {check.claim for check in result.checks}


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"depth": 0}, "depth must be between 2 and 100000; received 0"),
        ({"width": 0}, "width must be between 64 and 100000; received 0"),
        ({"examples": 1}, "examples must be between 2"),
        ({"examples": 1798}, "examples must be between .* 1797; received 1798"),
        ({"activation": "rlu"}, "did you mean 'relu'"),
        ({"initializer": "he_norml"}, "did you mean 'he_normal'"),
        ({"family": "lsmt"}, "did you mean 'lstm'"),
        (
            {
                "family": "attention",
                "initializer": "orthogonal",
                "shortcut": "residual",
                "depth": 60,
                "dtype": "float32",
            },
            r"overflow float32 at layer \d+ of 60",
        ),
        (
            {"family": "lstm", "normalization": "batch"},
            "normalization of the family lstm must be none; received 'batch'",
        ),
        (
            {"family": "attention", "shortcut": "dense"},
            "shortcut of the family attention must be none or residual; .* 'dense'",
        ),
        ({"family": "message_passing", "bias": 0.1}, "bias must be 0; received 0.1"),
        ({"family": "autoencoder", "depth": 5}, "depth must be even; received 5"),
        ({"normalization": "bach"}, "did you mean 'batch'"),
        ({"shortcut": "residul"}, "did you mean 'residual'"),
        ({"place": "before"}, "preactivation, activation"),
        ({"dtype": "float16"}, "float32"),
        ({"rate": 0.0}, "rate must be greater than 0"),
        ({"bias": -1.0}, "bias must be at least 0"),
        (
            {"initializer": "ones", "activation": "linear", "dtype": "float32", "depth": 40},
            r"preactivations overflow float32 at layer 2\d of 40, beyond 3.4e\+38",
        ),
        (
            {"activation": "linear", "rate": 1e30, "steps": 3, "dtype": "float32"},
            r"gradients in weights at step 2 of 3, .* overflow float32 at layer \d of 8",
        ),
    ],
    ids=str,
)
def test_refuses(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        run(**parameters)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depth": 0}, "depth must be at least 1; received 0"),
        ({"depth": 2.5}, "depth must be an integer"),
        ({"width": 0}, "width must be at least 8; received 0"),
        ({"family": "message_passing", "width": 32}, "width must be at least 64; received 32"),
        ({"bias": -1.0}, "bias must be at least 0"),
    ],
    ids=str,
)
def test_options_refuse(given, message):
    good = {"family": "lstm", "depth": 3, "width": 8, "activation": "tanh"}
    with pytest.raises(InvalidArgument, match=message):
        Options(**good | {"initializer": "orthogonal"} | given)


def test_there_are_so_many_digits():
    options = Options("lstm", 3, 8, "tanh", "orthogonal")
    with pytest.raises(InvalidArgument, match="examples must be between 1 and 1797"):
        subject(options, 5000)
