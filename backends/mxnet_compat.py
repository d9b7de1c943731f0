"""Import MXNet 1.9.1 on NumPy 2 and Python 3.12: every workaround for it, each with its reason.

MXNet was retired in 2023 (https://attic.apache.org/projects/mxnet.html) and its last release was
built against NumPy 1.23, so what it lacks is lent to it here. NumPy, the log handlers, the
warnings filters, the environment and the SIGSEGV handler are afterwards as they were before.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import math
import signal
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["load_mxnet"]

# --- while it is imported -----------------------------------------------------------------------

_CONSTANTS = {
    "PZERO": 0.0,
    "NZERO": -0.0,
    "NINF": -math.inf,
    "PINF": math.inf,
    "NAN": math.nan,
    "NaN": math.nan,
    "Inf": math.inf,
}
_RENAMED = {
    "alltrue": "all",
    "sometrue": "any",
    "round_": "round",
    "product": "prod",
    "in1d": "isin",
    "trapz": "trapezoid",
}
_REMOVED = ("mirr", "msort", "npv", "pmt", "ppmt", "pv", "rate")


def _removed(name: str) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"numpy.{name} no longer exists")

    function.__name__ = name
    return function


@contextmanager
def _numpy_names() -> Iterator[None]:
    """Lend NumPy the names that it removed in 2.0 and 2.4 and that MXNet reads to wrap them."""
    lent = {
        **_CONSTANTS,
        **{old: getattr(np, new) for old, new in _RENAMED.items()},
        **{name: _removed(name) for name in _REMOVED},
    }
    # not hasattr: NumPy 2.0 to 2.3 still answer some of these names, with a warning
    lent = {name: value for name, value in lent.items() if name not in vars(np)}
    for name, value in lent.items():
        setattr(np, name, value)
    try:
        yield
    finally:
        for name in lent:
            delattr(np, name)


class _Version:
    """What MXNet compares of distutils.version.LooseVersion and StrictVersion."""

    def __init__(self, text: str) -> None:
        self.parts = tuple(int(part) for part in text.split(".")[:3] if part.isdigit())

    def __ge__(self, other: _Version) -> bool:
        return self.parts >= other.parts


@contextmanager
def _modules() -> Iterator[None]:
    """Stand in for distutils, gone from Python 3.12, and hide what MXNet imports without need.

    Importing SciPy and scikit-learn costs a second, and the latter writes to the environment.
    """
    distutils, version = types.ModuleType("distutils"), types.ModuleType("distutils.version")
    version.LooseVersion = version.StrictVersion = _Version  # type: ignore[attr-defined]
    stand_ins: dict[str, Any] = {"distutils": distutils, "distutils.version": version}
    stand_ins |= {name: None for name in ("scipy", "sklearn") if name not in sys.modules}
    before = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(before)


@contextmanager
def _process_settings() -> Iterator[None]:
    """Put back the root logger's handlers and the SIGSEGV handler, both of which MXNet replaces."""
    handlers = list(logging.root.handlers)
    sigaction = ctypes.CDLL(None).sigaction  # signal.signal cannot see a handler set in C
    before = ctypes.create_string_buffer(512)  # a struct sigaction, at most 152 bytes
    sigaction(int(signal.SIGSEGV), None, before)
    try:
        yield
    finally:
        sigaction(int(signal.SIGSEGV), before, None)
        logging.root.handlers[:] = handlers


# --- once it is imported ------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return type(value)(map(_plain, value)) if type(value) in (tuple, list) else value


def _repair_attributes() -> None:
    """Operator attributes reach C++ as str(value), which NumPy 2 spells "np.int64(3)"."""
    from mxnet._ctypes import ndarray, symbol

    ndarray.str = symbol.str = lambda value: str(_plain(value))


def _repair_arrays(mx: Any) -> None:
    """Without `__array__`, np.asarray(x) is an array of objects."""

    def as_array(x: Any, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return x.asnumpy() if dtype is None else x.asnumpy().astype(dtype, copy=False)

    mx.nd.NDArray.__array__ = as_array


def _repair_symbols(mx: Any) -> None:
    """Give symbols the operators that arrays have, and make x[-1] the last item, not an error."""
    F, symbol = mx.sym.np, mx.sym.np._Symbol
    symbol.__matmul__ = lambda x, y: F.matmul(x, y)
    symbol.__and__ = lambda x, y: F.bitwise_and(x, y)
    symbol.__or__ = lambda x, y: F.bitwise_or(x, y)
    symbol.__invert__ = lambda x: F.bitwise_not(x)
    symbol.__abs__ = lambda x: F.abs(x)
    getitem = symbol.__getitem__

    def item(x: Any, key: Any) -> Any:
        # slice(begin=-1, end=0) is empty; the code for tuples gets it right
        last = isinstance(key, int) and key == -1 and x.num_outputs == 1
        return getitem(x, (key,) if last else key)

    symbol.__getitem__ = item


@functools.cache  # a second repair would wrap the first
def load_mxnet() -> Any:
    """Return the module `mxnet`, ready for use.

    Raises
    ------
    ImportError
        If MXNet, or a system library it needs, is not installed.
    """
    try:
        with _process_settings(), _modules(), _numpy_names():
            import mxnet as mx
    except OSError as error:
        raise ImportError(
            f"{error}; MXNet needs the system libraries libgomp.so.1 and libquadmath.so.0 "
            "(Debian: apt-get install libgomp1 libquadmath0)"
        ) from error
    # entering NumPy semantics for the first time logs, which would install a root handler
    mx.util._set_np_shape_logged = mx.util._set_np_array_logged = True
    _repair_attributes()
    _repair_arrays(mx)
    _repair_symbols(mx)
    return mx
