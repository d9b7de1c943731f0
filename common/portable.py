"""Portable streams: the same bits in every framework, on every machine, in every NumPy.

Philox4x64-10 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3), keyed by the
128-bit hash of seed and path, gives 64-bit words, one per value. Words become float64 values by
operations that IEEE 754 rounds exactly (:mod:`isometry.common.quantile`), in one fixed order; a
float32 array is the float64 one rounded to nearest even, and the framework takes over the memory
of either, or a copy. So shapes and dtypes of earlier draws change what follows only by how many
values they took.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from isometry.common.quantile import upper_quantile
from isometry.common.streams import Stream

__all__ = ["PortableStream"]

Array = Any
Words = np.ndarray  # uint64 (n,)

BLOCK = 8192  # words transformed at once: the temporaries stay in the cache
BELOW_CUT = 0.022750131948179207  # Phi(-2)


class PortableStream(Stream):
    """A stream drawn in NumPy and converted to the framework.

    Parameters
    ----------
    seed, path
        As of `Stream`.
    convert : callable
        ``convert(values, dtype=name)`` returns the framework's array of a float64 (for float64) or
        float32 NumPy array (for every other dtype) that it may keep, rounded to nearest even in
        half precisions.
    dtypes : tuple of str
        The framework's.

    Notes
    -----
    The bits assume IEEE 754 as processes start with it: round to nearest even, subnormals kept.
    """

    def __init__(
        self,
        seed: int,
        path: tuple[int, ...] = (),
        *,
        convert: Callable[..., Array],
        dtypes: tuple[str, ...],
    ) -> None:
        super().__init__(seed, path)
        self.dtypes = dtypes
        self._convert = convert
        self._philox = np.random.Philox(key=self.entropy(128))

    def child(self, index: int, /) -> PortableStream:
        """Return the portable stream at ``path + (index,)``."""
        return PortableStream(
            self.seed, (*self.path, index), convert=self._convert, dtypes=self.dtypes
        )

    def uniform(
        self,
        shape: tuple[int, ...],
        /,
        *,
        low: float = 0.0,
        high: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        """Draw from U[low, high) as ``low + (high - low) u``.

        u is the word's top 53 bits over 2**53 in float64, and the top 24 over 2**24 otherwise, so
        that u < 1 in float32 too. `high` itself appears only where rounding ``low + ...`` gives it.
        """
        low, high, bits = float(low), float(high), 53 if dtype == "float64" else 24
        return self._draw(shape, dtype, lambda words: uniform_between(words, low, high, bits))

    def normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        """Draw from N(mean, std**2) as ``mean + std z``, z the quantile of 63 bits and a sign.

        Symmetric about the mean, and ``|z| <= 9.0802``, the quantile of 1 - 2**-64, which a
        normal variable exceeds with probability 1.1e-19: one value per word reaches no further.
        """
        return self._scaled(shape, mean, std, dtype, standard_normal)

    def truncated_normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Array:
        """Draw from N(mean, std**2) given ``|x - mean| <= 2 std``, as ``mean + std z``.

        z is the quantile of a probability uniform on ``[Phi(-2), Phi(2)]``, nothing is rejected;
        since |z| <= 2 and rounding is monotone, no value leaves the interval as rounded.
        """
        return self._scaled(shape, mean, std, dtype, standard_truncated_normal)

    def _scaled(
        self,
        shape: tuple[int, ...],
        mean: float,
        std: float,
        dtype: str,
        standard: Callable[[Words], np.ndarray],
    ) -> Array:
        mean, std = float(mean), float(std)

        def transform(words: Words) -> np.ndarray:
            z = standard(words)
            z *= std
            z += mean
            return z

        return self._draw(shape, dtype, transform)

    def _draw(
        self, shape: tuple[int, ...], dtype: str, transform: Callable[[Words], np.ndarray]
    ) -> Array:
        values = _aligned(math.prod(shape), "float64" if dtype == "float64" else "float32")
        for start in range(0, values.size, BLOCK):
            block = values[start : start + BLOCK]
            block[...] = transform(self._raw(block.size))
        return self._convert(values.reshape(shape), dtype=dtype)

    def _raw(self, count: int) -> Words:
        words: Words = self._philox.random_raw(count)
        return words


def _aligned(count: int, dtype: str) -> np.ndarray:
    """Return an empty array at a multiple of 64 bytes, as frameworks ask that take it over."""
    size = count * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype)


def uniform_between(words: Words, low: float, high: float, bits: int) -> np.ndarray:
    """Return ``low + (high - low) u``, at most `high`, u being the top `bits` bits of each word.

    With w for ``high - low`` as rounded, ``w u`` is at most the next number below w, as u is at
    most 1 - 2**-53. That one does not exceed the exact difference, so the sum cannot exceed `high`.
    """
    values: np.ndarray = (words >> np.uint64(64 - bits)) * 2.0**-bits
    values *= high - low
    values += low
    return values


def standard_normal(words: Words) -> np.ndarray:
    """Return the quantile of each word: the tail probability ``|k| / 2**64`` and the sign of k.

    k is the word as a two's complement integer, made odd: symmetric about 0, and never 0.
    """
    signed = _odd(words)
    z = upper_quantile(np.abs(signed))
    np.copysign(z, signed, out=z)
    return z


def standard_truncated_normal(words: Words) -> np.ndarray:
    """Return z with ``|z| <= 2``: tail probability ``Phi(-2) + (1 - 2 Phi(-2)) |k| / 2**64``.

    ``|k| / 2**64`` is uniform on (0, 1/2), so this one is uniform on (Phi(-2), 1/2). The quantile
    of the smallest is exactly 2; the next ones, in reach of its error, were all checked (tests).
    """
    signed = _odd(words)
    tail = np.abs(signed)
    tail *= 1 - 2 * BELOW_CUT
    tail += BELOW_CUT * 2.0**64
    z = upper_quantile(tail)
    np.copysign(z, signed, out=z)
    return z


def _odd(words: Words) -> np.ndarray:
    return (words | np.uint64(1)).view(np.int64).astype(np.float64)
