"""Fans: how many inputs feed one output unit, and how many outputs one input unit feeds.

The count is of connections: of the linear map that a layer is, with stride 1 and away from the
edges. Stride and dilation change which positions are joined, not how many weights meet in a unit.

==================== ============================== =========================== ==============
layer                weight                         call                        fan_in, fan_out
==================== ============================== =========================== ==============
dense                (o, i)                         fans(shape)                 i, o
embedding            (i, o): i words                fans(shape, "in_out")       i, o
convolution          (o, i, *k)                     fans(shape)                 i r, o r
  in g groups        (o, i/g, *k)                   fans(shape, groups=g)       i r/g, o r/g
  depthwise          (i m, 1, *k)                   fans(shape, groups=i)       r, m r
  transposed         (i, o/g, *k) or (*k, o/g, i)   transposed=True, groups=g   i r/g, o r/g
query, key and value (3 o, i)                       fans(shape, fused=3)        i, o
LSTM, input kernel   (4 o, i), four gates           fans(shape, fused=4)        i, o
==================== ============================== =========================== ==============

r is the product of the kernel sizes k; every row but the second is written in the layout
``out_in``, and holds in ``in_out`` as (*k, i, o). Weights stored otherwise are reshapes of these:
an attention kernel (i, heads, size) of the dense (i, heads size), Keras's depthwise kernel
(*k, i, m) of (*k, 1, i m).

Frameworks deviate. Their own rules see a shape alone: PyTorch, Keras, Flax and MXNet leave g out
of fan_out; all but Flax exchange the fans of a transposed convolution; Keras takes i r and m r
for its depthwise kernel; PyTorch and MXNet exchange the fans of an embedding; PyTorch's packed
projection and the gates of Keras's kernels count as one map of 3 o or 4 o outputs.

Of the i words of an embedding one is active at a time. Rules of variance that count on sums over
active inputs, such as He's, mean fan_in = 1 for it: give its law instead, such as Normal(0, 1).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = ["LAYOUTS", "MODES", "Fans", "axes", "divided", "fans", "rows_and_columns"]

LAYOUTS = ("out_in", "in_out")
MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")


class Fans(NamedTuple):
    """``fan_in`` and ``fan_out`` of a weight."""

    fan_in: int
    fan_out: int

    def by(self, mode: str) -> float:
        """Return ``fan_in``, ``fan_out``, or their mean.

        Arithmetic for ``"fan_avg"``; for ``"fan_geo_avg"`` geometric, ``sqrt(fan_in fan_out)``:
        forward and backward variance are then off by the same factor, one up and one down.
        """
        checks.choice("fan mode", mode, MODES)
        return {
            "fan_in": float(self.fan_in),
            "fan_out": float(self.fan_out),
            "fan_avg": (self.fan_in + self.fan_out) / 2,
            "fan_geo_avg": math.sqrt(self.fan_in * self.fan_out),
        }[mode]


def fans(
    shape: tuple[int, ...],
    layout: str = "out_in",
    *,
    groups: int = 1,
    fused: int = 1,
    transposed: bool = False,
) -> Fans:
    """Return the fans of a weight.

    Formula: with receptive field ``r`` = product of the kernel sizes (1 for a dense weight),
    ``fan_in = in * r / groups`` and ``fan_out = out * r / groups / fused`` (Glorot and Bengio
    2010, section 4.2.1; He et al. 2015, section 2.2, for the receptive field).

    Parameters
    ----------
    shape : tuple of int
        At least two sizes, each at least 1.
    layout : {"out_in", "in_out"}
        ``out_in``: ``(out, in / groups, *kernel)``, as PyTorch and MXNet store a weight;
        ``in_out``: ``(*kernel, in / groups, out)``, as Keras and Flax do.
    groups : int
        Of a grouped convolution: each joins its own inputs with its own outputs.
    fused : int
        How many maps of the same inputs lie side by side along the output axis: 3 for query, key
        and value in one weight, 4 for the gates of an LSTM, 3 for those of a GRU. The fans are
        those of one of them, so that to fuse or to split a weight does not change its law.
    transposed : bool
        The weight is that of a transposed convolution, which keeps its inputs where a convolution
        keeps its outputs: ``(in, out / groups, *kernel)`` or ``(*kernel, out / groups, in)``.

    Raises
    ------
    InvalidArgument
        If there are fewer than two sizes, a size is below 1, the layout is unknown, or `groups`
        or `fused` does not divide its axis.

    >>> fans((64, 3, 5, 5)), fans((5, 5, 3, 64), "in_out")
    (Fans(fan_in=75, fan_out=1600), Fans(fan_in=75, fan_out=1600))
    >>> fans((64, 8, 3, 3), groups=4), fans((32, 1, 3, 3), groups=32)
    (Fans(fan_in=72, fan_out=144), Fans(fan_in=9, fan_out=9))
    >>> fans((64, 128, 3, 3), transposed=True), fans((4 * 20, 10), fused=4)
    (Fans(fan_in=576, fan_out=1152), Fans(fan_in=10, fan_out=20))
    """
    whole, part, kernel = axes(shape, layout)
    field = math.prod(kernel)
    whole = divided("groups", groups, whole, shape)
    # `whole` holds all outputs, group after group; of a transposed weight, all inputs
    in_, out = (whole, part) if transposed else (part, whole)
    return Fans(in_ * field, divided("fused", fused, out, shape) * field)


def axes(shape: tuple[int, ...], layout: str) -> tuple[int, int, tuple[int, ...]]:
    """Return a weight's sizes as ``(out, in, kernel)``; raises as `fans`."""
    checks.choice("layout", layout, LAYOUTS)
    sizes = checks.shape("shape", shape, low=1)
    if len(sizes) < 2:
        raise InvalidArgument(
            f"fans need a weight of at least 2 dimensions; received shape {sizes}; "
            "for a bias choose a law without fans, such as zeros"
        )
    if layout == "out_in":
        out, in_, *kernel = sizes
    else:
        *kernel, in_, out = sizes
    return out, in_, tuple(kernel)


def divided(name: str, parts: int, size: int, shape: tuple[int, ...]) -> int:
    """Return ``size / parts``; raises if `parts` does not divide it."""
    if size % checks.integer(name, parts, low=1):
        raise InvalidArgument(
            f"{name} must divide {size}, the size of its axis in a weight of shape {tuple(shape)}; "
            f"received {parts}"
        )
    return size // parts


def rows_and_columns(shape: tuple[int, ...], layout: str = "out_in") -> tuple[int, int]:
    """Return the matrix that a weight is, seen as a linear map: (out, in * receptive field)."""
    out, in_, kernel = axes(shape, layout)
    return out, in_ * math.prod(kernel)
