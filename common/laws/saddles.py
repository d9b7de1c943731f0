"""Saddles: how many there are beside minima, and which critical points each method goes to.

**A quadratic** of curvature lambda along a direction: a step multiplies what lies along it by
``1 - rate lambda`` (gradient descent), 0 (Newton's method) or ``d / (lambda + d)`` (Newton's with
damping d). Descent leaves a saddle by ``1 + rate |lambda|`` a step, from every start but those that
lie exactly on the directions that rise (Lee et al. 2016, Gradient descent only converges to
minimizers, theorem 4); so does damped Newton where d exceeds ``|lambda|``; Newton's goes there.

**Double wells**, ``f(u) = sum_i (u_i**2 - 1)**2 / 4`` in n dimensions, and every rotation of it:
each u_i of a critical point is -1, 0 or 1, its index is the number of zeros, its curvatures are 2
and -1. All three methods commute with rotations and go in each u_i by itself (`descend`, `newton`).

- Newton's step is ``2 u**3 / (3 u**2 - 1)``, odd, with the cycle ``-b, b`` at b = 1/sqrt 5. Below b
  it shrinks |u|, and u goes to the top at 0; above ``1/sqrt 3`` it stays on its side and goes to
  the well. Between them it changes sides and is above b again, so that it never comes to the top;
  from b itself and countably many other points it reaches no well, either. The basin of the top is
  the interval ``|u| < b``. Errors near it are cubed, ``-2 u**3``; near a well they are squared,
  ``3/2 e**2``, and so near saddles: the signs of the curvatures do not matter.
- Gradient descent at a rate of at most ``1 / (3 r**2 - 1)``, r >= 1 the largest |u|, and Newton's
  method with damping of at least 2 are increasing functions of u, with fixed points -1, 0 and 1: no
  u_i passes one. All starts but those with a u_i = 0 end in the well of their own signs.
"""

from __future__ import annotations

import math

import numpy as np

from isometry.common import checks

__all__ = [
    "BASIN",
    "damped_factor",
    "descend",
    "descent_factor",
    "index_counts",
    "newton",
    "share_of_minima",
    "top_share",
]

BASIN = 1 / math.sqrt(5)
"""Newton's method goes to the top between two wells from this distance on."""


def descent_factor(curvature: np.ndarray, rate: float) -> np.ndarray:
    """Return ``1 - rate lambda``, what a step of gradient descent multiplies a direction by."""
    return 1 - rate * np.asarray(curvature, dtype=float)


def damped_factor(curvature: np.ndarray, damping: float) -> np.ndarray:
    """Return ``d / (lambda + d)``, of a step of damped Newton; 0 without damping."""
    return damping / (np.asarray(curvature, dtype=float) + damping)


def index_counts(n: int) -> np.ndarray:
    """Return how many critical points n double wells have of index k = 0 .. n, exactly.

    ``C(n, k) 2**(n-k)``, together ``3**n``.
    """
    checks.integer("n", n, low=1, high=39)  # 3**39 fits int64
    return np.array([math.comb(n, k) * 2 ** (n - k) for k in range(n + 1)])


def share_of_minima(n: int) -> float:
    """Return the share of minima among the critical points of n double wells, ``(2/3)**n``."""
    return (2 / 3) ** checks.integer("n", n, low=1)


def top_share(reach: float) -> float:
    """Return the share of starts in [-reach, reach] that Newton's method takes to the top."""
    return min(1.0, BASIN / checks.finite("reach", reach, low=0.0, open_low=True))


def descend(u: np.ndarray, rate: float) -> np.ndarray:
    """Return ``u - rate (u**3 - u)``, a step of gradient descent in double wells."""
    u = np.asarray(u, dtype=float)
    return np.asarray(u - rate * (u - 1) * u * (u + 1))


def newton(u: np.ndarray, damping: float = 0.0) -> np.ndarray:
    """Return ``(2 u**3 + d u) / (3 u**2 - 1 + d)``, a step of Newton's in double wells."""
    u = np.asarray(u, dtype=float)
    return np.asarray(u * (2 * u * u + damping) / (3 * u * u - 1 + damping))
