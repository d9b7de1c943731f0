r"""Mean-field theory of wide random nets: length, correlation, and the edge of chaos.

A net is ``z_l = W_l phi(z_{l-1}) + b_l`` with independent entries of W_l ~ N(0, sigma_w^2 / n) and
b_l ~ N(0, sigma_b^2). As the width n grows, the preactivations of two inputs become Gaussian, with
variance q and correlation c, and from layer to layer

======================== ========================================================================
variance map             ``q' = sigma_w^2 E phi(u)^2 + sigma_b^2``, fixed point q*
susceptibility           ``chi_1 = sigma_w^2 E phi'(u)^2`` at q*: slope of the correlation map at 1
correlation map          ``c' = (sigma_w^2 E phi(u_1) phi(u_2) + sigma_b^2) / q*``, fixed point c*
depth scale of length    ``xi_q = -1 / ln|dq'/dq|``
depth scale of signal    ``xi_c = -1 / ln(sigma_w^2 E phi'(u_1) phi'(u_2))`` at c*
======================== ========================================================================

u, u_1, u_2 ~ N(0, q), of correlation c. Order (chi_1 < 1): all inputs converge, c* = 1, and
gradients vanish as chi_1^L. Chaos (chi_1 > 1): near inputs part, c* < 1, gradients explode. On the
critical line between them xi_c is infinite. The map of c is a power series with coefficients that
are not negative, hence convex: chi_1 alone decides whether c* < 1 exists.

Sources: Poole et al. 2016, Exponential expressivity in deep neural networks through transient
chaos, eq. 3 to 6; Schoenholz et al. 2017, Deep information propagation.

``dq'/dq = sigma_w^2 E z phi(sqrt(q) z) phi'(sqrt(q) z) / sqrt(q)``, the same as Schoenholz's
``chi_1 + sigma_w^2 E phi'' phi`` by Stein's lemma, and without a second derivative.

Expectations are closed forms where there is one (linear, ReLU, leaky ReLU, erf) and otherwise those
of :mod:`isometry.common.laws.gaussian`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import activations
from isometry.common.laws.gaussian import Function, expectation, pair_expectations

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "MeanField",
    "critical_at",
    "critical_bias",
    "critical_weight",
    "expectation",
    "mean_field",
    "named",
    "pair_moments",
    "second_moments",
]

LARGEST, SMALLEST = 1e12, 1e-24  # of q, between which a fixed point is looked for


# --- activations --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activation:
    """phi as mean-field theory needs it.

    Attributes
    ----------
    value, slope : callable
        phi and phi', NumPy functions of an array.
    kinks : tuple of float
        Where phi or a derivative of it jumps.
    pair : callable, optional
        Closed form of `pair_moments`: ``pair(q_1, q_2, c)``.
    """

    value: Function
    slope: Function
    kinks: tuple[float, ...] = (0.0,)
    pair: Callable[[float, float, float], tuple[float, float]] | None = None


def _linear_pair(q_1: float, q_2: float, c: float) -> tuple[float, float]:
    return math.sqrt(q_1 * q_2) * c, 1.0


def _leaky_pair(slope: float) -> Callable[[float, float, float], tuple[float, float]]:
    """Return the closed form of leaky ReLU, ``relu(u) - slope relu(-u)``.

    Cho and Saul 2009, Kernel methods for deep learning, eq. 3 to 6, of order 1 and 0.
    """

    def pair(q_1: float, q_2: float, c: float) -> tuple[float, float]:
        root = math.sqrt(max(0.0, (1 - c) * (1 + c)))
        angle = math.atan2(root, c)
        size = math.sqrt(q_1 * q_2)
        same = size * (root + c * (math.pi - angle)) / (2 * math.pi)
        other = same - size * c / 2  # E relu(u_1) relu(-u_2) = same - E relu(u_1) u_2
        both = (math.pi - angle) / (2 * math.pi)  # P(u_1 > 0, u_2 > 0)
        return (
            (1 + slope**2) * same - 2 * slope * other,
            (1 + slope**2) * both + 2 * slope * (0.5 - both),
        )

    return pair


def _erf_pair(q_1: float, q_2: float, c: float) -> tuple[float, float]:
    """Return Williams 1997, eq. 11, and its derivative in the covariance."""
    size = math.sqrt((1 + 2 * q_1) * (1 + 2 * q_2))
    ratio = 2 * math.sqrt(q_1 * q_2) * c / size
    # 1 - ratio^2 = (1 + 2 q_1 + 2 q_2 + 4 q_1 q_2 (1 - c^2)) / size^2, without cancellation
    rest = math.sqrt(1 + 2 * (q_1 + q_2) + 4 * q_1 * q_2 * (1 - c) * (1 + c))
    return 2 / math.pi * math.atan2(ratio * size, rest), 4 / math.pi / rest


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return np.asarray(erf(x))


def _leaky(slope: float) -> Activation:
    return Activation(
        functools.partial(activations.leaky_relu, slope=slope),
        functools.partial(activations.leaky_relu_gradient, slope=slope),
        pair=_leaky_pair(slope),
    )


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x: x, np.ones_like, pair=_linear_pair),
    "relu": _leaky(0.0),
    "leaky_relu": _leaky(0.01),
    "erf": Activation(
        _erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-np.square(x)), pair=_erf_pair
    ),
    "tanh": Activation(np.tanh, activations.tanh_gradient),
    "sigmoid": Activation(activations.sigmoid, activations.sigmoid_gradient),
}


def named(given: str | Activation) -> Activation:
    """Return the activation of a name in `ACTIVATIONS`, or the one given."""
    if isinstance(given, Activation):
        return given
    return ACTIVATIONS[checks.choice("activation", given, tuple(ACTIVATIONS))]


def second_moments(activation: str | Activation, q: float) -> tuple[float, float]:
    """Return ``E phi(u)^2`` and ``E phi'(u)^2``, u ~ N(0, q); 11 digits.

    Raises
    ------
    InvalidArgument
        If the activation is unknown, or `expectation` refuses it.
    """
    phi = named(activation)
    if phi.pair and q > 0:
        return phi.pair(q, q, 1.0)
    return _mean_square(phi.value, phi, q), _mean_square(phi.slope, phi, q)


def _mean_square(f: Function, phi: Activation, q: float) -> float:
    return expectation(lambda u: np.square(f(u)), q, kinks=phi.kinks)


def pair_moments(
    activation: str | Activation, q_1: float, q_2: float, c: float
) -> tuple[float, float]:
    """Return ``E phi(u_1) phi(u_2)`` and ``E phi'(u_1) phi'(u_2)``; 11 digits.

    Parameters
    ----------
    q_1, q_2 : float
        Variances, above 0.
    c : float
        Correlation, from -1 to 1.

    Raises
    ------
    InvalidArgument
        As `second_moments`, or if these are no variances and no correlation.
    """
    phi = named(activation)
    for name, q in (("q_1", q_1), ("q_2", q_2)):
        checks.finite(name, q, low=0.0, open_low=True)
    if not -1 <= checks.finite("c", c) <= 1:
        raise InvalidArgument(f"c must be a correlation, from -1 to 1; received {c:g}")
    if phi.pair:
        return phi.pair(q_1, q_2, c)
    value, slope = pair_expectations((phi.value, phi.slope), q_1, q_2, c, kinks=phi.kinks)
    return value, slope


# --- fixed points -------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeanField:
    """What `mean_field` found: see the table of this module.

    Attributes
    ----------
    activation : Activation
    weight, bias : float
        sigma_w^2 and sigma_b^2.
    q : float
        q*.
    """

    activation: Activation
    weight: float
    bias: float
    q: float

    @property
    def _limit(self) -> float:
        """q*, or what stands for 0, where ReLU has no slope."""
        return max(self.q, SMALLEST)

    @functools.cached_property
    def chi_1(self) -> float:
        """``sigma_w^2 E phi'(u)^2``."""
        return self.weight * second_moments(self.activation, self._limit)[1]

    @functools.cached_property
    def xi_q(self) -> float:
        """In layers; infinite where there is no exponential decay."""
        phi, q = self.activation, self._limit
        slope = expectation(lambda u: u * phi.value(u) * phi.slope(u), q, kinks=phi.kinks)
        return _depth_scale(abs(self.weight / q * slope))

    @property
    def c(self) -> float:
        """c*."""
        return self._correlated[0]

    @property
    def xi_c(self) -> float:
        """In layers; infinite on the critical line."""
        return _depth_scale(self._correlated[1])

    @functools.cached_property
    def _correlated(self) -> tuple[float, float]:
        """c* and the slope of the map there; below 1 by Newton's method from 0.

        The map is convex: from the left Newton's iterates rise to the first fixed point, not past.
        """
        if self.chi_1 <= 1 + 1e-12:
            return 1.0, self.chi_1
        c = slope = 0.0
        for _ in range(100):
            value, slope = pair_moments(self.activation, self.q, self.q, c)
            excess = (self.weight * value + self.bias) / self.q - c
            if excess <= 4e-16:
                break
            c += excess / (1 - self.weight * slope)
        return c, self.weight * slope

    def correlation(self, c: float) -> float:
        """Return the correlation after one more layer, both lengths being at q*."""
        value = pair_moments(self.activation, self.q, self.q, c)[0]
        return (self.weight * value + self.bias) / self.q


def mean_field(
    activation: str | Activation, weight: float, bias: float, *, start: float = 1.0
) -> MeanField:
    """Return the fixed point that the variance map reaches from `start`, and what holds there.

    q* to about 11 digits over ``1 - dq'/dq``, the others as they follow from it.

    Parameters
    ----------
    activation : str or Activation
    weight : float
        sigma_w^2, at least 0: the variance of a weight times n.
    bias : float
        sigma_b^2, at least 0.
    start : float
        q of the first layer, above 0.

    Raises
    ------
    InvalidArgument
        If there is no fixed point: q grows without limit, or phi is not finite. The message gives
        the last iterate.

    Notes
    -----
    What is found attracts: ``dq'/dq >= -1/2 q'/q`` for every phi, as ``d ln E f(sqrt(q) z) / d ln q
    = E f (z^2 - 1) / (2 E f)`` for f >= 0, and from the side of `start` q' - q changes sign there.

    >>> round(mean_field("tanh", 1.69, 0.09).xi_c, 5)
    16.10817
    """
    phi = named(activation)
    checks.finite("weight", weight, low=0.0)
    checks.finite("bias", bias, low=0.0)
    checks.finite("start", start, low=0.0, open_low=True)
    return MeanField(phi, weight, bias, _fixed_point(phi, weight, bias, start))


def _depth_scale(slope: float) -> float:
    if slope <= 0:
        return 0.0
    return -1 / math.log(slope) if slope < 1 - 1e-12 else math.inf


def _no_fixed_point(why: str, q: float) -> InvalidArgument:
    return InvalidArgument(
        f"no fixed point found: {why}; the last iterate is q = {q!r}; lower sigma_w^2, or choose "
        "an activation that is bounded or grows more slowly"
    )


def _excess(phi: Activation, weight: float, bias: float, q: float) -> float:
    """Return ``q' - q``."""
    try:
        grown = weight * _mean_square(phi.value, phi, q) + bias
    except InvalidArgument as error:
        raise _no_fixed_point(str(error), q) from error
    return grown - q


def _fixed_point(phi: Activation, weight: float, bias: float, start: float) -> float:
    """Return the root of `_excess` on the side of `start` that the map leads to."""
    from scipy.optimize import brentq

    first = _excess(phi, weight, bias, start)
    if abs(first) <= 4e-16 * start:
        return start
    factor = 2.0 if first > 0 else 0.5
    near = start
    while True:
        far = near * factor
        if far > LARGEST:
            raise _no_fixed_point("q grows from layer to layer", far)
        if far < SMALLEST:
            return 0.0
        if _excess(phi, weight, bias, far) * first <= 0:
            return float(
                brentq(lambda q: _excess(phi, weight, bias, q), *sorted((near, far)), xtol=1e-300)
            )
        near = far


# --- the critical line --------------------------------------------------------------------------


def critical_at(activation: str | Activation, q: float) -> tuple[float, float]:
    """Return the sigma_w^2 and sigma_b^2 that make q > 0 a fixed point with chi_1 = 1.

    Raises
    ------
    InvalidArgument
        If sigma_b^2 would have to be negative.
    """
    checks.finite("q", q, low=0.0, open_low=True)
    value, slope = second_moments(activation, q)
    bias = q - value / slope
    if bias < -1e-14 * q:
        raise InvalidArgument(
            f"no variances make q = {q:g} critical: with chi_1 = 1, sigma_w^2 is {1 / slope:.6g} "
            f"and sigma_b^2 would be {bias:.6g}, below 0; choose another q, or another activation"
        )
    return 1 / slope, max(0.0, bias)


def critical_bias(activation: str | Activation, weight: float) -> tuple[float, float]:
    """Return q* and the sigma_b^2 that with this sigma_w^2 gives chi_1 = 1.

    q* solves ``sigma_w^2 E phi'^2 = 1``, then ``sigma_b^2 = q* - sigma_w^2 E phi^2``, with an
    absolute error of about 1e-15 q*: 11 digits of it where it is above 1e-4 q*.

    Raises
    ------
    InvalidArgument
        If no q gives chi_1 = 1, or only with a negative sigma_b^2.
    """
    phi = named(activation)
    checks.finite("weight", weight, low=0.0, open_low=True)
    q = _first_root(lambda q: weight * second_moments(phi, q)[1] - 1)
    if q is None:
        raise InvalidArgument(
            f"no sigma_b^2 makes sigma_w^2 = {weight:g} critical: chi_1 is never 1; for ReLU and "
            "linear units, whose chi_1 does not depend on q, only sigma_w^2 = 2 and 1 are"
        )
    bias = q - weight * _mean_square(phi.value, phi, q)
    if bias < -1e-14 * q:
        raise InvalidArgument(
            f"no sigma_b^2 makes sigma_w^2 = {weight:g} critical: at chi_1 = 1, q = {q:.6g}, it "
            f"would be {bias:.6g}, below 0"
        )
    return q, max(0.0, bias)


def critical_weight(activation: str | Activation, bias: float) -> tuple[float, float]:
    """Return q* and the sigma_w^2 that with this sigma_b^2 gives chi_1 = 1.

    q* solves ``q - E phi^2 / E phi'^2 = sigma_b^2``, then ``sigma_w^2 = 1 / E phi'^2``; raises as
    `critical_bias`.
    """
    phi = named(activation)
    checks.finite("bias", bias, low=0.0)

    def excess(q: float) -> float:
        value, slope = second_moments(phi, q)
        return q - value / slope - bias

    q = _first_root(excess)
    if q is None:
        raise InvalidArgument(
            f"no sigma_w^2 makes sigma_b^2 = {bias:g} critical: no q keeps both the length and the "
            "correlation; ReLU and linear units are critical at sigma_b^2 = 0 alone"
        )
    return q, 1 / second_moments(phi, q)[1]


def _first_root(f: Callable[[float], float]) -> float | None:
    """Return the smallest root between 1e-16, which stands for 0, and 1e6 that a grid tells apart.

    Where f is 0 at every q, as ReLU's at criticality, any q is a root: 1.
    """
    from scipy.optimize import brentq

    grid = np.geomspace(1e-16, 1e6, 89)
    values = [f(float(q)) for q in grid]
    if max(map(abs, values[:60])) <= 1e-15:
        return 1.0
    if abs(values[0]) <= 1e-15:
        return 0.0
    for left, right, low, high in zip(grid, grid[1:], values, values[1:], strict=False):
        if low * high < 0:
            return float(brentq(f, left, right, xtol=1e-300, rtol=1e-15))
    return None
