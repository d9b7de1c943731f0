"""Weights without chance: the identity, as a matrix, a convolution, or an upsampling."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import fans
from isometry.common.laws.rules import Initializer, check_range

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["Bilinear", "Dirac", "Fixed", "Identity"]

Array = Any


@dataclass(frozen=True, eq=False)
class Fixed:
    """The law of a weight that is exactly `values`, rounded to the dtype; no stream is moved."""

    values: np.ndarray

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        """Return the values as an array of the backend."""
        check_range("an entry", float(np.max(np.abs(self.values))), dtype)
        return nx.asarray(self.values, dtype=dtype)


@dataclass(frozen=True)
class Identity(Initializer):
    """A scaled identity matrix: `gain` on the main diagonal, 0 elsewhere.

    Law: W[o, i] = gain if o = i, else 0; rectangles have ones as far as the diagonal goes.
    Use: recurrent weights of a ReLU net with gain 1 (IRNN: biases 0, input weights N(0, 0.001^2)),
    0.01 for tasks without long memory; one block for each gate by `PerGate`.
    Keeps: the hidden state, exactly, while there is no input (gain 1, square).
    Source: Le, Jaitly and Hinton 2015, A simple way to initialize recurrent networks of rectified
    linear units, section 2; `torch.nn.init.eye_` for rectangles.

    Raises
    ------
    InvalidArgument
        If the gain is not finite, or the shape is not that of a matrix.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        checks.finite("gain", self.gain)

    def resolve(self, shape: tuple[int, ...], layout: str) -> Fixed:
        """Return the matrix, the same in both layouts."""
        if len(checks.shape("shape", shape, low=1)) != 2:
            raise InvalidArgument(
                f"an identity matrix has 2 sizes; received shape {tuple(shape)}; "
                "for a convolution choose Dirac"
            )
        return Fixed(self.gain * np.eye(shape[0], shape[1]))


@dataclass(frozen=True)
class Dirac(Initializer):
    """A convolution that passes each channel on, group by group.

    Law: W[g out/groups + d, d, k // 2, ...] = 1 for each group g and d < min(out, in) of one
    group, else 0. 1-D to 3-D. The tap of an even kernel is PyTorch's, k // 2: the identity with
    padding k // 2; `DeltaOrthogonal` has (k - 1) // 2, the identity with "same" padding.
    Use: convolutions that begin by doing nothing, as in residual nets without shortcuts.
    Keeps: each image, exactly, where out >= in in each group.
    Source: Zagoruyko and Komodakis 2017, DiracNets; `torch.nn.init.dirac_`.

    Parameters
    ----------
    groups : int
        Of the convolution, at least 1; the weight is (out, in / groups, *kernel).

    Raises
    ------
    InvalidArgument
        If the weight has no kernel, or `groups` does not divide its outputs.
    """

    groups: int = 1

    def __post_init__(self) -> None:
        checks.integer("groups", self.groups, low=1)

    def resolve(self, shape: tuple[int, ...], layout: str) -> Fixed:
        """Return the kernel; raises if the shape has none or the groups do not divide it."""
        *_, kernel = fans.axes(shape, layout)
        deltas = [(np.arange(size) == size // 2).astype(float) for size in kernel]
        return Fixed(_passing(shape, layout, self.groups, deltas))


@dataclass(frozen=True)
class Bilinear(Initializer):
    """A transposed convolution that interpolates each channel linearly: upsampling.

    Law: on each kernel axis 1 - |x - (k - 1) / 2| / r, r = (k + 1) // 2, their product over the
    axes from a channel to itself, and 0 between channels. 1-D to 3-D (linear, bilinear,
    trilinear). In groups as `Dirac`: with as many groups as channels every entry is the filter's.
    Use: transposed convolutions of stride r = (k + 1) // 2, as in segmentation and
    super-resolution.
    Keeps: constant images, exactly and away from the border: the taps that meet in a pixel add up
    to 1. MXNet's Bilinear is half a pixel off where k mod 4 is 2 or 3, and joins all channels.
    Source: Long, Shelhamer and Darrell 2015, Fully convolutional networks, section 3.3; the
    formula is that of Caffe's BilinearFiller.

    Parameters
    ----------
    groups : int
        Of the transposed convolution, at least 1; the weight is (in, out / groups, *kernel), or
        (*kernel, out / groups, in) in the layout ``in_out``.

    Raises
    ------
    InvalidArgument
        If the weight has no kernel, or `groups` does not divide its inputs.
    """

    groups: int = 1

    def __post_init__(self) -> None:
        checks.integer("groups", self.groups, low=1)

    def resolve(self, shape: tuple[int, ...], layout: str) -> Fixed:
        """Return the kernel; raises if the shape has none or the groups do not divide it."""
        *_, kernel = fans.axes(shape, layout)
        tents = [
            1 - np.abs(np.arange(size) - (size - 1) / 2) / ((size + 1) // 2) for size in kernel
        ]
        return Fixed(_passing(shape, layout, self.groups, tents))


def _passing(
    shape: tuple[int, ...], layout: str, groups: int, filters: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the kernel that applies a separable filter from each channel to itself."""
    whole, part, kernel = fans.axes(shape, layout)
    if not kernel:
        raise InvalidArgument(
            f"a convolution has a kernel; received shape {tuple(shape)}, {layout}; "
            "for a matrix choose Identity"
        )
    of_group = np.eye(fans.divided("groups", groups, whole, shape), part)
    channels = np.tile(of_group, (groups, 1))
    weight = functools.reduce(np.multiply.outer, filters, channels)
    if layout == "out_in":
        return np.asarray(weight)
    return np.asarray(np.moveaxis(weight, (0, 1), (-1, -2)))
