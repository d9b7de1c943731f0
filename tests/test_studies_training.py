"""The studies xavier, symmetry and normalization: right on NumPy, and their checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.digits import digits
from isometry.common.errors import InvalidArgument
from isometry.common.laws import perceptron
from isometry.common.portable import PortableStream
from isometry.common.statistics.rounding import EqualUnits
from isometry.common.studies import normalization, symmetry

XAVIER = {"depth": 20, "width": 128, "networks": 4}


def failed(backend, study, **parameters):
    """Return the claims that a backend fails."""
    result = studies.run(study, backend, seed=3, parameters=parameters)
    return [check.claim for check in result.checks if not check.passed]


@pytest.mark.parametrize("study", ["xavier", "symmetry", "normalization"])
def test_numpy_keeps_every_claim(study):
    told = []
    result = studies.run(
        study, NumpyBackend(), seed=0, tell=lambda done, total, what: told.append((done, total))
    )
    assert [check for check in result.checks if not check.passed] == []
    assert result.passed
    assert result.finding.endswith(".")
    assert len({check.claim for check in result.checks}) == len(result.checks)
    assert told[-1][0] == told[-1][1]
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert studies.find(study).question.endswith("?")
    assert all(parameter.help for parameter in studies.find(study).parameters)
    assert sum(check.false_alarm for check in result.checks) <= 1e-7


# --- xavier --------------------------------------------------------------------------------------


class NoGain(NumpyBackend):
    """Draws He's weights with LeCun's variance."""

    def initialize(self, rule, shape, stream, /, **options):
        gain = getattr(rule, "gain", 1.0)
        return super().initialize(rule, shape, stream, **options) / gain


class SwappedFans(NumpyBackend):
    """Takes the number of outputs for the number of inputs."""

    def initialize(self, rule, shape, stream, /, **options):
        swapped = super().initialize(rule, shape[::-1], stream, **options)
        return np.ascontiguousarray(swapped.T)


class LostGradient(NumpyBackend):
    """Loses a tenth of every gradient."""

    def vjp(self, f, x, /):
        y, pullback = super().vjp(f, x)
        return y, lambda v: 0.9 * pullback(v)


class LeakyMask(NumpyBackend):
    """A ReLU that lets half of a negative value through."""

    def relu(self, x, /):
        return self.leaky_relu(x, slope=0.5)


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (NoGain, "relu/he_normal: log variance of the signal after the last layer"),
        (NoGain, "linear/he_normal: log variance of the gradient at the input"),
        (SwappedFans, "linear: each layer's step forward follows its law, under every initializer"),
        (SwappedFans, "tanh: each layer's step backward follows its law, under every initializer"),
        (LostGradient, "relu/he_normal: log variance of the gradient at the input"),
        (LeakyMask, "relu/he_normal: log variance of the signal after the last layer"),
    ],
)
def test_xavier_catches(broken, claim):
    assert claim in failed(broken(), "xavier", **XAVIER, initializers="lecun_normal,he_normal")


def test_xavier_theory_tells_the_initializers_apart():
    result = studies.run("xavier", NumpyBackend(), parameters=XAVIER)
    ends = {
        (direction, rule): result.quantities[f"{direction}/linear/{rule}/theory/mean"].values[end]
        for direction, end in (("forward", -1), ("backward", 0))
        for rule in ("lecun_normal", "xavier_normal", "he_normal")
    }
    assert ends["forward", "lecun_normal"] == pytest.approx(1)
    assert ends["backward", "lecun_normal"] == pytest.approx(1 / 2)
    # where 128 inputs feed 64 outputs, 2 / (128 + 64) is 4/3 of 1/128 and 2/3 of 1/64
    assert ends["forward", "xavier_normal"] == pytest.approx(4 / 3)
    assert ends["backward", "xavier_normal"] == pytest.approx(2 / 3)
    assert ends["forward", "he_normal"] == pytest.approx(2.0**20)


def test_xavier_refuses():
    with pytest.raises(InvalidArgument, match="did you mean 'he_normal'"):
        failed(NumpyBackend(), "xavier", initializers="he_norml")
    with pytest.raises(InvalidArgument, match="width must be between 128 and 100000"):
        failed(NumpyBackend(), "xavier", width=64)


# --- symmetry ------------------------------------------------------------------------------------


def test_equal_units_stay_equal_bit_for_bit():
    result = studies.run("symmetry", NumpyBackend(), seed=1, parameters={"steps": 60})
    for units in (2, 4):
        for rule in symmetry.RULES:
            for weights in ("incoming", "outgoing"):
                assert (result.quantities[f"{units} units/{rule}/{weights}"].values == 0).all()
    assert result.quantities["4 units/xavier/accuracy"].values > 0.6


class OneFasterUnit(NumpyBackend):
    """Gives the first unit of the hidden layer a gradient that is a tenth too large."""

    def value_and_gradient(self, f, /):
        inner = super().value_and_gradient(f)

        def value_and_gradient(parameters, *args):
            value, gradient = inner(parameters, *args)
            units = len(gradient["hidden/bias"])
            factor = np.array([1.1] + [1.0] * (units - 1), dtype=np.float32)
            return value, gradient | {"hidden/weight": gradient["hidden/weight"] * factor[:, None]}

        return value_and_gradient


class NothingDropped(NumpyBackend):
    """Masks keep every unit: its portable uniforms all are 0."""

    def portable_stream(self, seed, /):
        return AlwaysZero(seed, convert=self.asarray, dtypes=self.dtypes)


class AlwaysZero(PortableStream):
    def child(self, index, /):
        child = super().child(index)
        child.__class__ = AlwaysZero
        return child

    def uniform(self, shape, /, *, low=0.0, high=1.0, dtype="float32"):
        return 0 * super().uniform(shape, low=low, high=high, dtype=dtype)


class Elsewhere(OneFasterUnit):
    """No reference: its kernels may round units differently, but no more than that."""

    name = "elsewhere"


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize("rule", ["sgd", "momentum"])
def test_symmetry_catches_beyond_rounding_where_bits_may_differ(units, rule):
    claims = failed(Elsewhere(), "symmetry", steps=10)
    assert any(c.startswith(f"{units} units/{rule}: distance between equal") for c in claims)


@pytest.mark.parametrize(("rate", "decay"), [(0.3, 0.0), (0.06, 0.9)])
def test_bound_of_equal_units_holds_for_sums_in_any_order(rate, decay):
    """Float32 gradients by hand, each unit's sums in an order of its own."""
    rng = np.random.default_rng(11)
    images, labels = digits()
    x, targets = images[:128], np.eye(10, dtype=np.float32)[labels[:128]]
    W1 = np.full((8, 64), 0.01, np.float32)
    b1 = np.zeros(8, np.float32)
    W2 = np.full((10, 8), 0.01, np.float32) * np.arange(1, 11, dtype=np.float32)[:, None]
    v1, vb, v2 = np.zeros_like(W1), np.zeros_like(b1), np.zeros_like(W2)
    equal = EqualUnits(rate=rate, decay=decay)
    shares = []
    for _ in range(10):
        named = {"hidden/weight": W1, "hidden/bias": b1, "output/weight": W2}
        named |= {"output/bias": np.zeros(10)}
        equal.step({k: w.astype(np.float64) for k, w in named.items()}, x, targets)
        orders = [rng.permutation(64) for _ in b1]
        h = np.stack(
            [np.tanh(x[:, o] @ w[o] + b) for o, w, b in zip(orders, W1, b1, strict=True)], axis=1
        )
        weights = np.exp(h @ W2.T)
        r = (weights / weights.sum(axis=1, keepdims=True) - targets) / np.float32(128)
        for k in range(len(b1)):
            rows = rng.permutation(128)
            delta = (r @ W2[:, k]) * (1 - h[:, k] ** 2)
            v1[k] = np.float32(decay) * v1[k] + delta[rows] @ x[rows]
            vb[k] = np.float32(decay) * vb[k] + delta[rows].sum()
            v2[:, k] = np.float32(decay) * v2[:, k] + h[rows, k] @ r[rows]
        W1, b1, W2 = (w - np.float32(rate) * v for w, v in ((W1, v1), (b1, vb), (W2, v2)))
        unit = np.concatenate([W1, b1[:, None], W2.T], axis=1).astype(np.float64)
        shares.append(np.linalg.norm(unit[:, None] - unit[None], axis=2).max() / equal.distance)
    assert 1e-4 < max(shares) <= 1  # rounding is there, and the bound is no idle one


def test_symmetry_catches():
    claims = failed(OneFasterUnit(), "symmetry", steps=60)
    assert "2 units/sgd: largest difference between units at any step, on the reference" in claims
    assert any(claim.startswith("37 units/sgd: distance") for claim in claims)
    claims = failed(NothingDropped(), "symmetry", steps=20)
    assert "4 units/dropout: numerical rank of W1 after the last step" in claims


def test_cross_entropy_is_stable_and_right():
    nx = NumpyBackend()
    scores = np.array([[1e4, -1e4, 0.0], [0.5, 1.5, -2.0]])
    targets = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    second = np.log(np.exp(scores[1]).sum()) - 1.5
    value = perceptron.cross_entropy(nx, nx.asarray(scores), nx.asarray(targets))
    assert float(value) == pytest.approx((2e4 + second) / 2, rel=1e-14)
    _, gradient = nx.value_and_gradient(
        lambda s: perceptron.cross_entropy(nx, s, nx.asarray(targets))
    )(nx.asarray(scores))
    softmax = np.exp(scores - scores.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    np.testing.assert_allclose(gradient, (softmax - targets) / 2, rtol=1e-13, atol=1e-16)


def test_digits_are_the_real_ones():
    images, labels = digits()
    assert images.shape == (1797, 64)
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    assert (images.min(), images.max()) == (0, 1)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


# --- normalization -------------------------------------------------------------------------------


class BatchNorm(NumpyBackend):
    """Passes batch norm's options through `change`."""

    def batch_norm(
        self, x, scale, shift, mean, variance, /, *, training, axis=1, eps=1e-5, momentum=0.9,
        momentum_weights="running", running_variance="biased",
    ):  # fmt: skip
        options = {
            "training": training, "axis": axis, "eps": eps, "momentum": momentum,
            "momentum_weights": momentum_weights, "running_variance": running_variance,
        }  # fmt: skip
        return super().batch_norm(x, scale, shift, mean, variance, **options | self.changed)


class ExchangedWeights(BatchNorm):
    """Takes every momentum for the weight of the running value."""

    changed = {"momentum_weights": "running"}  # noqa: RUF012


class BiasedAlways(BatchNorm):
    """Keeps the biased variance, whatever was asked for."""

    changed = {"running_variance": "biased"}  # noqa: RUF012


class CancellingVariance(BatchNorm):
    """Batch norm in training by E[x^2] - E[x]^2."""

    changed = {}  # noqa: RUF012

    def batch_norm(
        self, x, scale, shift, mean, variance, /, *, training, axis=1, eps=1e-5, momentum=0.9,
        momentum_weights="running", running_variance="biased",
    ):  # fmt: skip
        y, m, v = super().batch_norm(x, scale, shift, mean, variance, training=training, eps=eps)
        return (normalization.naive(self, x, eps=eps) * scale + shift if training else y), m, v


class TwoPassLayerNorm(NumpyBackend):
    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        z = normalization.two_pass(self, self.ops.permute_dims(x, (1, 0)), eps=eps)
        return self.ops.permute_dims(z, (1, 0)) * scale + shift


class ConstantStatistics(NumpyBackend):
    """Forgets that mean and variance depend on x when it differentiates."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        fixed = self.ops.stop_gradient(x)
        mean = self.ops.mean(fixed, axis=axis, keepdims=True)
        centred = fixed - mean
        std = self.ops.sqrt(self.ops.mean(centred * centred, axis=axis, keepdims=True) + eps)
        return (x - mean) / std * scale + shift


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (CancellingVariance, "batch norm: largest output error up to mean/std = 1e6"),
        (TwoPassLayerNorm, "layer norm: largest output error up to mean/std = 1e6"),
        (
            ExchangedWeights,
            "batch norm: running statistics under every convention, largest share of their bound",
        ),
        (
            BiasedAlways,
            "batch norm: running statistics under every convention, largest share of their bound",
        ),
        (
            ConstantStatistics,
            "layer norm: gradient in x, scale and shift, largest share of its error bound",
        ),
    ],
)
def test_normalization_catches(broken, claim):
    assert claim in failed(broken(), "normalization")
