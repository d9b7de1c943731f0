"""Gradients of mini-batches: their noise, and what the linear scaling rule keeps of a path.

**Noise.** A batch of m drawn without replacement from N examples has the mean gradient g_B with

``E ||g_B - g||**2 = s**2 / m (N - m) / (N - 1)``, ``s**2 = mean_i ||g_i - g||**2``

(Cochran 1977, Sampling Techniques, theorem 2.2): exact, and 0 for the full batch.

**Linear scaling** (Goyal et al. 2017, section 2.1): k steps of rate r on batches of m against one
step of rate k r on all k m examples. Where batch i has the loss of Hessian H_i, the same everywhere
(least squares), and gradient g_i at the start,

``w_k - w = r**2 sum_{i<j} H_j g_i - r**3 sum_{i<j<l} H_l H_j g_i + ...``

The rule keeps the path to first order in r, and to second order it does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = ["Gap", "noise", "scaling_gap"]


def noise(batch: int, examples: int) -> float:
    """Return ``E ||g_B - g||**2 / s**2 = (N - m) / (m (N - 1))``; 0 for the full batch.

    Raises
    ------
    InvalidArgument
        If the batch is empty, larger than the examples are, or there is but one example.
    """
    checks.integer("examples", examples, low=2)
    checks.integer("batch", batch, low=1, high=examples)
    return (examples - batch) / (batch * (examples - 1))


@dataclass(frozen=True, eq=False)
class Gap:
    """How far the small steps end from the large one.

    Attributes
    ----------
    leading : numpy.ndarray (n,)
        The term of order r**2.
    remainder : float
        Bounds the norm of all terms of higher order.
    """

    leading: np.ndarray
    remainder: float


def scaling_gap(hessians: np.ndarray, gradients: np.ndarray, rate: float) -> Gap:
    """Return the gap after one step on each batch.

    Parameters
    ----------
    hessians : numpy.ndarray (k, n, n)
        Of each batch's mean loss.
    gradients : numpy.ndarray (k, n)
        At the start.
    rate : float
        r, of the small steps.

    Notes
    -----
    The term of order p is at most ``r**p`` times the sum over i_1 < .. < i_p of ``||g_i1||
    ||H_i2|| .. ||H_ip||``.
    """
    if hessians.shape != (*gradients.shape, gradients.shape[-1]):
        raise InvalidArgument(
            f"there must be one Hessian (n, n) for each gradient (n,); received shapes "
            f"{hessians.shape} and {gradients.shape}"
        )
    checks.finite("rate", rate, low=0.0)
    before = np.cumsum(gradients, axis=0) - gradients  # sum of the g_i of the batches before
    leading = rate**2 * np.einsum("kij,kj->i", hessians, before)
    orders = np.zeros(len(gradients) + 1)  # sums of the norms of the terms of each order
    for hessian, gradient in zip(hessians, gradients, strict=True):
        orders[2:] += rate * float(np.linalg.norm(hessian, 2)) * orders[1:-1]
        orders[1] += rate * float(np.linalg.norm(gradient))
    return Gap(leading, float(orders[3:].sum()))
