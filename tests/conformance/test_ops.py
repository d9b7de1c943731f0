"""The vocabulary of backend-free code: every word of it means what the standard says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from isometry.common.ops import VOCABULARY
from isometry.common.statistics import rounding
from isometry.common.statistics.tolerances import ACTIVATION_ULP
from isometry.conformance import asserts


@pytest.mark.clause("ops.names")
def test_the_table_has_exactly_the_vocabulary(nx):
    assert vars(nx.ops).keys() == VOCABULARY.keys()
    for name, word in VOCABULARY.items():
        asserts.same_signature(getattr(nx.ops, name), word)


@dataclass
class Case:
    """One call of an op; arrays among the arguments are handed to the backend."""

    oracle: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


# Small integers: sums and products of them are exact in every dtype and order of evaluation.
A = np.array([[-2.0, 3.0, 0.0, 5.0], [4.0, -1.0, 3.0, 2.0]])
B = np.array([[1.0, 3.0, -4.0, 0.0], [2.0, -1.0, 7.0, 2.0]])
C = np.arange(24.0).reshape(2, 3, 4) - 9
SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, -1.5])
P = np.array([0.5, 1.0, 2.0, 3.0, 1e-3, 40.0])
TRUTH = np.array([[True, False, True], [True, True, True]])


def _reductions(f: Callable[..., Any]) -> list[Case]:
    axes: list[dict[str, Any]] = [{}, {"axis": 0}, {"axis": -1}, {"axis": (0, 2)}]
    return [Case(f, (C,), {**a, **k}) for a in axes for k in ({}, {"keepdims": True})]


def _np_conv(x, weight, *, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), *[(padding, padding)] * (x.ndim - 2)))
    kernel = weight.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, tuple(range(2, x.ndim)))
    spatial = "uvw"[: len(kernel)]
    return np.einsum(f"bi...{spatial},oi{spatial}->bo...", windows, weight)


def _np_scan(step, carry, xs):
    ys = []
    for x in xs:
        carry, y = step(carry, x)
        ys.append(y)
    return carry, np.stack(ys)


def _add(carry, x):
    return carry + x, carry * 2.0


def _conv_cases() -> list[Case]:
    shapes = [
        ((2, 3, 5), (2, 3, 2)),
        ((2, 2, 5, 4), (3, 2, 3, 2)),
        ((1, 2, 3, 4, 3), (2, 2, 2, 3, 1)),
    ]
    return [
        Case(
            _np_conv,
            (np.arange(np.prod(x)).reshape(x) % 7.0, np.arange(np.prod(w)).reshape(w) % 5.0),
            k,
        )
        for x, w in shapes
        for k in ({}, {"padding": 1})
    ]


ELEMENTARY = ("exp", "expm1", "log", "log1p", "sqrt", "tanh")
CASES: dict[str, list[Case]] = {
    "abs": [Case(np.abs, (v,)) for v in (A, SPECIAL)],
    "exp": [Case(np.exp, (v,)) for v in (A, P, SPECIAL)],
    "expm1": [Case(np.expm1, (v,)) for v in (A, P, SPECIAL)],
    "log": [Case(np.log, (v,)) for v in (P, np.array([0.0, -1.0, np.inf]))],
    "log1p": [Case(np.log1p, (v,)) for v in (P, np.array([0.0, -1.0, np.inf]))],
    "sqrt": [Case(np.sqrt, (v,)) for v in (P, np.array([0.0, -1.0, np.inf]))],
    "square": [Case(np.square, (v,)) for v in (A, SPECIAL)],
    "sign": [Case(np.sign, (v,)) for v in (A, SPECIAL)],
    "tanh": [Case(np.tanh, (v,)) for v in (A, P, SPECIAL)],
    "maximum": [Case(np.maximum, v) for v in ((A, B), (SPECIAL, SPECIAL[::-1].copy()))],
    "minimum": [Case(np.minimum, v) for v in ((A, B), (SPECIAL, SPECIAL[::-1].copy()))],
    "clip": [Case(np.clip, (v, -1.0, 2.0)) for v in (A, SPECIAL)],
    "where": [Case(np.where, (A > 1, A, B)), Case(np.where, (A > 1, A, B[:1]))],
    "isfinite": [Case(np.isfinite, (SPECIAL,))],
    "isnan": [Case(np.isnan, (SPECIAL,))],
    "sum": _reductions(np.sum),
    "mean": [Case(np.mean, (C[:, :2],), k) for k in ({}, {"axis": 0}, {"axis": (0, 2)})]
    + [Case(np.mean, (C[:, :2],), {"axis": -1, "keepdims": True})],
    "max": _reductions(np.max),
    "min": _reductions(np.min),
    "argmax": [Case(np.argmax, (A,), {"axis": k}) for k in (0, 1, -1)]
    + [Case(np.argmax, (np.array([[1.0, 5.0, 5.0]]),), {"axis": 1})],
    "all": [Case(np.all, (TRUTH,), k) for k in ({}, {"axis": 0}, {"axis": 1}, {"axis": (0, 1)})],
    "any": [Case(np.any, (~TRUTH,), k) for k in ({}, {"axis": 0}, {"axis": 1}, {"axis": (0, 1)})],
    "matmul": [
        Case(np.matmul, (A, B.T.copy())),
        Case(np.matmul, (C, C.transpose(0, 2, 1).copy())),
        Case(np.matmul, (C, B[0].reshape(4, 1))),
    ],
    "conv": _conv_cases(),
    "reshape": [Case(np.reshape, (C, s)) for s in ((4, 6), (24,), (2, -1, 2))],
    "permute_dims": [Case(np.transpose, (C, (2, 0, 1)))],
    "expand_dims": [Case(np.expand_dims, (A,), {"axis": k}) for k in (0, 1, -1)],
    "squeeze": [
        Case(np.squeeze, (A[:, None],), {"axis": 1}),
        Case(np.squeeze, (A[..., None],), {"axis": -1}),
    ],
    "concat": [Case(np.concatenate, ([A, B],), k) for k in ({}, {"axis": 1}, {"axis": -1})],
    "stack": [Case(np.stack, ([A, B],), k) for k in ({}, {"axis": 1}, {"axis": -1})],
    "broadcast_to": [Case(np.broadcast_to, (B[:1], (3, 4)))],
    "take": [
        Case(np.take, (A, np.array([3, 0, 0])), {"axis": 1}),
        Case(np.take, (C, np.array([1])), {"axis": 0}),
    ],
    "zeros": [Case(np.zeros, ((2, 3),))],
    "ones": [Case(np.ones, ((2, 3),))],
    "full": [Case(np.full, ((2, 3), 0.1))],
    "eye": [Case(np.eye, v) for v in ((3, 3), (2, 4), (4, 2))],
    "arange": [Case(np.arange, v) for v in ((0.0, 5.0, 1.0), (3.0, -1.0, -2.0), (0.5, 3.0, 0.5))],
    "zeros_like": [Case(np.zeros_like, (A,))],
    "ones_like": [Case(np.ones_like, (A,))],
    "astype": [Case(lambda x, dtype: x.astype(dtype), (v, t))
               for v in (A / 3, SPECIAL, TRUTH) for t in ("float16", "float32", "float64")],
    "stop_gradient": [Case(np.copy, (A,))],
    "scan": [Case(_np_scan, (_add, A[0], A))],
}  # fmt: skip
CREATION = ("zeros", "ones", "full", "eye", "arange")
FACTORIZATIONS = ("qr", "svd")


def _leaves(value: Any) -> list[np.ndarray]:
    """Return the arrays among (lists of) arguments, in order."""
    if isinstance(value, np.ndarray):
        return [value]
    return [x for v in value for x in _leaves(v)] if isinstance(value, (list, tuple)) else []


def _refilled(value: Any, leaves: list[Any]) -> Any:
    """Return the arguments with their arrays replaced, first to last, by those in `leaves`."""
    if isinstance(value, np.ndarray):
        return leaves.pop(0)
    if isinstance(value, (list, tuple)):
        return type(value)([_refilled(v, leaves) for v in value])
    return value


def _as_dtype(x: np.ndarray, dtype: str) -> np.ndarray:
    return x.astype(dtype) if x.dtype == np.float64 else x


def _flat(outputs: Any) -> tuple[Any, ...]:
    return tuple(x for y in outputs for x in (y if isinstance(y, tuple) else (y,)))


@pytest.mark.clause("ops.meaning")
@pytest.mark.parametrize("word", [w for w in VOCABULARY if w not in FACTORIZATIONS])
def test_op_means_what_numpy_means(nx, mode, full_dtype, prepare, word):
    cases = CASES[word]
    extra = {"dtype": full_dtype} if word in CREATION else {}
    values = [_as_dtype(x, full_dtype) for case in cases for x in _leaves(case.args)]

    def all_cases(unused, *arrays):
        remaining = list(arrays)
        outputs = [
            getattr(nx.ops, word)(*_refilled(case.args, remaining), **case.kwargs, **extra)
            for case in cases
        ]
        return *_flat(outputs), unused * 2.0

    arrays = [nx.asarray(np.ones(1, full_dtype)), *map(nx.asarray, values)]
    with nx.scope():
        *observed, _ = prepare(all_cases)(*arrays)
    with np.errstate(all="ignore"):
        remaining = list(values)
        expected = _flat(
            c.oracle(*_refilled(c.args, remaining), **c.kwargs, **extra) for c in cases
        )
    for x, y in zip(map(nx.to_numpy, observed), map(np.asarray, expected), strict=True):
        assert x.shape == y.shape
        if y.dtype.kind == "f":
            assert x.dtype == y.dtype
            budget = ACTIVATION_ULP[full_dtype] if word in ELEMENTARY else 0
            asserts.within_ulp(x, y, str(y.dtype), budget)
        else:
            assert x.dtype.kind == y.dtype.kind
            np.testing.assert_array_equal(x, y)


@pytest.mark.clause("ops.vocabulary-covered")
def test_every_word_has_its_cases():
    assert {*CASES, *FACTORIZATIONS} == VOCABULARY.keys()


@pytest.mark.clause("ops.factorizations")
@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (2, 5, 3)])
def test_factors_multiply_to_the_matrix(nx, mode, full_dtype, prepare, shape):
    matrix = np.cos(np.arange(np.prod(shape)) ** 2).reshape(shape).astype(full_dtype)

    def both(x):
        q, r = nx.ops.qr(x)
        u, s, vh = nx.ops.svd(x)
        return q, r, u, s, vh

    with nx.scope():
        factors = prepare(both)(nx.asarray(matrix))
    q, r, u, s, vh = (nx.to_numpy(x).astype(np.float64) for x in factors)
    bound = rounding.factorization(*shape[-2:], full_dtype) * np.linalg.norm(matrix)
    eye = np.eye(shape[-1])
    asserts.within(q @ r, matrix, bound)
    asserts.within(np.swapaxes(q, -1, -2) @ q, eye, bound)
    asserts.within(np.tril(r, -1), 0, 0)
    asserts.within(u * s[..., None, :] @ vh, matrix, bound)
    asserts.within(np.swapaxes(u, -1, -2) @ u, eye, bound)
    asserts.within(s, np.linalg.svd(matrix.astype(np.float64), compute_uv=False), bound)
    assert np.all(np.diff(s, axis=-1) <= 0)


@pytest.mark.clause("ops.wide-svd")
def test_svd_of_a_wide_matrix(nx, full_dtype):
    matrix = np.cos(np.arange(15.0) ** 2).reshape(3, 5).astype(full_dtype)
    with nx.scope():
        u, s, vh = (nx.to_numpy(x).astype(float) for x in nx.ops.svd(nx.asarray(matrix)))
    assert (u.shape, s.shape, vh.shape) == ((3, 3), (3,), (3, 5))
    bound = rounding.factorization(3, 5, full_dtype) * np.linalg.norm(matrix)
    asserts.within(u * s @ vh, matrix, bound)
