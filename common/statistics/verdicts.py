"""Tests of a law on samples already drawn, each with its two error rates.

========================== ==================================================== ==================
verdict                    judges                                               bound
========================== ==================================================== ==================
mean, spread               first and second moment about the law's mean         exact or Bernstein
distribution               the whole law: Kolmogorov's distance                 DKW
support                    values that the law does not have                    no false alarm
fraction, signs            booleans with a given probability, 1/2 for signs     exact binomial
distinct                   too few different values in half precision           Bernstein
log_norms                  sums of ln chi variables: norms of matrix chains     Chernoff
========================== ==================================================== ==================

Each ``..._resolution`` is the smallest effect that n values detect at given rates, each
``..._size`` the n that an effect needs. What a right sample may be off by says
:mod:`isometry.common.statistics.rates`.
"""

from isometry.common.statistics.counts import (
    above,
    fraction,
    fraction_resolution,
    fraction_size,
    signs,
)
from isometry.common.statistics.distinct import distinct, distinct_limit, distinct_size
from isometry.common.statistics.moments import mean, moment_resolution, moment_size, spread
from isometry.common.statistics.rates import FALSE_ALARM, MISS, Verdict, grid
from isometry.common.statistics.sums import log_norms
from isometry.common.statistics.whole import (
    distribution,
    distribution_resolution,
    distribution_size,
    support,
    support_resolution,
    support_size,
)

__all__ = [
    "FALSE_ALARM",
    "MISS",
    "Verdict",
    "above",
    "distinct",
    "distinct_limit",
    "distinct_size",
    "distribution",
    "distribution_resolution",
    "distribution_size",
    "fraction",
    "fraction_resolution",
    "fraction_size",
    "grid",
    "log_norms",
    "mean",
    "moment_resolution",
    "moment_size",
    "signs",
    "spread",
    "support",
    "support_resolution",
    "support_size",
]
