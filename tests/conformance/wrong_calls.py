"""Wrong calls: each with its error, and for each argument the values that it must refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from isometry.common.laws.distributions import Normal
from isometry.common.laws.initializers import VarianceScaling

__all__ = ["REFUSED", "WRONG", "array"]


def array(nx, *shape):
    """Return float32 ones of the backend."""
    return nx.asarray(np.ones(shape, np.float32))


def _batch(nx, **changes):
    """Return the arguments of a right batch norm call, some of them replaced."""
    given = {
        "x": array(nx, 4, 3),
        **{k: array(nx, 3) for k in ("scale", "shift", "mean", "variance")},
    }
    return [{**given, **changes}[k] for k in given]


CONVERT = "convert it with nx.asarray(...)"
STREAM = "; make one with nx.stream(seed) or nx.portable_stream(seed)"
SHAPES = "must have the shape (3,) of the normalized axes of x (4, 3); received (2,)"

# case -> (wrong call, message; {backend} and {dtypes} are the backend's own)
WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "dtype": (
        lambda nx: nx.asarray([1.0], dtype="float31"),
        "unknown dtype 'float31': known are {dtypes}; did you mean 'float32'?",
    ),
    "dtype of a draw": (
        lambda nx: nx.stream(0).normal((2,), dtype="int8"),
        "unknown dtype 'int8': known are {dtypes}",
    ),
    "dtype of a weight": (
        lambda nx: nx.initialize("zeros", (2, 2), nx.stream(0), dtype="int8"),
        "unknown dtype 'int8': known are {dtypes}",
    ),
    "text for numbers": (
        lambda nx: nx.asarray("hello"),
        "value must be a NumPy array, a number, or a nested list of real numbers with rows of one "
        "length; received 'hello' of type str",
    ),
    "ragged rows": (
        lambda nx: nx.asarray([[1.0], [1.0, 2.0]]),
        "value must be a NumPy array, a number, or a nested list of real numbers with rows of one "
        "length; received [[1.0], [1.0, 2.0]] of type list",
    ),
    "mixed dtypes": (
        lambda nx: nx.batch_norm(*_batch(nx, scale=nx.asarray(np.ones(3))), training=True),
        "scale must have the dtype float32 of x; received float64",
    ),
    "no scalar to differentiate": (
        lambda nx: nx.value_and_gradient(nx.sigmoid)(array(nx, 2)),
        "f must return a scalar array, of shape (); received (2,); reduce it with nx.ops.sum or "
        "nx.ops.mean",
    ),
    "foreign array": (
        lambda nx: nx.sigmoid("1.0"),
        "x must be an array of backend '{backend}'; received builtins.str; " + CONVERT,
    ),
    "a list": (
        lambda nx: nx.tanh_gradient([1.0]),
        "x must be an array of backend '{backend}'; received builtins.list; " + CONVERT,
    ),
    "activation": (
        lambda nx: nx.native_gradient("sigmoyd", array(nx, 2)),
        "unknown activation 'sigmoyd': known are sigmoid, tanh, relu, leaky_relu; "
        "did you mean 'sigmoid'?",
    ),
    "slope": (
        lambda nx: nx.leaky_relu(array(nx, 2), slope=float("nan")),
        "slope must be finite; received nan",
    ),
    "negative seed": (
        lambda nx: nx.stream(-1),
        "seed must be between 0 and 9223372036854775807; received -1",
    ),
    "large seed": (
        lambda nx: nx.portable_stream(2**63),
        "seed must be between 0 and 9223372036854775807; received 9223372036854775808",
    ),
    "seed of a wrong type": (
        lambda nx: nx.stream(1.0),
        "seed must be an integer; received 1.0 of type float",
    ),
    "negative std": (
        lambda nx: nx.stream(0).normal((2,), std=-1.0),
        "std must be at least 0; received -1",
    ),
    "infinite std": (
        lambda nx: nx.stream(0).truncated_normal((2,), std=float("inf")),
        "std must be finite; received inf",
    ),
    "std beyond the dtype": (
        lambda nx: nx.stream(0).normal((2,), std=1e39),
        "std must be at most 3.40282e+38 in size, the largest float32; received 1e+39",
    ),
    "mean beyond the dtype": (
        lambda nx: nx.stream(0).truncated_normal((2,), mean=-1e5, dtype="float16"),
        "mean must be at most 65504 in size, the largest float16; received -100000",
    ),
    "bound beyond the dtype": (
        lambda nx: nx.portable_stream(0).uniform((2,), high=1e39),
        "high must be at most 3.40282e+38 in size, the largest float32; received 1e+39",
    ),
    "bounds too far apart": (
        lambda nx: nx.stream(0).uniform((2,), low=-3e38, high=3e38),
        "high - low must be at most 3.40282e+38 in size, the largest float32; received 6e+38",
    ),
    "bounds in the wrong order": (
        lambda nx: nx.stream(0).uniform((2,), low=1.0, high=0.0),
        "low must not exceed high; received low=1, high=0",
    ),
    "empty draw": (
        lambda nx: nx.stream(0).uniform((2, 0)),
        "shape must have sizes of at least 1; received (2, 0)",
    ),
    "shape of a wrong type": (
        lambda nx: nx.stream(0).uniform(3),
        "shape must be a tuple of integers; received 3 of type int",
    ),
    "no children": (lambda nx: nx.stream(0).split(0), "count must be at least 1; received 0"),
    "initializer": (
        lambda nx: nx.initialize("he_norml", (2, 2), nx.stream(0)),
        "unknown initializer 'he_norml': known are zeros, ones, orthogonal, lecun_normal, "
        "lecun_truncated, lecun_uniform, xavier_normal, xavier_truncated, xavier_uniform, "
        "he_normal, he_truncated, he_uniform, delta_orthogonal, identity, dirac, bilinear, "
        "forget_gate_bias, embedding, rezero, skipinit; did you mean 'he_normal'?",
    ),
    "weight without fans": (
        lambda nx: nx.initialize("he_normal", (5,), nx.stream(0)),
        "fans need a weight of at least 2 dimensions; received shape (5,); "
        "for a bias choose a law without fans, such as zeros",
    ),
    "zero size": (
        lambda nx: nx.initialize("he_normal", (5, 0), nx.stream(0)),
        "shape must have sizes of at least 1; received (5, 0)",
    ),
    "layout": (
        lambda nx: nx.initialize("zeros", (2, 2), nx.stream(0), layout="out"),
        "unknown layout 'out': known are out_in, in_out; did you mean 'out_in'?",
    ),
    "negative gain": (
        lambda nx: nx.initialize(VarianceScaling(-1.0), (2, 2), nx.stream(0)),
        "gain must be at least 0; received -1",
    ),
    "no stream": (
        lambda nx: nx.initialize("zeros", (2, 2), 0),
        "stream must be a Stream; received 0 of type int" + STREAM,
    ),
    "no stream in a chain": (
        lambda nx: nx.matrix_chain(None, length=2, size=2),
        "stream must be a Stream; received None of type NoneType" + STREAM,
    ),
    "chain of length 0": (
        lambda nx: nx.matrix_chain(nx.stream(0), length=0, size=2),
        "length must be at least 1; received 0",
    ),
    "law of a chain": (
        lambda nx: nx.matrix_chain(nx.stream(0), length=2, size=2, law="he_normal"),
        "law must be a law of independent entries such as Normal(0.0, 1.0); received 'he_normal'",
    ),
    "dtype of a chain": (
        lambda nx: nx.lyapunov_spectrum(
            nx.stream(0), length=2, size=2, law=Normal(), dtype="float16"
        ),
        "unknown dtype 'float16': known are float32, float64; did you mean 'float64'?",
    ),
    "product of a wrong rank": (
        lambda nx: nx.chain_product(array(nx, 2, 2), array(nx, 3, 1, 2, 2)),
        "product must have shape (batch, n, n); received (2, 2)",
    ),
    "factors of another batch": (
        lambda nx: nx.chain_product(array(nx, 1, 2, 2), array(nx, 3, 2, 2, 2)),
        "each factor must have the product's shape (1, 2, 2); received factors of (3, 2, 2, 2)",
    ),
    "scale of another size": (
        lambda nx: nx.batch_norm(*_batch(nx, scale=array(nx, 2)), training=True),
        "scale " + SHAPES,
    ),
    "variance of another size": (
        lambda nx: nx.batch_norm(*_batch(nx, variance=array(nx, 2)), training=False),
        "variance " + SHAPES,
    ),
    "batch of one": (
        lambda nx: nx.batch_norm(*_batch(nx, x=array(nx, 1, 3)), training=True),
        "batch norm in training needs at least 2 values per channel; received x of shape (1, 3) "
        "with channel axis 1, that is 1; use a larger batch, or training=False",
    ),
    "axis": (
        lambda nx: nx.batch_norm(*_batch(nx), training=True, axis=2),
        "axis must be between -2 and 1 for an array of 2 dimensions; received 2",
    ),
    "eps": (
        lambda nx: nx.layer_norm(array(nx, 4, 3), array(nx, 3), array(nx, 3), eps=0.0),
        "eps must be greater than 0; received 0",
    ),
    "momentum": (
        lambda nx: nx.batch_norm(*_batch(nx), training=True, momentum=1.5),
        "momentum must be between 0 and 1; received 1.5",
    ),
    "momentum weights": (
        lambda nx: nx.batch_norm(*_batch(nx), training=True, momentum_weights="old"),
        "unknown momentum_weights 'old': known are running, batch",
    ),
    "running variance": (
        lambda nx: nx.batch_norm(*_batch(nx), training=True, running_variance="none"),
        "unknown running_variance 'none': known are biased, unbiased",
    ),
    "shift of layer norm": (
        lambda nx: nx.layer_norm(array(nx, 4, 3), array(nx, 3), array(nx, 2)),
        "shift " + SHAPES,
    ),
    "eps of a wrong type": (
        lambda nx: nx.batch_norm(*_batch(nx), training=True, eps="1e-5"),
        "eps must be a real number; received '1e-5' of type str",
    ),
    "infinite eps": (
        lambda nx: nx.batch_norm(*_batch(nx), training=False, eps=float("inf")),
        "eps must be finite; received inf",
    ),
    "negative momentum": (
        lambda nx: nx.batch_norm(*_batch(nx), training=True, momentum=-0.1),
        "momentum must be at least 0; received -0.1",
    ),
    "axis of a wrong type": (
        lambda nx: nx.layer_norm(array(nx, 4, 3), array(nx, 3), array(nx, 3), axis=1.0),
        "axis must be an integer; received 1.0 of type float",
    ),
    "axis of layer norm": (
        lambda nx: nx.layer_norm(array(nx, 4, 3), array(nx, 3), array(nx, 3), axis=-3),
        "axis must be between -2 and 1 for an array of 2 dimensions; received -3",
    ),
    "slope of a wrong type": (
        lambda nx: nx.leaky_relu_gradient(array(nx, 2), slope=None),
        "slope must be a real number; received None of type NoneType",
    ),
    "factors of a wrong rank": (
        lambda nx: nx.chain_product(array(nx, 1, 2, 2), array(nx, 1, 2, 2)),
        "factors must have shape (steps, batch, n, n); received (1, 2, 2)",
    ),
    "factors that are not square": (
        lambda nx: nx.chain_product(array(nx, 1, 2, 2), array(nx, 3, 1, 2, 3)),
        "factors must have shape (steps, batch, n, n); received (3, 1, 2, 3)",
    ),
    "factors of another dtype": (
        lambda nx: nx.chain_product(array(nx, 1, 2, 2), nx.asarray(np.ones((3, 1, 2, 2)))),
        "factors must have the dtype float32 of product; received float64",
    ),
    "size of a chain": (
        lambda nx: nx.matrix_chain(nx.stream(0), length=2, size=True),
        "size must be an integer; received True of type bool",
    ),
    "batch of chains": (
        lambda nx: nx.lyapunov_spectrum(nx.stream(0), length=2, size=2, batch=0),
        "batch must be at least 1; received 0",
    ),
    "no function for vjp": (
        lambda nx: nx.vjp("f", array(nx, 2)),
        "f must be a function; received 'f' of type str",
    ),
    "no array to differentiate": (
        lambda nx: nx.value_and_gradient(lambda x: 1.0)(array(nx, 2)),
        "f must return a scalar array, of shape (); received float; reduce it with nx.ops.sum or "
        "nx.ops.mean",
    ),
    "no function": (
        lambda nx: nx.value_and_gradient(3),
        "f must be a function; received 3 of type int",
    ),
    "nothing to compile": (
        lambda nx: nx.compile(None),
        "f must be a function; received None of type NoneType",
    ),
}  # fmt: skip


# --- wrong values, drawn ------------------------------------------------------------------------

NO_NUMBERS = st.one_of(st.none(), st.text(max_size=3), st.booleans(), st.just([1.0]))
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
NO_INTEGERS = st.one_of(NO_NUMBERS, st.floats())
NAMES = st.text("abcdefgh12_", max_size=8)


def _layer(nx, **options):
    return nx.layer_norm(array(nx, 4, 3), array(nx, 3), array(nx, 3), **options)


def _trained(nx, **options):
    return nx.batch_norm(*_batch(nx), training=True, **options)


# argument -> wrong values of it, and the calls that must refuse them
REFUSED: dict[str, tuple[st.SearchStrategy[Any], list[Callable[[Any, Any], Any]]]] = {
    "eps": (
        NO_NUMBERS | NOT_FINITE | st.floats(max_value=0),
        [lambda nx, v: _layer(nx, eps=v), lambda nx, v: _trained(nx, eps=v)],
    ),
    "momentum": (
        NO_NUMBERS | NOT_FINITE | st.floats(max_value=-1e-9) | st.floats(min_value=1 + 1e-9),
        [lambda nx, v: _trained(nx, momentum=v)],
    ),
    "axis": (
        NO_INTEGERS | st.integers(min_value=2) | st.integers(max_value=-3),
        [lambda nx, v: _layer(nx, axis=v), lambda nx, v: _trained(nx, axis=v)],
    ),
    "momentum_weights": (NAMES, [lambda nx, v: _trained(nx, momentum_weights=v)]),
    "running_variance": (NAMES, [lambda nx, v: _trained(nx, running_variance=v)]),
    "slope": (
        NO_NUMBERS | NOT_FINITE,
        [
            lambda nx, v: nx.leaky_relu(array(nx, 2), slope=v),
            lambda nx, v: nx.leaky_relu_gradient(array(nx, 2), slope=v),
        ],
    ),
    "activation": (NAMES, [lambda nx, v: nx.native_gradient(v, array(nx, 2))]),
    "dtype": (
        NAMES,
        [
            lambda nx, v: nx.asarray([1.0], dtype=v),
            lambda nx, v: nx.stream(0).normal((2,), dtype=v),
            lambda nx, v: nx.portable_stream(0).uniform((2,), dtype=v),
            lambda nx, v: nx.initialize("zeros", (2, 2), nx.stream(0), dtype=v),
        ],
    ),
    "seed": (
        NO_INTEGERS | st.integers(max_value=-1) | st.integers(min_value=2**63),
        [lambda nx, v: nx.stream(v), lambda nx, v: nx.portable_stream(v)],
    ),
    "std": (
        NO_NUMBERS | NOT_FINITE | st.floats(max_value=-1e-9) | st.floats(min_value=1e39),
        [
            lambda nx, v: nx.stream(0).normal((2,), std=v),
            lambda nx, v: nx.portable_stream(0).truncated_normal((2,), std=v),
        ],
    ),
    "shape": (
        NO_NUMBERS.filter(lambda v: not isinstance(v, list))
        | st.tuples(st.integers(max_value=0))
        | st.tuples(st.integers(1, 3), NO_INTEGERS),
        [
            lambda nx, v: nx.stream(0).uniform(v),
            lambda nx, v: nx.initialize("zeros", v, nx.stream(0)),
        ],
    ),
    "length": (
        NO_INTEGERS | st.integers(max_value=0),
        [
            lambda nx, v: nx.matrix_chain(nx.stream(0), length=v, size=2),
            lambda nx, v: nx.lyapunov_spectrum(nx.stream(0), length=v, size=2),
        ],
    ),
}
