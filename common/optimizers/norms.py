"""The Euclidean norm of an array, without overflow or underflow on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["global_norm", "norm", "widened"]

Array = Any


def widened(nx: Backend, x: Array, /) -> Array:
    """Return an array of half precision in float32, and others as they are."""
    half = nx.dtype_of(x) in ("float16", "bfloat16")
    return nx.ops.astype(x, "float32") if half else x


def norm(nx: Backend, x: Array, /, *, axis: int | tuple[int, ...] | None = None) -> Array:
    """Return ``s sqrt(sum((x / s)**2))`` with ``s = max |x|``, in float32 at least.

    It is infinite only where the norm itself is beyond the dtype, 0 for zeros and for no entries,
    infinite with an infinite entry and NaN with a NaN. The rule is that of BLAS' `nrm2` (Blue
    1978, A portable Fortran program to find the Euclidean norm of a vector).

    Parameters
    ----------
    axis : int or tuple of int, optional
        What is summed over, and kept with size 1; everything, to shape (), by default.
    """
    ops = nx.ops
    keep = axis is not None
    with nx.scope():
        x = widened(nx, x)
        if math.prod(nx.shape_of(x)) == 0:  # MXNet cannot add up nothing along an axis
            shape = np.empty(nx.shape_of(x)).sum(axis=axis, keepdims=keep).shape
            return ops.zeros(shape, dtype=nx.dtype_of(x))
        largest = ops.max(ops.abs(x), axis=axis, keepdims=True)
        one = ops.ones_like(largest)
        scale = ops.where(ops.isfinite(largest), ops.where(largest > 0, largest, one), one)
        root = ops.sqrt(ops.sum(ops.square(x / scale), axis=axis, keepdims=keep))
        return root * (scale if keep else ops.reshape(scale, ()))


def global_norm(nx: Backend, arrays: Iterable[Array], /) -> Array:
    """Return the norm of all entries of several arrays as one vector; 0 for none."""
    norms = [norm(nx, x) for x in arrays]
    if not norms:
        return nx.ops.zeros(())
    dtype = "float64" if any(nx.dtype_of(n) == "float64" for n in norms) else "float32"
    return norm(nx, nx.ops.stack([nx.ops.astype(n, dtype) for n in norms]))
