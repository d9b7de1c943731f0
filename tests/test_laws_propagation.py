"""The laws of signal and gradient in deep random nets, against mpmath and against simulation."""

import itertools
import math

import mpmath as mp
import numpy as np
import pytest
from scipy.stats import chi2, kstest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import propagation
from isometry.common.laws.mean_field import second_moments

WIDTHS = [24, 24, 24, 12, 12]
GAINS = {"linear": 1.0, "relu": 2.0, "tanh": 1.5}


def variances(activation):
    return [GAINS[activation] / n for n in WIDTHS[:-1]]


def test_tanh_layers_against_mpmath():
    """Each layer's step: q = n s**2 E h**2, E tanh(N(0, q))**2 and E sech(N(0, q))**4."""
    widths, weights = [3, 5, 4, 2], [0.2, 0.07, 1.1]
    limits = [-mp.inf, -3, 0, 3, mp.inf]

    def expected(f, q):
        return mp.quad(lambda z: f(mp.sqrt(q) * z) * mp.npdf(z), limits)

    forward, slopes = [mp.mpf(1)], []
    for n, s in zip(widths, weights, strict=False):
        q = n * s * forward[-1]
        forward.append(expected(lambda u: mp.tanh(u) ** 2, q))
        slopes.append(expected(lambda u: mp.sech(u) ** 4, q))
    backward = [mp.mpf(1)]
    for n, s, slope in zip(widths[:0:-1], weights[::-1], slopes[::-1], strict=True):
        backward.append(n * s * slope * backward[-1])
    found = propagation.second_moments("tanh", widths, weights)
    np.testing.assert_allclose(found[0], np.array(forward, dtype=float), rtol=1e-10)
    np.testing.assert_allclose(found[1], np.array(backward[::-1], dtype=float), rtol=1e-10)


def log_chi_square(t, n):
    """E (chi2_n)**t by mpmath."""
    return mp.power(2, t) * mp.gamma(mp.mpf(n) / 2 + t) / mp.gamma(mp.mpf(n) / 2)


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_growth_against_mpmath(activation):
    width, scale = 40, 0.3
    law = propagation.growth(activation, scale, width)
    degrees = (
        {width: mp.mpf(1)}
        if activation == "linear"
        else {k: mp.binomial(width, k) / mp.mpf(2) ** width for k in range(1, width + 1)}
    )
    total = sum(degrees.values())
    mean = mp.log(2 * scale) + sum(w * mp.psi(0, mp.mpf(k) / 2) for k, w in degrees.items()) / total
    assert law.mean == pytest.approx(float(mean), rel=1e-11)
    for t in (-0.4, 0.5, 3.0):
        exact = sum(
            w * mp.power(scale, t) * log_chi_square(t, k)
            for k, w in degrees.items()
            if k in law.degrees
        )
        assert law.cumulant(np.array([t]))[0] == pytest.approx(float(mp.log(exact)), rel=1e-11)
    step = 1e-4
    slope = law.cumulant(np.array([-step, 0.0, step]))
    assert (slope[2] - slope[0]) / (2 * step) == pytest.approx(law.mean, rel=1e-6)
    curvature = (slope[0] - 2 * slope[1] + slope[2]) / step**2
    assert curvature == pytest.approx(law.variance, rel=1e-4)
    dead = 0.0 if activation == "linear" else 2.0**-width
    assert dead <= law.dropped <= propagation.DROPPED + dead


def simulate(activation, nets, seed=1):
    """Return per-layer squared norms over n, forward and backward, of `nets` NumPy nets."""
    rng = np.random.default_rng(seed)
    weights = [
        rng.normal(0, math.sqrt(s), (nets, n_out, n_in))
        for s, (n_in, n_out) in zip(variances(activation), itertools.pairwise(WIDTHS), strict=True)
    ]
    phi, slope = {
        "linear": (lambda z: z, np.ones_like),
        "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
        "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    }[activation]
    h = np.ones((nets, WIDTHS[0], 1))
    hs, zs = [h], []
    for W in weights:
        zs.append(W @ h)
        h = phi(zs[-1])
        hs.append(h)
    g = rng.normal(size=h.shape)
    gs = [g]
    for W, z in zip(weights[::-1], zs[::-1], strict=True):
        g = W.transpose(0, 2, 1) @ (slope(z) * g)
        gs.append(g)
    return tuple(
        np.stack([np.square(a).mean(axis=(1, 2)) for a in layers]) for layers in (hs, gs[::-1])
    )


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_logarithms_are_exact_at_small_width(activation):
    """Both directions, every layer; ReLU's backward law is the one that needs the argument."""
    nets = 40_000
    expected = propagation.expected_log_variances(activation, WIDTHS, variances(activation))
    laws = (
        propagation.forward_laws(activation, WIDTHS, variances(activation)),
        propagation.backward_laws(activation, WIDTHS, variances(activation)),
    )
    end = (-1, 0)
    for direction, observed in enumerate(simulate(activation, nets)):
        alive = observed[:, (observed > 0).all(axis=0)]
        assert nets - alive.shape[1] < 60  # a dead layer of 12 has probability 2**-12
        logs = np.log(alive)
        error = np.maximum(logs.std(axis=1), 1e-12) / math.sqrt(nets)
        assert (np.abs(logs.mean(axis=1) - expected[direction]) <= 6 * error).all()
        spread = logs[end[direction]].var()
        assert spread == pytest.approx(sum(law.variance for law in laws[direction]), rel=0.1)


@pytest.mark.parametrize("activation", propagation.ACTIVATIONS)
def test_second_moments(activation):
    """Exact for linear and ReLU; a limit of width for tanh, within a few percent at 12 to 24."""
    expected = propagation.second_moments(activation, WIDTHS, variances(activation))
    for exact, observed in zip(expected, simulate(activation, 40_000), strict=True):
        error = observed.std(axis=1) / math.sqrt(observed.shape[1])
        allowed = 0.15 * exact if activation == "tanh" else 7 * error + 1e-12
        assert (np.abs(observed.mean(axis=1) - exact) <= allowed).all()


def test_deviation_bound_holds_and_is_sharp():
    """Against the exact tail of a chi-squared: never below it, and within a third of it."""
    from scipy.stats import chi2

    n, level = 50, 1e-6

    def cumulant(t):
        with np.errstate(invalid="ignore"):
            return np.where(t < 0.5, -n / 2 * np.log(np.maximum(1 - 2 * t, 1e-300)), np.inf)

    bound = propagation.deviation_bound(cumulant, n, 2 * n, level)
    assert chi2.sf(n + bound, n) + chi2.cdf(n - bound, n) <= level
    assert bound <= 4 / 3 * (chi2.isf(level / 2, n) - n)


@pytest.mark.parametrize("q", [1e-60, 0.3])
def test_tanh_sum_bound(q):
    nets, width = 4, 64
    mean, bound = propagation.tanh_sum_bound(np.full(nets, q), width, 1e-6)
    assert mean == pytest.approx(nets * width * second_moments("tanh", q)[0], rel=1e-11)
    z = np.random.default_rng(0).normal(size=(2000, nets * width))
    sums = np.square(np.tanh(math.sqrt(q) * z)).sum(axis=1)
    assert np.abs(sums - mean).max() <= bound <= 8 * sums.std()


def test_refusals():
    with pytest.raises(InvalidArgument, match="did you mean 'tanh'"):
        propagation.second_moments("tanhh", [2, 2], [1.0])
    with pytest.raises(InvalidArgument, match="linear and relu"):
        propagation.growth("tanh", 1.0, 8)
    with pytest.raises(InvalidArgument, match="false_alarm"):
        propagation.mean_bound([propagation.growth("relu", 1.0, 64)], 10, 1e-13)


# --- the distribution of a sum, given that nothing died ------------------------------------------


def test_alive_is_growth_given_that_a_unit_is_active():
    law = propagation.alive("relu", 0.7, 5)
    chance = {k: mp.binomial(5, k) / mp.mpf(31) for k in range(1, 6)}
    mean = mp.log(mp.mpf("1.4")) + sum(w * mp.psi(0, mp.mpf(k) / 2) for k, w in chance.items())
    assert law.mean == pytest.approx(float(mean), rel=1e-12)
    assert law.dropped == 0
    assert propagation.alive("linear", 0.7, 5).mean == propagation.growth("linear", 0.7, 5).mean
    # E ln((2/n) chi2_K) and its variance, as listed for n = 10
    assert propagation.alive("relu", 0.2, 10).mean == pytest.approx(-0.307461011, rel=1e-8)
    assert propagation.alive("relu", 0.2, 10).variance == pytest.approx(0.866734253, rel=1e-8)


def test_dead_probability_by_counting():
    assert propagation.dead_probability([1, 2]) == 1 - 0.5 * 0.75
    assert propagation.dead_probability([200] * 4) == pytest.approx(4 * 2.0**-200)


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_fourth_moment_ratio_is_that_of_the_law(activation):
    widths = (3, 11, 6)
    laws = [propagation.growth(activation, 0.3, n) for n in widths]  # K = 0 adds to no moment
    fourth, second = (sum(law.cumulant(np.array([t]))[0] for law in laws) for t in (2.0, 1.0))
    exact = propagation.fourth_moment_ratio(activation, widths)
    assert exact == pytest.approx(np.exp(fourth - 2 * second), rel=1e-10)
    listed = {(8, 10): 128.39073, (32, 10): 4.2708809}
    for (width, depth), ratio in listed.items():
        found = propagation.fourth_moment_ratio("relu", [width] * depth)
        assert found == pytest.approx(ratio, rel=1e-7)


def test_sum_cdf_of_one_chi_square_and_of_a_mixture():
    from scipy.stats import chi2

    x = np.linspace(-6, 4, 41)
    linear = propagation.growth("linear", 0.4, 3)
    np.testing.assert_allclose(
        propagation.sum_cdf([linear], x), chi2.cdf(np.exp(x) / 0.4, 3), atol=1e-11
    )
    relu = propagation.alive("relu", 0.4, 6)
    mixed = sum(
        w * chi2.cdf(np.exp(x) / 0.4, k) for k, w in zip(relu.degrees, relu.weights, strict=True)
    )
    np.testing.assert_allclose(propagation.sum_cdf([relu], x), mixed, atol=1e-11)


def test_sum_cdf_of_two_layers_by_quadrature_and_its_quantile():
    a, b = propagation.growth("linear", 0.5, 4), propagation.alive("relu", 0.2, 3)

    def beyond(x):  # P(ln A + ln B <= x), integrating over A = chi2_4 / 2
        def inner(y):
            bound = mp.exp(x) / (y / 2) / mp.mpf("0.2")
            below = sum(
                w * mp.gammainc(mp.mpf(k) / 2, 0, bound / 2, regularized=True)
                for k, w in zip(map(int, b.degrees), map(mp.mpf, b.weights), strict=True)
            )
            return y * mp.exp(-y / 2) / 4 * below

        return mp.quad(inner, [0, 1, 4, 10, 30, 80])

    for x in (-3.0, -0.7, 0.9):
        exact = float(beyond(mp.mpf(x)))
        found = float(propagation.sum_cdf([a, b], np.array(x)))
        assert found == pytest.approx(exact, abs=1e-10)
        assert propagation.sum_quantile([a, b], found) == pytest.approx(x, abs=1e-7)


def test_tilted_weights_by_the_power_of_the_norm():
    law = propagation.alive("relu", 0.3, 7)
    tilted = law.tilted(2.0)
    step = 1e-5
    at = law.cumulant(np.array([2 - step, 2.0, 2 + step]))
    assert tilted.mean == pytest.approx((at[2] - at[0]) / (2 * step), rel=1e-8)
    assert tilted.cumulant(np.array([1.0]))[0] == pytest.approx(
        law.cumulant(np.array([3.0]))[0] - at[1], rel=1e-12
    )


# --- what each row adds to those before ----------------------------------------------------------


def test_innovations_are_those_of_a_triangular_factor():
    """R = L Q with orthonormal rows of Q: the rows of L^-1 Z are what W maps those of Q to."""
    draws = np.random.default_rng(1)
    rows, W = draws.normal(size=(5, 7)), draws.normal(size=(3, 7))
    q, r = np.linalg.qr(rows.T)
    images = np.linalg.solve(r.T, rows @ W.T)
    expected = np.square(images).sum(axis=1)
    np.testing.assert_allclose(np.square(W @ q).sum(axis=0), expected, rtol=1e-10)
    found = propagation.innovations(rows, rows @ W.T, resolved=np.zeros(5))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    later = propagation.innovations(rows, rows @ W.T, resolved=np.zeros(5), known=2)
    np.testing.assert_array_equal(later, found[2:])
    away = np.eye(3)[:1]
    part = propagation.innovations(rows, rows @ W.T, resolved=np.zeros(5), seen=2.5 * away)
    np.testing.assert_allclose(part, np.square(images[:, 1:]).sum(axis=1), rtol=1e-10)


def test_rows_that_do_not_stand_out_are_left_out():
    rows = np.array([[1.0, 0, 0], [2.0, 1e-9, 0], [0, 1.0, 0], [0, 0, 0]])
    W = np.arange(6.0).reshape(2, 3)
    resolved = np.full(4, 1e-8)
    expected = [9.0, np.nan, 17.0, np.nan]
    found = propagation.innovations(rows, rows @ W.T, resolved=resolved)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # what the second told, too little to see, may be what the third owes to it
    later = propagation.innovations(rows, rows @ W.T, resolved=resolved, known=2)
    np.testing.assert_array_equal(later, [np.nan, np.nan])
    zero = propagation.innovations(rows[[3, 0]], rows[[3, 0]] @ W.T, resolved=resolved, known=1)
    np.testing.assert_allclose(zero, [9.0])


def test_what_a_row_leaves_in_another_counts():
    """The second direction is known to 1e-3 alone, so that a third row of 1e-4 beside it is not."""
    rows = np.array([[1.0, 0, 0], [1.0, 1e-5, 0], [0, 1.0, 1e-4]])
    resolved = np.array([1e-8, 1e-8, 1e-8])
    found = propagation.innovations(rows, rows, resolved=resolved)
    np.testing.assert_array_equal(np.isnan(found), [False, False, True])
    alone = propagation.innovations(rows[[0, 2]], rows[[0, 2]], resolved=resolved)
    assert not np.isnan(alone).any()


def test_steps_of_shared_weights_are_independent_chi_squares():
    """A recurrent net, and back through the transposed weights: no step knows those before."""
    draws, steps, n = np.random.default_rng(2), 5, 12
    there, back, naive = [], [], []
    for _ in range(3000):
        W = draws.normal(size=(n, n))
        h, rows, outputs = np.ones(n), [], []
        for _ in range(steps):
            rows.append(h)
            outputs.append(W @ h)
            h = np.tanh(W @ h / math.sqrt(n) + 0.5 * h)
        R, Z = np.array(rows), np.array(outputs)
        there.append(propagation.innovations(R, Z, resolved=np.full(steps, 1e-9)))
        y = np.tanh(Z[-1])[None]
        back.append(propagation.innovations(y, y @ W, resolved=np.zeros(1), seen=R)[0])
        naive.append(float(np.sum(np.square(y @ W)) / np.sum(y * y)))
    there = np.array(there)
    assert kstest(there.ravel(), chi2(n).cdf).pvalue > 1e-6
    assert kstest(back, chi2(n - steps).cdf).pvalue > 1e-6
    assert kstest(naive, chi2(n).cdf).pvalue < 1e-9  # the conditioning is needed
    correlations = np.corrcoef(np.log(there).T) - np.eye(steps)
    assert np.abs(correlations).max() < 6 / math.sqrt(3000)
