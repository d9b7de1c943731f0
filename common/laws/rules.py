"""What an initializer is: a rule that gives a weight, by its shape and layout, its exact law."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, Protocol

from isometry.common.errors import InvalidArgument
from isometry.common.laws.formats import FORMATS

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["Initializer", "Law", "check_range", "check_rule"]

Array = Any


class Law(Protocol):
    """The exact law of one weight, which can be drawn on any backend."""

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        """Draw one weight, of the shape that the law was resolved for."""


class Initializer(abc.ABC):
    """A rule: what a user names or builds, and `Backend.initialize` takes."""

    @abc.abstractmethod
    def resolve(self, shape: tuple[int, ...], layout: str) -> Law:
        """Return the law of a weight of this shape and layout, or raise before anything is drawn.

        Parameters
        ----------
        shape : tuple of int
            Sizes of at least 1.
        layout : {"out_in", "in_out"}
            (out, in, *kernel) or (*kernel, in, out); see :mod:`isometry.common.laws.fans`.

        Raises
        ------
        InvalidArgument
            If the rule has no meaning for the shape.
        """


def check_rule(name: str, value: object) -> None:
    """Raise unless `value` is an initializer."""
    if not isinstance(value, Initializer):
        raise InvalidArgument(
            f"{name} must be an initializer such as Normal(0.0, 0.01) or Orthogonal(); "
            f"received {value!r} of type {type(value).__name__}"
        )


def check_range(name: str, largest: float, dtype: str) -> None:
    """Raise if entries as large as `largest` would be infinite in the dtype."""
    if abs(largest) > FORMATS[dtype].largest:
        raise InvalidArgument(
            f"{name} must be at most {FORMATS[dtype].largest:g} in size, the largest {dtype}; "
            f"received {largest:g}"
        )
