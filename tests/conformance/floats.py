"""Floating-point numbers to judge by: every exponent, ties of rounding, and rounding itself."""

from __future__ import annotations

import functools

import numpy as np

from isometry.common.laws.formats import FORMATS

__all__ = ["every_exponent", "overflowed", "rounded", "ties"]

_WORDS = {"float32": (np.uint32, 23, 127), "float64": (np.uint64, 52, 1023)}


@functools.cache
def every_exponent(dtype: str) -> np.ndarray:
    """Return normal numbers of both signs: the first and last of each binade and others between.

    The significands between follow Weyl's sequence of the golden ratio over all binades, so that
    they are spread evenly and no two binades have the same. In float32 each binade has 512 of
    them, 260,000 in all; in float64, whose oracle is slow, 1, and 64 from 2**-6 to 2**6.
    """
    word, bits, bias = _WORDS[dtype]
    binades = np.arange(1, 2 * bias + 1)
    dense = np.abs(binades - bias) <= 6
    inner = np.repeat(binades, 512 if dtype == "float32" else np.where(dense, 64, 1))
    fractions = np.arange(1, len(inner) + 1) * ((np.sqrt(5) - 1) / 2) % 1
    exponents = np.concatenate([binades, binades, inner]).astype(np.uint64)
    last = np.full(len(binades), 2**bits - 1)
    between = (fractions * 2.0**bits).astype(np.int64)
    significands = np.concatenate([np.zeros_like(last), last, between]).astype(np.uint64)
    positive = np.unique((exponents << np.uint64(bits) | significands).astype(word)).view(dtype)
    return np.concatenate([-positive, positive])


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """Return x to the nearest number of the dtype, ties to even; bfloat16 as float32."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return x.astype(dtype)
    unit = FORMATS[dtype].ulp(x)
    return overflowed(np.where(np.isfinite(x), np.round(x / unit) * unit, x), dtype).astype("f4")


def overflowed(x: np.ndarray, dtype: str) -> np.ndarray:
    """Return x, infinite from half a unit beyond the largest number of the dtype on."""
    form = FORMATS[dtype]
    end = form.largest + float(form.ulp(np.array(form.largest))) / 2
    return np.where(np.abs(x) >= end, np.copysign(np.inf, x), x)


def ties(dtype: str) -> np.ndarray:
    """Return numbers of the dtype, those halfway between two, and float32's next to these.

    In float32, or float64 for float32 and float64, so that no other rounding comes before.
    """
    form = FORMATS[dtype]
    steps = np.arange(0, 2**form.precision, 2 ** max(form.precision - 8, 0))
    unit = 2.0 ** (1 - form.precision)
    number = np.concatenate([1 + (steps + k) * unit for k in (0, 0.5, 1.5)])
    number = np.concatenate([s * number * 2.0**e for s in (-1, 1) for e in (-12, 0, 14)])
    source = "float32" if form.precision < 24 else "float64"
    number = number.astype(source)
    around = [np.nextafter(number, number.dtype.type(v)) for v in (-np.inf, np.inf)]
    return np.concatenate([number, *around])
