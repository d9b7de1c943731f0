"""What a cut does to a normal law, against 50 digits."""

import mpmath
import numpy as np

from isometry.common.laws.distributions import TRUNCATED_STD
from isometry.common.laws.gaussian import cut_normal


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
