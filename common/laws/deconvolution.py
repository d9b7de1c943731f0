"""Network deconvolution (Ye et al. 2020): whitening by Newton-Schulz, the float64 reference.

The inverse square root of the covariance C comes from the coupled Newton-Schulz iteration (Higham
2008, Functions of Matrices, chapter 6). It acts on each eigenvalue by itself: with
``a = lambda / ||C||`` in (0, 1], z starts at 1 and ``z <- z (3 - a z**2) / 2`` tends to a**-1/2
(`factor`). While a z**2 is small, z grows by 3/2 a step, so that a direction of the relative
variance a needs about ``log(1 / a) / log(9 / 4)`` steps before it is white, and one below the
rounding of C, for which a may come out negative, gets amplified for nothing: `most_steps`.

`whitened` and its gradient are written in operators alone, for arrays and for
:class:`isometry.common.statistics.running_error.Rounded`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from isometry.common.laws.formats import FORMATS

__all__ = [
    "factor",
    "most_steps",
    "network_deconvolution",
    "network_deconvolution_backward",
    "whitened",
    "whitened_backward",
    "whitened_forward",
]

Matrix = Any  # numpy.ndarray, or what has its operators


def factor(a: np.ndarray, iterations: int) -> np.ndarray:
    """Return z after `iterations` for relative eigenvalues a: D has ``z / sqrt(||C||)`` there.

    >>> np.round(factor(np.array([0.1, 0.01, 0.001]), 5) ** 2 * [0.1, 0.01, 0.001], 3)
    array([0.995, 0.434, 0.056])
    """
    z = np.ones_like(a)
    for _ in range(iterations):
        z = z * (3 - a * z**2) / 2
    return z


def most_steps(dtype: str) -> int:
    """Return after how many steps z nears ``eps**-1/2``, that of a direction within rounding of 0.

    >>> most_steps("float32"), most_steps("float64")
    (19, 44)
    """
    return int((FORMATS[dtype].precision - 1) * math.log(2) / math.log(9 / 4))


def _distance(zy: Matrix) -> float:
    return float(np.linalg.norm(np.eye(zy.shape[0]) - np.asarray(zy)))


def _inverse_root(c: Matrix, iterations: int, eps: float) -> tuple[Matrix, Matrix, Matrix, Any]:
    """Return C, its norm, Z, and (Y, Z, T) of each step; one that leads away is not taken."""
    samples, features = c.shape
    identity = np.eye(features)
    covariance = c.T @ c / samples + eps * identity
    norm = (covariance * covariance).sum() ** 0.5
    norm = norm + (np.asarray(norm) == 0)
    y, z, steps = covariance / norm, identity, []
    for _ in range(min(iterations, most_steps("float64"))):
        t = (3 * identity - z @ y) * 0.5
        if not _distance((t @ z) @ (y @ t)) <= _distance(z @ y):
            break
        steps.append((y, z, t))
        y, z = y @ t, t @ z
    return covariance, norm, z, steps


def whitened(c: Matrix, *, iterations: int, eps: float) -> tuple[Matrix, Matrix, Matrix]:
    """Return ``c D``, D and ``D C D - I`` of centred samples c (samples, features)."""
    covariance, norm, z, _ = _inverse_root(c, iterations, eps)
    d = z / norm**0.5
    return c @ d, d, d @ covariance @ d - np.eye(c.shape[1])


def whitened_backward(dy: Matrix, c: Matrix, *, iterations: int, eps: float) -> Matrix:
    """Return the gradient in the samples, for the gradient dy of ``c D``: D depends on all of them.

    By parts, from the last step to the first: ``dT = dZ' Z^T + Y^T dY'``, ``dZ = T^T dZ' - dT Y^T
    / 2``, ``dY = dY' T^T - Z^T dT / 2``; then through ``C / ||C||`` and C.
    """
    covariance, norm, last, steps = _inverse_root(c, iterations, eps)
    root = norm**0.5
    dd = c.T @ dy
    dz, dcoupled = dd / root, np.zeros(covariance.shape)  # of Z and Y after the last step
    for y, z, t in reversed(steps):
        dt = dz @ z.T + y.T @ dcoupled
        dz = t.T @ dz - (dt @ y.T) * 0.5
        dcoupled = dcoupled @ t.T - (z.T @ dt) * 0.5
    dnorm = (dd * last).sum() * -0.5 / (norm * root) - (dcoupled * covariance).sum() / (norm * norm)
    dcovariance = dcoupled / norm + covariance * (dnorm / norm)
    dc = dy @ (last / root).T + c @ (dcovariance + dcovariance.T) / c.shape[0]
    return dc - dc.sum(axis=0) / c.shape[0]


def whitened_forward(dx: Matrix, c: Matrix, *, iterations: int, eps: float) -> Matrix:
    """Return the change of ``c D`` for the change dx of the samples; an array or `Rounded`.

    By parts, from C to the last step: ``dT = -(dZ Y + Z dY) / 2``, ``dY' = dY T + Y dT``,
    ``dZ' = dT Z + T dZ``.
    """
    covariance, norm, last, steps = _inverse_root(c, iterations, eps)
    dc = dx - dx.sum(axis=0) / c.shape[0]
    dcovariance = (dc.T @ c + c.T @ dc) / c.shape[0]
    dnorm = (dcovariance * covariance).sum() / norm
    dy = (dcovariance - covariance * (dnorm / norm)) / norm
    dz = np.zeros(covariance.shape)
    for y, z, t in steps:
        dt = (dz @ y + z @ dy) * -0.5
        dy, dz = dy @ t + y @ dt, dt @ z + t @ dz
    dd = (dz - last * (dnorm / (2 * norm))) / norm**0.5
    return dc @ (last / norm**0.5) + c @ dd


def _centre(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(x, np.float64)
    mean = x.mean(axis=0)
    correction = (x - mean).mean(axis=0)
    return x - mean - correction, mean + correction


def network_deconvolution(
    x: np.ndarray, /, *, iterations: int, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return y, the mean, D and ``||D C D - I||``; see `Backend.network_deconvolution`."""
    centred, mean = _centre(x)
    y, d, rest = whitened(centred, iterations=iterations, eps=eps)
    return y, mean, d, float(np.linalg.norm(rest))


def network_deconvolution_backward(
    dy: np.ndarray, x: np.ndarray, /, *, iterations: int, eps: float = 1e-5
) -> np.ndarray:
    """Return dx in float64 for the gradient dy of y."""
    return np.asarray(whitened_backward(dy, _centre(x)[0], iterations=iterations, eps=eps))
