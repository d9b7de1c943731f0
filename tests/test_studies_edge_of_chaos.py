"""The study edge-of-chaos: right on NumPy, its laws exact at finite width, its checks can fail."""

import math

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.laws import mean_field, two_inputs

SMALL = {"depth": 24, "width": 128, "networks": 4, "grid": 3}


def failed(backend, **parameters):
    """Return the claims that a backend fails."""
    result = studies.run("edge-of-chaos", backend, seed=3, parameters=SMALL | parameters)
    return [check.claim for check in result.checks if not check.passed]


def test_numpy_keeps_every_claim():
    told = []
    result = studies.run(
        "edge-of-chaos", NumpyBackend(), tell=lambda done, total, what: told.append((done, total))
    )
    assert [check for check in result.checks if not check.passed] == []
    assert len({check.claim for check in result.checks}) == len(result.checks) == 12
    assert sum(check.false_alarm for check in result.checks) <= 1e-7
    assert result.finding.endswith(".")
    assert told[-1][0] == told[-1][1]
    asked = studies.find("edge-of-chaos")
    assert asked.question.endswith("?")
    assert all(parameter.help for parameter in asked.parameters)


def test_defaults_stand_where_their_variances_say():
    found = studies.run("edge-of-chaos", NumpyBackend(), parameters=SMALL).quantities
    assert found["default/torch"].values == pytest.approx((1 / 3, 1 / (3 * 512)))
    assert found["default/keras"].values == pytest.approx((1, 0))
    assert found["default/flax"].values == pytest.approx((1, 0))
    assert found["default/gluon"].values == pytest.approx((512 * 0.07**2 / 3, 0))
    assert found["default/torch/xi_c"].values[1] == pytest.approx(1 / math.log(6))
    assert found["default/keras/xi_c"].values == pytest.approx((math.inf, 1 / math.log(2)))
    assert found["line/relu"].values.tolist() == [2, 0]
    assert found["diagram/q"].values.shape == (3, 3)


class Louder(NumpyBackend):
    """Draws weights and biases a tenth too large."""

    def stream(self, seed, /):
        inner = super().stream(seed)
        normal = inner.normal
        inner.normal = lambda *args, **kwargs: 1.1 * normal(*args, **kwargs)
        return inner


class Rectified(NumpyBackend):
    """Calls tanh what is a ReLU."""

    def tanh(self, x, /):
        return self.relu(x)


class Halved(NumpyBackend):
    """Layers lose a fifth."""

    def __init__(self, **options):
        super().__init__(**options)
        linear = self.ops.linear
        self.ops.linear = lambda x, weight: 0.8 * linear(x, weight)


@pytest.mark.parametrize("broken", [Louder, Rectified, Halved])
def test_every_law_catches(broken):
    claims = failed(broken())
    for name in ("sigma_w^2 = 1.2", "critical", "sigma_w^2 = 3"):
        assert f"{name}: lengths of two inputs, layer by layer" in claims


class Shifted(NumpyBackend):
    """Adds to each preactivation of an input a share of that of the input before it."""

    def __init__(self, **options):
        super().__init__(**options)
        linear = self.ops.linear

        def leaking(x, weight):
            y = linear(x, weight)
            y[1:] = 0.98 * y[1:] + 0.2 * y[:-1]
            return y

        self.ops.linear = leaking


def test_angles_catch():
    claims = failed(Shifted())
    assert "critical: angle between two inputs, layer by layer" in claims


def test_a_wrong_susceptibility_is_caught(monkeypatch):
    """The theory of chi_1 and of the map, each off by a fifth, no longer fits the nets."""
    right = mean_field.second_moments
    monkeypatch.setattr(
        "isometry.common.studies.edge_of_chaos.second_moments",
        lambda activation, q: (right(activation, q)[0], 0.8 * right(activation, q)[1]),
    )
    claims = failed(NumpyBackend())
    assert "critical: a small difference changes by chi_1 from layer to layer" in claims
    bound = two_inputs.map_bound
    monkeypatch.setattr(
        two_inputs, "map_bound", lambda *args: (0.8 * bound(*args)[0], bound(*args)[1])
    )
    claims = failed(NumpyBackend())
    assert "critical: the map of correlations over the first layers" in claims


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"depth": 0}, "depth must be between 16"),
        ({"width": 0}, "width must be between 64"),
        ({"weights": "1.2,chaos"}, "weights must be numbers above 0 or 'critical'"),
        ({"weights": "-1"}, "weights must be numbers above 0"),
        ({"weights": "0.1"}, "a small difference changes by .* choose fewer layers"),
        ({"bias": 0.0}, "bias must be greater than 0"),
        ({"cosine": 1.0}, r"cosine must be in \[0, 1\)"),
    ],
)
def test_refusals(parameters, message):
    with pytest.raises(InvalidArgument, match=message):
        failed(NumpyBackend(), **parameters)


# --- laws of two inputs --------------------------------------------------------------------------


def pairs(S, width, nets, seed):
    rng = np.random.default_rng(seed)
    return np.linalg.cholesky(S) @ rng.normal(size=(nets, 2, width))


def test_whitening_and_covariance():
    rng = np.random.default_rng(5)
    h = rng.normal(size=(3, 2, 50))
    S = two_inputs.covariance(h, 1.7, 0.2)
    assert S[1, 0, 1] == pytest.approx(1.7 * h[1, 0] @ h[1, 1] / 50 + 0.2)
    W, b = rng.normal(size=(200_000, 50)) * math.sqrt(1.7 / 50), rng.normal(size=200_000)
    z = W @ h[0].T + math.sqrt(0.2) * b[:, None]
    whitened = two_inputs.whiten(z.T, S[0])
    assert np.cov(whitened) == pytest.approx(np.eye(2), abs=6 * math.sqrt(2 / 200_000))


def test_bounds_of_the_map_hold_and_are_no_idle_ones():
    S, width, nets = np.array([[0.8, 0.5], [0.5, 1.3]]), 100, 4000
    y = np.tanh(pairs(S, width, nets, 1)).prod(axis=1).mean(axis=1)
    means, bound = two_inputs.map_bound("tanh", [S], (1.0, 0.5), width, 0.01)
    outside = np.abs(y - means[0]) > bound
    assert outside.mean() <= 0.01
    assert y.mean() == pytest.approx(means[0], abs=6 * y.std() / math.sqrt(nets))
    assert bound < 6 * y.std()  # the normal value is 2.6


def test_bounds_of_the_ratio_hold_and_are_no_idle_ones():
    q, width, nets = 0.9, 100, 4000
    rng = np.random.default_rng(2)
    slope = 1 - np.square(np.tanh(math.sqrt(q) * rng.normal(size=(nets, width))))
    terms = np.square(slope * rng.normal(size=(nets, width)))
    ratio = terms.mean(axis=1) / mean_field.second_moments("tanh", q)[1]
    bound = two_inputs.ratio_bound("tanh", [q], 1.0, width, 0.01)
    assert (np.abs(ratio - 1) > bound).mean() <= 0.01
    assert ratio.mean() == pytest.approx(1, abs=6 * ratio.std() / math.sqrt(nets))
    assert bound < 6 * ratio.std()
