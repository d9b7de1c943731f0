r"""Neural chains, nets of width 1: exact laws of gradient and Hessian, and the way off the plateau.

The chain ``f(w) = w_L ... w_1 x`` has ``df/dw_k``, a product of L - 1 weights, and the Hessian
``d2f/dw_k dw_l`` of L - 2 (k != l; 0 on the diagonal). With independent weights the logarithm of
each is a sum of independent terms, so that medians and all quantiles are exact at any depth, where
the second moment that Xavier and He preserve says nothing: it stays 1 while almost every chain
vanishes (Orvieto, Kohler, Pavllo, Hofmann and Lucchi 2022, whose medians are bounds).

- Gaussian N(0, s**2): ``ln w**2 = ln(s**2 chi2_1)``: ``E ln|w| = ln s - (gamma + ln 2) / 2``,
  variance pi**2 / 8.
- Uniform U[-a, a]: ``-ln(|w| / a)`` is exponential, so that of m factors
  ``m ln a - ln|product|`` has the law Gamma(m, 1), exactly.
- A residual chain ``h <- h + w h`` multiplies by 1 + w; with w ~ N(0, s**2),
  ``ln (1 + w)**2 = ln(s**2 chi2_{1 + 2 J})``, J ~ Poisson(1 / (2 s**2)): a noncentral chi-square.

No scale keeps both median and second moment: the first asks for s = sqrt(2 e**gamma) = 1.887 or
a = e, where the second moment grows by 3.562 or 2.463 a layer.

**The plateau.** From equal weights w the loss ``(1 - f)**2 / 2`` of x = 1 has the gradient flow
``dw/dt = w**(L-1) (1 - w**L)``, whose time from w_0 to w_1 is `flow_time`; it grows like
``w_0**(2 - L) / (L - 2)``, exponentially with depth. Adam and RMSprop, which divide the gradient by
its size, need about (w_1 - w_0) / rate steps at any depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import propagation

__all__ = [
    "CRITICAL",
    "SCALES",
    "ChainLaw",
    "adaptive",
    "adaptive_limits",
    "chain_law",
    "descent",
    "descent_delay",
    "flow_time",
    "gradient_speed",
    "steps_to_escape",
]

SCALES = {"xavier": 1.0, "he": math.sqrt(2.0)}
"""Standard deviation of a weight with fan_in = fan_out = 1."""

CRITICAL = {"normal": math.sqrt(2 * math.exp(np.euler_gamma)), "uniform": math.e / math.sqrt(3)}
"""Standard deviation at which a factor's median-like growth ``exp(E ln|w|)`` is 1."""

LAWS = ("normal", "uniform", "residual")


@dataclass(frozen=True)
class ChainLaw:
    """The law of ``ln|product|`` of `factors` independent factors.

    Attributes
    ----------
    kind : {"normal", "uniform", "residual"}
        Of each factor: w ~ N(0, std**2), w ~ U[-std sqrt(3), std sqrt(3)], or 1 + N(0, std**2).
    std : float
    factors : int
        At least 1.
    """

    kind: str
    std: float
    factors: int

    @property
    def _squares(self) -> list[propagation.LogChiSquare]:
        """The independent laws whose sum is ``ln product**2``."""
        if self.kind == "normal":
            one = propagation.growth("linear", self.std**2, 1)
        else:
            degrees, weights = _poisson(1 / (2 * self.std**2))
            one = propagation.LogChiSquare(self.std**2, degrees, weights)
        return self.factors * [one]

    @property
    def _edge(self) -> float:
        """The largest value of a product of uniform weights."""
        return self.factors * math.log(self.std * math.sqrt(3))

    @property
    def mean(self) -> float:
        """``E ln|product|``."""
        if self.kind == "uniform":
            return self._edge - self.factors
        return self.factors * self._squares[0].mean / 2

    @property
    def variance(self) -> float:
        """Variance of ``ln|product|``: m pi**2 / 8 (normal), m (uniform)."""
        if self.kind == "uniform":
            return float(self.factors)
        return self.factors * self._squares[0].variance / 4

    @property
    def median(self) -> float:
        """Median of ``ln|product|``."""
        return self.quantile(0.5)

    @property
    def log_second_moment(self) -> float:
        """``ln E product**2``: what Xavier and He preserve."""
        shift = 1.0 if self.kind == "residual" else 0.0
        return self.factors * math.log(shift + self.std**2)

    def quantile(self, probability: float) -> float:
        """Return x with ``P(ln|product| <= x) = probability``."""
        if self.kind == "uniform":
            from scipy.special import gammainccinv

            return self._edge - float(gammainccinv(self.factors, probability))
        return propagation.sum_quantile(self._squares, probability) / 2

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Return ``P(ln|product| <= x)``, with absolute error at most 1e-11."""
        if self.kind == "uniform":
            from scipy.special import gammaincc

            return np.asarray(gammaincc(self.factors, np.maximum(self._edge - np.asarray(x), 0)))
        return propagation.sum_cdf(self._squares, 2 * np.asarray(x))


def chain_law(kind: str, std: float, factors: int) -> ChainLaw:
    """Return the law of the product of `factors` independent factors; checks its arguments."""
    checks.choice("kind", kind, LAWS)
    checks.finite("std", std, low=0.0, open_low=True)
    checks.integer("factors", factors, low=1)
    return ChainLaw(kind, std, factors)


def _poisson(mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Return degrees 1 + 2 j and the probabilities of j under Poisson(mean), all but 1e-16."""
    from scipy.special import gammaln

    spread = 9 * math.sqrt(mean) + 30
    j = np.arange(max(0.0, math.floor(mean - spread)), mean + spread)
    weights = np.exp(j * math.log(mean) - mean - gammaln(j + 1))
    return 1 + 2 * j, weights / weights.sum()


# --- the plateau ---------------------------------------------------------------------------------


def flow_time(depth: int, start: float, end: float) -> float:
    """Return the time of the flow ``dw/dt = w**(L-1) (1 - w**L)`` from `start` to `end`.

    ``1 / (w**(L-1) (1 - w**L)) = w**(1-L) + w / (1 - w**L)``; the first term integrates to
    ``(w_0**(2-L) - w_1**(2-L)) / (L - 2)``, or ln(w_1 / w_0) for L = 2, the second to
    ``w**2 / 2 2F1(1, 2/L; 1 + 2/L; w**L)``.

    Parameters
    ----------
    depth : int
        L, at least 2.
    start, end : float
        Between 0 and 1, start below end.
    """
    from scipy.special import hyp2f1

    checks.integer("depth", depth, low=2)
    if not 0 < checks.finite("start", start) <= checks.finite("end", end) < 1:
        raise InvalidArgument(
            f"start and end must be between 0 and 1, start not above end; received {start:g} and "
            f"{end:g}"
        )

    def second(w: float) -> float:
        return w * w / 2 * float(hyp2f1(1.0, 2 / depth, 1 + 2 / depth, w**depth))

    if depth == 2:
        first = math.log(end / start)
    else:
        first = (start ** (2 - depth) - end ** (2 - depth)) / (depth - 2)
    return first + second(end) - second(start)


def gradient_speed(depth: int, w: float) -> float:
    """Return ``w**(L-1) (1 - w**L)``, which rises up to ``((L-1) / (2L-1))**(1/L)``, above 1/2."""
    return float(w ** (depth - 1) * (1 - w**depth))


Update = Callable[[float, int], float]


def descent(rate: float, decay: float = 0.0) -> Update:
    """Return gradient descent, or with momentum: ``v <- decay v + g, w <- w + rate v``."""
    velocity = 0.0

    def update(g: float, step: int) -> float:
        nonlocal velocity
        velocity = decay * velocity + g
        return rate * velocity

    return update


def adaptive(rate: float, first: float, second: float, eps: float = 1e-8) -> Update:
    """Return Adam of these decays; with first = 0 it is RMSprop, corrected for its start."""
    mean = square = 0.0

    def update(g: float, step: int) -> float:
        nonlocal mean, square
        mean = first * mean + (1 - first) * g
        square = second * square + (1 - second) * g * g
        root = math.sqrt(square / (1 - second**step))
        return rate * (mean / (1 - first**step)) / (root + eps)

    return update


def steps_to_escape(update: Update, depth: int, start: float, end: float, most: int) -> int:
    """Return after how many steps equal weights reach `end`; `most` + 1 if they do not.

    The scalar recursion that every weight of the chain follows: ``w <- w + update(g, step)`` with
    ``g = w**(L-1) (1 - w**L)``, minus the gradient.
    """
    w = start
    for step in range(1, most + 1):
        w += update(gradient_speed(depth, w), step)
        if w >= end:
            return step
    return most + 1


def descent_delay(depth: int, start: float, end: float, rate: float) -> float:
    """Return by how much steps x rate of gradient descent may exceed `flow_time`; never below it.

    While the speed g rises (w <= 1/2), the flow crosses a step of ``rate g(w)`` in a time between
    ``rate g(w) / g(w')`` and rate. The loss of all but the last step is at most
    ``rate sum (1 - g_k / g_{k+1}) <= rate ln(g(end) / g(start))``, and the last one overshoots by
    at most rate.
    """
    ratio = gradient_speed(depth, end) / gradient_speed(depth, start)
    return rate * (1 + math.log(ratio))


def adaptive_limits(
    depth: int, start: float, end: float, rate: float, second: float, eps: float = 1e-8
) -> tuple[float, float]:
    """Return the fewest and most steps of RMSprop from `start` to `end`, both below 1/2.

    While g rises, the average of its squares is at most g**2, so that a step is at least
    ``rate g / (g + eps)``; and at least ``(1 - second) g**2``, so that it is at most
    ``rate / sqrt(1 - second)``.
    """
    way = (end - start) / rate
    most = way * (1 + eps / gradient_speed(depth, start))
    return way * math.sqrt(1 - second), math.ceil(most * (1 + 1e-12))
