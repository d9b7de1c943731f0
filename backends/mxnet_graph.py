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
    "legacy_of",
    "np_of",
    "npx_of",
    "shape_of",
    "synced",
    "tracing",
    "unrolled",
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
    return _variable(name, x, x.shape)


def _variable(name: str, x: Array, shape: tuple[int, ...]) -> Array:
    return mx.sym.var(name, shape=shape, dtype=dtype_of(x)).as_np_ndarray()


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
            symbols = {name: _variable(name, x, x.shape) for name, x in arrays.items()}
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
            outputs, [_variable(name, values[name], values[name].shape) for name in self._inputs]
        )
        self._block.hybridize(static_alloc=True, static_shape=True)

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


def unrolled(step: Callable[[Any, Any], Any], carry: Any, xs: Any) -> tuple[Any, Array | None]:
    """Return `scan` as part of a graph: its body is traced once, and copied for each step.

    MXNet has a loop that is a node, too, `foreach`, from which the functions are that cut a body
    out of the graph around it. But it calls the engine at each step and plans no memory across
    steps: tanh layers of width 32 to 128 take a fourth to a half more time in it.
    """
    carries, given = (a if isinstance(a, tuple) else (a,) for a in (carry, xs))
    cut = mx.sym.contrib
    around = mx.AttrScope._current.value._attr.get("__subgraph_name__")
    scope = cut._get_unique_subgraph_name("scan")
    with mx.AttrScope(__subgraph_name__=scope):
        held = [_variable(f"{scope}.carry{j}", c, shape_of(c)) for j, c in enumerate(carries)]
        rows = [_variable(f"{scope}.row{j}", x, shape_of(x)[1:]) for j, x in enumerate(given)]
        end, y = step(
            tuple(held) if isinstance(carry, tuple) else held[0],
            tuple(rows) if isinstance(xs, tuple) else rows[0],
        )
        ends = (*(end if isinstance(carry, tuple) else (end,)), *(() if y is None else (y,)))
        body = cut._construct_subgraph([z.as_nd_ndarray() for z in ends], [], scope)
    # what the body takes from around it is an input of each copy, not computed in each again
    computed = {z.list_outputs()[0]: z for z in cut._cut_subgraph(body)}
    inputs = {z.name: z for z in cut._get_graph_inputs(body)} | computed
    for z in body.get_internals() if around else ():  # or a scan around this one cuts these out
        z._set_attr(__subgraph_name__=around)

    now = [c.as_nd_ndarray() for c in carries]
    count = shape_of(given[0])[0]
    parts = [_rows(x, count) for x in given]
    ys = []
    for k in range(count):
        inputs |= {x.name: c for x, c in zip(held, now, strict=True) if x.name in inputs}
        inputs |= {x.name: part[k] for x, part in zip(rows, parts, strict=True) if x.name in inputs}
        now = list(body(**inputs))
        ys += [] if y is None else [now.pop()]
    last = tuple(c.as_np_ndarray() for c in now)
    stacked = mx.sym.stack(*ys).as_np_ndarray() if ys else None
    return last if isinstance(carry, tuple) else last[0], stacked


def _rows(x: Array, count: int) -> list[Any]:
    """Return the rows of x; MXNet does not split booleans."""
    bits = dtype_of(x) == "bool"
    whole = (x.astype("uint8") if bits else x).as_nd_ndarray()
    rows = mx.sym.split(whole, num_outputs=count, axis=0, squeeze_axis=True)
    return [mx.sym.cast(row, dtype="bool") for row in rows] if bits else list(rows)
