"""What a residual block does to a signal's length: moments in closed form, and a sample."""

import math

import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import propagation, residual_growth


@pytest.mark.parametrize("width", [32, 48, 200])
def test_first_two_moments_in_closed_form(width):
    """``E R**2 = 1 + (4 / n + 2) a + (1 + 2 / n) b``, a and b the moments of n sigma**2."""
    law = residual_growth.block_growth(width)
    n = width
    a = 4 * (n / 2) / n
    b = 16 * (n * (n + 5) / 4) / n**2  # E chi2_K**2 = n (n + 5) / 4
    moments = np.exp(law.cumulant(np.array([0.0, 1.0, 2.0])))
    assert moments[0] == pytest.approx(1, rel=1e-12)
    assert moments[1] == pytest.approx(3, rel=1e-9)
    assert moments[2] == pytest.approx(1 + (4 / n + 2) * a + (1 + 2 / n) * b, rel=1e-9)


def test_mean_and_variance_are_the_cumulant_s_derivatives():
    law, h = residual_growth.block_growth(40), 1e-3
    up, middle, down = law.cumulant(np.array([h, 0.0, -h]))
    assert law.mean == pytest.approx((up - down) / (2 * h), rel=1e-5)
    assert law.variance == pytest.approx((up - 2 * middle + down) / h**2, rel=1e-4)
    assert law.mean < math.log(3)  # Jensen
    assert law.cumulant(np.array([-20.0]))[0] == math.inf


def test_against_blocks():
    n, count = 32, 4000
    draws = np.random.default_rng(5)
    h = draws.normal(size=n)
    logs = np.empty(count)
    for k in range(count):
        first, second = draws.normal(0, math.sqrt(2 / n), (2, n, n))
        after = h + second @ np.maximum(first @ h, 0)
        logs[k] = math.log(after @ after / (h @ h))
    law = residual_growth.block_growth(n)
    bound = propagation.deviation_bound(
        lambda t: count * law.cumulant(t), count * law.mean, count * law.variance, 1e-12
    )
    assert abs(logs.mean() - law.mean) < bound / count < 0.06


def test_refuses():
    with pytest.raises(InvalidArgument, match="width must be at least 32; received 31"):
        residual_growth.block_growth(31)
