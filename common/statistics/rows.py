"""Verdicts on a weight as a matrix: whether its rows are independent, or it is orthogonal.

An orthogonal matrix has, entry by entry, nearly the law of a LeCun normal one. What tells them
apart is that its rows are orthogonal to each other, as those of independent entries never are.
"""

from __future__ import annotations

import math

import numpy as np

from isometry.common.laws.distributions import Distribution
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics import rounding
from isometry.common.statistics.rates import FALSE_ALARM, Verdict, grid

__all__ = ["independent_rows", "largest_entry"]


def independent_rows(
    matrix: np.ndarray, law: Distribution, *, dtype: str, false_alarm: float = FALSE_ALARM
) -> Verdict:
    """Judge that rows are not orthogonal to each other, as independent entries never make them.

    Of disjoint pairs of rows v, w let j be where |w_j| is largest. Given w and all of v but v_j,
    the inner product is at most h in size only if v_j lies in some interval of length
    2 h / |w_j|, which has at most the probability of the one about the mean: the law is unimodal
    and symmetric. So ``p = F(mean + h / |w_j|) - F(mean - h / |w_j|)`` at the h observed is a
    p-value, and those of the pairs are combined: ``-2 sum ln p`` is at most chi-squared with 2
    degrees each (Fisher 1932, Statistical Methods for Research Workers, section 21.1).

    Parameters
    ----------
    matrix : array (m, n), m at least 2
        Its rows are judged.
    law : Distribution
        Continuous, unimodal and symmetric.
    """
    from scipy.stats import chi2

    w = matrix.astype(np.float64)
    pairs = len(w) // 2
    first, second = w[0 : 2 * pairs : 2], w[1 : 2 * pairs : 2]
    product = np.abs(np.einsum("ij,ij->i", first, second))
    largest = np.abs(second).max(axis=1)
    off = FORMATS[dtype].ulp(np.abs(first).max(axis=1))
    h = np.divide(product, largest, out=np.full(pairs, math.inf), where=largest > 0) + off
    mean = law.moments[0]
    p = np.minimum(law.cdf(mean + h) - law.cdf(mean - h) + 2 * grid(dtype), 1.0)
    observed = float(-2 * np.log(p).sum())
    effect = "rows that are orthogonal to rounding"
    return Verdict(
        f"how nearly orthogonal {pairs} pairs of rows are, if the entries are of {law}",
        observed,
        0.0,
        float(chi2.isf(false_alarm, 2 * pairs)),
        matrix.size,
        false_alarm,
        effect,
        smallest=effect,
        p_value=float(chi2.sf(observed, 2 * pairs)),
    )


def largest_entry(
    matrix: np.ndarray, *, gain: float, dtype: str, false_alarm: float = FALSE_ALARM
) -> Verdict:
    """Judge that no entry of an orthogonal matrix is larger than Haar's measure makes likely.

    ``P(max |q_ij| >= t) <= m n P(|q| >= t)``, the sum over the entries, each of which has the law
    of `isometry.common.statistics.matrices.haar_entry`: ``q**2 ~ Beta(1/2, (n - 1)/2)``. The
    identity and permutations fail it.
    """
    from scipy.stats import beta

    shape = (matrix.shape[0], matrix.shape[1])
    half = (max(shape) - 1) / 2  # the square of an entry is of Beta(1/2, half)
    largest = float(np.abs(matrix).max()) / gain
    allowed = math.sqrt(beta.isf(false_alarm / matrix.size, 0.5, half)) if half else 1.0
    allowed += rounding.orthogonality(*shape, dtype)
    p = matrix.size * float(beta.sf(largest**2, 0.5, half)) if half else 1.0
    effect = f"an entry above {allowed:.3g} times the gain"
    return Verdict(
        "largest entry of an orthogonal matrix, over its gain",
        largest,
        0.0,
        allowed,
        matrix.size,
        false_alarm,
        effect,
        miss=0.0,
        smallest=effect,
        p_value=min(1.0, p),
    )
