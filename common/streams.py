"""Explicit randomness: a stream has a seed and a path, and nothing reads or writes a global seed.

A stream is *native* (the framework's own generator) or *portable* (Philox bits and our own
transform, drawn in NumPy, bit-identical everywhere: :mod:`isometry.common.portable`). Both have
the three draws below and can be split; whatever draws takes the stream as an argument. A new
framework brings `child`, `uniform` and `normal`.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

from isometry.common import checks, composed
from isometry.common.errors import InvalidArgument
from isometry.common.laws.formats import FORMATS

__all__ = ["MAX_SEED", "Stream", "cannot_split"]

Array = Any
MAX_SEED = 2**63 - 1


def _check_draw(stream: Stream, arguments: dict[str, Any]) -> None:
    checks.shape("shape", arguments["shape"], low=1)
    checks.choice("dtype", arguments["dtype"], stream.dtypes)


def _check_range(name: str, value: float, dtype: str) -> None:
    largest = FORMATS[dtype].largest
    if abs(value) > largest:
        raise InvalidArgument(
            f"{name} must be at most {largest:g} in size, the largest {dtype}; received {value:g}"
        )


def _check_uniform(stream: Stream, arguments: dict[str, Any]) -> None:
    _check_draw(stream, arguments)
    low = checks.finite("low", arguments["low"])
    high = checks.finite("high", arguments["high"])
    if low > high:
        raise InvalidArgument(f"low must not exceed high; received low={low:g}, high={high:g}")
    _check_range("low", low, arguments["dtype"])
    _check_range("high", high, arguments["dtype"])
    drawn = "float64" if arguments["dtype"] == "float64" else "float32"
    _check_range("high - low", high - low, drawn)


def _check_normal(stream: Stream, arguments: dict[str, Any]) -> None:
    _check_draw(stream, arguments)
    mean = checks.finite("mean", arguments["mean"])
    std = checks.finite("std", arguments["std"], low=0.0)
    _check_range("mean", mean, arguments["dtype"])
    _check_range("std", std, arguments["dtype"])


def cannot_split() -> InvalidArgument:
    """Return the error of a split while compiling, when seed and path are not known."""
    return InvalidArgument(
        "a stream cannot be split inside a compiled function; split it outside and pass a part"
    )


class Stream(checks.Checked, abc.ABC):
    """One source of randomness, fixed by ``(seed, path)``; each draw moves it on.

    Threads may draw at the same time, each from streams of its own, and get what each gets alone;
    one stream is for one thread at a time.

    Parameters
    ----------
    seed : int
        ``0 <= seed < 2**63``. All of its bits count: the generator is started from a BLAKE2b hash
        of seed and path as long as the framework takes (MXNet 28 bits, PyTorch's CPU generator
        32, others 64 and more), so that seeds that are neighbours, or equal modulo 2**31 or
        2**32, give independent streams.
    path : tuple of int
        Where in the tree of splits this stream stands; the root is ``()``.
    """

    CHECKS: ClassVar[Mapping[str, checks.Check]] = {
        "uniform": _check_uniform,
        "normal": _check_normal,
        "truncated_normal": _check_normal,
    }
    dtypes: tuple[str, ...] = ("float32", "float64")
    ops: SimpleNamespace
    """The backend's vocabulary; only the default of `truncated_normal` needs it."""

    def __init__(self, seed: int, path: tuple[int, ...] = ()) -> None:
        checks.integer("seed", seed, low=0, high=MAX_SEED)
        self.seed = int(seed)
        self.path = path
        self._children = 0

    def entropy(self, bits: int, *, counter: int = 0) -> int:
        """Return a hash of (seed, path, counter) as an integer of `bits` bits, at most 512.

        What an adapter starts the framework's generator with, as wide as that takes.
        """
        words = (self.seed, counter, *self.path)
        digest = hashlib.blake2b(b"".join(w.to_bytes(8, "little") for w in words)).digest()
        return int.from_bytes(digest, "little") >> (512 - bits)

    def split(self, count: int, /) -> tuple[Stream, ...]:
        """Return `count` new streams, independent of this one, of each other, and of other splits.

        Children are named by seed and path alone: how much was drawn before does not matter.
        """
        checks.integer("count", count, low=1)
        first, self._children = self._children, self._children + count
        return tuple(self.child(first + k) for k in range(count))

    @abc.abstractmethod
    def child(self, index: int, /) -> Stream:
        """Return the stream of the same kind at ``path + (index,)``.

        While compiling, when seed and path are not known, it raises `cannot_split`.
        """

    @abc.abstractmethod
    def uniform(
        self,
        shape: tuple[int, ...],
        /,
        *,
        low: float = 0.0,
        high: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        """Draw from U[low, high).

        Law: density ``1 / (high - low)`` on ``[low, high)``; rounding to the dtype may return
        ``high`` itself, never more. Error bound: the grid of the framework's generator, at least
        23 bits in float32 and 52 in float64; half precisions are roundings of a float32 draw.

        Raises
        ------
        InvalidArgument
            If ``low > high``, a bound or their difference is not finite in the dtype, a size is
            below 1, or the dtype unknown.
        """

    @abc.abstractmethod
    def normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        """Draw from N(mean, std**2), not truncated. Raises as `uniform`, also if ``std < 0``."""

    def truncated_normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        """Draw from N(mean, std**2) conditioned on ``|x - mean| <= 2 std``.

        `mean` and `std` are those of the parent normal: the result's standard deviation is
        ``0.8796 std`` (:class:`isometry.common.laws.distributions.TruncatedNormal`). Values never
        leave the interval rounded outward by one ULP. Raises as `normal`.

        By default composed from `normal` and `ops`: a value beyond 2 is drawn again, 16 draws in
        all, and cut off at 2 if each was beyond, with probability 3e-22.
        """
        return composed.truncated_normal(self, shape, mean=mean, std=std, dtype=dtype)
