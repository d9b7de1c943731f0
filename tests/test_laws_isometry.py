"""Singular values of deep random Jacobians: against mpmath, closed forms and simulation."""

import itertools
import math

import mpmath as mp
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import isometry as laws
from isometry.common.laws import mean_field


@pytest.mark.parametrize(
    ("activation", "slope", "q"),
    [
        ("tanh", lambda u: mp.sech(u) ** 2, "0.21"),
        ("tanh", lambda u: mp.sech(u) ** 2, "3.3"),
        ("sigmoid", lambda u: mp.exp(-abs(u)) / (1 + mp.exp(-abs(u))) ** 2, "47"),
    ],
)
def test_slope_spread_against_mpmath(activation, slope, q):
    s = mp.sqrt(mp.mpf(q))
    limits = [-mp.inf, -8, -2, -0.5, 0, 0.5, 2, 8, mp.inf]
    mu = [mp.quad(lambda z, k=k: slope(s * z) ** (2 * k) * mp.npdf(z), limits) for k in (1, 2)]
    assert laws.slope_spread(activation, float(q)) + 1 == pytest.approx(
        float(mu[1] / mu[0] ** 2), rel=1e-11
    )


def test_slope_spread_in_closed_form():
    """erf: E phi'^2k = (4 / pi)^k / sqrt(1 + 4 k q); ReLU and linear do not depend on q."""
    q = 0.77
    expected = (1 + 4 * q) / math.sqrt(1 + 8 * q) - 1
    assert laws.slope_spread("erf", q) == pytest.approx(expected, rel=1e-11)
    for q in (0.01, 1.0, 50.0):
        assert laws.slope_spread("relu", q) == pytest.approx(1, rel=1e-12)
        assert laws.slope_spread("linear", q) == pytest.approx(0, abs=1e-12)


def test_tanh_reaches_isometry_as_q_vanishes():
    """mu_2 / mu_1^2 - 1 = 2 Var(tanh^2) + ... = 8 q^2 for small q."""
    for q in (1e-3, 1e-4):
        assert laws.slope_spread("tanh", q) == pytest.approx(8 * q**2, rel=40 * q)
        assert laws.spectrum_variance("tanh", q, 10, "orthogonal") < 1e-4


def test_known_variances():
    assert laws.spectrum_variance("tanh", 0.5, 10, "gaussian") == pytest.approx(12.992, abs=5e-4)
    assert laws.spectrum_variance("tanh", 0.5, 10, "orthogonal") == pytest.approx(2.992, abs=5e-4)
    assert laws.spectrum_variance("relu", 0.5, 10, "gaussian") == pytest.approx(20)
    assert laws.spectrum_variance("relu", 0.5, 10, "orthogonal") == pytest.approx(10)
    assert laws.spectrum_variance("linear", 0.5, 7, "gaussian") == pytest.approx(7)


def test_sigmoid_has_no_isometry_on_its_critical_line():
    """Its q is smallest where sigma_b = 0, and slopes spread more with every q beyond."""
    q, weight = mean_field.critical_weight("sigmoid", 0.0)
    assert (q, weight) == pytest.approx((45.6242777974, 103.0075538555), rel=1e-9)
    assert mean_field.critical_weight("sigmoid", 5.0)[0] > q
    spreads = [laws.slope_spread("sigmoid", f * q) for f in (1, 2, 5, 10)]
    assert spreads == sorted(spreads)
    assert spreads[0] > 3.2
    centred = mean_field.Activation(
        lambda u: np.tanh(u / 2) / 2, mean_field.ACTIVATIONS["sigmoid"].slope
    )
    # the centred one has tanh's slopes over 4, at four times the variance
    assert laws.slope_spread(centred, 0.4) == pytest.approx(laws.slope_spread("tanh", 0.1))


def test_largest_and_moments_of_the_linear_net():
    for depth, expected in (
        (1, 4.0),
        (2, 6.75),
        (3, 256 / 27),
        (5, 6**6 / 5**5),
        (10, 28.5311670611),
    ):
        assert laws.largest_linear(depth) == pytest.approx(expected, rel=1e-11)
    assert [laws.fuss_catalan(1, k) for k in range(6)] == [1, 1, 2, 5, 14, 42]  # Catalan numbers
    assert [laws.fuss_catalan(2, k) for k in range(5)] == [1, 1, 3, 12, 55]
    assert laws.fuss_catalan(9, 2) - 1 == pytest.approx(
        laws.spectrum_variance("linear", 1.0, 9, "gaussian")
    )


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_fuss_catalan_density_has_its_moments(depth):
    s, density = laws.fuss_catalan_density(depth, 200_000)
    assert s[-1] == pytest.approx(laws.largest_linear(depth), rel=1e-3)
    assert (np.diff(s) > 0).all()
    for power in (1, 2, 3):  # s density integrates well at 0, density itself does not
        found = np.trapezoid(s**power * density, s)
        assert found == pytest.approx(laws.fuss_catalan(depth, power), rel=1e-3)


def test_one_gaussian_layer_is_marchenko_pastur():
    s, density = laws.fuss_catalan_density(1)
    assert density == pytest.approx(np.sqrt((4 - s) / s) / (2 * math.pi), rel=1e-9, abs=1e-12)


# --- finite width --------------------------------------------------------------------------------


def test_trace_moments_of_one_layer_by_hand():
    n = 7
    # W of variance 1 / n: tr W W^T = chi2_(n^2) / n, and E tr (W W^T)^2 = 2 n + 1
    assert laws.trace_moments(n, 1, "gaussian") == pytest.approx([1 + 2 / n**2, 2 + 1 / n])
    # K of the values are 2, the others 0, K ~ Binomial(n, 1/2)
    assert laws.trace_moments(n, 1, "orthogonal", keep=0.5) == pytest.approx([1 + 1 / n, 2])
    assert laws.trace_moments(n, 9, "orthogonal") == pytest.approx([1, 1])


def test_trace_moments_tend_to_mean_field():
    for weights, keep, activation in itertools.product(
        laws.WEIGHTS, (1.0, 0.5), ("linear", "relu")
    ):
        if (keep == 1.0) == (activation == "linear"):
            second = laws.trace_moments(10**7, 6, weights, keep=keep)[1]
            variance = laws.spectrum_variance(activation, 1.0, 6, weights)
            assert second - 1 == pytest.approx(variance, rel=1e-5)


def test_trace_moments_agree_with_the_law_of_one_vector():
    """For a random unit vector u, E ||Ju||^4 = E (t_1 + 2 t_2) / (n (n + 2)); known by Hanin."""
    n, depth = 12, 5
    fourth = (1 + 5 / n) ** depth  # E ||h||^4 / (E ||h||^2)^2 of a He ReLU net
    squared, second = laws.trace_moments(n, depth, "gaussian", keep=0.5)
    assert (n * squared + 2 * second) / (n + 2) == pytest.approx(fourth)


@pytest.mark.parametrize("weights", laws.WEIGHTS)
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_trace_moments_of_real_nets(weights, keep):
    """Masks of a real forward pass, not independent ones: their law is the same."""
    n, depth, nets = 6, 4, 20_000
    rng = np.random.default_rng(7)
    h, J = np.ones((nets, n, 1)), np.broadcast_to(np.eye(n), (nets, n, n))
    for _ in range(depth):
        W = rng.normal(size=(nets, n, n)) / math.sqrt(n)
        if weights == "orthogonal":
            W, r = np.linalg.qr(W)
            W = W * np.sign(np.einsum("kii->ki", r))[:, None]
        W = W / math.sqrt(keep)
        z = W @ h
        D = (z > 0) * 1.0 if keep < 1 else np.ones_like(z)
        h, J = D * z, D * (W @ J)
    A = J @ J.transpose(0, 2, 1)
    found = np.stack([np.einsum("kii->k", A) ** 2 / n**2, np.square(A).sum(axis=(1, 2)) / n])
    error = found.std(axis=1) / math.sqrt(nets)
    exact = laws.trace_moments(n, depth, weights, keep=keep)
    assert (np.abs(found.mean(axis=1) - exact) <= 5 * error + 1e-9).all()


@pytest.mark.parametrize("weights", laws.WEIGHTS)
def test_known_slopes_average_to_the_law_of_masks(weights):
    """Over all masks of two layers of three units, each of probability 1 / 64."""
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=6))).reshape(64, 2, 3)
    found = laws.given_slopes(math.sqrt(2) * masks.transpose(1, 0, 2), weights)
    expected = laws.trace_moments(3, 2, weights, keep=0.5)
    assert found.mean(axis=1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weights", laws.WEIGHTS)
def test_known_slopes_against_simulation(weights):
    n, depth, nets = 5, 3, 20_000
    rng = np.random.default_rng(9)
    slopes = rng.uniform(0.3, 1.2, size=(depth, 1, n))
    J = np.broadcast_to(np.eye(n), (nets, n, n))
    for d in slopes:
        W = rng.normal(size=(nets, n, n)) / math.sqrt(n)
        if weights == "orthogonal":
            W, r = np.linalg.qr(W)
            W = W * np.sign(np.einsum("kii->ki", r))[:, None]
        J = d[0, :, None] * (W @ J)
    A = J @ J.transpose(0, 2, 1)
    found = np.stack([np.einsum("kii->k", A) ** 2 / n**2, np.square(A).sum(axis=(1, 2)) / n])
    error = found.std(axis=1) / math.sqrt(nets)
    assert (
        np.abs(found.mean(axis=1) - laws.given_slopes(slopes, weights)[:, 0]) <= 5 * error
    ).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: laws.spectrum_variance("tanh", 0.1, 0, "gaussian"), "depth must be at least 1"),
        (lambda: laws.spectrum_variance("tanh", 0.1, 3, "haar"), "unknown weights 'haar'"),
        (lambda: laws.slope_spread("tanh", 0.0), "q must be greater than 0"),
        (lambda: laws.trace_moments(0, 3, "gaussian"), "width must be at least 1"),
        (lambda: mean_field.critical_at("sigmoid", 10.0), "sigma_b\\^2 would be .* below 0"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()


def test_critical_at_any_length():
    weight, bias = mean_field.critical_at("tanh", 0.31)
    found = mean_field.mean_field("tanh", weight, bias)
    assert (found.q, found.chi_1) == pytest.approx((0.31, 1), rel=1e-10)
