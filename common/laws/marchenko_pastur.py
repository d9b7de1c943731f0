"""The law of Marchenko and Pastur: eigenvalues of ``W W^T / n`` for W (p, n) of unit variance.

As p and n grow with ``g = p / n`` fixed, for independent entries of mean 0 (Marchenko and Pastur
1967): density ``sqrt((b - x) (x - a)) / (2 pi g x)`` on [a, b], ``a, b = (1 -+ sqrt(g))**2``, and
for g > 1 a mass of 1 - 1/g at 0. A weight drawn with variance s**2 has the eigenvalues of
``W W^T / (n s**2)`` there.

At finite size, for Gaussian entries: moments are known exactly, and the largest and smallest
singular values stay near ``sqrt(n) +- sqrt(p)`` (`edge_bound`).
"""

from __future__ import annotations

import math

import numpy as np

from isometry.common import checks

__all__ = ["below", "count_bound", "density", "edge_bound", "edges", "finite_moment", "moment"]


def edges(g: float) -> tuple[float, float]:
    """Return a and b, the ends of the support away from 0, for ``g = p / n``."""
    checks.finite("g", g, low=0.0, open_low=True)
    return (1 - math.sqrt(g)) ** 2, (1 + math.sqrt(g)) ** 2


def density(x: np.ndarray, g: float) -> np.ndarray:
    """Return the density at x, without the mass at 0 that g > 1 brings."""
    a, b = edges(g)
    x = np.asarray(x, dtype=float)
    inside = (x > a) & (x < b)
    t = np.where(inside, x, (a + b) / 2)
    return np.asarray(np.where(inside, np.sqrt((b - t) * (t - a)) / (2 * math.pi * g * t), 0.0))


def below(x: np.ndarray, g: float) -> np.ndarray:
    """Return the distribution function at x, the mass at 0 included; in closed form.

    By the substitution ``x = 1 + g - 2 sqrt(g) cos t`` it is the integral of
    ``2 sin(u)**2 / (pi (1 + g - 2 sqrt(g) cos u))`` from 0 to t.
    """
    x = np.asarray(x, dtype=float)
    root = math.sqrt(g)
    t = np.arccos(np.clip((1 + g - x) / (2 * root), -1.0, 1.0))
    # the integral of sin(u)**2 / (c - cos u), c = (1 + g) / (2 root), from 0 to t:
    # c t + sin t - 2 sqrt(c**2 - 1) arctan(sqrt((c + 1) / (c - 1)) tan(t / 2))
    turned = np.arctan2((1 + root) * np.sin(t / 2), abs(1 - root) * np.cos(t / 2))
    inside = ((1 + g) * t / 2 + root * np.sin(t) - abs(1 - g) * turned) / (math.pi * g)
    mass = max(0.0, 1 - 1 / g)
    return np.asarray(np.where(x < 0, 0.0, np.minimum(mass + np.maximum(inside, 0.0), 1.0)))


def moment(order: int, g: float) -> float:
    """Return the moment of an order k >= 1: ``sum_r g**r C(k, r) C(k - 1, r) / (r + 1)``, r < k."""
    checks.integer("order", order, low=1)
    return sum(g**r * math.comb(order, r) * math.comb(order - 1, r) / (r + 1) for r in range(order))


def finite_moment(order: int, p: int, n: int) -> float:
    """Return ``E trace((W W^T / n)**k) / p`` for Gaussian W (p, n), k = 1, 2 or 3; exact.

    1; ``(n + p + 1) / n``; ``(n**2 + p**2 + 3 n p + 3 n + 3 p + 4) / n**2`` (real Wishart matrices:
    Letac and Massam 2004).
    """
    checks.integer("order", order, low=1, high=3)
    return (
        1.0,
        (n + p + 1) / n,
        (n**2 + p**2 + 3 * n * p + 3 * n + 3 * p + 4) / n**2,
    )[order - 1]


def edge_bound(p: int, n: int, false_alarm: float) -> tuple[float, float]:
    """Return (low, high) that hold all singular values of a Gaussian W (p, n), p <= n.

    ``sqrt(n) -+ (sqrt(p) + t)``, each exceeded with probability at most ``exp(-t**2 / 2)``
    (Davidson and Szarek 2001, theorem 2.13).
    """
    t = math.sqrt(2 * math.log(2 / false_alarm))
    return max(0.0, math.sqrt(n) - math.sqrt(p) - t), math.sqrt(n) + math.sqrt(p) + t


def count_bound(p: int, count: int, points: int, false_alarm: float) -> float:
    """Return how far the share of eigenvalues below x may be off its mean, at any of `points`.

    Of `count` matrices with p independent rows each, for every law of the rows. One row changes W
    by rank 1 and the number of eigenvalues below x by at most 1 (Guntuboyina and Leeb 2009), so
    that by McDiarmid's inequality ``P(|share - mean| >= t) <= 2 exp(-2 p count t**2)``.
    """
    return math.sqrt(math.log(2 * points / false_alarm) / (2 * p * count))
