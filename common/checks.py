"""Argument checks, written once: the same wrong call gives the same error on every backend.

`Checked` wraps the public methods that a subclass defines. Before an adapter's code runs, the
check of the same name in `CHECKS` sees the bound arguments; an adapter holds no validation.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from isometry.common.errors import InvalidArgument, unknown_name

__all__ = [
    "Checked",
    "choice",
    "compilable",
    "finite",
    "integer",
    "numbers_only",
    "same_paths",
    "scalar_valued",
    "shape",
    "stream_like",
]

DTYPES = ("bfloat16", "float16", "float32", "float64")


def integer(name: str, value: object, *, low: int | None = None, high: int | None = None) -> int:
    """Return `value` as int if it is an integer in ``[low, high]``; bool is not an integer."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidArgument(
            f"{name} must be an integer; received {value!r} of type {type(value).__name__}"
        )
    number = int(value)
    if (low is not None and number < low) or (high is not None and number > high):
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise InvalidArgument(f"{name} must be {allowed}; received {number}")
    return number


def finite(name: str, value: object, *, low: float | None = None, open_low: bool = False) -> float:
    """Return `value` as float if it is a finite real number, not below (or at) `low`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidArgument(
            f"{name} must be a real number; received {value!r} of type {type(value).__name__}"
        )
    number = float(value)
    if not math.isfinite(number):
        raise InvalidArgument(f"{name} must be finite; received {number}")
    if low is not None and (number < low or (open_low and number == low)):
        allowed = f"greater than {low:g}" if open_low else f"at least {low:g}"
        raise InvalidArgument(f"{name} must be {allowed}; received {number:g}")
    return number


def choice(kind: str, value: object, known: Sequence[str]) -> str:
    """Return `value` if it is one of `known`; else the error names the nearest one."""
    if value not in known:
        raise unknown_name(kind, value, known)
    return str(value)


def shape(name: str, value: object, *, low: int = 0, rank: int | None = None) -> tuple[int, ...]:
    """Return `value` as a tuple of integers, each at least `low`, of the given rank if any."""
    if not isinstance(value, (tuple, list)):
        raise InvalidArgument(
            f"{name} must be a tuple of integers; received {value!r} of type {type(value).__name__}"
        )
    sizes = tuple(integer(f"each size in {name} {tuple(value)}", size) for size in value)
    if any(size < low for size in sizes):
        raise InvalidArgument(f"{name} must have sizes of at least {low}; received {sizes}")
    if rank is not None and len(sizes) != rank:
        raise InvalidArgument(f"{name} must have {rank} sizes; received {sizes}")
    return sizes


def axis(name: str, value: object, ndim: int) -> int:
    """Return `value` as an index in ``[0, ndim)``; negative axes count from the end."""
    index = integer(name, value)
    if not -ndim <= index < ndim:
        raise InvalidArgument(
            f"{name} must be between {-ndim} and {ndim - 1} for an array of {ndim} dimensions; "
            f"received {index}"
        )
    return index % ndim


def stream_like(name: str, value: object) -> None:
    """Raise unless `value` is a Stream: randomness is always explicit."""
    from isometry.common.streams import Stream

    if not isinstance(value, Stream):
        raise InvalidArgument(
            f"{name} must be a Stream; received {value!r} of type {type(value).__name__}; "
            "make one with nx.stream(seed) or nx.portable_stream(seed)"
        )


def numbers_only(name: str, value: object) -> None:
    """Raise unless `value` is an array, a number, or a nested list of real numbers."""
    import numpy as np

    try:
        kind = np.asarray(value).dtype.kind
    except (ValueError, TypeError):  # ragged
        kind = "O"
    if kind not in "biufV":  # V: bfloat16 of ml_dtypes
        raise InvalidArgument(
            f"{name} must be a NumPy array, a number, or a nested list of real numbers with rows "
            f"of one length; received {value!r:.80} of type {type(value).__name__}"
        )


def scalar_valued(nx: Any, f: Callable[..., Any]) -> Callable[..., Any]:
    """Return f, raising if what it returns is not an array of shape ()."""

    @functools.wraps(f)
    def checked(*args: Any) -> Any:
        value = f(*args)
        if not nx.is_array(value) or nx.shape_of(value) != ():
            received = nx.shape_of(value) if nx.is_array(value) else type(value).__name__
            raise InvalidArgument(
                f"f must return a scalar array, of shape (); received {received}; "
                "reduce it with nx.ops.sum or nx.ops.mean"
            )
        return value

    return checked


def same_paths(parameters: Any, vector: Any) -> None:
    """Raise unless a vector has the paths of the parameters, where these are a dictionary."""
    if not isinstance(parameters, Mapping):
        return
    if not isinstance(vector, Mapping) or vector.keys() != parameters.keys():
        received = list(vector) if isinstance(vector, Mapping) else type(vector).__name__
        raise InvalidArgument(
            f"the vector must have the parameters' paths {sorted(parameters)}; received "
            f"{received}; give a dictionary with an array for each of them"
        )


def compilable(arguments: Sequence[object]) -> None:
    """Raise if a portable stream is among the arguments of a compiled function."""
    from isometry.common.portable import PortableStream

    if any(isinstance(argument, PortableStream) for argument in arguments):
        raise InvalidArgument(
            "a portable stream draws in NumPy and cannot enter a compiled function; "
            "draw first and pass the arrays, or pass nx.stream(seed)"
        )


Check = Callable[[Any, dict[str, Any]], None]


class Checked:
    """Wraps each public method a subclass defines in the check registered under its name."""

    CHECKS: ClassVar[Mapping[str, Check]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, check in cls.CHECKS.items():
            method = cls.__dict__.get(name)
            if inspect.isfunction(method) and not getattr(method, "__isabstractmethod__", False):
                setattr(cls, name, _wrap(method, check))

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the framework computes each dtype at its own precision."""
        return contextlib.nullcontext()


def _wrap(method: Callable[..., Any], check: Check) -> Callable[..., Any]:
    signature = inspect.signature(method)
    names = list(signature.parameters)
    plain = {p.kind for p in signature.parameters.values()} <= {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    }

    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if plain and not kwargs and len(args) + 1 == len(names):
            arguments = dict(zip(names, (self, *args), strict=True))  # as `bind` does, much faster
        else:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            arguments = bound.arguments
        try:
            check(self, arguments)
        except KeyError as error:
            raise InvalidArgument(
                f"{method.__qualname__}{signature} lacks the argument {error} of its contract"
            ) from error
        with self.scope():
            return method(self, *args, **kwargs)

    return checked
