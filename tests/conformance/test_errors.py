"""The same wrong call gives the same error on every backend: class and message."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Normal
from isometry.common.laws.initializers import VarianceScaling


def _x(nx, *shape):
    return nx.asarray(np.ones(shape, np.float32))


def _batch(nx, **changes):
    """Return the arguments of a right batch norm call, some of them replaced."""
    given = {"x": _x(nx, 4, 3), **{k: _x(nx, 3) for k in ("scale", "shift", "mean", "variance")}}
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
        lambda nx: nx.value_and_gradient(nx.sigmoid)(_x(nx, 2)),
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
        lambda nx: nx.native_gradient("sigmoyd", _x(nx, 2)),
        "unknown activation 'sigmoyd': known are sigmoid, tanh, relu, leaky_relu; "
        "did you mean 'sigmoid'?",
    ),
    "slope": (
        lambda nx: nx.leaky_relu(_x(nx, 2), slope=float("nan")),
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
        "he_normal, he_truncated, he_uniform; did you mean 'he_normal'?",
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
        lambda nx: nx.chain_product(_x(nx, 2, 2), _x(nx, 3, 1, 2, 2)),
        "product must have shape (batch, n, n); received (2, 2)",
    ),
    "factors of another batch": (
        lambda nx: nx.chain_product(_x(nx, 1, 2, 2), _x(nx, 3, 2, 2, 2)),
        "each factor must have the product's shape (1, 2, 2); received factors of (3, 2, 2, 2)",
    ),
    "scale of another size": (
        lambda nx: nx.batch_norm(*_batch(nx, scale=_x(nx, 2)), training=True),
        "scale " + SHAPES,
    ),
    "variance of another size": (
        lambda nx: nx.batch_norm(*_batch(nx, variance=_x(nx, 2)), training=False),
        "variance " + SHAPES,
    ),
    "batch of one": (
        lambda nx: nx.batch_norm(*_batch(nx, x=_x(nx, 1, 3)), training=True),
        "batch norm in training needs at least 2 values per channel; received x of shape (1, 3) "
        "with channel axis 1, that is 1; use a larger batch, or training=False",
    ),
    "axis": (
        lambda nx: nx.batch_norm(*_batch(nx), training=True, axis=2),
        "axis must be between -2 and 1 for an array of 2 dimensions; received 2",
    ),
    "eps": (
        lambda nx: nx.layer_norm(_x(nx, 4, 3), _x(nx, 3), _x(nx, 3), eps=0.0),
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
        lambda nx: nx.layer_norm(_x(nx, 4, 3), _x(nx, 3), _x(nx, 2)),
        "shift " + SHAPES,
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


@pytest.mark.clause("errors.same")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_call_gives_the_common_error(nx, case):
    call, message = WRONG[case]
    message = message.format(backend=nx.name, dtypes=", ".join(nx.dtypes))
    with pytest.raises(InvalidArgument) as caught:
        call(nx)
    assert str(caught.value) == message  # not match=, which reads the notes that JAX adds as well


@pytest.mark.clause("errors.device")
def test_unknown_device(nx):
    with pytest.raises(InvalidArgument, match=r"device 'abacus'.*cpu"):
        type(nx)(device="abacus")


@pytest.mark.clause("errors.integer-array")
def test_integer_array_is_refused(nx):
    x = nx.asarray(np.arange(3, dtype=np.int32))
    message = f"x must have one of the dtypes {', '.join(nx.dtypes)}; received int32"
    with pytest.raises(InvalidArgument, match=f"^{re.escape(message)}$"):
        nx.sigmoid(x)


@pytest.mark.clause("errors.split-compiled")
def test_a_stream_inside_a_compiled_function_cannot_be_split(nx):
    def f(stream):
        (child,) = stream.split(1)
        return child.normal((2,))

    if "compiled" not in nx.capabilities:
        assert nx.shape_of(nx.compile(f)(nx.stream(0))) == (2,)
        return
    message = (
        "a stream cannot be split inside a compiled function; split it outside and pass a part"
    )
    with pytest.raises(InvalidArgument, match=f"^{re.escape(message)}"):  # JAX adds a note
        nx.compile(f)(nx.stream(0))


@pytest.mark.clause("errors.options-by-name")
def test_arrays_by_position_and_options_by_name(nx):
    x = _x(nx, 2)
    with pytest.raises(TypeError, match="positional"):
        nx.sigmoid(x=x)
    with pytest.raises(TypeError, match="positional"):
        nx.leaky_relu(x, 0.1)
    with pytest.raises(TypeError, match="unexpected keyword"):
        nx.relu(x, slope=0.1)
