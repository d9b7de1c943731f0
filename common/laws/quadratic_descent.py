"""Gradient descent on a quadratic loss: how far after t steps, and how many steps, exactly.

With the Hessian ``H = U diag(lambda) U^T`` and the start off the minimum by ``U c``, step size r
leaves ``U diag((1 - r lambda)**t) c`` after t steps, and above the least loss

``e(t) = sum lambda_i c_i**2 (1 - r lambda_i)**(2 t) / 2``

(LeCun, Bottou, Orr and Mueller 1998, Efficient BackProp). It shrinks if ``r < 2 / lambda_1``; at
``r = 1 / lambda_1`` the slowest part needs about ``lambda_1 / lambda_n`` steps for a factor e**2.
What a feature's mean and scale do to H is `scaled_hessian`.
"""

from __future__ import annotations

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = ["excess", "scaled_hessian", "steps_to"]

MOST = 2**60


def excess(eigenvalues: np.ndarray, offsets: np.ndarray, rate: float, step: float) -> float:
    """Return e(t), the loss above its minimum after t steps.

    Parameters
    ----------
    eigenvalues, offsets : numpy.ndarray (n,)
        lambda, not negative, and c.
    rate : float
        Positive.
    step : float
        t, at least 0.
    """
    values, c = np.asarray(eigenvalues, dtype=float), np.asarray(offsets, dtype=float)
    checks.finite("rate", rate, low=0.0, open_low=True)
    shrunk = np.abs(1 - rate * values) ** (2 * step)
    return float((values * np.square(c) * shrunk).sum() / 2)


def steps_to(share: float, eigenvalues: np.ndarray, offsets: np.ndarray, rate: float) -> int:
    """Return the first t with ``e(t) <= share e(0)``.

    Raises
    ------
    InvalidArgument
        If the share is not between 0 and 1, the rate is at least ``2 / lambda_1``, where the loss
        does not shrink, or it takes more than 2**60 steps.
    """
    if not 0 < checks.finite("share", share) < 1:
        raise InvalidArgument(f"share must be between 0 and 1; received {share:g}")
    largest = float(np.max(eigenvalues))
    if not rate * largest < 2:
        raise InvalidArgument(
            f"gradient descent shrinks the loss for rates below 2 / the largest eigenvalue "
            f"{largest:g}, {2 / largest:g}; received {rate:g}"
        )
    goal = share * excess(eigenvalues, offsets, rate, 0)
    if goal == 0:
        return 0
    low, high = 0, 1
    while excess(eigenvalues, offsets, rate, high) > goal:
        low, high = high, 2 * high
        if high > MOST:
            raise InvalidArgument(
                f"the loss does not fall to {share:g} of its excess within 2**60 steps at rate "
                f"{rate:g}; raise the rate, or drop directions without curvature"
            )
    while high - low > 1:
        middle = (low + high) // 2
        shrunk = excess(eigenvalues, offsets, rate, middle) <= goal
        low, high = (low, middle) if shrunk else (middle, high)
    return high


def scaled_hessian(means: np.ndarray, stds: np.ndarray) -> np.ndarray:
    """Return ``[[diag(s**2) + m m^T, m], [m^T, 1]]``, of linear least squares with a bias.

    The Hessian, for uncorrelated features of these means and (biased) standard deviations. Its
    determinant is that of diag(s**2) whatever the means, while they add ``|m|**2`` to its trace:
    they raise the largest eigenvalue at the cost of the smallest. Standardized features give the
    identity.
    """
    m, s = np.asarray(means, dtype=float), np.asarray(stds, dtype=float)
    if m.shape != s.shape or m.ndim != 1:
        raise InvalidArgument(
            f"means and stds must be vectors of one length; received shapes {m.shape} and {s.shape}"
        )
    extended = np.append(m, 1.0)
    return np.outer(extended, extended) + np.diag(np.append(np.square(s), 0.0))
