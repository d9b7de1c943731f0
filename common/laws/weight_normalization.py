"""Weight and spectral normalization and weight standardization: the exact float64 reference.

All take a weight as a matrix (outputs, inputs); `matrix` makes one of a weight of any layout. Where
only operators stand between argument and result, the argument may be an array of any kind that has
them, such as :class:`isometry.common.statistics.running_error.Rounded`, which gives the bound of
the rounding errors of the same formula in another precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isometry.common.laws.normalization import layer_norm, layer_norm_backward

__all__ = [
    "matrix",
    "power_iteration",
    "spectral_norm",
    "spectral_norm_backward",
    "spectral_norm_forward",
    "weight_norm",
    "weight_norm_backward",
    "weight_standardization",
    "weight_standardization_backward",
]

Matrix = Any  # numpy.ndarray, or what has its operators


def matrix(weight: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return a weight with its outputs on `axis` as (outputs, inputs) in float64."""
    first = np.moveaxis(np.asarray(weight, np.float64), axis, 0)
    return first.reshape(len(first), -1)


def _or_one(norm: Matrix) -> Matrix:
    """Return a norm, but 1 where it is 0."""
    return norm + (np.asarray(norm) == 0)


def weight_norm(v: Matrix, g: Matrix) -> Matrix:
    """Return ``w = g v / ||v||`` (Salimans and Kingma 2016, eq. 2); see `Backend.weight_norm`.

    Parameters
    ----------
    v : (outputs, inputs)
    g : (outputs, 1)
    """
    return v / _or_one((v * v).sum(axis=1, keepdims=True) ** 0.5) * g


def weight_norm_backward(dw: Matrix, v: Matrix, g: Matrix) -> tuple[Matrix, Matrix]:
    """Return dv and dg for the gradient dw of the weight (Salimans and Kingma 2016, eq. 3).

    ``dg = sum(dw v) / ||v||``, ``dv = g / ||v|| (dw - dg v / ||v||)``.
    """
    norm = _or_one((v * v).sum(axis=1, keepdims=True) ** 0.5)
    unit = v / norm
    dg = (dw * unit).sum(axis=1, keepdims=True)
    return (dw - unit * dg) * (g / norm), dg


def weight_standardization(weight: np.ndarray, *, eps: float = 1e-5) -> np.ndarray:
    """Return ``(w - m) / sqrt(v + eps)``, output by output (Qiao et al. 2019)."""
    inputs = weight.shape[1]
    return layer_norm(weight, np.ones(inputs), np.zeros(inputs), eps=eps)


def weight_standardization_backward(
    dy: np.ndarray, weight: np.ndarray, *, eps: float = 1e-5
) -> np.ndarray:
    """Return the gradient in the weight: that of layer norm without scale and shift."""
    return layer_norm_backward(dy, weight, np.ones(weight.shape[1]), eps=eps)[0]


# --- the largest singular value -----------------------------------------------------------------


def _unit(x: Matrix, otherwise: Matrix) -> Matrix:
    norm = (x * x).sum() ** 0.5
    return x / norm if np.asarray(norm) > 0 else otherwise


def power_iteration(weight: Matrix, u: Matrix, *, iterations: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return u, v and ``sigma = u^T W v`` after `iterations` from u; see `Backend.spectral_norm`.

    ``v = W^T u / ||W^T u||``, ``u = W v / ||W v||`` (Miyato et al. 2018, algorithm 1). Where a
    product is 0, v is 0 and u is kept.

    Parameters
    ----------
    weight : (outputs, inputs)
    u : (outputs, 1)
    """
    for _ in range(iterations):
        back = weight.T @ u
        v = _unit(back, back)  # (inputs, 1)
        u = _unit(weight @ v, u)
    return u, v, (u * (weight @ v)).sum()


def spectral_norm(weight: Matrix, u: Matrix, *, iterations: int) -> Matrix:
    """Return ``W / sigma``, the estimate 0 taken for 1."""
    return weight / _or_one(power_iteration(weight, u, iterations=iterations)[2])


def spectral_norm_backward(dy: Matrix, weight: Matrix, u: Matrix, *, iterations: int) -> Matrix:
    """Return the gradient in the weight, u and v being constants (Miyato et al. 2018, section 2.3).

    ``dW = (dy - sum(dy W) / sigma u v^T) / sigma``; dy itself where sigma is 0.
    """
    u, v, sigma = power_iteration(weight, u, iterations=iterations)
    sigma = _or_one(sigma)
    return (dy - (u @ v.T) * ((dy * weight).sum() / sigma)) / sigma


def spectral_norm_forward(dw: Matrix, weight: Matrix, u: Matrix, *, iterations: int) -> Matrix:
    """Return the change of ``W / sigma`` for the change dw of the weight, u and v being constants.

    ``(dW - W / sigma u^T dW v) / sigma``; dW itself where sigma is 0.
    """
    u, v, sigma = power_iteration(weight, u, iterations=iterations)
    sigma = _or_one(sigma)
    return (dw - weight * ((u * (dw @ v)).sum() / sigma)) / sigma
