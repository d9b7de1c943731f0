"""A line's slope and its interval: SciPy's numbers, and as often right as it says."""

import numpy as np
import pytest
from scipy import stats

from isometry.common.errors import InvalidArgument
from isometry.common.laws.regression import fit


def test_is_scipys_line():
    rng = np.random.default_rng(2)
    x = rng.uniform(-3, 5, 17)
    y = 2.5 - 0.7 * x + rng.normal(size=17)
    line, reference = fit(x, y), stats.linregress(x, y)
    assert line.slope == pytest.approx(reference.slope, rel=1e-12)
    assert line.intercept == pytest.approx(reference.intercept, rel=1e-12)
    assert line.error == pytest.approx(reference.stderr, rel=1e-12)
    assert line.degrees == 15
    assert line.margin(0.05) == pytest.approx(stats.t.ppf(0.975, 15) * reference.stderr)


def test_an_exact_line_has_no_error():
    line = fit(np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0, 9.0]))
    assert (line.slope, line.intercept) == (pytest.approx(2), pytest.approx(1))
    assert line.margin(1e-9) == pytest.approx(0, abs=1e-6)


def test_intervals_miss_as_often_as_they_say():
    """20 % of them, at 5 points: binomial limits of 2000 trials at 1e-9 a side."""
    rng, x = np.random.default_rng(3), np.arange(5.0)
    missed = sum(
        abs((line := fit(x, 0.3 * x + rng.normal(size=5))).slope - 0.3) > line.margin(0.2)
        for _ in range(2000)
    )
    low, high = stats.binom.ppf([1e-9, 1 - 1e-9], 2000, 0.2)
    assert low <= missed <= high


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [1, 2], "at least 3 points"),
        ([1, 1, 1], [1, 2, 3], "2 different x"),
        ([1, 2, 3], [1, 2], r"of shape \(3,\) and y of shape \(2,\)"),
        ([1, 2, 3], [1, np.nan, 3], "finite"),
    ],
)
def test_refuses(x, y, message):
    with pytest.raises(InvalidArgument, match=message):
        fit(np.array(x, float), np.array(y, float))
