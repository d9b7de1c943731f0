r"""Two inputs in one random net of finite width: what a layer does to them, given the one before.

Let h_a, h_b be what two inputs have become, and ``z = W h + b`` with entries of W ~ N(0,
sigma_w^2 / n) and of b ~ N(0, sigma_b^2). Given h, the n pairs (z_a, z_b) are independent and
Gaussian, with covariance

``S = sigma_w^2 / n [h_a, h_b]^T [h_a, h_b] + sigma_b^2``,

exactly, at any width and whatever happened before (`covariance`). Hence

- pairs whitened by S are independent standard normal numbers in all layers (`whiten`);
- the covariance one layer on, ``sigma_w^2 / n sum phi(z_a) phi(z_b) + sigma_b^2``, has the mean
  that mean-field theory gives for S: its map is exact in expectation, given one layer at a time,
  and `map_bound` says how far n units may be off it;
- for inputs that differ by little, of variances q of z and D of the difference, ``D' = sigma_w^2
  / n sum phi'(z_i)^2 d_i^2`` with d_i ~ N(0, D) independent of z_i, to first order in D: it has
  the mean ``chi_1(q) D`` and the bound `ratio_bound`.

Both bounds are Chernoff's with the cumulants of each layer given those before: ``exp(t X - sum of
the cumulants at t)`` is a supermartingale, so that for a t chosen beforehand ``P(X >= (sum of
cumulants + ln(1 / p)) / t) <= p`` although the cumulants are random (Freedman 1975, On tail
probabilities for martingales, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from isometry.common.laws.mean_field import (
    ACTIVATIONS,
    Activation,
    expectation,
    pair_moments,
    second_moments,
)

__all__ = ["covariance", "map_bound", "ratio_bound", "whiten"]


def covariance(h: np.ndarray, weight: float, bias: float) -> np.ndarray:
    """Return S (..., k, k) of the preactivations that follow h (..., k, n)."""
    return np.asarray(weight / h.shape[-1] * (h @ np.swapaxes(h, -1, -2)) + bias)


def whiten(z: np.ndarray, S: np.ndarray) -> np.ndarray:
    """Return ``L^-1 z``, ``S = L L^T``: independent N(0, 1) numbers, of z's shape (..., k, n)."""
    return np.asarray(np.linalg.solve(np.linalg.cholesky(S), z))


def map_bound(
    activation: str,
    covariances: Sequence[np.ndarray],
    typical: tuple[float, float],
    width: int,
    level: float,
) -> tuple[np.ndarray, float]:
    """Return the means of ``phi(z_a) phi(z_b)``, and a bound on the average deviation from them.

    The average is over `width` units and all layers. Bernstein's bound of the cumulants, with
    ``|phi(z_a) phi(z_b) - mean| <= 2`` for the activations that stay within [-1, 1].

    Parameters
    ----------
    activation : {"tanh", "erf", "sigmoid"}
    covariances : sequence of array (2, 2)
        One of each layer.
    typical : (float, float)
        q and c for which the bound is sharpest; known before anything is drawn.
    level : float
        Probability that the bound is exceeded.
    """
    phi = ACTIVATIONS[activation]
    # the second moment of the product and its mean, in one go
    both = Activation(lambda u: np.square(phi.value(u)), phi.value, phi.kinks)
    log_level = math.log(2 / level)
    count = width * len(covariances)
    square, mean = pair_moments(both, typical[0], typical[0], typical[1])
    t = math.sqrt(2 * log_level * count / (square - mean**2)) / count
    means, total = [], 0.0
    for S in covariances:
        q_a, q_b = float(S[0, 0]), float(S[1, 1])
        c = min(1.0, float(S[0, 1]) / math.sqrt(q_a * q_b))
        square, mean = pair_moments(both, q_a, q_b, c)
        means.append(mean)
        total += width * (square - mean**2) * t**2 / (2 * (1 - 2 * t / 3))
    return np.array(means), (total + log_level) / (t * count)


def ratio_bound(
    activation: str, variances: Sequence[float], typical: float, width: int, level: float
) -> float:
    """Return a bound on the average over layers of ``D' / (chi_1(q) D)``, whose mean is 1.

    ``D' / (chi_1 D) = 1/n sum phi'(z_i)^2 g_i^2 / E phi'^2``, g_i ~ N(0, 1): each term has the
    moment generating function ``E (1 - 2 t phi'^2 / E phi'^2)^(-1/2)``.

    Parameters
    ----------
    variances : sequence of float
        q of each layer.
    typical : float
        q for which the bound is sharpest; known before anything is drawn.
    """
    phi = ACTIVATIONS[activation]
    log_level = math.log(2 / level)
    count = width * len(variances)
    fourth = expectation(lambda u: phi.slope(u) ** 4, typical, kinks=phi.kinks)
    spread = 3 * fourth / second_moments(activation, typical)[1] ** 2 - 1
    t = math.sqrt(2 * log_level * count / spread) / count
    sides = []
    for s in (t, -t):
        total = 0.0
        for q in variances:
            slope = second_moments(activation, q)[1]
            generating = expectation(
                lambda u, a=2 * s / slope: (1 - a * np.square(phi.slope(u))) ** -0.5,  # type: ignore[misc]
                q,
                kinks=phi.kinks,
            )
            total += width * math.log(generating)
        sides.append((total + log_level) / (t * count) - math.copysign(1.0, s))
    return max(sides)
