"""The gradients of a plain net's output, by automatic differentiation and layer by layer.

A plain net has hidden layers of one width and one output, ``FullyConnected((n, ..., n, 1))``, and
no biases, normalization or shortcuts. Both ways give ``do/dh_0`` (1, n) and the ``do/dW_l``
(L - 1, n, n) of :mod:`isometry.common.laws.jacobians`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common.networks.activations import activation
from isometry.common.networks.fully_connected import FullyConnected

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["gradients_by_autodiff", "gradients_by_product"]

Array = Any
Arrays = Mapping[str, Array]


def gradients_by_autodiff(
    nx: Backend, net: FullyConnected, parameters: Arrays, x: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients as the framework finds them, for an input x (1, n)."""

    def output(leaves: Arrays, last: Array) -> Array:
        weights = {"stack0/weight": leaves["hidden"], "stack1/weight": last}
        return nx.ops.sum(net.output(nx, weights, leaves["x"]))

    leaves = {"x": x, "hidden": parameters["stack0/weight"]}
    _, gradient = nx.value_and_gradient(nx.compile(output))(leaves, parameters["stack1/weight"])
    return nx.to_numpy(gradient["x"]), nx.to_numpy(gradient["hidden"])


def gradients_by_product(
    nx: Backend, net: FullyConnected, parameters: Arrays, x: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``w M_{L-1} ... M_{l+1}`` times what follows, each product the backend's own.

    The activation is linear, tanh or sigmoid, its derivative the exact one of the contract.
    """
    slope = {
        "linear": nx.ops.ones_like,
        "tanh": nx.tanh_gradient,
        "sigmoid": nx.sigmoid_gradient,
    }[str(net.activation)]
    ops, W = nx.ops, parameters["stack0/weight"]
    z = net.forward(nx, parameters, x)[1]["stack0"]  # (L - 1, 1, n)
    slopes, h = slope(z), activation(net.activation)(nx, z)
    jacobians = ops.permute_dims(slopes, (0, 2, 1)) * W
    v = parameters["stack1/weight"][0]  # (1, n)
    to_weights = []
    for k in reversed(range(net.depth - 1)):
        before = h[k - 1] if k else x
        to_weights.append(nx.to_numpy(ops.permute_dims(v * slopes[k], (1, 0)) * before))
        v = ops.matmul(v, jacobians[k])
    return nx.to_numpy(v), np.array(to_weights[::-1])
