"""Double wells and random curvature against counting, mpmath, quadrature and long courses."""

import itertools
import math

import mpmath
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import definite, saddles


def loss(u):
    return np.sum((np.square(u) - 1) ** 2) / 4


@pytest.mark.parametrize("n", [1, 3, 5])
def test_critical_points_are_counted(n):
    counted = np.zeros(n + 1, dtype=int)
    for point in itertools.product((-1.0, 0.0, 1.0), repeat=n):
        u = np.array(point)
        assert np.all(u**3 - u == 0)
        counted[np.sum(3 * u**2 - 1 < 0)] += 1
    assert (saddles.index_counts(n) == counted).all()
    assert saddles.share_of_minima(n) == pytest.approx(counted[0] / counted.sum(), rel=1e-15)


def test_counts_stay_exact():
    assert sum(int(k) for k in saddles.index_counts(39)) == 3**39


def test_steps_follow_from_the_loss():
    rate, d = 0.07, 2.3
    for x in (-1.31, 0.013, 0.52, 1.9):
        with mpmath.workdps(40):
            f = lambda u: (u**2 - 1) ** 2 / 4  # noqa: E731
            slope, bend = mpmath.diff(f, x), mpmath.diff(f, x, 2)
            descent, newton = x - rate * slope, x - slope / bend
            damped = x - slope / (bend + d)
        assert saddles.descend(np.array(x), rate) == pytest.approx(float(descent), rel=1e-13)
        assert saddles.newton(np.array(x)) == pytest.approx(float(newton), rel=1e-12)
        assert saddles.newton(np.array(x), d) == pytest.approx(float(damped), rel=1e-13)


@pytest.mark.parametrize(("rate", "d"), [(0.3, 0.8), (1.7, 3.5)])
def test_factors_are_those_of_a_quadratic(rate, d):
    curvature, w = np.array([2.0, 0.4, -0.7]), np.array([0.3, -1.2, 0.9])
    g = curvature * w
    assert saddles.descent_factor(curvature, rate) * w == pytest.approx(w - rate * g, rel=1e-13)
    damped = w - np.linalg.solve(np.diag(curvature + d), g)
    assert saddles.damped_factor(curvature, d) * w == pytest.approx(damped, rel=1e-13)
    assert (saddles.damped_factor(curvature, 0.0) == 0).all()


def settled(u):
    for _ in range(200):
        u = saddles.newton(u)
    return u


def test_the_basin_of_the_top_ends_at_the_cycle():
    b = saddles.BASIN
    assert saddles.newton(np.array(b)) == pytest.approx(-b, rel=1e-15)
    inside = np.linspace(0, b * (1 - 1e-9), 1001)
    assert (settled(inside) == 0).all()
    outside = settled(np.linspace(b * (1 + 1e-9), 3, 20011))
    assert np.allclose(np.abs(outside), 1, rtol=0, atol=1e-12)
    assert (outside < 0).any()  # not all stay on their side
    assert (outside[-1000:] > 0).all()


def test_share_of_the_top():
    assert saddles.top_share(2.0) == pytest.approx(0.22360679774997896, rel=1e-15)
    assert saddles.top_share(0.3) == 1
    u = np.linspace(-1.7, 1.7, 400001)
    assert saddles.top_share(1.7) == pytest.approx(np.mean(settled(u) == 0), abs=1e-5)


@pytest.mark.parametrize("step", ["descent", "damped"])
def test_descent_and_damped_newton_pass_no_critical_point(step):
    reach = 1.4
    u = np.linspace(-reach, reach, 20001)
    if step == "descent":
        after = saddles.descend(u, 1 / (3 * reach**2 - 1))
    else:
        after = saddles.newton(u, 2.0)
    assert (np.diff(after) >= 0).all()
    closer = np.abs(np.abs(after) - 1) <= np.abs(np.abs(u) - 1)
    assert closer[np.abs(u) > 1e-9].all()
    assert (np.sign(np.round(after, 15)) == np.sign(np.round(u, 15))).all()


# --- random curvature ----------------------------------------------------------------------------


def test_small_sizes_in_closed_form():
    exact = [0.5, (2 - math.sqrt(2)) / 4, (math.pi - 2 * math.sqrt(2)) / (4 * math.pi)]
    found = [definite.positive_definite_probability(n) for n in (1, 2, 3)]
    assert found == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("n", range(1, 9))
def test_probability_against_60_digits(n):
    """The same Pfaffian by mpmath, its entries by quadrature over the angle."""
    with mpmath.workdps(60):
        A = mpmath.zeros(n + n % 2)
        for k in range(n):
            for j in range(k):
                half = mpmath.mpf(j + k) / 2
                angle = mpmath.quad(
                    lambda t, j=j, k=k: (
                        mpmath.cos(t) ** j * mpmath.sin(t) ** k
                        - mpmath.cos(t) ** k * mpmath.sin(t) ** j
                    ),
                    [mpmath.pi / 4, mpmath.pi / 2],
                )
                A[j, k] = 2**half * mpmath.gamma(half + 1) * angle
            if n % 2:
                A[k, n] = 2 ** (mpmath.mpf(k - 1) / 2) * mpmath.gamma(mpmath.mpf(k + 1) / 2)
        total = (2 * mpmath.pi) ** (mpmath.mpf(n) / 2)
        for j in range(1, n + 1):
            total *= mpmath.gamma(1 + mpmath.mpf(j) / 2) / mpmath.gamma(mpmath.mpf(3) / 2)
        exact = float(mpmath.factorial(n) * mpmath.sqrt(mpmath.det(A - A.T)) / total)
    assert definite.positive_definite_probability(n) == pytest.approx(exact, rel=2e-9)


def test_size_two_without_a_pfaffian():
    """a > 0, c > 0, b**2 < a c with a, c ~ N(0, 1), b ~ N(0, 1/2), by quadrature."""

    def density(r, t):  # a = r cos t, c = r sin t
        beyond = mpmath.erf(r * mpmath.sqrt(mpmath.cos(t) * mpmath.sin(t)))
        return r * mpmath.exp(-r * r / 2) / (2 * mpmath.pi) * beyond

    found = mpmath.quad(density, [0, 12], [0, mpmath.pi / 2])
    assert definite.positive_definite_probability(2) == pytest.approx(float(found), rel=1e-8)


def test_large_sizes_fall_as_dean_and_majumdar_say():
    logs = np.log([definite.positive_definite_probability(n) for n in range(1, 9)])
    bend = -np.diff(logs, 2) / 2
    assert (np.diff(bend) > 0).all()
    assert bend[-1] < definite.DECAY
    assert bend[-1] == pytest.approx(definite.DECAY, rel=2e-3)
    assert pytest.approx(0.27465307, rel=1e-8) == definite.DECAY


@pytest.mark.parametrize("n", [0, 9])
def test_refuses_sizes_it_has_no_digits_for(n):
    with pytest.raises(InvalidArgument, match=f"n must be between 1 and 8; received {n}"):
        definite.positive_definite_probability(n)


def test_refuses_what_is_no_reach():
    with pytest.raises(InvalidArgument, match="reach must be greater than 0"):
        saddles.top_share(0.0)
