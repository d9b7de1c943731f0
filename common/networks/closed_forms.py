"""Five small models whose Hessian has a closed form, as losses on a backend.

Least squares, logistic and softmax regression, a chain of equal weights, and a net of two layers:
what a matrix-free Hessian is held to (:mod:`isometry.common.laws.hessians`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common.laws import hessians
from isometry.common.laws.perceptron import cross_entropy
from isometry.common.networks.fully_connected import FullyConnected

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["Model", "models"]

Array = Any
Loss = Callable[..., Array]

CLASSES, UNITS, LINKS = 10, 5, 6
LINK = 0.9  # each weight of the chain


@dataclass(frozen=True)
class Model:
    """A loss on the backend and its exact Hessian; `size` as `curvature.product_error` takes it."""

    loss: Loss
    parameters: dict[str, np.ndarray]
    data: tuple[np.ndarray, ...]
    hessian: np.ndarray
    size: float


def models(
    nx: Backend, stream: Stream, images: np.ndarray, labels: np.ndarray
) -> list[tuple[str, Model]]:
    """Return least squares, logistic and softmax regression, a chain, and a net of two layers.

    Inputs are digits averaged over blocks of 2 x 2 pixels: 16 numbers in [0, 1].
    """
    ops = nx.ops
    x = images.astype(float).reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    odd, targets = (labels % 2).astype(float), np.eye(CLASSES)[labels]

    def drawn(*shape: int) -> np.ndarray:
        return nx.to_numpy(stream.normal(shape, dtype="float64"))

    def output(parameters: dict[str, Array], x: Array) -> Array:
        return ops.linear(x, parameters["weight"])

    def squares(parameters: dict[str, Array], x: Array, y: Array) -> Array:
        return ops.mean(ops.square(output(parameters, x) - y)) / 2

    def logistic(parameters: dict[str, Array], x: Array, y: Array) -> Array:
        z = output(parameters, x)
        return ops.mean(ops.maximum(z, 0 * z) + ops.log1p(ops.exp(-ops.abs(z))) - y * z)

    def softmax(parameters: dict[str, Array], x: Array, y: Array) -> Array:
        return cross_entropy(nx, output(parameters, x), y)

    def network(net: FullyConnected) -> Loss:
        return lambda parameters, x, y: ops.mean(ops.square(net.output(nx, parameters, x) - y)) / 2

    w, W, V, a = drawn(1, 16), drawn(CLASSES, 16), drawn(UNITS, 16) / 4, drawn(UNITS)
    reach = float((1 + np.linalg.norm(x, axis=1).max()) ** 4)
    residual = 1 + float(np.abs(x @ w[0] - odd).max())
    bend = 64 * float((1 + np.abs(a).sum()) ** 2)  # derivatives of tanh, and of products of two
    return [
        (
            "least squares",
            Model(
                squares, {"weight": w}, (x, odd[:, None]), hessians.least_squares(x),
                reach * residual,
            ),
        ),
        (
            "logistic",
            Model(
                logistic, {"weight": w}, (x, odd[:, None]), hessians.logistic(x, w[0]),
                reach * residual,
            ),
        ),
        ("softmax", Model(softmax, {"weight": W}, (x, targets), hessians.softmax(x, W), 8 * reach)),
        (
            "chain",
            Model(
                network(FullyConnected((1,) * (LINKS + 1), "linear")),
                {"stack0/weight": np.full((LINKS - 1, 1, 1), LINK),
                 "stack1/weight": np.full((1, 1, 1), LINK)},
                (np.ones((1, 1)), np.full((1, 1), 2.0)),
                hessians.chain(np.full(LINKS, LINK), 1.0, 2.0),
                float(((1 + LINK) ** LINKS + 2) ** 2),
            ),
        ),
        (
            "two layers",
            Model(
                network(FullyConnected((16, UNITS, 1), "tanh")),
                {"stack0/weight": V[None], "stack1/weight": a[None, None]},
                (x, odd[:, None]),
                hessians.two_layers(x, odd, V, a),
                reach * bend,
            ),
        ),
    ]  # fmt: skip
