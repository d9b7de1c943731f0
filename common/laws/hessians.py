"""Hessians in closed form: of convex models, of a chain of weights, of a small net.

Losses are means over n examples, the rows of X (n, d). Parameters are flattened in C order.
"""

from __future__ import annotations

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = [
    "chain",
    "equal_chain",
    "least_squares",
    "logistic",
    "softmax",
    "two_layers",
]


def least_squares(x: np.ndarray) -> np.ndarray:
    """Return ``X^T X / n``, the Hessian of ``||X w - y||**2 / (2 n)``, whatever w and y."""
    x = np.asarray(x, dtype=float)
    return np.asarray(x.T @ x / len(x))


def logistic(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return ``X^T diag(p (1 - p)) X / n``, p the logistic sigmoid of X w; whatever the labels.

    Of the cross-entropy ``mean(ln(1 + e**z) - y z)``, z = X w.
    """
    x = np.asarray(x, dtype=float)
    half = np.tanh(x @ w / 2)  # p (1 - p) = (1 - tanh(z / 2)**2) / 4, without cancellation
    return np.asarray((x * ((1 - half) * (1 + half) / 4)[:, None]).T @ x / len(x))


def softmax(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return ``mean_n (diag(p) - p p^T) (x) x x^T``, p the softmax of W x; W (classes, d).

    Of the cross-entropy; shape (classes d, classes d). Adding one vector to every row of W changes
    nothing: d eigenvalues are 0. The others are at most 1/2 the largest of X^T X / n (Boehning
    1992).
    """
    x, W = np.asarray(x, dtype=float), np.asarray(W, dtype=float)
    z = x @ W.T
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    curvature = np.einsum("nc,ce->nce", p, np.eye(len(W))) - np.einsum("nc,ne->nce", p, p)
    size = W.size
    return np.asarray(np.einsum("nce,ni,nj->ciej", curvature, x, x).reshape(size, size) / len(x))


def chain(weights: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return the Hessian of ``(f - y)**2 / 2``, ``f = w_L ... w_1 x``.

    With g_k the product of all but w_k, times x, and h_kl of all but two:
    ``H_kk = g_k**2``, ``H_kl = g_k g_l + (f - y) h_kl``.
    """
    w = np.asarray(weights, dtype=float)
    depth = len(w)
    every = np.arange(depth)
    g = np.array([x * np.prod(w[every != k]) for k in every])
    H = np.outer(g, g)
    residual = x * np.prod(w) - y
    for k in every:
        for j in every[:k]:
            H[k, j] += residual * x * np.prod(w[(every != k) & (every != j)])
            H[j, k] = H[k, j]
    return np.asarray(H)


def equal_chain(w: float, depth: int, x: float, y: float) -> tuple[float, float]:
    """Return the two eigenvalues of `chain` at equal weights w: the symmetric one, the others.

    ``d + (L - 1) o`` once and ``d - o`` L - 1 times, with ``d = x**2 w**(2 L - 2)`` and
    ``o = d + (x w**L - y) x w**(L - 2)``.
    """
    if checks.integer("depth", depth, low=1) < 2:
        raise InvalidArgument(f"a chain has at least 2 weights; received {depth}")
    d = x**2 * w ** (2 * depth - 2)
    o = d + (x * w**depth - y) * x * w ** (depth - 2)
    return d + (depth - 1) * o, d - o


def two_layers(x: np.ndarray, y: np.ndarray, V: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Return the Hessian of ``mean((a . tanh(V x) - y)**2) / 2`` in (V, a), V (units, d).

    ``J^T J / n + mean(r grad**2 f)`` with the residual r: ``d2f/dV_i dV_i = a_i tanh''(z_i) x x^T``
    and ``d2f/dV_i da_i = tanh'(z_i) x``; all others are 0.
    """
    x, V, a = (np.asarray(v, dtype=float) for v in (x, V, a))
    (n, d), units = x.shape, len(a)
    h = np.tanh(x @ V.T)
    slope = (1 - h) * (1 + h)
    residual = h @ a - y
    J = np.concatenate([(slope * a)[:, :, None] * x[:, None, :]], axis=1).reshape(n, units * d)
    J = np.concatenate([J, h], axis=1)
    H = J.T @ J / n
    for i in range(units):
        own = slice(i * d, (i + 1) * d)
        bend = residual * a[i] * -2 * h[:, i] * slope[:, i]
        H[own, own] += (x * bend[:, None]).T @ x / n
        mixed = (residual * slope[:, i]) @ x / n
        H[own, units * d + i] += mixed
        H[units * d + i, own] += mixed
    return np.asarray(H)
