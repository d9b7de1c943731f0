"""Gradients of nets, compiled as a whole where a backend differentiates inside of what it compiles.

Those with second derivatives do. Elsewhere what is differentiated is compiled, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.networks.fully_connected import FullyConnected

__all__ = ["both_passes", "compiled_gradient", "placed", "whole"]

Array = Any
Arrays = Mapping[str, Array]
Probed = tuple[np.ndarray, np.ndarray, np.ndarray]


def placed(nx: Backend, arrays: Arrays) -> dict[str, Array]:
    """Return arrays of a kind with those that a compiled function returns of data.

    JAX compiles a step twice if the first one's arrays, as drawn, are not bound to a device and the
    others are.
    """
    return {path: nx.asarray(nx.to_numpy(a)) for path, a in arrays.items()}


def whole(nx: Backend, f: Callable[..., Any]) -> Callable[..., Any]:
    """Return f, which takes derivatives itself, compiled if the backend can, and else as it is."""
    return nx.compile(f) if _differentiates_within(nx) else f


def compiled_gradient(
    nx: Backend, loss: Callable[..., Array]
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """Return ``evaluate(parameters, *data) -> (value, gradient)`` over a flat dictionary."""
    if not _differentiates_within(nx):
        return nx.value_and_gradient(nx.compile(loss))
    evaluate = nx.value_and_gradient(loss)

    @nx.compile
    def ordered(parameters: Arrays, *data: Array) -> tuple[Array, ...]:
        value, slopes = evaluate(parameters, *data)
        return value, *(slopes[path] for path in sorted(slopes))

    def gradient(parameters: Arrays, *data: Array) -> tuple[Array, dict[str, Array]]:
        value, *slopes = ordered(dict(parameters), *data)
        return value, dict(zip(sorted(parameters), slopes, strict=True))

    return gradient


def both_passes(nx: Backend, network: FullyConnected, place: str) -> Callable[..., Probed]:
    """Return ``passes(parameters, x, v)``: one pass forward and one backward from ``sum(v z_L)``.

    Parameters
    ----------
    network : FullyConnected
        Whose hidden layers are of one width.
    place : {"offset", "nudge"}
        Whether the gradients are those in z_l or in h_l.

    Returns
    -------
    passes : callable
        It returns the hidden z_l (L - 1, batch, width), the gradients in the same shape, and z_L
        (batch, n_L), in float64. Parameters, x (batch, n_0) and v (batch, n_L) are in float32.
    """
    hidden = [stack for stack in network.stacks if stack.hidden]
    rows = {stack.name: slice(stack.first - 1, stack.first - 1 + stack.count) for stack in hidden}

    @nx.compile
    def forward(added: Array, parameters: Arrays, x: Array) -> Array:
        extras = {f"{name}/{place}": added[at] for name, at in rows.items()}
        output, trace = network.forward(nx, parameters, x, extras)
        parts = [output, *(trace[name] for name in rows)]
        return nx.ops.concat([nx.ops.reshape(part, (-1,)) for part in parts], axis=0)

    def both(added: Array, parameters: Arrays, x: Array, cotangent: Array) -> tuple[Array, Array]:
        y, pullback = nx.vjp(lambda added: forward(added, parameters, x), added)
        return y, pullback(cotangent)

    compiled = whole(nx, both)

    def passes(parameters: Arrays, x: Array, v: np.ndarray) -> Probed:
        shape = (network.depth - 1, len(v), hidden[0].n_out)
        cotangent = np.concatenate([v.ravel(), np.zeros(np.prod(shape))]).astype(np.float32)
        with nx.scope():
            added = nx.ops.zeros(shape)
            y, d = compiled(added, dict(parameters), x, nx.asarray(cotangent))
        values, d = (nx.to_numpy(a).astype(np.float64) for a in (y, d))
        return values[v.size :].reshape(shape), d, values[: v.size].reshape(v.shape)

    return passes


def _differentiates_within(nx: Backend) -> bool:
    return "hvp" in nx.capabilities
