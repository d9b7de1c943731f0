"""The oracle of the fans: layers as the linear maps that they are, whose connections are counted.

A layer is given by what each entry of its weight joins, as its framework documents it. Positions
lie on a circle on which no two kernel offsets meet, so that every unit is an interior one.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from isometry.common.laws.fans import Fans

__all__ = ["LAYERS", "Layer", "convolution", "count", "fused"]


@dataclass(frozen=True)
class Layer:
    """A weight, the arguments of `fans` for it, and what its entries join."""

    shape: tuple[int, ...]
    """In the layout ``out_in``: two channel axes, then the kernel's."""
    joins: Callable[[int, int], tuple[Any, Any]]
    """Indices along the channel axes -> the input channel and the output channel."""
    arguments: dict[str, Any] = field(default_factory=dict)
    dilation: int = 1

    def stored(self, layout: str) -> tuple[int, ...]:
        """Return the shape in a layout: ``in_out`` has the two channel axes exchanged, at last."""
        first, second, *kernel = self.shape
        return self.shape if layout == "out_in" else (*kernel, second, first)


def count(layer: Layer) -> Fans:
    """Return how many connections an output unit has, and how many an input unit has.

    Each entry of the weight makes one connection at each position, from
    ``position + dilation * offset`` to ``position``. All units must have the same number.
    """
    feeding: Counter[Any] = Counter()
    fed: Counter[Any] = Counter()
    circle = [layer.dilation * size for size in layer.shape[2:]]
    for first, second, *offset in itertools.product(*map(range, layer.shape)):
        source, target = layer.joins(first, second)
        for position in itertools.product(*map(range, circle)):
            moved = (position[d] + layer.dilation * offset[d] for d in range(len(offset)))
            feeding[source, *(m % n for m, n in zip(moved, circle, strict=True))] += 1
            fed[target, *position] += 1
    (fan_in,), (fan_out,) = set(fed.values()), set(feeding.values())
    return Fans(fan_in, fan_out)


def convolution(
    inputs: int,
    outputs: int,
    *kernel: int,
    groups: int = 1,
    transposed: bool = False,
    dilation: int = 1,
) -> Layer:
    """Return a convolution, a dense layer if it has no kernel: `inputs` and `outputs` a group."""
    told = {"groups": groups} if groups > 1 else {}  # what a shape does not tell
    if transposed:  # (in, out / groups): input i of group g feeds the outputs of g alone
        return Layer(
            (groups * inputs, outputs, *kernel),
            lambda i, o: (i, (i // inputs, o)),
            {**told, "transposed": True},
            dilation,
        )
    return Layer(  # (out, in / groups): output o of group g reads the inputs of g alone
        (groups * outputs, inputs, *kernel), lambda o, i: ((o // outputs, i), o), told, dilation
    )


def fused(inputs: int, outputs: int, maps: int) -> Layer:
    """Return several dense maps in one weight, each counted as the layer of its own that it is."""
    return Layer((maps * outputs, inputs), lambda o, i: ((o // outputs, i), o), {"fused": maps})


LAYERS = {
    "dense": convolution(5, 3),
    "convolution-1d": convolution(4, 3, 5),
    "convolution-2d": convolution(4, 3, 3, 2),
    "convolution-3d": convolution(2, 3, 3, 2, 2),
    "dilated": convolution(4, 3, 3, 2, dilation=2),
    "grouped": convolution(2, 3, 3, 2, groups=4),
    "depthwise": convolution(1, 2, 3, 3, groups=4),
    "transposed": convolution(4, 3, 3, 2, transposed=True),
    "transposed-grouped": convolution(2, 3, 3, groups=3, transposed=True),
    "embedding": convolution(7, 3),  # a dense map of words as unit vectors, stored in_out
    "attention-split": convolution(6, 4),
    "attention-fused": fused(6, 4, 3),
    "recurrent-gate": convolution(3, 5),
    "lstm-fused": fused(3, 5, 4),
    "gru-fused": fused(3, 5, 3),
}
"""Small layers of every kind; all sizes that could be exchanged differ."""
