"""The gradient of a plain net as a product of its layers' Jacobians, and what rounding does to it.

For ``h_l = phi(W_l h_{l-1})``, l = 1 .. L - 1, and the output ``o = w h_{L-1}``,

``do/dh_0 = w M_{L-1} ... M_1``,  ``M_l = diag(phi'(W_l h_{l-1})) W_l``,
``do/dW_l = (w M_{L-1} ... M_{l+1} diag(phi'(z_l)))^T h_{l-1}^T``

(Zhang et al., Dive into Deep Learning, eq. 5.4.2). Computed in float64 beside its own running error
(:mod:`isometry.common.statistics.running_error`), so that whoever computes the same formulas, by
hand or by automatic differentiation, is held to a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from isometry.common import checks
from isometry.common.statistics.running_error import Rounded
from isometry.common.statistics.tolerances import ACTIVATION_ULP, TANH_ULP

__all__ = ["ACTIVATIONS", "gradients"]

Scalars = Callable[[np.ndarray], np.ndarray]


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 + 0.5 * np.tanh(z / 2))


ACTIVATIONS: dict[str, tuple[Scalars, Scalars, Scalars]] = {
    "linear": (lambda z: z, np.ones_like, np.zeros_like),
    "tanh": (
        np.tanh,
        lambda z: 1 - np.tanh(z) ** 2,
        lambda z: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2),
    ),
    "sigmoid": (
        _sigmoid,
        lambda z: _sigmoid(z) * _sigmoid(-z),
        lambda z: _sigmoid(z) * _sigmoid(-z) * (1 - 2 * _sigmoid(z)),
    ),
}
"""phi, phi' and phi'': smooth ones, whose slopes no rounding of z can make jump."""


def gradients(
    activation: str, weights: Sequence[np.ndarray], x: np.ndarray, dtype: str
) -> tuple[Rounded, list[Rounded]]:
    """Return ``do/dh_0`` and the ``do/dW_l``, l = 1 .. L - 1.

    Parameters
    ----------
    activation : {"linear", "tanh", "sigmoid"}
    weights : sequence of numpy.ndarray
        W_1 .. W_{L-1} (n_l, n_{l-1}), and last w (1, n_{L-1}).
    x : numpy.ndarray (n_0,)
    dtype : {"float32", "float64"}
        In which somebody else computes, with activations and derivatives within their budgets.

    Returns
    -------
    to_input : Rounded (1, n_0)
    to_weights : list of Rounded (n_l, n_{l-1})

    Raises
    ------
    InvalidArgument
        If the activation is unknown.
    """
    phi, slope, bend = ACTIVATIONS[checks.choice("activation", activation, tuple(ACTIVATIONS))]
    own = 2 * (TANH_ULP if activation == "tanh" else ACTIVATION_ULP)[dtype]  # a ULP is 2 u at most
    h = [Rounded.of(np.asarray(x, dtype=float)[:, None])]
    slopes = []
    for W in weights[:-1]:
        z = Rounded.of(W) @ h[-1]
        exact = activation == "linear"
        steep = Rounded.rounded(
            slope(z.value),
            np.abs(bend(z.value)) * z.error,
            0 if exact else 2 * ACTIVATION_ULP[dtype],
        )
        h.append(Rounded.rounded(phi(z.value), steep.value * z.error, 0 if exact else own))
        slopes.append(steep)
    v = Rounded.of(weights[-1])
    to_weights = []
    for W, steep, before in zip(weights[-2::-1], slopes[::-1], h[-2::-1], strict=True):
        delta = v * steep.T
        to_weights.append(delta.T * before.T)
        v = delta @ Rounded.of(W)
    return v, to_weights[::-1]
