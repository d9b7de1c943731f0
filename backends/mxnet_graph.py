"""MXNet's two kinds of array: `mx.np` arrays, and the symbols that stand for them in a graph.

One formula serves both: ``F = np_of(x)`` is `mx.np` for the one and `mx.sym.np` for the other, as
in Gluon's ``hybrid_forward(self, F, x)``. `Graph` traces a function with symbols and hybridizes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from isometry.backends.mxnet_compat import load_mxnet
from isometry.common.contract import Array
from isometry.common.errors import InvalidArgument
from isometry.common.streams import Stream

__all__ = [
    "Graph",
    "Symbol",
    "constant",
    "detach",
    "dtype_of",
    "foreach",
    "legacy_of",
    "np_of",
    "npx_of",
    "shape_of",
    "synced",
    "tracing",
]

mx = load_mxnet()
Symbol = mx.sym.np._Symbol

# --- arrays and symbols -------------------------------------------------------------------------


def np_of(x: Array) -> Any:
    """Return the namespace `np` of arrays or of symbols."""
    return mx.sym.np if isinstance(x, Symbol) else mx.np


def npx_of(x: Array) -> Any:
    """Return the namespace `npx` of arrays or of symbols."""
    return mx.sym.npx if isinstance(x, Symbol) else mx.npx


def legacy_of(x: Array) -> Any:
    """Return the namespace of MXNet's operators on `as_nd_ndarray()`, of arrays or of symbols."""
    return mx.sym if isinstance(x, Symbol) else mx.nd


def shape_of(x: Array) -> tuple[int, ...]:
    """Return the shape, for a symbol as inferred from its graph's inputs."""
    return tuple(x.infer_shape()[1][0] if isinstance(x, Symbol) else x.shape)


def dtype_of(x: Array) -> str:
    """Return the name of the dtype, for a symbol as inferred from its graph's inputs."""
    return np.dtype(x.infer_type()[1][0] if isinstance(x, Symbol) else x.dtype).name


def detach(x: Array) -> Array:
    """Return x, through which no derivative flows."""
    if isinstance(x, Symbol):
        return mx.sym.BlockGrad(x.as_nd_ndarray()).as_np_ndarray()
    return x.detach()


def synced(x: Array) -> Array:
    """Return x once it is computed: the engine's errors surface here, not at some later call."""
    if not isinstance(x, Symbol):
        x.wait_to_read()
    return x


# --- tracing ------------------------------------------------------------------------------------

# Set while a function is traced: arrays that it made from NumPy's, as named inputs of its graph.
_CONSTANTS: ContextVar[dict[str, Array] | None] = ContextVar("_CONSTANTS", default=None)


def tracing() -> bool:
    """Return whether a function is being traced."""
    return _CONSTANTS.get() is not None


def constant(x: Array) -> Array:
    """Return x, or the symbol that stands for it in the graph being traced."""
    constants = _CONSTANTS.get()
    if constants is None:
        return x
    name = f"constant{len(constants)}"
    constants[name] = x
    return _variable(name, x)


def _variable(name: str, x: Array) -> Array:
    return mx.sym.var(name, shape=x.shape, dtype=x.dtype).as_np_ndarray()


def _named(arguments: tuple[Any, ...]) -> dict[str, Array]:
    """Return the arrays among the arguments of a compiled function by name."""
    arrays: dict[str, Array] = {}
    for k, argument in enumerate(arguments):
        if isinstance(argument, dict):
            arrays |= {f"argument{k}.{key}": x for key, x in argument.items()}
        elif not isinstance(argument, Stream):
            arrays[f"argument{k}"] = argument
    for name, x in arrays.items():
        if not isinstance(x, mx.np.ndarray):
            raise InvalidArgument(
                f"a compiled function takes arrays, flat dictionaries of arrays and a native "
                f"stream of backend 'mxnet'; received {x!r} as {name}"
            )
    return arrays


def _replaced(arguments: tuple[Any, ...], symbols: dict[str, Array]) -> Iterator[Any]:
    for k, argument in enumerate(arguments):
        if isinstance(argument, dict):
            yield {key: symbols[f"argument{k}.{key}"] for key in argument}
        elif isinstance(argument, Stream):
            yield argument
        else:
            yield symbols[f"argument{k}"]


class Graph:
    """A function traced with symbols and hybridized, for arguments of given shapes and dtypes.

    It runs where its arguments lie, or in `context` where it has none.
    """

    def __init__(self, f: Callable[..., Any], arguments: tuple[Any, ...], context: Any) -> None:
        self._constants: dict[str, Array] = {}
        arrays = _named(arguments)
        token = _CONSTANTS.set(self._constants)
        try:
            symbols = {name: _variable(name, x) for name, x in arrays.items()}
            result = f(*_replaced(arguments, symbols))
            outputs = list(result) if isinstance(result, tuple) else [result]
            self._outputs = len(result) if isinstance(result, tuple) else None
            self._inputs = sorted({name for y in outputs for name in y.list_inputs()})
            if not self._inputs:  # draws alone; but a block has an input
                outputs.append(constant(mx.np.zeros(1, ctx=context)))
                self._inputs = [outputs[-1].name]
        finally:
            _CONSTANTS.reset(token)
        values = arrays | self._constants
        self._block = mx.gluon.SymbolBlock(
            outputs, [_variable(name, values[name]) for name in self._inputs]
        )
        self._block.hybridize()

    @staticmethod
    def signature(arguments: tuple[Any, ...]) -> Any:
        """Return what a graph is made for: the names, shapes and dtypes of its arrays."""
        return tuple((name, x.shape, x.dtype) for name, x in _named(arguments).items())

    def __call__(self, arguments: tuple[Any, ...]) -> Any:
        """Return the function's result for arguments of this signature."""
        values = _named(arguments) | self._constants
        y = self._block(*(values[name] for name in self._inputs))
        ys = tuple(map(synced, y if isinstance(y, (list, tuple)) else [y]))
        return ys[0] if self._outputs is None else ys[: self._outputs]


def foreach(step: Callable[[Any, Any], Any], carry: Any, xs: Any) -> tuple[Any, Array | None]:
    """Return `scan` as a node of a graph: its body is traced once, whatever the length."""
    carries, given = (a if isinstance(a, tuple) else (a,) for a in (carry, xs))
    shapes = [shape_of(c) for c in carries]
    # foreach knows no shape (), neither of states nor of outputs, slices a vector wrongly, and
    # takes no array twice; but a reshaped array is a copy
    start = [c.reshape(s or (1,)) for c, s in zip(carries, shapes, strict=True)]
    rows = [shape_of(x)[1:] for x in given]
    parts: list[Array] = []
    for x, row in zip(given, rows, strict=True):
        shape = (shape_of(x)[0], *(row or (1,)))
        again = x.name in [part.name for part in parts]
        parts.append(x.reshape(shape) if again else _shaped(x, shape))
    outputs: bool  # are there any
    scalars: bool  # are they

    def known(x: Array, shape: tuple[int, ...], dtype: str) -> Array:
        code = mx.nd.ndarray._DTYPE_NP_TO_MX[np.dtype(dtype).type]
        x._set_attr(__shape__=str(shape), __dtype__=str(code))
        return x.as_np_ndarray()

    def body(ins: list[Array], states: list[Array]) -> tuple[list[Array], list[Array]]:
        nonlocal outputs, scalars
        ins = [known(x, shape_of(a)[1:], dtype_of(a)) for x, a in zip(ins, parts, strict=True)]
        states = [known(s, shape_of(c), dtype_of(c)) for s, c in zip(states, start, strict=True)]
        inner = tuple(map(_shaped, states, shapes))
        row = tuple(map(_shaped, ins, rows))
        end, y = step(
            inner if isinstance(carry, tuple) else inner[0],
            row if isinstance(xs, tuple) else row[0],
        )
        ends = end if isinstance(carry, tuple) else (end,)
        states_out = [_shaped(c, s or (1,)) for c, s in zip(ends, shapes, strict=True)]
        outputs, scalars = y is not None, y is not None and shape_of(y) == ()
        ys = [_shaped(y, shape_of(y) or (1,))] if outputs else []
        # and it insists that each input be used
        used = {name for z in (*ys, *states_out) for name in z.list_inputs()}
        ys += [z.reshape((-1,))[:1] for z in (*ins, *states) if z.name not in used]
        return [z.as_nd_ndarray() for z in ys], [z.as_nd_ndarray() for z in states_out]

    ys, states = mx.sym.contrib.foreach(
        body, [x.as_nd_ndarray() for x in parts], [c.as_nd_ndarray() for c in start]
    )
    states = tuple(
        _shaped(s.as_np_ndarray(), shape) for s, shape in zip(states, shapes, strict=True)
    )
    last = states if isinstance(carry, tuple) else states[0]
    if not outputs:
        return last, None
    y = ys[0].as_np_ndarray()
    return last, mx.sym.np.squeeze(y, 1) if scalars else y


def _shaped(x: Array, shape: tuple[int, ...]) -> Array:
    """Return x in a shape; each operator of a body costs time at each step."""
    return x if shape_of(x) == shape else x.reshape(shape)
