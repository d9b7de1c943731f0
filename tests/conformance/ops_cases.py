"""What each word of the vocabulary is called with, and what NumPy makes of it.

Arrays among the arguments are handed to the backend in the dtype under judgement. They hold small
integers, whose sums and products are exact in every dtype and order of evaluation, the special
values, or, for precision, numbers whose every bit counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = [
    "CASES",
    "CREATION",
    "ELEMENTARY",
    "FACTORIZATIONS",
    "INEXACT",
    "INFINITE",
    "SPECIAL",
    "Case",
]


@dataclass
class Case:
    """One call of an op: ``word(*args, **kwargs)``, by NumPy ``oracle(*args, **kwargs)``."""

    oracle: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


A = np.array([[-2.0, 3.0, 0.0, 5.0], [4.0, -1.0, 3.0, 2.0]])
B = np.array([[1.0, 3.0, -4.0, 0.0], [2.0, -1.0, 7.0, 2.0]])
C = np.arange(24.0).reshape(2, 3, 4) - 9
# what is judged entry by entry is of one shape, as JAX compiles each word once a shape
WIDE = np.concatenate([A, B], axis=1)
SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, -1.5, -1.0, 2.0])
SPECIAL = np.stack([SPECIAL, SPECIAL[::-1]])
INFINITE = np.array([[1.0, np.nan], [np.inf, 2.0], [-np.inf, -3.0], [np.inf, -np.inf]])
P = np.resize([0.5, 1.0, 2.0, 3.0, 1e-3, 40.0], WIDE.shape)
TRUTH = np.array([[True, False, True], [True, True, True]])


def _wave(*shape: int, seed: float = 0.0) -> np.ndarray:
    """Numbers in (-1, 1) without structure, all of whose bits count."""
    return np.sin(np.arange(np.prod(shape)) ** 2 + 1.0 + seed).reshape(shape)


def _whole(shape: tuple[int, ...], modulus: int) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape) % modulus * 1.0


def _reductions(f: Callable[..., Any]) -> list[Case]:
    axes: list[dict[str, Any]] = [{}, {"axis": 0}, {"axis": -1}, {"axis": (0, 2)}]
    return [Case(f, (C,), {**a, **k}) for a in axes for k in ({}, {"keepdims": True})]


def linear(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.einsum("...i,oi->...o", x, weight)


def split(x: np.ndarray, sizes: tuple[int, ...], *, axis: int = 0) -> tuple[np.ndarray, ...]:
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


def conv(x: np.ndarray, weight: np.ndarray, *, padding: int = 0) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), *[(padding, padding)] * (x.ndim - 2)))
    kernel = weight.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, tuple(range(2, x.ndim)))
    taps = range(-len(kernel), 0)
    y = np.tensordot(windows, weight, ((1, *taps), (1, *range(2, weight.ndim))))
    return np.moveaxis(y, -1, 1)


def scan(step: Callable[..., Any], carry: Any, xs: Any) -> tuple[Any, np.ndarray | None]:
    ys = []
    for x in zip(*xs, strict=True) if isinstance(xs, tuple) else xs:
        carry, y = step(carry, x)
        ys.append(y)
    return carry, None if y is None else np.stack(ys)


def _add(carry: Any, x: Any) -> tuple[Any, Any]:
    return carry + x, carry * 2.0


def _count(carry: Any, x: Any) -> tuple[Any, Any]:
    return carry + 1.0, carry * 2.0  # x is not used


def _paired(carry: Any, x: Any) -> tuple[Any, Any]:
    assert isinstance(x, tuple), "the rows of several arrays are a tuple"
    return carry + x[0], carry * x[1]


def _last(carry: Any, x: Any) -> tuple[Any, None]:
    return carry * 2.0 + x, None  # no output


def _kept(carry: Any, x: Any) -> tuple[Any, Any]:
    return carry * 2.0, x


def _fibonacci(carry: Any, x: Any) -> tuple[Any, Any]:
    assert isinstance(carry, tuple), "a carry of several arrays is a tuple"
    older, newer = carry
    return (newer, older + newer), older * x


def running_sum(carry: Any, x: Any) -> tuple[Any, Any]:
    return carry + x, carry + x


_CONV_SHAPES = [
    ((2, 3, 5), (2, 3, 2)),
    ((2, 2, 5, 4), (3, 2, 3, 2)),
    ((1, 2, 3, 4, 3), (2, 2, 2, 3, 1)),
]
_PAIRS = [
    (WIDE, WIDE[::-1].copy()),
    (WIDE[:1], WIDE[:, ::-1].copy()),
    (SPECIAL, SPECIAL[::-1].copy()),
]
# each of the three is alone in having one of the sizes
_BROADCAST = (np.array([True, False, True])[:, None, None], A[:, :1], B[0])

CASES: dict[str, list[Case]] = {
    "abs": [Case(np.abs, (v,)) for v in (WIDE, SPECIAL)],
    "exp": [Case(np.exp, (v,)) for v in (WIDE, P, SPECIAL)],
    "expm1": [Case(np.expm1, (v,)) for v in (WIDE, P, SPECIAL)],
    "log": [Case(np.log, (v,)) for v in (P, SPECIAL)],
    "log1p": [Case(np.log1p, (v,)) for v in (P, SPECIAL)],
    "sqrt": [Case(np.sqrt, (v,)) for v in (P, SPECIAL)],
    "square": [Case(np.square, (v,)) for v in (WIDE, SPECIAL)],
    "sign": [Case(np.sign, (v,)) for v in (WIDE, SPECIAL)],
    "tanh": [Case(np.tanh, (v,)) for v in (WIDE, P, SPECIAL)],
    "maximum": [Case(np.maximum, v) for v in _PAIRS],
    "minimum": [Case(np.minimum, v) for v in _PAIRS],
    "clip": [Case(np.clip, (v, -1.0, 2.0)) for v in (WIDE, SPECIAL)],
    "where": [Case(np.where, v) for v in ((A > 1, A, B), (A > 1, A, B[:1]), _BROADCAST)],
    "isfinite": [Case(np.isfinite, (SPECIAL,))],
    "isnan": [Case(np.isnan, (SPECIAL,))],
    "sum": _reductions(np.sum),
    "mean": [Case(np.mean, (C[:, :2],), k) for k in ({}, {"axis": 0}, {"axis": (0, 2)})]
    + [Case(np.mean, (C[:, :2],), {"axis": -1, "keepdims": True})],
    "max": [*_reductions(np.max), Case(np.max, (INFINITE,), {"axis": 1})],
    "min": [*_reductions(np.min), Case(np.min, (INFINITE,), {"axis": 1})],
    "argmax": [Case(np.argmax, (A,), {"axis": k}) for k in (0, 1, -1)]
    + [Case(np.argmax, (np.array([[1.0, 5.0, 5.0, 0.0], [1.0, -1.0, 5.0, 5.0]]),), {"axis": k})
       for k in (0, 1)],
    "all": [Case(np.all, (TRUTH,), k) for k in ({}, {"axis": 0}, {"axis": 1}, {"axis": (0, 1)})],
    "any": [Case(np.any, (~TRUTH,), k) for k in ({}, {"axis": 0}, {"axis": 1}, {"axis": (0, 1)})],
    "matmul": [
        Case(np.matmul, (A, B.T.copy())),
        Case(np.matmul, (C, C.transpose(0, 2, 1).copy())),
        Case(np.matmul, (C, B[0].reshape(4, 1))),
        Case(np.matmul, (C[:, None], C[0].T.copy())),
        Case(np.matmul, (C[:, None], C.transpose(0, 2, 1).copy())),
    ],
    "linear": [
        Case(linear, (A, B)),
        Case(linear, (A[:, :3], C[0, :, :3])),  # a square weight
        Case(linear, (C[:, None], B)),
    ],
    "conv": [
        Case(conv, (_whole(x, 7), _whole(w, 5)), k)
        for x, w in _CONV_SHAPES
        for k in ({}, {"padding": 1})
    ],
    "reshape": [Case(np.reshape, (C, s)) for s in ((4, 6), (24,), (2, -1, 2))],
    "permute_dims": [Case(np.transpose, (C, v)) for v in ((2, 0, 1), (0, 2, 1), (2, 1, 0))],
    "expand_dims": [Case(np.expand_dims, (A,), {"axis": k}) for k in (0, 1, -1)],
    "squeeze": [
        Case(np.squeeze, (A[:, None, None],), {"axis": 1}),
        Case(np.squeeze, (A[..., None],), {"axis": -1}),
    ],
    "concat": [Case(np.concatenate, ([A, B],), k) for k in ({}, {"axis": 1}, {"axis": -1})]
    + [Case(np.concatenate, ([A, B[:1], A],))],
    "stack": [Case(np.stack, ([A, B, A],), k) for k in ({}, {"axis": 1}, {"axis": -1})],
    "split": [
        Case(split, (C, (1, 1))),
        Case(split, (A, (2,))),
        Case(split, (C, (1, 3)), {"axis": 2}),
        Case(split, (B, (3, 0, 1)), {"axis": -1}),
        Case(split, (B[0], (1, 2, 1))),
    ],
    "broadcast_to": [
        Case(np.broadcast_to, (B[:1], (3, 4))),
        Case(np.broadcast_to, (A[:, None], (2, 2, 3, 4))),
    ],
    "take": [
        Case(np.take, (A, np.array([3, 0, 0])), {"axis": 1}),
        Case(np.take, (C, np.array([1])), {"axis": 0}),
        Case(np.take, (C, np.array([2, 1])), {"axis": -1}),
    ],
    "zeros": [Case(np.zeros, (s,)) for s in ((2, 3), ())],
    "ones": [Case(np.ones, (s,)) for s in ((2, 3), ())],
    "full": [Case(np.full, ((2, 3), v)) for v in (0.1, -3.0)],
    "eye": [Case(np.eye, v) for v in ((3, 3), (2, 4), (4, 2))],
    "arange": [Case(np.arange, v) for v in ((0.0, 5.0, 1.0), (3.0, -7.0, -2.0),
                                            (1 + 2**-40, 6.0, 1.0), (0.5, 3.0, 0.5))],
    "zeros_like": [Case(np.zeros_like, (v,)) for v in (WIDE, SPECIAL)],
    "ones_like": [Case(np.ones_like, (v,)) for v in (WIDE, SPECIAL)],
    "astype": [Case(lambda x, dtype: x.astype(dtype), (v, t))
               for v in (WIDE / 3, SPECIAL, TRUTH) for t in ("float16", "float32", "float64")],
    "stop_gradient": [Case(np.copy, (A,))],
    "scan": [
        Case(scan, (_add, A[0], A)),
        Case(scan, (_add, np.array(2.0), A[0])),
        Case(scan, (_add, np.array(2.0), A[0][:1])),
        Case(scan, (_count, A[0], A)),
        Case(scan, (_count, A[:1], C[:, :1])),
        Case(scan, (_paired, A[0], (C[0], C[1, :, 0]))),  # three rows of two arrays
        Case(scan, (_last, A[0], A)),
        Case(scan, (_kept, A[0], TRUTH)),
        Case(scan, (_last, np.array(2.0), A[0][:1])),
        Case(scan, (_fibonacci, (A, B), C[0, :, :1])),
    ],
}  # fmt: skip
"""Word -> calls with an exact result (the elementary functions apart)."""

ELEMENTARY = ("exp", "expm1", "log", "log1p", "sqrt", "tanh")
CREATION = ("zeros", "ones", "full", "eye", "arange")
FACTORIZATIONS = ("qr", "svd")

_LONG, _ROWS = _wave(40), _wave(6, 4, 5)
INEXACT: dict[str, list[tuple[int, Case]]] = {
    "sum": [(40, Case(np.sum, (_LONG,))), (30, Case(np.sum, (_ROWS,), {"axis": (0, -1)}))],
    "mean": [(41, Case(np.mean, (_LONG,))), (5, Case(np.mean, (_ROWS,), {"axis": 1}))],
    "matmul": [
        (24, Case(np.matmul, (_wave(8, 24), _wave(24, 16, seed=0.5)))),
        (5, Case(np.matmul, (_ROWS, _wave(5, 3, seed=0.5)))),
    ],
    "linear": [
        (24, Case(linear, (_wave(8, 24), _wave(16, 24, seed=0.5)))),
        (5, Case(linear, (_ROWS, _wave(3, 5, seed=0.5)))),
    ],
    "conv": [
        (9, Case(conv, (_wave(2, 3, 9), _wave(4, 3, 3, seed=0.5)), {"padding": 1})),
        (18, Case(conv, (_wave(2, 2, 8, 8), _wave(3, 2, 3, 3, seed=0.5)))),
    ],
    "scan": [(40, Case(scan, (running_sum, np.zeros(()), _LONG)))],
}
"""Word -> calls whose result must be rounded, with the number of roundings on the way to each."""
