"""The slope of a straight line through measured points, with its confidence interval.

For ``y_k = a + b x_k + e_k``, e_k independent N(0, sigma**2), the least-squares slope has
``(slope - b) / error ~ t`` with n - 2 degrees of freedom, where ``error**2 = sum r_k**2 / ((n - 2)
sum (x_k - mean x)**2)`` and r are the residuals (Student 1908; Draper and Smith 1998, Applied
Regression Analysis, section 1.4). Exact for normal errors of one variance; what else is fitted by
it, says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isometry.common.errors import InvalidArgument

__all__ = ["Line", "fit"]


@dataclass(frozen=True)
class Line:
    """A fitted line.

    Attributes
    ----------
    slope, intercept : float
    error : float
        Standard error of the slope.
    degrees : int
        Of freedom, n - 2.
    """

    slope: float
    intercept: float
    error: float
    degrees: int

    def margin(self, rate: float) -> float:
        """Return m: the true slope is outside slope -+ m with probability `rate`."""
        from scipy.stats import t

        return float(t.isf(rate / 2, self.degrees)) * self.error


def fit(x: np.ndarray, y: np.ndarray) -> Line:
    """Fit a line by least squares.

    Parameters
    ----------
    x, y : array (n,)
        At least 3 finite points, of at least 2 different x.

    Raises
    ------
    InvalidArgument
        If there are fewer, or one is not finite.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 1 or x.size < 3 or np.ptp(x) == 0:
        raise InvalidArgument(
            f"a line with its error needs at least 3 points (x, y), of 2 different x; received x "
            f"of shape {x.shape} and y of shape {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidArgument("a line needs finite points; received infinity or NaN")
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    intercept = float(y.mean() - slope * x.mean())
    residuals = y - y.mean() - slope * centred
    degrees = x.size - 2
    error = (float(residuals @ residuals) / (degrees * spread)) ** 0.5
    return Line(slope, intercept, error, degrees)
