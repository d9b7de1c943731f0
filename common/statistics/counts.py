"""Verdicts on counts of independent booleans, by the exact binomial law."""

from __future__ import annotations

import functools
import math

import numpy as np

from isometry.common.statistics import bounds
from isometry.common.statistics.rates import FALSE_ALARM, MISS, Verdict, enough, grid

__all__ = ["above", "fraction", "fraction_resolution", "fraction_size", "signs"]


def signs(positive: np.ndarray, *, detects: float, false_alarm: float = FALSE_ALARM) -> Verdict:
    """Judge independent booleans that must be fair coins, to the grid of float32.

    `detects` is the distance of the probability from 1/2. Products of the signs of two samples,
    symmetric about 0, are fair coins if the samples are independent: two draws of a stream, or
    those of two seeds.
    """
    return fraction(
        positive,
        0.5,
        detects=detects,
        slack=grid("float32"),
        false_alarm=false_alarm,
        claim="fraction of positive signs",
    )


def fraction(
    hits: np.ndarray,
    probability: float,
    *,
    detects: float,
    claim: str,
    slack: float = 0.0,
    false_alarm: float = FALSE_ALARM,
    miss: float = MISS,
) -> Verdict:
    """Judge independent booleans that must be true with `probability`, by the exact binomial law.

    Parameters
    ----------
    detects : float
        A distance of the probability from the right one.
    slack : float
        How far the probability of a right sample may be off.
    """
    effect = f"a probability {{:g}} away from {probability:g}"
    needed = fraction_size(probability, slack, detects, false_alarm, miss)
    enough(hits.size, needed, effect.format(detects), miss)
    interval = (probability - slack, probability + slack)
    low, high = bounds.proportion(interval, hits.size, false_alarm)
    smallest = fraction_resolution(
        probability, hits.size, slack=slack, false_alarm=false_alarm, miss=miss
    )
    return Verdict(
        claim,
        float(np.mean(hits)),
        low,
        high,
        hits.size,
        false_alarm,
        effect.format(detects),
        miss,
        effect.format(smallest),
        bounds.proportion_p(interval, hits.size, int(np.count_nonzero(hits))),
    )


def fraction_resolution(
    probability: float, count: int, *, slack: float, false_alarm: float, miss: float
) -> float:
    """Return the distance of another probability: exact, Clopper and Pearson 1934.

    ``P(K <= k; q) = miss`` at the upper quantile `miss` of Beta(k + 1, n - k). Infinite where no
    other probability on one side is sure to be caught.
    """
    interval = (probability - slack, probability + slack)
    low, high = bounds.proportion(interval, count, false_alarm)
    if low == 0 or high == 1:
        return math.inf
    return max(
        above(high, count, miss) - probability, above(1 - low, count, miss) - 1 + probability
    )


def above(high: float, count: int, miss: float) -> float:
    """Return the q with ``P(K <= high n; q) = miss``, the number of hits K being binomial."""
    from scipy.stats import beta

    most = round(high * count)
    return 1.0 if most == count else float(beta.isf(miss, most + 1, count - most))


@functools.cache
def fraction_size(
    probability: float, slack: float, detects: float, false_alarm: float, miss: float
) -> int:
    """Return, to 1 %, the sample size from which on the fraction detects the effect."""

    def caught(count: int) -> bool:
        resolution = fraction_resolution(
            probability, count, slack=slack, false_alarm=false_alarm, miss=miss
        )
        # a discrete law's limits, and what they catch, jump by 1 / n from one n to the next
        return resolution + 2 / count <= detects

    return bounds.required(caught)
