"""Blocks of a portable draw: what a counter-based generator gives at any place, drawn alone."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.portable import PortableStream

__all__ = ["BlockStream", "Slices", "block_bounds"]

Slices = tuple[slice, ...]
Bound = tuple[int, int]  # start and stop on an axis
PER_COUNT = 4  # 64-bit words that Philox4x64 makes of each value of its counter


def block_bounds(shape: tuple[int, ...], block: Slices | None) -> list[Bound]:
    """Return start and stop of a block on each axis; axes left out are whole.

    Raises
    ------
    InvalidArgument
        If the block is not of slices without steps, is empty, or reaches outside.

    >>> block_bounds((10, 20), (slice(3, 5),))
    [(3, 5), (0, 20)]
    """
    cuts = () if block is None else block
    if not isinstance(cuts, tuple) or len(cuts) > len(shape):
        raise InvalidArgument(
            f"block must be a tuple of at most {len(shape)} slices; received {block!r}"
        )
    bounds = []
    whole = (slice(None),) * (len(shape) - len(cuts))
    for size, cut in zip(shape, cuts + whole, strict=True):
        if not isinstance(cut, slice) or cut.step not in (None, 1):
            raise InvalidArgument(f"block must be of slices without steps; received {cut!r}")
        start = 0 if cut.start is None else checks.integer("start of a block", cut.start)
        stop = size if cut.stop is None else checks.integer("stop of a block", cut.stop)
        if not 0 <= start < stop <= size:
            raise InvalidArgument(
                f"a block of a weight of shape {shape} must have 0 <= start < stop <= size on "
                f"every axis; received {start}:{stop} on an axis of size {size}"
            )
        bounds.append((start, stop))
    return bounds


class BlockStream(PortableStream):
    """A portable stream that skips the words of an array of `shape` outside a block of it.

    Its first draw, of the block's shape and one word a value, is that block of what the portable
    stream at (seed, path) draws first; there is no more after that. Runs of words are drawn as
    they come, and between them Philox is advanced: about 4 us for each row of the block.

    Parameters
    ----------
    seed, path, convert, dtypes
        As of `PortableStream`.
    shape : tuple of int
        Of the whole array.
    bounds : list of (start, stop)
        Of the block, on every axis.
    """

    def __init__(
        self,
        seed: int,
        path: tuple[int, ...],
        shape: tuple[int, ...],
        bounds: list[Bound],
        *,
        convert: Callable[..., Any],
        dtypes: tuple[str, ...],
    ) -> None:
        super().__init__(seed, path, convert=convert, dtypes=dtypes)
        sizes = [stop - start for start, stop in bounds]
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        # from the last axis that is cut on, each row of the block is one run of the weight
        inner = max((k for k, size in enumerate(sizes) if size < shape[k]), default=0)
        first = sum(stride * start for stride, (start, _) in zip(strides, bounds, strict=True))
        self._starts = (
            first + sum(map(operator.mul, strides, index)) for index in np.ndindex(*sizes[:inner])
        )
        self._run = math.prod(sizes[inner:])
        self._left = 0  # of the current run
        self._counter = 0

    def child(self, index: int, /) -> PortableStream:
        """Raise: what a child draws is no block."""
        raise _not_elementwise()

    def _raw(self, count: int) -> np.ndarray:
        taken = np.empty(count, np.uint64)
        done = 0
        while done < count:
            if not self._left:
                self._leap(next(self._starts, None))
            now = min(self._left, count - done)
            taken[done : done + now] = super()._raw(now)
            done += now
            self._left -= now
        return taken

    def _leap(self, position: int | None) -> None:
        if position is None:
            raise _not_elementwise()
        counter, skipped = divmod(position, PER_COUNT)
        self._philox.advance(counter - self._counter)  # modulo 2**256: backwards, too
        super()._raw(skipped)
        self._counter = -(-(position + self._run) // PER_COUNT)
        self._left = self._run


def _not_elementwise() -> InvalidArgument:
    return InvalidArgument(
        "a Distribution must draw its values at once, from one word each, so that they have "
        "places; received one that splits the stream or draws again; draw it with nx.initialize"
    )
