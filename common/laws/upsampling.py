"""Sub-pixel convolution: kernels that start as nearest-neighbour upsampling, without checkerboard.

A sub-pixel convolution makes r^d times as many channels as it needs, d being the dimensions of
the image, and lays them out in space. `Bilinear` in :mod:`isometry.common.laws.identities` is for
transposed convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import fans
from isometry.common.laws.rules import Initializer, check_rule

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["ICNR"]

Array = Any
MODES = ("CRD", "DCR")


@dataclass(frozen=True)
class ICNR(Initializer):
    """Initialization to convolution and nearest-neighbour resize, of a sub-pixel convolution.

    Law: one kernel (out / scale^d, in, *k) has the law of `rule` for its own shape, and each of
    its outputs is repeated scale^d times: next to each other in mode "CRD", out / scale^d apart in
    mode "DCR".
    Use: the convolution before a pixel shuffle, in 1-D to 3-D.
    Keeps: the outputs equal that one image resized by its nearest neighbours: no checkerboard; and
    what `rule` keeps with fan_in.
    Source: Aitken et al. 2017, Checkerboard artifact free sub-pixel convolution, section 2.

    Parameters
    ----------
    rule : initializer
    scale : int
        The factor r of the upsampling, at least 1.
    mode : {"CRD", "DCR"}
        How channels become pixels, as ONNX names it: "CRD" for PyTorch's and Gluon's PixelShuffle,
        "DCR" for TensorFlow's and MXNet's depth_to_space.

    Raises
    ------
    InvalidArgument
        If the weight has no kernel, scale^d does not divide its outputs, or `rule` refuses the
        shape of one kernel.
    """

    rule: Initializer
    scale: int = 2
    mode: str = "CRD"
    layout: str = "out_in"

    def __post_init__(self) -> None:
        check_rule("rule", self.rule)
        checks.integer("scale", self.scale, low=1)
        checks.choice("mode", self.mode, MODES)

    def resolve(self, shape: tuple[int, ...], layout: str) -> ICNR:
        """Return the law for a layout; raises if the shape is not that of such a kernel."""
        law = replace(self, layout=layout)
        self.rule.resolve(law.kernel(shape), layout)
        return law

    def kernel(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the kernel that is repeated."""
        out, _, kernel = fans.axes(shape, self.layout)
        if not kernel:
            raise InvalidArgument(
                f"a sub-pixel convolution has a kernel; received shape {tuple(shape)}"
            )
        size = fans.divided(f"scale**{len(kernel)}", self.scale ** len(kernel), out, shape)
        return (size, *shape[1:]) if self.layout == "out_in" else (*shape[:-1], size)

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        """Draw one kernel and repeat it."""
        small, axis = self.kernel(shape), 0 if self.layout == "out_in" else len(shape) - 1
        weight = self.rule.resolve(small, self.layout).draw(nx, stream, small, dtype=dtype)
        outputs = np.arange(shape[axis])
        repeats = shape[axis] // small[axis]
        source = outputs // repeats if self.mode == "CRD" else outputs % small[axis]
        return nx.ops.take(weight, nx.asarray(source), axis=axis)
