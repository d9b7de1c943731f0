"""Exact laws of products of Gaussian matrices: sums of independent ln chi variables.

For ``P = M_1 ... M_T``, n x n with independent N(0, s**2) entries, and chi_n the norm of a standard
normal vector of n entries:

- ``ln ||P u||`` and ``ln ||u^T P||`` for a fixed unit u are each a sum of T independent
  ``ln(s chi_n)``: u^T M_1 is s times a standard normal vector, its direction independent of its
  length and of M_2 (Cohen and Newman 1984, Ann. Probab. 12, 283-310).
- The QR iteration's ``ln |R_ii|`` are sums of T independent ``ln(s chi_{n-i+1})``, independent over
  i (Newman 1986, Commun. Math. Phys. 103, 121-126): divided by T, the Lyapunov exponents.
- ``ln |P_ij|`` is a sum of T - 1 independent ``ln(s chi_n)`` and one ``ln(s |z|) = ln(s chi_1)``.

All hold at every T. ``E chi_n**t = 2**(t/2) Gamma((n+t)/2) / Gamma(n/2)`` for t > -n gives the mean
``(ln 2 + psi(n/2)) / 2`` and variance ``psi'(n/2) / 4`` of ln chi_n, tail bounds, and the
distribution function. There is no normal approximation here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.formats import FORMATS

__all__ = [
    "LogChiSum",
    "entry_law",
    "exponent_law",
    "log_norm_law",
    "overflow_interval",
    "overflow_step",
]


@dataclass(frozen=True)
class LogChiSum:
    """The sum of independent ``ln(std * chi_n)``: `terms[k][1]` of them with n = `terms[k][0]`.

    Parameters
    ----------
    terms : tuple of (int, int)
        Pairs of degrees of freedom and number of terms, each at least 1.
    std : float
        Standard deviation of the matrices' entries, positive.
    """

    terms: tuple[tuple[int, int], ...]
    std: float = 1.0

    def __post_init__(self) -> None:
        for degrees, count in self.terms:
            checks.integer("degrees of freedom", degrees, low=1)
            checks.integer("number of terms", count, low=1)
        checks.finite("std", self.std, low=0.0, open_low=True)

    @property
    def count(self) -> int:
        """Number of terms in all."""
        return sum(count for _, count in self.terms)

    @property
    def mean(self) -> float:
        """``sum (ln s + (ln 2 + psi(n/2)) / 2)``."""
        return self._slope(0.0)

    @property
    def variance(self) -> float:
        """``sum psi'(n/2) / 4``."""
        from scipy.special import polygamma

        return sum(count * float(polygamma(1, n / 2)) / 4 for n, count in self.terms)

    def times(self, copies: int) -> LogChiSum:
        """Return the law of the sum over `copies` independent sums of this law."""
        return LogChiSum(tuple((n, count * copies) for n, count in self.terms), self.std)

    # --- tails --------------------------------------------------------------------------------

    def _cumulant(self, t: float) -> float:
        """``K(t) = ln E exp(t S)``, for t > -(smallest number of degrees)."""
        from scipy.special import gammaln

        scale = t * (math.log(self.std) + math.log(2) / 2)
        return self.count * scale + sum(
            count * float(gammaln((n + t) / 2) - gammaln(n / 2)) for n, count in self.terms
        )

    def _slope(self, t: float) -> float:
        """K'(t), increasing from -inf to inf."""
        from scipy.special import digamma

        scale = math.log(self.std) + math.log(2) / 2
        return sum(count * (scale + float(digamma((n + t) / 2)) / 2) for n, count in self.terms)

    def _tilt(self, reached: Callable[[float], bool], *, right: bool) -> float:
        """Return the t (t > 0 if `right`) at which `reached` turns true, away from 0; bisection."""
        lowest = -min(n for n, _ in self.terms)
        near, far = 0.0, 1.0 if right else lowest / 2
        while not reached(far) and 1e-12 < abs(far - lowest) < 1e12:
            near, far = far, (2 * far if right else (far + lowest) / 2)
        for _ in range(60):
            middle = (near + far) / 2
            near, far = (near, middle) if reached(middle) else (middle, far)
        return far

    def log_tail_bound(self, x: float, *, upper: bool) -> float:
        """Return a bound of ``ln P(S >= x)`` (upper) or ``ln P(S <= x)``, 0 if x is inside.

        Chernoff 1952: ``ln P(S >= x) <= K(t) - t x`` for every t > 0; the best one has K'(t) = x.
        It holds whatever t the search ends at.
        """
        if (x <= self.mean) is upper:
            return 0.0
        t = self._tilt(
            (lambda t: self._slope(t) >= x) if upper else (lambda t: self._slope(t) <= x),
            right=upper,
        )
        return min(0.0, self._cumulant(t) - t * x)

    def limits(self, false_alarm: float) -> tuple[float, float]:
        """Return (low, high) with ``P(S < low)`` and ``P(S > high)`` at most half `false_alarm`.

        Chernoff's bound turned round: ``t K'(t) - K(t) = ln(2 / false_alarm)`` at ``K'(t)``.
        """
        if not 0 < checks.finite("false_alarm", false_alarm) < 1:
            raise InvalidArgument(
                f"false_alarm must be a probability above 0 and below 1; received {false_alarm:g}"
            )
        wanted = math.log(2 / false_alarm)

        def reached(t: float) -> bool:
            return t * self._slope(t) - self._cumulant(t) >= wanted

        low, high = (self._slope(self._tilt(reached, right=right)) for right in (False, True))
        return low, high

    def deviation(self, false_alarm: float) -> float:
        """Return d with ``P(|S - mean| > d) <= false_alarm``, at this number of terms exactly."""
        low, high = self.limits(false_alarm)
        return max(self.mean - low, high - self.mean)

    # --- distribution function ----------------------------------------------------------------

    def clipped_square(self, cut: float) -> tuple[float, float]:
        """Return mean and variance of ``min(z**2, cut**2)``, z = (S - mean) / standard deviation.

        A bounded measure of spread, so that finite-sample inequalities hold for it (z**2 itself has
        no exponential moment). ``E min(|z|, c)**p = int_0^c p w**(p-1) P(|z| > w) dw`` by
        Gauss-Legendre with 64 nodes on the exact distribution function.
        """
        nodes, weights = np.polynomial.legendre.leggauss(64)
        w, weights = cut * (nodes + 1) / 2, cut * weights / 2
        deviation = math.sqrt(self.variance)
        beyond = 1 - self.cdf(self.mean + w * deviation) + self.cdf(self.mean - w * deviation)
        second, fourth = (float((weights * p * w ** (p - 1) * beyond).sum()) for p in (2, 4))
        return second, fourth - second**2

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Return P(S <= x) in float64, with absolute error at most 1e-11.

        Formula: ``F(x) = 1/2 - (1/pi) sum_k Im(phi(t_k) exp(-i t_k x)) / (k + 1/2)``, ``t_k = (k +
        1/2) h``, phi the characteristic function (Gil-Pelaez 1951 by the midpoint rule). Its
        error is at most the probability beyond ``x -+ 2 pi / h`` (Davies 1973, Biometrika 60,
        415-417), here at most 1e-13 by Chernoff's bound, plus the terms left off, at most 1e-13
        since ln |phi| is concave and so decays at least geometrically, plus rounding.
        """
        from scipy.special import loggamma

        low, high = self.limits(1e-13)
        step = 2 * math.pi / (high - low)
        t = (np.arange(self._nodes(step)) + 0.5) * step
        log_phi = 1j * t * self.count * (math.log(self.std) + math.log(2) / 2)
        for n, count in self.terms:
            log_phi = log_phi + count * (loggamma((n + 1j * t) / 2) - loggamma(n / 2))
        inside = np.clip(np.asarray(x, dtype=np.float64), low, high)[..., None]
        waves = np.imag(np.exp(log_phi - 1j * t * inside)) / (t / step)
        return np.asarray(np.clip(0.5 - waves.sum(axis=-1) / math.pi, 0.0, 1.0))

    def _nodes(self, step: float) -> int:
        """Return how many nodes leave off at most 1e-13: |phi| falls by the slope of ln |phi|."""
        from scipy.special import digamma, loggamma

        nodes = 16
        while True:
            t = nodes * step
            size = sum(
                count * (loggamma((n + 1j * t) / 2).real - loggamma(n / 2).real)
                for n, count in self.terms
            )
            slope = sum(count * digamma((n + 1j * t) / 2).imag / 2 for n, count in self.terms)
            if math.exp(size) / -math.expm1(-slope * step) <= 1e-13 * nodes:
                return nodes
            nodes *= 2


def log_norm_law(size: int, length: int, std: float = 1.0) -> LogChiSum:
    """Return the law of ``ln ||P u||`` after `length` factors, u fixed with ||u|| = 1."""
    return LogChiSum(((size, length),), std)


def exponent_law(size: int, index: int, length: int, std: float = 1.0) -> LogChiSum:
    """Return the law of `length` times the index-th Lyapunov exponent, index from 1 to size.

    ``lambda_i = ln s + (ln 2 + psi((n - i + 1) / 2)) / 2``, variance ``psi'(..) / (4 T)``.
    """
    checks.integer("index", index, low=1, high=checks.integer("size", size, low=1))
    return LogChiSum(((size - index + 1, length),), std)


def entry_law(size: int, length: int, std: float = 1.0) -> LogChiSum:
    """Return the law of ``ln |P_ij|``, one entry after `length` factors."""
    last = ((1, 1),)
    return LogChiSum((((size, length - 1),) if length > 1 else ()) + last, std)


def overflow_step(dtype: str, size: int, std: float = 1.0) -> float:
    """Return after how many factors a typical product overflows, ``ln(largest) / lambda_1``.

    Infinity if lambda_1 <= 0: the product shrinks. For N(0, 1), size 4: 19.9 in float16, 159.0 in
    float32 and bfloat16, 1272.1 in float64.
    """
    largest = FORMATS[checks.choice("dtype", dtype, tuple(FORMATS))].largest
    exponent = log_norm_law(size, 1, std).mean
    return math.log(largest) / exponent if exponent > 0 else math.inf


def overflow_interval(
    dtype: str, size: int, *, chains: int, false_alarm: float, std: float = 1.0
) -> tuple[int, int]:
    """Return (first, last): all `chains` overflow within, but for probability `false_alarm`.

    With S_k the law of a row's log-norm after k factors, B chains, size n, largest value X:

    - not yet overflowed at k: the first row's norm is at most sqrt(n) X, so
      ``P(some chain later than k) <= B P(S_k <= ln(sqrt(n) X))``;
    - overflowed at j <= k: some partial sum of some entry exceeds X, and by Cauchy-Schwarz it is at
      most the norm of a row times that of the next factor's column, whose log has the law S_j, so
      ``P(some chain by k) <= B n**2 sum_{j<=k} P(S_j > ln X) <= B n**2 k exp(K_k(t) - t ln X)``, as
      K_j(t) grows with j where lambda_1 > 0 (Jensen).

    Both by Chernoff's bound, and with a factor of 2 in X for rounding errors on the way.

    Raises
    ------
    InvalidArgument
        If lambda_1 <= 0, where products shrink.
    """
    typical = overflow_step(dtype, size, std)
    if math.isinf(typical):
        raise InvalidArgument(
            f"products of {size} x {size} matrices with entries of std {std:g} do not overflow: "
            f"their Lyapunov exponent is {log_norm_law(size, 1, std).mean:g}; use a larger std"
        )
    log_max = math.log(FORMATS[dtype].largest)
    wanted = math.log(false_alarm / 2 / chains)

    def too_early(k: int) -> bool:
        bound = log_norm_law(size, k, std).log_tail_bound(log_max - math.log(2), upper=True)
        return bound + math.log(k * size**2) <= wanted

    def too_late(k: int) -> bool:
        level = log_max + math.log(2) + math.log(size) / 2
        return log_norm_law(size, k, std).log_tail_bound(level, upper=False) <= wanted

    last = 2 * math.ceil(typical)
    while not too_late(last):
        last *= 2
    last = _turn(math.floor(typical), last, too_late)
    first = _turn(0, math.ceil(typical), lambda k: not too_early(k))
    return first, last


def _turn(low: int, high: int, condition: Callable[[int], bool]) -> int:
    """Return the smallest k in (low, high] with condition(k), which stays true above it."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if condition(middle) else (middle, high)
    return high
