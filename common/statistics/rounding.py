"""Derived bounds of rounding errors: linear algebra, normalization, and training equal units.

u = eps / 2 is the unit roundoff of the dtype. Source of all: Higham 2002, Accuracy and Stability
of Numerical Algorithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from isometry.common.laws.formats import FORMATS
from isometry.common.statistics.tolerances import ACTIVATION_ULP, TANH_ULP

__all__ = [
    "EqualUnits",
    "factorization",
    "gamma",
    "log_scale",
    "normalization_gradient",
    "orthogonality",
    "product",
]


def gamma(count: float, dtype: str = "float32") -> float:
    """Return ``n u / (1 - n u)``: the relative error of n roundings in any order (lemma 3.1)."""
    nu = count * FORMATS[dtype].eps / 2
    return nu / (1 - nu)


def product(steps: int, size: int, dtype: str) -> float:
    """Return the relative error of a product of `steps` size x size matrices, ``k n eps``.

    In units of ``||P|| ||F_1|| ... ||F_k||`` (Frobenius); section 3.5, below eq. 3.13, with a
    factor of 2 for the second-order terms and for dividing by the largest entry.
    """
    return steps * size * FORMATS[dtype].eps


def log_scale(steps: int, largest: float, dtype: str) -> float:
    """Return the error of a sum of `steps` logarithms of absolute value at most `largest`.

    Recursive summation, ``(k - 1) u sum |log|``, and 4 ULP for each logarithm (section 4.2).
    """
    return steps * (steps + 4) * largest * FORMATS[dtype].eps


def factorization(rows: int, columns: int, dtype: str) -> float:
    """Return the error of a QR or SVD in units of ``||A||``, ``30 max(m, n) eps``.

    30 is the ratio from which LAPACK's own tests of a QR call it wrong (TESTING/dtest.in; those of
    the SVD allow 50).
    """
    return 30 * max(rows, columns) * FORMATS[dtype].eps


def orthogonality(rows: int, columns: int, dtype: str) -> float:
    """Return the largest entry of ``|Q^T Q - I|`` after a QR: `factorization` in the working dtype.

    Not ``max(m, n) eps``: of 3,000 right 4x4 matrices in float64 one reached 6 eps. In half
    precisions the rounding of Q's own entries is added: by Cauchy-Schwarz,
    ``|row| |error of row| <= eps`` for unit rows.
    """
    working = "float64" if dtype == "float64" else "float32"
    rounded = 0.0 if dtype == working else FORMATS[dtype].eps
    return factorization(rows, columns, working) + rounded


# --- normalization ------------------------------------------------------------------------------


def normalization_gradient(
    x: np.ndarray, dy: np.ndarray, scale: np.ndarray, /, *, axis: int, eps: float, output: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the largest errors of dx, dscale and dshift, normalized over one axis in float32.

    With z right to b = `output` everywhere, the factor 1/sqrt(v + eps) is right to b / max|z|, and
    ``G = s - mean(s) - z mean(s z)``, ``s = dy scale``, to
    ``b (|mean(s z)| + |z| mean|s|) + gamma (|s| + mean|s| + |z| mean|s z|)``. `scale` and shift
    belong to the columns (last axis), whichever axis is normalized.
    """
    x, dy, scale = x.astype(np.float64), dy.astype(np.float64), scale.astype(np.float64)
    variance = x.var(axis=axis, keepdims=True)
    inverse = 1 / np.sqrt(variance + eps)
    z = (x - x.mean(axis=axis, keepdims=True)) * inverse
    s = dy * scale

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(values.mean(axis=axis, keepdims=True))

    g = s - mean(s) - z * mean(s * z)
    rounding = gamma(x.shape[axis] + 8)
    largest = np.abs(z).max(axis=axis, keepdims=True)
    error = output * (
        np.abs(g) / largest + np.abs(mean(s * z)) + np.abs(z) * mean(np.abs(s))
    ) + rounding * (np.abs(s) + mean(np.abs(s)) + np.abs(z) * mean(np.abs(s * z)))
    # scale and shift are shared by the rows in both layers
    summed = gamma(len(x) + 8)
    d_scale = output * np.abs(dy).sum(axis=0) + summed * np.abs(dy * z).sum(axis=0)
    return inverse * error, d_scale, summed * np.abs(dy).sum(axis=0)


# --- equal units --------------------------------------------------------------------------------


class EqualUnits:
    """How far rounding may drive apart hidden units of float32 that start equal, step by step.

    The net is `isometry.common.laws.perceptron`'s with softmax cross-entropy, trained by
    ``v <- decay v + g; w <- w - rate v``. A unit is the vector of its incoming weights, bias and
    outgoing weights u; distances are Euclidean. Two units see the same float residuals r_n
    (softmax minus target, over the batch) and differ by their own parameters and roundings
    alone. With ``x~ = (x, 1)``, z the preactivation and ``s = 1 - tanh(z)**2`` (|s'| <= 4 /
    27**0.5), the gradient of a unit, ``sum_n r_n tanh(z_n)`` and ``sum_n (r_n . u) s_n x~_n``, is
    Lipschitz with ``L = sum_n |r_n| |x~_n| (1 + |s'| |u| |x~_n|)``. With E bounding the roundings
    of one unit's gradient, distances d of the weights and c of the velocities obey

        c <- decay c + L d + 2 (E + gamma_2 |v|),   d <- d + rate c + 2 gamma_2 (|w| + rate |v|).

    E is componentwise, for every order of summation (eq. 3.5), tanh and its derivative at their
    ULP budgets. To first order in u: |r|, L and E are taken at the float parameters.

    Attributes
    ----------
    distance : float
        Bound of the distance of any two units after the steps so far.
    """

    def __init__(self, *, rate: float, decay: float = 0.0) -> None:
        self.rate, self.decay = rate, decay
        self.distance = self._apart = self._speed = 0.0  # d, c and a bound of |v|

    def step(
        self, parameters: Mapping[str, np.ndarray], x: np.ndarray, targets: np.ndarray
    ) -> None:
        """Take one step on the batch x (n, inputs) with one-hot targets (n, classes).

        `parameters`, in float64, are those before the step.
        """
        stretch, speed, rounding, size = _unit_gradient(parameters, x, targets)
        self._speed = self.decay * self._speed + speed
        self._apart = self.decay * self._apart + stretch * self.distance
        self._apart += 2 * (rounding + gamma(2) * self._speed)
        self.distance += self.rate * self._apart
        self.distance += 2 * gamma(2) * (size + self.rate * self._speed)


def _unit_gradient(
    parameters: Mapping[str, np.ndarray], x: np.ndarray, targets: np.ndarray
) -> tuple[float, float, float, float]:
    """Return L, and the largest norm of a unit's gradient, of its rounding error, and of a unit."""
    W1, b1 = parameters["hidden/weight"], parameters["hidden/bias"]
    W2, b2 = parameters["output/weight"], parameters["output/bias"]
    batch, inputs = x.shape
    x1 = np.concatenate([x, np.ones((batch, 1))], axis=1)
    z = x @ W1.T + b1
    h = np.tanh(z)
    scores = h @ W2.T + b2
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    r = np.abs(weights / weights.sum(axis=1, keepdims=True) - targets) / batch
    curve = 4 / math.sqrt(27)
    # componentwise rounding errors of one unit, all units at once; a ULP is at most 2 u |value|
    z_error = gamma(inputs + 2) * (x1 @ np.concatenate([np.abs(W1), np.abs(b1)[:, None]], 1).T)
    h_error = z_error + gamma(2 * TANH_ULP["float32"]) * np.abs(h)
    s = 1 - np.square(h)
    s_error = curve * z_error + gamma(2 * ACTIVATION_ULP["float32"]) * s
    back = r @ np.abs(W2)
    of_back = gamma(r.shape[1] + 4)
    out_error = h_error.T @ r + gamma(batch + 2) * (np.abs(h).T @ r)
    in_error = (back * (s_error + of_back * s)).T @ x1 + gamma(batch + 2) * (back * s).T @ x1
    r_norm, x_norm = np.linalg.norm(r, axis=1), np.linalg.norm(x1, axis=1)
    u_norm = np.linalg.norm(W2, axis=0).max()
    return (
        float(np.sum(r_norm * x_norm * (1 + curve * u_norm * x_norm))),
        float(np.sum(r_norm * (1 + u_norm * x_norm))),
        float(np.sqrt(np.square(out_error).sum(axis=1) + np.square(in_error).sum(axis=1)).max()),
        float(np.sqrt(np.square(W1).sum(axis=1) + np.square(b1) + np.square(W2).sum(axis=0)).max()),
    )
