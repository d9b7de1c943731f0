"""What a cut does to a normal law, and products of two functions, against many digits."""

import mpmath
import numpy as np
import pytest

from isometry.common.laws.distributions import TRUNCATED_STD
from isometry.common.laws.gaussian import cut_normal, pair_expectations, products


def exact(c):
    with mpmath.workdps(50):
        c = mpmath.mpf(c)
        mass = mpmath.erf(c / mpmath.sqrt(2))
        second = mpmath.quad(lambda x: x**2 * mpmath.npdf(x), [-c, c])
        clamped = second + c**2 * (1 - mass)
        return [float(v) for v in (mass, mpmath.sqrt(second / mass), mpmath.sqrt(clamped))]


def test_a_cut_leaves_what_quadrature_says():
    cuts = np.array([0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
    found = np.transpose(cut_normal(cuts))
    np.testing.assert_allclose(found, [exact(c) for c in cuts], rtol=1e-12)
    np.testing.assert_allclose(found[3, 1], TRUNCATED_STD, rtol=1e-14)


def expected_product(q_1, q_2, c):
    """Return ``E tanh(u_1) tanh(u_2)`` by trapezoids of 25 digits, which the poles let converge."""
    with mpmath.workdps(25):
        step, reach = mpmath.mpf(1) / 6, 66
        s_1, s_2, rest = mpmath.sqrt(q_1), mpmath.sqrt(q_2), mpmath.sqrt(1 - mpmath.mpf(c) ** 2)
        z = [(k * step, mpmath.npdf(k * step) * step) for k in range(-reach, reach + 1)]
        total = mpmath.mpf(0)
        for z_1, w_1 in z:
            inner = sum(w * mpmath.tanh(s_2 * (c * z_1 + rest * z_2)) for z_2, w in z)
            total += w_1 * mpmath.tanh(s_1 * z_1) * inner
        return float(total)


def test_products_of_tanh_against_a_double_integral():
    q_1, q_2, c = np.array([[1.3, 0.2, 0.7], [0.4, 1.1, 0.7], [0.6, -0.93, 0.0]])
    exact = [expected_product(*point) for point in zip(q_1, q_2, c, strict=True)]
    np.testing.assert_allclose(products(np.tanh, q_1, q_2, c), exact, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("q", [0.0, 1e-8, 1.0, 6.0, 400.0])
def test_products_of_one_signal_are_its_square(q):
    """Also where the series would need more terms: of variance 400 it lacks 1e-4."""
    c = np.array([1.0, -1.0])
    found = products(np.tanh, np.full(2, q), np.full(2, q), c)
    z = np.linspace(-13, 13, 80_001)
    square = np.tanh(np.sqrt(q) * z) ** 2 @ np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(found, c * square, rtol=1e-10)


@pytest.mark.parametrize("c", [0.3, -0.8])
def test_products_of_steep_functions(c):
    """Of variance 900 trapezoids are too coarse, whatever the series; nearly signs: Sheppard."""
    found = products(np.tanh, *np.full((2, 1), 900.0), np.array([c]))
    np.testing.assert_allclose(found, pair_expectations((np.tanh,), 900.0, 900.0, c), rtol=1e-11)
    assert found[0] == pytest.approx(2 / np.pi * np.arcsin(c), abs=0.02)


def test_products_of_numbers():
    for q in (1.0, 900.0):
        one = products(np.tanh, np.float64(q), np.float64(q), np.float64(0.5))
        np.testing.assert_allclose(one, pair_expectations((np.tanh,), q, q, 0.5)[0], rtol=1e-10)
