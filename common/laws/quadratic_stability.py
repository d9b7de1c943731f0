"""Descent with momentum on a quadratic loss: where it diverges, how fast it contracts, exactly.

Along an eigenvector of curvature lambda the rules of rate r and momentum m, from rest (v = 0), are

- heavy ball (Polyak 1964): ``v <- m v + a w; w <- w - v``, ``a = r lambda``;
- Nesterov's, at the point looked ahead to (Sutskever et al. 2013): ``w <- w - a w - m v``, new v;

both of one kind, ``w(t+1) = T w(t) - D w(t-1)``, with a companion matrix on (w, v):

- heavy ball: ``T = 1 + m - a``, ``D = m``, ``[[1 - a, -m], [a, m]]``, edge ``2 (1 + m)``;
- Nesterov: ``T = (1 + m) (1 - a)``, ``D = m (1 - a)``, ``[[1 - a - m a, -m**2], [a, m]]``, edge
  ``(2 + 2 m) / (1 + 2 m)``,

The roots of ``z**2 - T z + D`` lie within the unit circle just where ``|T| < 1 + D < 2`` (Jury's
criterion): for positive a, up to the edge, where one of them is -1.
Gradient descent is the heavy ball without momentum. O'Donoghue and Candes 2015 have the roots,
Lessard, Recht and Packard 2016, proposition 1, the best constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = [
    "METHODS",
    "Tuning",
    "best",
    "edge",
    "multipliers",
    "roots",
    "spectral_radius",
    "steps_to",
    "transition",
]

METHODS = ("gradient descent", "heavy ball", "Nesterov")


def edge(momentum: float, *, nesterov: bool = False) -> float:
    """Return the ``rate lambda`` from which the rule diverges, ``2 (1+m)`` or ``(2+2m)/(1+2m)``."""
    m = _fraction(momentum)
    return (2 + 2 * m) / (1 + 2 * m) if nesterov else 2 * (1 + m)


def transition(a: np.ndarray, momentum: float, *, nesterov: bool = False) -> np.ndarray:
    """Return the companion matrices (..., 2, 2) of a step of (w, v), v in units of w.

    Parameters
    ----------
    a : numpy.ndarray (...)
        Rate times curvature.
    """
    m, a = _fraction(momentum), np.asarray(a, dtype=float)
    ones = np.ones_like(a)
    top = (1 - a - m * a, -m * m * ones) if nesterov else (1 - a, -m * ones)
    return np.stack([np.stack(top, axis=-1), np.stack((a, m * ones), axis=-1)], axis=-2)


def roots(
    a: np.ndarray, momentum: float, *, nesterov: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return both roots of ``z**2 - T z + D``, complex, the larger first.

    Their sum and product are T and D to a few roundings, also where they meet: the discriminant is
    a product, ``((1 - sqrt m)**2 - a) ((1 + sqrt m)**2 - a)`` of the heavy ball and
    ``(1 - a) ((1 - m)**2 - (1 + m)**2 a)`` of Nesterov's.
    """
    m, a = _fraction(momentum), np.asarray(a, dtype=float)
    if nesterov:
        total, product = (1 + m) * (1 - a), m * (1 - a)
        gap = (1 - a) * ((1 - m) ** 2 - (1 + m) ** 2 * a)
    else:
        total, product = 1 + m - a, m + 0 * a
        gap = ((1 - math.sqrt(m)) ** 2 - a) * ((1 + math.sqrt(m)) ** 2 - a)
    real = (total + np.copysign(np.sqrt(np.maximum(gap, 0)), total)) / 2  # no cancellation
    other = product / np.where(real == 0, 1, real)
    imaginary = 1j * np.sqrt(np.maximum(-gap, 0)) / 2
    first = np.where(gap < 0, total / 2 + imaginary, real)
    return first, np.where(gap < 0, np.conj(first), other)


def spectral_radius(a: np.ndarray, momentum: float, *, nesterov: bool = False) -> np.ndarray:
    """Return the growth per step in the long run, ``|z|`` of the larger root."""
    return np.asarray(np.abs(roots(a, momentum, nesterov=nesterov)[0]))


def multipliers(
    a: np.ndarray, momentum: float, steps: int, *, nesterov: bool = False
) -> np.ndarray:
    """Return ``w(t) / w(0)`` (steps + 1, ...) from rest: the companion matrix's powers."""
    matrix = transition(a, momentum, nesterov=nesterov)
    state = np.zeros((*matrix.shape[:-1], 1))
    state[..., 0, 0] = 1
    found = np.empty((checks.integer("steps", steps, low=0) + 1, *matrix.shape[:-2]))
    for step in range(steps + 1):
        found[step] = state[..., 0, 0]
        state = matrix @ state
    return found


def steps_to(
    share: float,
    a: np.ndarray,
    offsets: np.ndarray,
    momentum: float,
    *,
    nesterov: bool = False,
) -> int:
    """Return the first step at which the distance to the minimum is at most a share of its start.

    Parameters
    ----------
    share : float
        Between 0 and 1.
    a, offsets : numpy.ndarray (n,)
        Rate times eigenvalue, and the start off the minimum in the eigenvectors' basis.

    Raises
    ------
    InvalidArgument
        If an a is not between 0 and the edge, where the distance does not shrink.
    """
    if not 0 < checks.finite("share", share) < 1:
        raise InvalidArgument(f"share must be between 0 and 1; received {share:g}")
    a, offsets = np.asarray(a, dtype=float), np.asarray(offsets, dtype=float)
    limit = edge(momentum, nesterov=nesterov)
    if not (a.min() > 0 and a.max() < limit):
        raise InvalidArgument(
            f"rate times curvature must be above 0 and below {limit:g}, where the rule diverges; "
            f"received {a.min():g} to {a.max():g}"
        )
    goal = share * float(np.linalg.norm(offsets))
    matrix = transition(a, momentum, nesterov=nesterov)
    state, step = np.stack([offsets, 0 * offsets], axis=-1)[..., None], 0
    while float(np.linalg.norm(state[:, 0, 0])) > goal:
        state, step = matrix @ state, step + 1
    return step


@dataclass(frozen=True)
class Tuning:
    """A rule's best constants on curvatures between two, and what they reach.

    Attributes
    ----------
    rate, momentum : float
    nesterov : bool
    contraction : float
        Spectral radius at both ends, and the largest between them.
    """

    rate: float
    momentum: float
    nesterov: bool
    contraction: float


def best(method: str, smallest: float, largest: float) -> Tuning:
    """Return the constants of the smallest spectral radius; k is the condition number.

    - gradient descent: rate ``2 / (mu + L)``, contraction ``(k - 1) / (k + 1)``;
    - heavy ball: ``4 / (sqrt L + sqrt mu)**2``, momentum the square of the contraction
      ``(sqrt k - 1) / (sqrt k + 1)``;
    - Nesterov: ``4 / (3 L + mu)``, momentum ``(s - 2) / (s + 2)``, contraction ``1 - 2 / s``

    with ``s = sqrt(3 k + 1)``. In one dimension, k = 1, all three are a single step, 1 / L.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    smallest, largest : float
        mu and L, positive.
    """
    checks.choice("method", method, METHODS)
    mu = checks.finite("smallest", smallest, low=0.0, open_low=True)
    top = checks.finite("largest", largest, low=mu)
    k = top / mu
    if method == "gradient descent":
        return Tuning(2 / (mu + top), 0.0, False, (k - 1) / (k + 1))
    if method == "heavy ball":
        contraction = (math.sqrt(k) - 1) / (math.sqrt(k) + 1)
        rate = 4 / (math.sqrt(top) + math.sqrt(mu)) ** 2
        return Tuning(rate, contraction**2, False, contraction)
    s = math.sqrt(3 * k + 1)
    return Tuning(4 / (3 * top + mu), (s - 2) / (s + 2), True, 1 - 2 / s)


def _fraction(momentum: float) -> float:
    if checks.finite("momentum", momentum, low=0.0) >= 1:
        raise InvalidArgument(f"momentum must be at least 0 and below 1; received {momentum:g}")
    return float(momentum)
