"""Fans: how many inputs feed one output unit, and how many outputs one input unit feeds."""

from __future__ import annotations

import math
from typing import NamedTuple

from isometry.common import checks
from isometry.common.errors import InvalidArgument

__all__ = ["LAYOUTS", "MODES", "Fans", "fans", "rows_and_columns"]

LAYOUTS = ("out_in", "in_out")
MODES = ("fan_in", "fan_out", "fan_avg")


class Fans(NamedTuple):
    """``fan_in`` and ``fan_out`` of a weight."""

    fan_in: int
    fan_out: int

    def by(self, mode: str) -> float:
        """Return ``fan_in``, ``fan_out``, or their arithmetic mean for ``"fan_avg"``."""
        checks.choice("fan mode", mode, MODES)
        return {
            "fan_in": float(self.fan_in),
            "fan_out": float(self.fan_out),
            "fan_avg": (self.fan_in + self.fan_out) / 2,
        }[mode]


def fans(shape: tuple[int, ...], layout: str = "out_in") -> Fans:
    """Return the fans of a dense or convolution weight.

    Formula: with receptive field ``r`` = product of the kernel sizes (1 for a dense weight),
    ``fan_in = in * r`` and ``fan_out = out * r`` (Glorot and Bengio 2010, section 4.2.1; He et
    al. 2015, section 2.2, for the receptive field).

    Parameters
    ----------
    shape : tuple of int
        At least two sizes, each at least 1.
    layout : {"out_in", "in_out"}
        ``out_in``: (out, in, *kernel), as PyTorch and MXNet store a weight; ``in_out``:
        (*kernel, in, out), as Keras and Flax do.

    Raises
    ------
    InvalidArgument
        If there are fewer than two sizes, a size is below 1, or the layout is unknown.

    >>> fans((64, 3, 5, 5)), fans((5, 5, 3, 64), "in_out")
    (Fans(fan_in=75, fan_out=1600), Fans(fan_in=75, fan_out=1600))
    """
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
    field = math.prod(kernel)
    return Fans(in_ * field, out * field)


def rows_and_columns(shape: tuple[int, ...], layout: str = "out_in") -> tuple[int, int]:
    """Return the matrix that a weight is, seen as a linear map: (out, in * receptive field)."""
    fan_in = fans(shape, layout).fan_in
    return math.prod(shape) // fan_in, fan_in
