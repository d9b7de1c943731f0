"""Batch and layer normalization against the float64 reference: conventions, gradients, bounds."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.common.laws import normalization as laws
from isometry.conformance import asserts

RATIOS = (1.0, 1e3, 1e6)
EPS = 1e-5
# (shape, axis of the channels)
BATCH_SHAPES = [((64, 5), 1), ((8, 3, 4, 2), 1), ((8, 4, 2, 3), -1)]
# (shape, first normalized axis)
LAYER_SHAPES = [((6, 32), -1), ((2, 3, 8, 4), 1), ((2, 3, 8, 4), -2)]


def _wave(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Deterministic values of mean near 0 and variance near 1, without structure."""
    return np.sqrt(2) * np.sin(np.arange(np.prod(shape)) ** 2 * 0.7 + seed).reshape(shape)


def _batch_arguments(shape, axis, dtype, ratio=1.0):
    channels = shape[axis]
    arrays = (
        _wave(shape, 1) + ratio,
        1 + 0.1 * _wave((channels,), 2),
        0.3 * _wave((channels,), 3),
        _wave((channels,), 4),
        1.5 + 0.2 * _wave((channels,), 5),
    )
    return [a.astype(dtype) for a in arrays]


def _within(observed, expected, bound, name):
    """The bound is that of outputs of size 1; gradients and statistics scale with their size."""
    assert observed.shape == expected.shape, name
    asserts.within(observed, expected, bound * max(1.0, np.abs(expected).max()))


@pytest.mark.clause("normalization.batch")
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(("shape", "axis"), BATCH_SHAPES, ids=str)
def test_batch_norm_against_the_reference(nx, mode, full_dtype, prepare, shape, axis, training):
    arguments = _batch_arguments(shape, axis, full_dtype)
    f = prepare(lambda *a: nx.batch_norm(*a, training=training, axis=axis, eps=1e-3))
    observed = f(*map(nx.asarray, arguments))
    expected = laws.batch_norm(*arguments, training=training, axis=axis, eps=1e-3)
    bound = laws.normalization_bound(full_dtype)
    for name, x, y in zip(("y", "mean", "variance"), observed, expected, strict=True):
        assert nx.dtype_of(x) == full_dtype
        _within(nx.to_numpy(x), y, bound, name)


@pytest.mark.clause("normalization.conventions")
@pytest.mark.parametrize("running_variance", ["biased", "unbiased"])
@pytest.mark.parametrize("momentum_weights", ["running", "batch"])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_conventions_of_running_statistics(
    nx, full_dtype, momentum, momentum_weights, running_variance
):
    shape, axis = (8, 3), 1  # few values per channel: n and n - 1 differ by 14 %
    arguments = _batch_arguments(shape, axis, full_dtype)
    options = {
        "training": True,
        "momentum": momentum,
        "momentum_weights": momentum_weights,
        "running_variance": running_variance,
    }
    _, mean, variance = nx.batch_norm(*map(nx.asarray, arguments), **options)
    _, expected_mean, expected_variance = laws.batch_norm(*arguments, **options)
    bound = laws.normalization_bound(full_dtype)
    _within(nx.to_numpy(mean), expected_mean, bound, "mean")
    _within(nx.to_numpy(variance), expected_variance, bound, "variance")


@pytest.mark.clause("normalization.inference-statistics")
def test_inference_returns_the_statistics_as_given(nx, full_dtype):
    arguments = _batch_arguments((4, 3), 1, full_dtype)
    _, mean, variance = nx.batch_norm(*map(nx.asarray, arguments), training=False)
    asserts.same_bits(nx.to_numpy(mean), arguments[3])
    asserts.same_bits(nx.to_numpy(variance), arguments[4])


@pytest.mark.clause("normalization.one-axis")
def test_inference_on_channels_alone(nx, full_dtype):
    arguments = _batch_arguments((40,), 0, full_dtype)
    y, _, _ = nx.batch_norm(*map(nx.asarray, arguments), training=False, axis=0)
    expected, _, _ = laws.batch_norm(*arguments, training=False, axis=0)
    _within(nx.to_numpy(y), expected, laws.normalization_bound(full_dtype), "y")


@pytest.mark.clause("normalization.layer")
@pytest.mark.parametrize(("shape", "axis"), LAYER_SHAPES, ids=str)
def test_layer_norm_against_the_reference(nx, mode, full_dtype, prepare, shape, axis):
    x, scale, shift = (
        a.astype(full_dtype)
        for a in (_wave(shape, 1), 1 + 0.1 * _wave(shape[axis:], 2), _wave(shape[axis:], 3))
    )
    y = prepare(lambda *a: nx.layer_norm(*a, axis=axis))(*map(nx.asarray, (x, scale, shift)))
    assert nx.dtype_of(y) == full_dtype
    expected = laws.layer_norm(x, scale, shift, axis=axis)
    _within(nx.to_numpy(y), expected, laws.normalization_bound(full_dtype), "y")


@pytest.mark.clause("normalization.conditioning")
@pytest.mark.parametrize("ratio", RATIOS, ids="{:g}".format)
@pytest.mark.parametrize("layer", ["batch_norm", "layer_norm"])
def test_output_far_from_zero(nx, mode, full_dtype, prepare, layer, ratio):
    x = (_wave((256, 8), 1) + ratio).astype(full_dtype)
    one, zero = np.ones(8, full_dtype), np.zeros(8, full_dtype)
    if layer == "batch_norm":
        f = prepare(lambda *a: nx.batch_norm(*a, training=True)[0])
        y = f(*map(nx.asarray, (x, one, zero, zero, one)))
        expected = laws.batch_norm(x, one, zero, zero, one, training=True)[0]
    else:
        y = prepare(nx.layer_norm)(*map(nx.asarray, (x, one, zero)))
        expected = laws.layer_norm(x, one, zero)
    asserts.within(nx.to_numpy(y), expected, laws.normalization_bound(full_dtype))


@pytest.mark.clause("normalization.batch-gradient")
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(("shape", "axis"), BATCH_SHAPES, ids=str)
def test_batch_norm_gradients(nx, mode, full_dtype, prepare, shape, axis, training):
    x, scale, shift, mean, variance = _batch_arguments(shape, axis, full_dtype)
    dy = _wave(shape, 9).astype(full_dtype)
    f = prepare(lambda *a: nx.batch_norm(*a, training=training, axis=axis, eps=EPS)[0])

    def loss(parameters, mean, variance, dy):
        y = f(*(parameters[k] for k in ("x", "scale", "shift")), mean, variance)
        return nx.ops.sum(y * dy)

    parameters = {"x": nx.asarray(x), "scale": nx.asarray(scale), "shift": nx.asarray(shift)}
    with nx.scope():
        _, gradient = nx.value_and_gradient(loss)(
            parameters, *map(nx.asarray, (mean, variance, dy))
        )
    expected = laws.batch_norm_backward(
        dy, x, scale, mean, variance, training=training, axis=axis, eps=EPS
    )
    bound = laws.normalization_bound(full_dtype)
    for name, y in zip(parameters, expected, strict=True):
        _within(nx.to_numpy(gradient[name]), y, bound, name)


@pytest.mark.clause("normalization.layer-gradient")
@pytest.mark.parametrize(("shape", "axis"), LAYER_SHAPES, ids=str)
def test_layer_norm_gradients(nx, mode, full_dtype, prepare, shape, axis):
    inner = shape[axis:]
    x, scale, shift, dy = (
        a.astype(full_dtype)
        for a in (_wave(shape, 1), 1 + 0.1 * _wave(inner, 2), _wave(inner, 3), _wave(shape, 9))
    )
    f = prepare(lambda *a: nx.layer_norm(*a, axis=axis, eps=EPS))

    def loss(parameters, dy):
        return nx.ops.sum(f(*(parameters[k] for k in ("x", "scale", "shift"))) * dy)

    parameters = {"x": nx.asarray(x), "scale": nx.asarray(scale), "shift": nx.asarray(shift)}
    with nx.scope():
        _, gradient = nx.value_and_gradient(loss)(parameters, nx.asarray(dy))
    expected = laws.layer_norm_backward(dy, x, scale, axis=axis, eps=EPS)
    bound = laws.normalization_bound(full_dtype)
    for name, y in zip(parameters, expected, strict=True):
        _within(nx.to_numpy(gradient[name]), y, bound, name)


@pytest.mark.clause("normalization.statistics-gradient")
def test_no_gradient_flows_through_the_statistics(nx, full_dtype):
    x, *rest = _batch_arguments((8, 3), 1, full_dtype)
    others = [nx.asarray(a) for a in rest]

    def loss(x):
        _, mean, variance = nx.batch_norm(x, *others, training=True)
        return nx.ops.sum(x) + nx.ops.sum(mean) + nx.ops.sum(variance)

    with nx.scope():
        _, gradient = nx.value_and_gradient(loss)(nx.asarray(x))
    np.testing.assert_array_equal(nx.to_numpy(gradient), np.ones_like(x))
