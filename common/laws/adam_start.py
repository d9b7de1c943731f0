"""How long Adam's first steps are on gradients that are noise: exact, at every step and decay.

Gradients g_1 .. g_t of one weight, independent N(0, sigma**2). Adam divides the running mean of
gradients by the root of that of squares, both corrected to weights that sum to 1,

``m = sum a_i g_i``, ``v = sum o_i g_i**2``, ``a_i = (1 - b1) b1**(t-i) / (1 - b1**t)``,

and o_i so from b2. With few steps v is a sum of few squares: ``1 / sqrt(v)`` has no finite variance
for t = 1, 2, and a large one soon after (Liu et al. 2020, On the variance of the adaptive learning
rate and beyond, theorem 1, for equal o_i; here for any). From ``v**-p = 1/Gamma(p) int_0^inf
s**(p-1) exp(-s v) ds`` and ``E exp(-s g**2) = (1 + 2 s)**(-1/2)``, sigma = 1,

``E v**-p = 1/Gamma(p) int_0^inf s**(p-1) prod_j (1 + 2 o_j s)**(-1/2) ds``, finite for p < t/2,
``E g_i**2 / v = int_0^inf (1 + 2 o_i s)**-1 prod_j (1 + 2 o_j s)**(-1/2) ds``.

The squared step ``E m**2 / v = sum a_i**2 E g_i**2 / v`` (cross terms vanish, the g_i being
symmetric) does not depend on sigma. It is 1 at the first step, m / sqrt(v) being a sign, and falls
to about ``(1 - b1) / (1 + b1)``: without a warm-up the first steps are the longest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import gammaln

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = ["inverse_moment", "largest_square", "shares", "step_square"]

GRID = 0.25  # step of the trapezoidal rule in ln s: its error is about exp(-2 pi**2 / GRID)
TAIL = 45.0  # nats that the integrand has fallen by where the sum ends


def shares(decay: float, steps: int) -> np.ndarray:
    """Return the weights (steps,) of a corrected running mean, oldest first; they sum to 1."""
    if not 0 <= checks.finite("decay", decay) < 1:
        raise InvalidArgument(f"decay must be at least 0 and below 1; received {decay:g}")
    powers = decay ** np.arange(checks.integer("steps", steps, low=1) - 1.0, -1.0, -1.0)
    return np.asarray(powers / powers.sum())


def inverse_moment(decay: float, steps: int, power: float) -> float:
    """Return ``E v**-power`` after `steps` steps; infinite where ``power >= steps / 2``.

    Parameters
    ----------
    decay : float
        b2, in [0, 1); 0 remembers one step whatever their number.
    power : float
        Positive: 1/2 for the mean of the adaptive rate 1 / sqrt(v), 1 for that of its square.
    """
    checks.finite("power", power, low=0.0, open_low=True)
    weights = shares(decay, steps)
    weights = weights[weights > 0]
    falls = len(weights) / 2 - power
    if falls <= 0:
        return math.inf
    return math.exp(-gammaln(power)) * _integral(
        lambda s: -0.5 * _log_factors(weights, s).sum(axis=0), power, falls
    )


def step_square(decay_first: float, decay_second: float, steps: int) -> float:
    """Return ``E m**2 / v``, the mean square of step number `steps` in units of the rate."""
    a, weights = shares(decay_first, steps), shares(decay_second, steps)
    used = weights > 0
    if (a[~used] > 0).any():
        return math.inf  # a gradient is remembered whose square is not
    a, weights = a[used], weights[used]

    def log_of(i: int) -> Callable[[np.ndarray], np.ndarray]:
        def log_integrand(s: np.ndarray) -> np.ndarray:
            factors = _log_factors(weights, s)
            return np.asarray(-factors[i] - 0.5 * factors.sum(axis=0))

        return log_integrand

    parts = [_integral(log_of(i), 1.0, len(weights) / 2) for i in range(len(weights))]
    return float(np.square(a) @ parts)


def largest_square(decay_first: float, decay_second: float, steps: int) -> float:
    """Return ``sum a_i**2 / o_i``, which no ``m**2 / v`` exceeds (Cauchy and Schwarz)."""
    a, weights = shares(decay_first, steps), shares(decay_second, steps)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(a > 0, np.square(a) / weights, 0.0).sum())


def _log_factors(weights: np.ndarray, s: np.ndarray) -> np.ndarray:
    return np.asarray(np.log1p(2 * weights[:, None] * s))


def _integral(
    log_integrand: Callable[[np.ndarray], np.ndarray], rises: float, falls: float
) -> float:
    """Return ``int_0^inf s**(rises - 1) f(s) ds``, f falling as ``s**(-rises - falls)`` at last.

    By the trapezoidal rule in ln s, where the integrand is analytic within pi of the real line.
    """
    # ln(1 + 2 o s) is at least ln(2 o s): beyond -ln o the integrand falls as it will
    y = np.arange(-TAIL / rises, TAIL / falls + 40.0, GRID)
    return float(GRID * np.exp(rises * y + log_integrand(np.exp(y))).sum())
