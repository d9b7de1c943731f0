"""Clipping of gradients, with the edges stated: the same on every backend.

=======================  ===============  ================  ==================================
gradient                 `clip_by_value`  the others        source of the choice
=======================  ===============  ================  ==================================
norm 0                   unchanged        unchanged         no division takes place
norm equal to the limit  -                unchanged         Pascanu et al. 2013, algorithm 1
norm above               clipped          g (limit / norm)  no eps is added
infinite or NaN entry    by `nonfinite`   by `nonfinite`    "raise", or "propagate"
half precision           -                norm in float32   entries below 65504: no overflow
no entries               unchanged        unchanged         their norm is 0
=======================  ===============  ================  ==================================

With "propagate" a value is clipped as `nx.ops.clip` does (infinity to the limit, NaN stays), and
where a norm is not finite all that it scales becomes NaN: a scale of 0 would hide the failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.optimizers.norms import global_norm, norm, widened
from isometry.common.optimizers.optimizer import NonFinite

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["clip_adaptively", "clip_by_global_norm", "clip_by_norm", "clip_by_value"]

Array = Any
Arrays = Mapping[str, Array]


def clip_by_value(
    nx: Backend, gradients: Arrays, limit: float, /, *, nonfinite: str = "raise"
) -> dict[str, Array]:
    """Return each entry limited to [-limit, limit].

    Parameters
    ----------
    gradients : mapping of str to array
    limit : float
        Positive.
    nonfinite : str
        "raise" `NonFinite` for an infinite or NaN entry, or "propagate".
    """
    _check(nx, gradients, limit, nonfinite)
    with nx.scope():
        return {path: nx.ops.clip(g, -limit, limit) for path, g in gradients.items()}


def clip_by_norm(
    nx: Backend, gradients: Arrays, limit: float, /, *, nonfinite: str = "raise"
) -> dict[str, Array]:
    """Return each gradient g as ``g min(1, limit / ||g||)``: one norm for each.

    Parameters are those of `clip_by_value`. Source: Pascanu, Mikolov and Bengio 2013, algorithm 1,
    for each array.
    """
    _check(nx, gradients, limit, nonfinite)
    with nx.scope():
        return {path: _scaled(nx, g, norm(nx, g), limit) for path, g in gradients.items()}


def clip_by_global_norm(
    nx: Backend, gradients: Arrays, limit: float, /, *, nonfinite: str = "raise"
) -> dict[str, Array]:
    """Return all gradients times ``min(1, limit / norm)`` with the norm of all as one vector.

    Parameters are those of `clip_by_value`. Source: Pascanu, Mikolov and Bengio 2013, algorithm 1.
    """
    _check(nx, gradients, limit, nonfinite)
    with nx.scope():
        whole = global_norm(nx, gradients.values())
        return {path: _scaled(nx, g, whole, limit) for path, g in gradients.items()}


def clip_adaptively(
    nx: Backend,
    parameters: Arrays,
    gradients: Arrays,
    limit: float = 0.01,
    /,
    *,
    eps: float = 1e-3,
    nonfinite: str = "raise",
) -> dict[str, Array]:
    """Return each unit's gradient at no more than `limit` of its weights' norm.

    ``g_i min(1, limit max(||w_i||, eps) / ||g_i||)``, the unit i being the first axis and the norm
    over all others; an array of fewer than two axes is one unit, as in the authors' own program
    (nfnets, agc.py). Source: Brock, De, Smith and Simonyan 2021, equation 3.

    Parameters
    ----------
    parameters, gradients : mapping of str to array
        Of the same paths and shapes, weights as (out, in, ...).
    eps : float
        Keeps zero weights from being frozen.
    """
    checks.finite("eps", eps, low=0.0)
    _check(nx, gradients, limit, nonfinite)
    if parameters.keys() != gradients.keys():
        raise InvalidArgument(
            f"parameters and gradients must have the same paths; received {sorted(parameters)} and "
            f"{sorted(gradients)}"
        )
    for path, g in gradients.items():
        shapes = nx.shape_of(parameters[path]), nx.shape_of(g)
        if shapes[0] != shapes[1]:
            raise InvalidArgument(
                f"parameter {path!r} has shape {shapes[0]}, its gradient {shapes[1]}; they must be "
                "equal"
            )
    clipped = {}
    with nx.scope():
        for path, g in gradients.items():
            axes = tuple(range(1, len(nx.shape_of(g)))) or None
            own, weights = (norm(nx, x, axis=axes) for x in (g, parameters[path]))
            allowed = limit * nx.ops.maximum(weights, nx.ops.zeros_like(weights) + eps)
            clipped[path] = _scaled(nx, g, own, allowed)
    return clipped


def _check(nx: Backend, gradients: Arrays, limit: float, nonfinite: str) -> None:
    checks.finite("limit", limit, low=0.0, open_low=True)
    checks.choice("nonfinite", nonfinite, ("raise", "propagate"))
    if nonfinite == "raise":
        for path, g in gradients.items():
            if not nx.all_finite(g):
                raise NonFinite(
                    f"the gradient of {path!r} is not finite: no clipping mends it; skip the step, "
                    'or choose nonfinite="propagate"'
                )


def _scaled(nx: Backend, g: Array, size: Array, limit: float | Array) -> Array:
    """Return g, times limit / size where the size is above the limit or not finite."""
    ops = nx.ops
    within = size <= limit
    wide = widened(nx, g)
    dtype = nx.dtype_of(wide)
    one = ops.ones_like(size)
    # g / size first: limit / size may be subnormal, which some frameworks flush to 0
    divisor = ops.where(within, one, ops.where(ops.isfinite(size), size, size - size))  # or NaN
    factor = ops.where(within, one, one * limit)
    clipped = wide / ops.astype(divisor, dtype) * ops.astype(factor, dtype)
    return ops.astype(clipped, nx.dtype_of(g))
