"""Running error analysis: a formula's own bound on what rounding does to it, computed beside it.

A `Rounded` number carries, beside its float64 value, how many unit roundoffs u a computation in
another precision may be off, to first order: each operation passes on the errors of its arguments
and adds its own (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.3). A
reference written in operators alone so gives the bound of whoever computes the same formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.common.laws.formats import FORMATS

__all__ = ["Rounded", "bound"]


@dataclass(frozen=True, eq=False)
class Rounded:
    """An array of float64 values, and the absolute errors of another computation in units of u.

    Examples
    --------
    Three numbers of 1/3 in float32, added up in any order:

    >>> x = Rounded(np.full(3, 1 / 3), np.full(3, 1 / 3))  # each of them rounded
    >>> float(x.sum().error)
    3.0
    """

    value: np.ndarray
    error: np.ndarray
    __array_ufunc__ = None  # ndarray + Rounded is Rounded's

    @classmethod
    def of(cls, x: Any) -> Rounded:
        """Return x itself, or what is known exactly."""
        if isinstance(x, Rounded):
            return x
        value = np.asarray(x, np.float64)
        return cls(value, np.zeros_like(value))

    @classmethod
    def centred(cls, x: np.ndarray) -> Rounded:
        """Return x (samples, features) minus its means, of which a rounded one goes first.

        Of the first, the error goes with it; the second is the mean of what is left.
        """
        c = np.asarray(x, np.float64)
        for _ in range(2):
            c = c - c.mean(axis=0)
        size = np.abs(c)
        return cls(c, 2 * size + (len(c) + 1) * size.mean(axis=0))

    @classmethod
    def rounded(cls, value: np.ndarray, passed: np.ndarray, roundings: float = 1) -> Rounded:
        """Return a value with the errors passed on to it, and its own."""
        return cls(value, passed + roundings * np.abs(value))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.value, dtype=dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.value.shape

    @property
    def T(self) -> Rounded:  # noqa: N802 - as of an array
        """The transpose."""
        return Rounded(self.value.T, self.error.T)

    def __neg__(self) -> Rounded:
        return Rounded(-self.value, self.error)

    def __add__(self, other: Any) -> Rounded:
        b = Rounded.of(other)
        return Rounded.rounded(self.value + b.value, self.error + b.error)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Rounded:
        return self + -Rounded.of(other)

    def __rsub__(self, other: Any) -> Rounded:
        return Rounded.of(other) - self

    def __mul__(self, other: Any) -> Rounded:
        b = Rounded.of(other)
        passed = self.error * np.abs(b.value) + np.abs(self.value) * b.error
        return Rounded.rounded(self.value * b.value, passed)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Rounded:
        b = Rounded.of(other)
        value = self.value / b.value
        return Rounded.rounded(value, (self.error + np.abs(value) * b.error) / np.abs(b.value))

    def __rtruediv__(self, other: Any) -> Rounded:
        return Rounded.of(other) / self

    def __pow__(self, power: float) -> Rounded:
        """Power of values that are positive or exactly 0, such as 0.5: one rounding."""
        value = self.value**power
        slope = np.divide(power * value, self.value, where=self.value > 0, out=np.zeros_like(value))
        return Rounded.rounded(value, np.abs(slope) * self.error)

    def __matmul__(self, other: Any) -> Rounded:
        b = Rounded.of(other)
        size, other_size = np.abs(self.value), np.abs(b.value)
        passed = self.error @ other_size + size @ b.error
        # n products and n - 1 additions: gamma_n |A| |B| (section 3.5, eq. 3.13)
        return Rounded(self.value @ b.value, passed + len(b.value) * (size @ other_size))

    def __rmatmul__(self, other: Any) -> Rounded:
        return Rounded.of(other) @ self

    def sum(self, axis: int | None = None, *, keepdims: bool = False) -> Rounded:
        """Sum in any order: ``gamma_{n - 1} sum |x|``."""
        total, passed, size = (
            np.asarray(a.sum(axis=axis, keepdims=keepdims))
            for a in (self.value, self.error, np.abs(self.value))
        )
        return Rounded(total, passed + (self.value.size // total.size - 1) * size)


def bound(x: Rounded, dtype: str) -> np.ndarray:
    """Return the absolute error that a computation in `dtype` may have.

    Twice the first-order one: the other half is for the terms of second order, and for what the
    same formula may do in another order (constants multiplied in, sums in parts).
    """
    unit = FORMATS[dtype].eps / 2
    return np.asarray(2 * unit * x.error)
