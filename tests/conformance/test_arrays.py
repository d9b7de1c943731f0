"""Arrays: in from NumPy, out to NumPy, and never changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isometry.common.contract import ACTIVATIONS, Backend


@pytest.mark.clause("arrays.round-trip")
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 1)])
def test_values_dtype_and_shape_survive(nx, dtype, shape):
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) - 1.5
    x = nx.asarray(values, dtype=dtype)
    assert nx.is_array(x)
    assert nx.dtype_of(x) == dtype
    assert nx.shape_of(x) == shape
    back = nx.to_numpy(x)
    assert back.dtype == np.dtype("float32" if dtype == "bfloat16" else dtype)
    np.testing.assert_array_equal(back, values)


@pytest.mark.clause("arrays.default-dtype")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, "float32"),
        (2, "float32"),
        ([1.0, 2.0], "float32"),
        ([[1, 2], [3, 4]], "float32"),
        (np.ones(2, np.float16), "float16"),
        (np.ones(2, np.float64), "float64"),
        (np.float64(1), "float64"),
    ],
    ids=repr,
)
def test_default_dtype(nx, value, expected):
    x = nx.asarray(value)
    assert nx.dtype_of(x) == expected
    np.testing.assert_array_equal(nx.to_numpy(x), value)


@pytest.mark.clause("arrays.copies")
def test_arrays_are_copied_both_ways(nx, full_dtype):
    source = np.array([1.0, 2.0], full_dtype)
    x = nx.asarray(source)
    source[0] = 7
    out = nx.to_numpy(x)
    out[1] = 7
    np.testing.assert_array_equal(nx.to_numpy(x), [1.0, 2.0])


@pytest.mark.clause("arrays.foreign")
@pytest.mark.parametrize("value", [1.0, [1.0], "x", None], ids=repr)
def test_other_values_are_no_arrays(nx, value):
    assert not nx.is_array(value)


def _deterministic_calls(nx: Backend) -> dict[str, tuple[Callable[..., Any], list[np.ndarray]]]:
    x = np.linspace(-3, 3, 24).reshape(4, 6)
    channels = [np.linspace(1, 2, 6) for _ in range(4)]
    calls: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
        name: (getattr(nx, name), [x])
        for activation in ACTIVATIONS
        for name in (activation, f"{activation}_gradient")
    }
    for name in ACTIVATIONS:
        calls[f"native {name}"] = (lambda x, name=name: nx.native_gradient(name, x), [x])
    for rescale in (False, True):
        calls[f"chain_product {rescale}"] = (
            lambda p, f, rescale=rescale: nx.chain_product(p, f, rescale=rescale),
            [np.ones((2, 3, 3)), np.ones((4, 2, 3, 3))],
        )
    for training in (False, True):
        calls[f"batch_norm {training}"] = (
            lambda *a, training=training: nx.batch_norm(*a, training=training),
            [x, *channels],
        )
    calls["layer_norm"] = (nx.layer_norm, [x, *channels[:2]])
    calls["vjp"] = (lambda x, v: nx.vjp(nx.tanh, x)[1](v), [x, x])
    calls["value_and_gradient"] = (
        lambda x: nx.value_and_gradient(lambda x: nx.ops.sum(nx.sigmoid(x)))(x),
        [x],
    )
    return calls


@pytest.mark.clause("arrays.no-mutation")
def test_no_operation_changes_its_arguments(nx, full_dtype):
    for name, (call, values) in _deterministic_calls(nx).items():
        arrays = [nx.asarray(v.astype(full_dtype)) for v in values]
        call(*arrays)
        for array, value in zip(arrays, values, strict=True):
            after = nx.to_numpy(array)
            assert np.array_equal(after, value.astype(full_dtype)), f"{name} changed its argument"
