"""Layer-sequential unit variance: weights rescaled by what a batch of data does in the net."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.orthogonal import Orthogonal

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["lsuv"]

Array = Any
Forward = Callable[[Mapping[str, Array], Array], Mapping[str, Array]]


def lsuv(
    nx: Backend,
    forward: Forward,
    parameters: Mapping[str, Array],
    x: Array,
    stream: Stream,
    /,
    *,
    layout: str = "out_in",
    tolerance: float = 0.01,
    attempts: int = 10,
) -> dict[str, Array]:
    """Return parameters whose layers have preactivations of variance 1 on the batch x.

    Law: each weight is Haar-distributed orthogonal, then, layer by layer, divided by the standard
    deviation of its preactivation over batch and units, until that variance is 1 +- tolerance.
    Without biases one division is exact but for rounding, since the preactivation is linear in its
    weight.
    Use: any net and activation whose gain is not known, or whose layers are of mixed kinds.
    Keeps: the variance of every layer's preactivation, at 1 on the batch.
    Source: Mishkin and Matas 2016, All you need is a good init, algorithm 1.

    Parameters
    ----------
    forward : callable
        ``forward(parameters, x)`` returns the preactivation of each layer, in the order of
        computation, by the path of the layer's weight in `parameters`.
    parameters : mapping of str to array
        Shapes and dtypes are taken from it, and what is no layer's weight, as biases, is kept. It
        is not changed.
    x : array
        A batch of real inputs.
    layout : {"out_in", "in_out"}
        Of all weights.
    tolerance : float
        Above 0; the authors' code has 0.1 for the standard deviation.
    attempts : int
        Divisions of one weight, at least 1.

    Raises
    ------
    InvalidArgument
        If `forward` does not return preactivations by paths of weights; or if a preactivation is
        constant (a dead layer, or zero data), not finite, or does not come to variance 1 in
        `attempts` divisions. It names the layer; nothing is returned half done.
    """
    checks.finite("tolerance", tolerance, low=0.0, open_low=True)
    checks.integer("attempts", attempts, low=1)
    with nx.scope():
        layers = _layers(nx, forward(parameters, x), parameters)
        scaled = dict(parameters)
        for path, part in zip(layers, stream.split(len(layers)), strict=True):
            weight = parameters[path]
            scaled[path] = nx.initialize(
                Orthogonal(),
                nx.shape_of(weight),
                part,
                layout=layout,
                dtype=nx.dtype_of(weight),
            )
        for path in layers:
            for _ in range(attempts):
                variance = _variance(nx, path, forward(scaled, x)[path])
                if abs(variance - 1) <= tolerance:
                    break
                scaled[path] = scaled[path] * (1 / math.sqrt(variance))
            else:
                _check_reached(path, _variance(nx, path, forward(scaled, x)[path]), tolerance)
    return scaled


def _layers(nx: Backend, found: object, parameters: Mapping[str, Array]) -> list[str]:
    """Return the paths of the layers; raise if `forward` returned something else."""
    if not isinstance(found, Mapping) or not found or not found.keys() <= parameters.keys():
        received = sorted(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        raise InvalidArgument(
            "forward must return the preactivation of each layer by the path of its weight, among "
            f"{', '.join(parameters)}; received {received}"
        )
    return list(found)


def _variance(nx: Backend, path: str, preactivation: Array) -> float:
    """Return the variance over batch and units, in float64; raise where there is none."""
    values = nx.to_numpy(preactivation).astype(np.float64)
    if not np.all(np.isfinite(values)):
        raise InvalidArgument(
            f"the preactivation of layer {path!r} must be finite; received "
            f"{np.count_nonzero(~np.isfinite(values))} of {values.size} values that are not; "
            "look at the data and at what comes before the layer"
        )
    variance = float(np.var(values))
    if not variance > 0:
        raise InvalidArgument(
            f"the preactivation of layer {path!r} must vary over the batch; received the same "
            f"value {values.flat[0] + 0.0:g} everywhere: its inputs are dead or constant; use "
            "other data, or an activation and biases that leave the layer before alive"
        )
    return variance


def _check_reached(path: str, variance: float, tolerance: float) -> None:
    if abs(variance - 1) > tolerance:
        raise InvalidArgument(
            f"the preactivation of layer {path!r} must come to variance 1 +- {tolerance:g}; "
            f"received {variance:g} at last; set the biases to zero, allow more attempts, or a "
            "larger tolerance"
        )
