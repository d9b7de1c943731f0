"""The vocabulary of backend-free code: every word of it means what the standard says."""

from __future__ import annotations

import decimal
import functools
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from isometry.common.laws import activations as laws
from isometry.common.laws.formats import FORMATS
from isometry.common.ops import VOCABULARY
from isometry.common.statistics import rounding
from isometry.common.statistics.tolerances import ACTIVATION_ULP, TANH_ULP
from isometry.conformance import asserts, floats
from isometry.conformance.ops_cases import (
    CASES,
    CREATION,
    ELEMENTARY,
    FACTORIZATIONS,
    INEXACT,
    INFINITE,
    SPECIAL,
)


@pytest.mark.clause("ops.names")
def test_the_table_has_exactly_the_vocabulary(nx):
    assert vars(nx.ops).keys() == VOCABULARY.keys()
    for name, word in VOCABULARY.items():
        asserts.same_signature(getattr(nx.ops, name), word)


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


def _flat(outputs: Any) -> list[Any]:
    """Return the arrays of nested tuples in a list; a None is none."""
    if outputs is None:
        return []
    return [x for y in outputs for x in _flat(y)] if isinstance(outputs, tuple) else [outputs]


def _to_backend(nx, x: np.ndarray, dtype: str) -> Any:
    return nx.asarray(x.astype("f4") if dtype == "bfloat16" else x, dtype=dtype)


def _called(nx, prepare, cases, arrays, dtype):
    """Return what the backend makes of each case, in one call whose inputs are all arrays."""
    counts = []

    def all_cases(unused, *arrays):
        remaining, outputs = list(arrays), []
        counts.clear()
        for word, case in cases:
            extra = {"dtype": dtype} if word in CREATION else {}
            y = getattr(nx.ops, word)(*_refilled(case.args, remaining), **case.kwargs, **extra)
            outputs += _flat(y)
            counts.append(len(_flat(y)))
        return *outputs, unused * 2.0

    with nx.scope():
        *observed, _ = prepare(all_cases)(nx.ops.ones((1,)), *arrays)
    assert all(map(nx.is_array, observed)), "some results are no arrays"
    return [tuple(observed.pop(0) for _ in range(count)) for count in counts]


def _by_oracle(cases, values):
    with np.errstate(all="ignore"):
        remaining = list(values)
        return [c.oracle(*_refilled(c.args, remaining), **c.kwargs) for _, c in cases]


def _judge_meaning(nx, prepare, words, dtype, cases_of):
    cases = [(word, case) for word in words for case in cases_of(word)]
    leaves = [x for _, case in cases for x in _leaves(case.args)]
    arrays = [_to_backend(nx, x, dtype) if x.dtype == float else nx.asarray(x) for x in leaves]
    observed = _called(nx, prepare, cases, arrays, dtype)
    values = [nx.to_numpy(a).astype(x.dtype) for a, x in zip(arrays, leaves, strict=True)]
    for (word, _), xs, ys in zip(cases, observed, _by_oracle(cases, values), strict=True):
        assert len(_flat(xs)) == len(_flat(ys)), f"{word}: {len(_flat(xs))} results"
        for x, y in zip(_flat(xs), map(np.asarray, _flat(ys)), strict=True):
            assert nx.shape_of(x) == y.shape, word
            found = nx.to_numpy(x)
            if y.dtype.kind != "f":
                assert found.dtype.kind == y.dtype.kind, word
                np.testing.assert_array_equal(found, y, word)
                continue
            wanted = str(y.dtype) if word == "astype" else dtype
            assert nx.dtype_of(x) == wanted, word
            if word in ELEMENTARY:
                y = floats.overflowed(y, dtype)
                asserts.within_ulp(found, y, dtype, ACTIVATION_ULP[dtype])
            else:
                np.testing.assert_array_equal(found, floats.rounded(y, wanted), word)


FULL = ("float32", "float64")
WORDS = [word for word in VOCABULARY if word not in FACTORIZATIONS]


@pytest.mark.clause("ops.meaning")
@pytest.mark.parametrize("word", WORDS)
def test_op_means_what_numpy_means(nx, full_dtype, word):
    _judge_meaning(nx, lambda f: f, [word], full_dtype, CASES.__getitem__)


@pytest.mark.clause("ops.every-dtype")
def test_all_ops_in_one_function(nx, dtype):
    cases = CASES.__getitem__ if dtype in FULL else lambda word: CASES[word][-1:]
    _judge_meaning(nx, nx.compile, WORDS, dtype, cases)


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
    assert {nx.dtype_of(x) for x in factors} == {full_dtype}
    q, r, u, s, vh = (nx.to_numpy(x).astype(np.float64) for x in factors)
    bound = rounding.factorization(*shape[-2:], full_dtype) * np.linalg.norm(matrix)
    eye = np.eye(shape[-1])
    asserts.within(q @ r, matrix, bound)
    asserts.within(np.swapaxes(q, -1, -2) @ q, eye, bound)
    asserts.within(np.tril(r, -1), 0, 0)
    asserts.within(u * s[..., None, :] @ vh, matrix, bound)
    asserts.within(np.swapaxes(u, -1, -2) @ u, eye, bound)
    asserts.within(vh @ np.swapaxes(vh, -1, -2), eye, bound)
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
    asserts.within(vh @ vh.T, np.eye(3), bound)


@pytest.mark.clause("ops.precision")
def test_sums_and_products_keep_the_precision_of_the_dtype(nx, mode, full_dtype, prepare):
    roundings = [count for rows in INEXACT.values() for count, _ in rows]
    cases = [(word, case) for word, rows in INEXACT.items() for _, case in rows]
    values = [x.astype(full_dtype) for _, case in cases for x in _leaves(case.args)]
    observed = _called(nx, prepare, cases, map(nx.asarray, values), full_dtype)
    fractions = [_fractions(x) for x in values]
    exact = _by_oracle(cases, fractions)
    sizes = _by_oracle(cases, [np.abs(x) for x in fractions])
    for count, *results in zip(roundings, observed, exact, sizes, strict=True):
        for x, y, size in zip(*map(_flat, results), strict=True):
            error = np.abs(_fractions(nx.to_numpy(x)) - y)
            bound = rounding.gamma(count, full_dtype) * np.asarray(size, float)
            asserts.within(np.asarray(error, float), 0.0, bound)


def _fractions(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.frompyfunc(lambda v: Fraction(float(v)), 1, 1)(x), dtype=object)


# --- elementary functions -----------------------------------------------------------------------

_DIGITS = decimal.Context(prec=60, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


def _expm1(x: Decimal) -> Decimal:
    if abs(x) < Decimal("1e-12"):  # next term x**4 / 24
        return x * (1 + x / 2 * (1 + x / 3))
    return x.exp() - 1


def _log1p(x: Decimal) -> Decimal:
    if abs(x) < Decimal("1e-12"):  # next term x**4 / 4
        return x * (1 - x / 2 * (1 - x * 2 / 3))
    return (1 + x).ln()


_EXACT: dict[str, Callable[[Decimal], Decimal]] = {
    "exp": Decimal.exp,
    "expm1": _expm1,
    "log": Decimal.ln,
    "log1p": _log1p,
    "sqrt": Decimal.sqrt,
}


@functools.cache
def _elementary(word: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return normal numbers with normal results, and those: in 60 digits, float32 in float64."""
    x = floats.every_exponent(dtype)
    least = {"log": 0.0, "sqrt": 0.0, "log1p": -1.0}.get(word, -np.inf)
    x = x[x > least]
    with np.errstate(all="ignore"):
        rough = getattr(np, word)(x.astype(np.float64))
    size = np.abs(rough)
    x = x[(size >= FORMATS[dtype].smallest_normal) & (size < FORMATS[dtype].largest / 2)]
    if dtype == "float32":
        return x, getattr(np, word)(x.astype(np.float64))
    if word == "tanh":
        return x, laws.exact("tanh", x)
    with decimal.localcontext(_DIGITS):
        return x, np.frompyfunc(lambda v: _EXACT[word](Decimal(v)), 1, 1)(x)


@pytest.mark.clause("ops.elementary")
@pytest.mark.parametrize("word", ELEMENTARY)
def test_elementary_functions_at_every_exponent(nx, mode, full_dtype, prepare, word):
    x, exact = _elementary(word, full_dtype)
    with nx.scope():
        y = prepare(lambda x: getattr(nx.ops, word)(x))(nx.asarray(x))
    asserts.within_ulp(nx.to_numpy(y), exact, full_dtype, TANH_ULP[full_dtype])


@pytest.mark.clause("ops.signed-zero")
@pytest.mark.parametrize("word", ["expm1", "log1p", "sqrt", "tanh", "abs", "square"])
def test_sign_of_zero(nx, mode, dtype, prepare, word):
    x = np.resize([-0.0, 0.0], SPECIAL.shape)
    with nx.scope():
        y = nx.to_numpy(prepare(lambda x: getattr(nx.ops, word)(x))(_to_backend(nx, x, dtype)))
    expected = np.signbit(x) if word not in ("abs", "square") else np.zeros(x.shape, bool)
    assert not np.any(y)
    np.testing.assert_array_equal(np.signbit(y), expected)


@pytest.mark.clause("ops.rounding")
@pytest.mark.parametrize("source", ["float32", "float64"])
def test_astype_rounds_to_nearest_even(nx, mode, dtype, prepare, source):
    x = floats.ties(dtype).astype(source)  # numbers of the dtype, ties, and their neighbours
    with nx.scope():
        y = prepare(lambda x: nx.ops.astype(x, dtype))(nx.asarray(x))
    assert nx.dtype_of(y) == dtype
    np.testing.assert_array_equal(nx.to_numpy(y), floats.rounded(x.astype(np.float64), dtype))


@pytest.mark.clause("ops.infinite-sums")
@pytest.mark.parametrize("word", ["sum", "mean"])
def test_sums_with_infinities(nx, mode, dtype, prepare, word):
    with nx.scope():
        f = prepare(lambda x: getattr(nx.ops, word)(x, axis=1))
        y = f(_to_backend(nx, INFINITE, dtype))
    np.testing.assert_array_equal(nx.to_numpy(y), [np.nan, np.inf, -np.inf, np.nan])


@pytest.mark.clause("ops.outside-scope")
def test_words_enter_the_scope(nx, full_dtype):
    x = nx.asarray([0.0, 1e4], dtype=full_dtype)
    for made, expected in (
        (nx.ops.exp(x), [1, np.inf]),
        (nx.ops.zeros((2,), dtype=full_dtype), [0, 0]),
    ):
        assert nx.dtype_of(made) == full_dtype
        np.testing.assert_array_equal(nx.to_numpy(made), expected)
    with np.errstate(all="raise"):
        with nx.scope(), nx.scope():
            pass
        assert set(np.geterr().values()) == {"raise"}
