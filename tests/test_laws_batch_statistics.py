"""The laws of values standardized in their own batch, against closed forms and simulation."""

import math

import mpmath as mp
import numpy as np
import pytest
from scipy import stats

from isometry.common.errors import InvalidArgument
from isometry.common.laws.batch_statistics import pair, standardized_cdf


def test_three_and_four_have_closed_forms():
    """m = 3: the arcsine law on -+sqrt(2); m = 4: uniform on -+sqrt(3)."""
    z = np.array([-1.3, -0.4, 0.0, 0.7, 1.2])
    arcsine = 0.5 + np.arcsin(z / math.sqrt(2)) / math.pi
    np.testing.assert_allclose(standardized_cdf(z, 3), arcsine, rtol=1e-13)
    np.testing.assert_allclose(standardized_cdf(z, 4), (z / math.sqrt(3) + 1) / 2, rtol=1e-13)
    ends = np.array([-9.0, -math.sqrt(2), math.sqrt(2), 9.0])
    np.testing.assert_allclose(standardized_cdf(ends, 3), [0, 0, 1, 1], atol=1e-7)


@pytest.mark.parametrize("batch", [5, 11, 40])
def test_is_the_integral_of_its_density(batch):
    """Density ``(1 - z**2 / (m - 1))**((m - 4) / 2)``, up to its norm, by mpmath."""

    def mass(low, high):
        return mp.quad(
            lambda t: abs(1 - t * t / (batch - 1)) ** mp.mpf((batch - 4) / 2), [low, high]
        )

    end = mp.sqrt(batch - 1)
    exact = mass(-end, mp.mpf("0.83")) / mass(-end, end)
    assert float(standardized_cdf(np.array(0.83), batch)) == pytest.approx(float(exact), rel=1e-12)


def test_large_batches_are_normal():
    z = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(standardized_cdf(z, 10**7), stats.norm.cdf(z), atol=1e-7)


def test_pair():
    x = np.array([[5.0, 1.0, 2.0], [1.0, 2.0, 2.0]])
    np.testing.assert_allclose(
        pair(x, 0.5), [[2 / 4.5**0.5, -0.5 / 0.75**0.5, 0], [-2 / 4.5**0.5, 0.5 / 0.75**0.5, 0]]
    )


def test_refuses():
    with pytest.raises(InvalidArgument, match="batch must be at least 3; received 2"):
        standardized_cdf(np.zeros(1), 2)
