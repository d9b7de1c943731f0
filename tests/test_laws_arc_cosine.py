"""The arc-cosine kernel against mpmath, its recursion, and its bounds against samples."""

import itertools

import mpmath as mp
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import arc_cosine

mp.mp.dps = 30


def kernel(rho):
    """2 E relu(z) relu(z') by quadrature over z, the other given it being normal."""
    rho = mp.mpf(rho)
    s = mp.sqrt(1 - rho**2)

    def inner(z):
        mean = rho * z
        return mp.npdf(z) * z * (mean * mp.ncdf(mean / s) + s * mp.npdf(mean / s))

    return 2 * mp.quad(inner, [0, 1, 2, 4, 8, 16])


@pytest.mark.parametrize("rho", [-0.97, -0.4, 0.0, 0.137, 0.5, 0.81, 0.9994])
def test_kernel_is_the_integral(rho):
    assert arc_cosine.correlation(rho) == pytest.approx(float(kernel(rho)), rel=1e-13)


@pytest.mark.parametrize("slope", [-1.0, -0.3, 0.01, 0.2, 1.0])
@pytest.mark.parametrize("rho", [-0.6, 0.33])
def test_leaky_kernel_is_the_integral(slope, rho):
    def mean(z):  # E of the leaky ReLU of a normal variable given z
        m, s = mp.mpf(rho) * z, mp.sqrt(1 - mp.mpf(rho) ** 2)
        up = m * mp.ncdf(m / s) + s * mp.npdf(m / s)
        return up + slope * (m - up)

    def product(z):
        return mp.npdf(z) * z * (mean(z) - slope * mean(-z))

    exact = mp.quad(product, [0, 1, 2, 4, 8, 16]) * 2 / (1 + mp.mpf(slope) ** 2)
    assert arc_cosine.correlation(rho, slope) == pytest.approx(float(exact), rel=1e-13)


def test_kernel_at_its_ends_keeps_relative_precision():
    assert arc_cosine.correlation(1.0) == pytest.approx(1.0, rel=1e-15)
    assert arc_cosine.correlation(-1.0) == 0.0
    rho = -1 + 2.0**-40
    theta = mp.acos(-mp.mpf(rho))
    exact = (mp.sin(theta) - theta * mp.cos(theta)) / mp.pi
    assert arc_cosine.correlation(rho) == pytest.approx(float(exact), rel=1e-14)


def exact_shares(layers, slope, rho):
    slope, rho = mp.mpf(slope), mp.mpf(rho)
    shares = [1 - rho]
    for _ in range(layers):
        theta = mp.acos(rho)
        mapped = (mp.sin(theta) + (mp.pi - theta) * rho) / mp.pi
        rho = ((1 - slope) ** 2 * mapped + 2 * slope * rho) / (1 + slope**2)
        shares.append(1 - rho)
    return shares


@pytest.mark.parametrize(("slope", "rho"), [(0.0, 0.0), (0.0, -0.2), (0.3, 0.7)])
def test_shares_against_mpmath_at_depth(slope, rho):
    layers = 3000
    shares = arc_cosine.sample_shares(layers, rho=rho, slope=slope)
    exact = exact_shares(layers, slope, rho)
    for layer in (0, 1, 7, 33, 150, layers):
        assert shares[layer] == pytest.approx(float(exact[layer]), rel=1e-12)


@pytest.mark.parametrize(
    ("layer", "rho", "ratio"),
    [
        (3, 0.604825720113, 1.2371455),
        (20, 0.948428479156, 4.2884201),
        (200, 0.999015643554, 31.8573722),
    ],
)
def test_shares_at_known_layers(layer, rho, ratio):
    shares = arc_cosine.sample_shares(layer)
    assert 1 - shares[-1] == pytest.approx(rho, abs=1e-12)
    assert arc_cosine.mean_over_deviation(shares)[-1] == pytest.approx(ratio, rel=3e-8)


@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_the_angle_approaches_its_limit(slope):
    errors = []
    for layers in (10**3, 10**4, 3 * 10**4):
        share = arc_cosine.sample_shares(layers, slope=slope)[-1]
        angle = 2 * np.arcsin(np.sqrt(share / 2))
        errors.append(abs(angle / arc_cosine.asymptotic_angle(layers, slope) - 1) * layers)
        # theta' = theta - c theta**2 + O(theta**3): l c theta - 1 falls like ln(l) / l
        assert errors[-1] < 3 * np.log(layers) * (1 + slope) ** 2 / (1 - slope) ** 2
    assert errors[-1] / 3e4 < errors[0] / 1e3 / 15


def test_the_identity_and_equal_inputs_decay_nothing():
    assert (arc_cosine.sample_shares(50, rho=0.4, slope=1.0) == 0.6).all()
    assert (arc_cosine.sample_shares(50, rho=1.0) == 0.0).all()


# --- one step ------------------------------------------------------------------------------------


def roots(h, variance, units, draws, rng):
    """Sample the two averages of squares whose expectations `step` gives."""
    W = rng.normal(0.0, np.sqrt(variance), (draws, units, h.shape[1]))
    y = np.maximum(np.einsum("dun,sn->dsu", W, h), 0)
    mean = np.square(y.mean(axis=1)).mean(axis=1)
    return mean, y.var(axis=1).mean(axis=1)


def test_step_is_the_expectation_and_its_constant_a_lipschitz_constant():
    rng = np.random.default_rng(8)
    h, variance, units = rng.normal(size=(5, 7)), 0.4, 6
    law = arc_cosine.step(h, variance, units)
    mean, sample = roots(h, variance, units, 100_000, rng)
    for values, exact in ((mean, law.mean), (sample, law.sample)):
        assert abs(values.mean() - exact) < 5 * values.std() / np.sqrt(values.size)
        assert np.sqrt(values).var() <= law.lipschitz**2  # Poincare

    def root(W):
        return np.sqrt(np.square(np.maximum(W @ h.T, 0).mean(axis=1)).mean())

    for _ in range(200):
        W, V = rng.normal(size=(2, units, 7))
        change = abs(root(np.sqrt(variance) * W) - root(np.sqrt(variance) * V))
        assert change <= law.lipschitz * np.linalg.norm(W - V)


def test_departures_stay_within_their_bound_and_the_bound_is_no_idle_one():
    rng = np.random.default_rng(9)
    h, variance, units = np.abs(rng.normal(size=(4, 12))), 2 / 12, 12
    law = arc_cosine.step(h, variance, units)
    count, level = 8, 0.05
    mean, _ = roots(h, variance, units, 2000 * count, rng)
    departures = ((np.sqrt(mean) - np.sqrt(law.mean)) / law.lipschitz).reshape(-1, count)
    bound = arc_cosine.departure_bound(
        np.full(count, law.mean), np.full(count, law.lipschitz), np.full(count, 1 / count), level
    )
    outside = np.abs(departures.mean(axis=1)) >= bound
    assert outside.mean() <= level
    assert np.abs(departures.mean(axis=1)).max() > bound / 4


def test_a_dead_sample_is_no_division_by_zero():
    law = arc_cosine.step(np.array([[0.0, 0.0], [1.0, 2.0]]), 1.0, 3)
    assert law.mean + law.sample == pytest.approx(5 / 4)
    assert law.mean == pytest.approx(5 / 8)


def test_it_refuses():
    for call in (
        lambda: arc_cosine.sample_shares(-1),
        lambda: arc_cosine.sample_shares(3, rho=1.5),
        lambda: arc_cosine.sample_shares(3, slope=float("nan")),
        lambda: arc_cosine.correlation(0.5, 2.0),
    ):
        with pytest.raises(InvalidArgument, match="must be"):
            call()


def test_shares_fall_and_never_below_zero():
    for rho, slope in itertools.product((-1.0, 0.0, 0.99), (-0.9, 0.0, 0.9)):
        shares = arc_cosine.sample_shares(500, rho=rho, slope=slope)
        assert (np.diff(shares) <= 0).all()
        assert shares[-1] > 0
