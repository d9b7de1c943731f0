"""Normalization of examples against the float64 reference: conventions, gradients, bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.common.errors import InvalidArgument
from isometry.common.laws import normalization as laws
from isometry.common.statistics import rounding
from isometry.common.statistics.tolerances import ACTIVATION_ULP
from isometry.conformance import asserts
from isometry.conformance.examples import EXAMPLES
from isometry.conformance.waves import wave, within_size

RATIOS = (1.0, 1e3, 1e6)
EPS = 0.5  # as large as the variance: a derivative that forgets it shows
# few shapes, which the layers have in common: JAX compiles each call once a shape
IMAGES = (2, 3, 4, 8)
# (shape, axis of the channels); the last for values alone: the gradients of the others add up
# over one axis and over several
BATCH_SHAPES = [((256, 8), 1), (IMAGES, -1), (IMAGES, 1)]
# (shape, first normalized axis); the last for values alone, as the second has several axes on
# either side
LAYER_SHAPES = [((8, 256), -1), (IMAGES, -2), ((4, 6), 0), (IMAGES, 1)]
# (shape, axis of the channels, groups); as many as channels is instance norm
GROUP_SHAPES = [((32, 8, 8), 1, 4), (IMAGES, -1, 2), ((32, 8, 8), 1, 8)]


def _batch_arguments(shape, axis, dtype, ratio=1.0):
    channels = shape[axis]
    arrays = (
        wave(shape, 1) + ratio,
        1 + 0.1 * wave((channels,), 2),
        0.3 * wave((channels,), 3),
        wave((channels,), 4),
        1.5 + 0.2 * wave((channels,), 5),
    )
    return [a.astype(dtype) for a in arrays]


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
        within_size(nx.to_numpy(x), y, bound, name)


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
    within_size(nx.to_numpy(mean), expected_mean, bound, "mean")
    within_size(nx.to_numpy(variance), expected_variance, bound, "variance")


@pytest.mark.clause("normalization.inference-statistics")
def test_inference_returns_the_statistics_as_given(nx, full_dtype):
    arguments = _batch_arguments(*BATCH_SHAPES[0], full_dtype)
    _, mean, variance = nx.batch_norm(*map(nx.asarray, arguments), training=False)
    asserts.same_bits(nx.to_numpy(mean), arguments[3])
    asserts.same_bits(nx.to_numpy(variance), arguments[4])


@pytest.mark.clause("normalization.one-axis")
def test_inference_on_channels_alone(nx, full_dtype):
    arguments = _batch_arguments((40,), 0, full_dtype)
    y, _, _ = nx.batch_norm(*map(nx.asarray, arguments), training=False, axis=0)
    expected, _, _ = laws.batch_norm(*arguments, training=False, axis=0)
    within_size(nx.to_numpy(y), expected, laws.normalization_bound(full_dtype), "y")


@pytest.mark.clause("normalization.layer")
@pytest.mark.parametrize(("shape", "axis"), LAYER_SHAPES, ids=str)
def test_layer_norm_against_the_reference(nx, mode, full_dtype, prepare, shape, axis):
    x, scale, shift = (
        a.astype(full_dtype)
        for a in (wave(shape, 1), 1 + 0.1 * wave(shape[axis:], 2), wave(shape[axis:], 3))
    )
    y = prepare(lambda *a: nx.layer_norm(*a, axis=axis))(*map(nx.asarray, (x, scale, shift)))
    assert nx.dtype_of(y) == full_dtype
    expected = laws.layer_norm(x, scale, shift, axis=axis)
    within_size(nx.to_numpy(y), expected, laws.normalization_bound(full_dtype), "y")


def _far(ratio: float, layer: str) -> np.ndarray:
    """Return 8 columns (batch norm) or rows of 256, each with a mean of its own near +-ratio."""
    means = ratio * (-1) ** np.arange(8) * np.linspace(0.75, 1, 8)
    columns = wave((256, 8), 1) + means
    return columns.T.copy() if layer == "layer_norm" else columns


@pytest.mark.clause("normalization.conditioning")
@pytest.mark.parametrize("layer", ["batch_norm", "layer_norm"])
def test_output_far_from_zero(nx, mode, full_dtype, prepare, layer):
    size = 256 if layer == "layer_norm" else 8
    one, zero = np.ones(size, full_dtype), np.zeros(size, full_dtype)
    bound = laws.normalization_bound(full_dtype)
    options = {"training": True, "momentum": 0.0}
    f = prepare(nx.layer_norm if layer == "layer_norm" else lambda *a: nx.batch_norm(*a, **options))
    for ratio in RATIOS:
        x = _far(ratio, layer).astype(full_dtype)
        if layer == "layer_norm":
            y = f(*map(nx.asarray, (x, one, zero)))
            asserts.within(nx.to_numpy(y), laws.layer_norm(x, one, zero), bound)
            continue
        y, mean, variance = map(nx.to_numpy, f(*map(nx.asarray, (x, one, zero, zero, one))))
        expected = laws.batch_norm(x, one, zero, zero, one, **options)
        asserts.within(y, expected[0], bound)
        # the mean of what is left is then far below a unit of the whole
        budget = ACTIVATION_ULP[full_dtype] if ratio == 1 else 1
        asserts.within_ulp(mean, expected[1], full_dtype, budget)
        asserts.within(variance, expected[2], bound * expected[2])


@pytest.mark.clause("normalization.many-rows")
def test_batch_norm_of_many_rows(nx):
    """Numbers added up in order lose three digits in 20,000."""
    channels = [np.array(v, "f4") for v in ([1.0, 0.5], [-0.5, 1.0], [0.0, 0.0], [1.0, 1.0])]
    # where all squares are the same, their sum is rounded the same way each time
    x = np.stack([wave((20_000,), 1) - 1e6, np.resize([1.05, -1.05], 20_000)], 1).astype("f4")
    options = {"training": True, "eps": 0.5}
    y, mean, variance = nx.batch_norm(*map(nx.asarray, (x, *channels)), **options)
    expected = laws.batch_norm(x, *channels, **options)
    bound = laws.normalization_bound()
    for observed, right in zip((y, mean, variance), expected, strict=True):
        assert nx.dtype_of(observed) == "float32"
        asserts.within(nx.to_numpy(observed), right, bound * np.maximum(1.0, np.abs(right)))


@pytest.mark.clause("normalization.conditioning-gradient")
@pytest.mark.parametrize("layer", ["batch_norm", "layer_norm"])
def test_gradients_far_from_zero(nx, mode, full_dtype, prepare, layer):
    shape = BATCH_SHAPES[0][0] if layer == "batch_norm" else LAYER_SHAPES[0][0]
    scale, shift, dy = (
        a.astype(full_dtype)
        for a in (1 + 0.1 * wave(shape[1:], 2), wave(shape[1:], 3), wave(shape, 9))
    )
    if layer == "batch_norm":
        axis, others = 0, (shift, scale)
        f = prepare(lambda *a: nx.batch_norm(*a, training=True)[0])
    else:
        axis, others = -1, ()
        f = prepare(nx.layer_norm)
    single = laws.normalization_bound("float32")
    unit = laws.normalization_bound(full_dtype) / single
    for ratio in RATIOS:
        x = _far(ratio, layer).astype(full_dtype)
        if layer == "batch_norm":
            expected = laws.batch_norm_backward(dy, x, scale, *others, training=True)
        else:
            expected = laws.layer_norm_backward(dy, x, scale)
        gradient = _gradients(nx, f, (x, scale, shift), dy, *others)
        bounds = rounding.normalization_gradient(x, dy, scale, axis=axis, eps=1e-5, output=single)
        for y, exact, bound in zip(gradient, expected, bounds, strict=True):
            asserts.within(y, exact, unit * bound)


def _gradients(nx, f, arrays, dy, *others):
    """Return the gradients of ``sum(f(x, scale, shift, *others) dy)`` in x, scale and shift."""
    names = ("x", "scale", "shift")[: len(arrays)]

    def loss(parameters, dy, *others):
        return nx.ops.sum(f(*(parameters[k] for k in names), *others) * dy)

    parameters = dict(zip(names, map(nx.asarray, arrays), strict=True))
    with nx.scope():
        _, gradient = nx.value_and_gradient(loss)(parameters, *map(nx.asarray, (dy, *others)))
    assert {nx.dtype_of(g) for g in gradient.values()} == {str(dy.dtype)}
    return [nx.to_numpy(gradient[k]) for k in parameters]


@pytest.mark.clause("normalization.batch-gradient")
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(("shape", "axis"), BATCH_SHAPES[:2], ids=str)
def test_batch_norm_gradients(nx, mode, full_dtype, prepare, shape, axis, training):
    x, scale, shift, mean, variance = _batch_arguments(shape, axis, full_dtype)
    dy = wave(shape, 9).astype(full_dtype)
    f = prepare(lambda *a: nx.batch_norm(*a, training=training, axis=axis, eps=EPS)[0])
    gradient = _gradients(nx, f, (x, scale, shift), dy, mean, variance)
    expected = laws.batch_norm_backward(
        dy, x, scale, mean, variance, training=training, axis=axis, eps=EPS
    )
    bound = laws.normalization_bound(full_dtype)
    for name, y, exact in zip(("x", "scale", "shift"), gradient, expected, strict=True):
        within_size(y, exact, bound, name)


@pytest.mark.clause("normalization.layer-gradient")
@pytest.mark.parametrize(("shape", "axis"), LAYER_SHAPES[:3], ids=str)
def test_layer_norm_gradients(nx, mode, full_dtype, prepare, shape, axis):
    inner = shape[axis:]
    x, scale, shift, dy = (
        a.astype(full_dtype)
        for a in (wave(shape, 1), 1 + 0.1 * wave(inner, 2), wave(inner, 3), wave(shape, 9))
    )
    f = prepare(lambda *a: nx.layer_norm(*a, axis=axis, eps=EPS))
    gradient = _gradients(nx, f, (x, scale, shift), dy)
    expected = laws.layer_norm_backward(dy, x, scale, axis=axis, eps=EPS)
    bound = laws.normalization_bound(full_dtype)
    for name, y, exact in zip(("x", "scale", "shift"), gradient, expected, strict=True):
        within_size(y, exact, bound, name)


@pytest.mark.clause("normalization.statistics-gradient")
def test_no_gradient_flows_through_the_statistics(nx, full_dtype):
    names = ("x", "scale", "shift", "mean", "variance")
    arrays = dict(zip(names, _batch_arguments((8, 3), 1, full_dtype), strict=True))

    def loss(parameters):
        _, mean, variance = nx.batch_norm(*(parameters[k] for k in names), training=True)
        return nx.ops.sum(parameters["x"]) + nx.ops.sum(mean) + nx.ops.sum(variance)

    with nx.scope():
        _, gradient = nx.value_and_gradient(loss)({k: nx.asarray(v) for k, v in arrays.items()})
    for name, array in arrays.items():
        expected = np.full_like(array, 1 if name == "x" else 0)
        np.testing.assert_array_equal(nx.to_numpy(gradient[name]), expected, name)


@pytest.mark.clause("normalization.jvp")
@pytest.mark.parametrize("layer", ["batch_norm", "layer_norm"])
def test_forward_mode(nx, layer):
    (shape, axis), dtype = (BATCH_SHAPES if layer == "batch_norm" else LAYER_SHAPES)[0], "float32"
    x, scale, shift, mean, variance = _batch_arguments(shape, axis, dtype)
    tangent = wave(shape, 9).astype(dtype)
    options = {"axis": axis, "eps": EPS}
    if layer == "batch_norm":  # its Jacobian is symmetric: a channel has one scale
        options["training"] = True
        f, others = lambda *a: nx.batch_norm(*a, **options)[0], (scale, shift, mean, variance)
        exact, _, _ = laws.batch_norm_backward(tangent, x, scale, mean, variance, **options)
    else:  # the symmetric one of the normalized x, then the scale
        f, others = lambda *a: nx.layer_norm(*a, **options), (scale, shift)
        exact, _, _ = laws.layer_norm_backward(tangent, x, np.ones_like(scale), **options)
        exact = scale * exact
    fixed = [nx.asarray(a) for a in others]
    change = asserts.change(nx, lambda x: f(x, *fixed), x, tangent)
    if change is not None:
        within_size(change, exact, laws.normalization_bound(dtype), "change")


# --- small variances, small batches, any shape --------------------------------------------------


@pytest.mark.clause("normalization.eps")
@pytest.mark.parametrize("eps", [1e-3, 1.0], ids="{:g}".format)
def test_variance_from_nothing_to_more_than_eps(nx, full_dtype, eps):
    """Column k varies by 10**-k around 3; the last three do not vary at all."""
    size = np.array([1.0, 1e-1, 1e-2, 1e-3, 1e-4, 0.0, 0.0, 0.0])
    x = (3 + size * wave((256, 1), 1)).astype(full_dtype)
    one, zero, three = (np.full(8, v, full_dtype) for v in (1, 0, 3))
    bound = laws.normalization_bound(full_dtype)
    arrays = (x, one, zero, three, (size**2).astype(full_dtype))
    for training in (True, False):
        options = {"training": training, "eps": eps}
        y, _, _ = nx.batch_norm(*map(nx.asarray, arrays), **options)
        asserts.within(nx.to_numpy(y), laws.batch_norm(*arrays, **options)[0], bound)
    rows = np.ascontiguousarray(x.T), np.ones(256, full_dtype), np.zeros(256, full_dtype)
    y = nx.layer_norm(*map(nx.asarray, rows), eps=eps)
    asserts.within(nx.to_numpy(y), laws.layer_norm(*rows, eps=eps), bound)
    dy = wave(rows[0].shape, 9).astype(full_dtype)
    gradient = _gradients(nx, lambda *a: nx.layer_norm(*a, eps=eps), rows, dy)
    expected = laws.layer_norm_backward(dy, *rows[:2], eps=eps)
    within_size(gradient[0], expected[0], bound, "dx")


@pytest.mark.clause("normalization.smallest")
@pytest.mark.parametrize("running_variance", ["biased", "unbiased"])
def test_smallest_batches(nx, full_dtype, running_variance):
    """Two values per channel in training, one in inference, one value in a layer."""
    bound = laws.normalization_bound(full_dtype)
    two = _batch_arguments((2, 3), 1, full_dtype)
    options = {"training": True, "running_variance": running_variance, "momentum": 0.25}
    expected = laws.batch_norm(*two, **options)
    for x, y in zip(nx.batch_norm(*map(nx.asarray, two), **options), expected, strict=True):
        within_size(nx.to_numpy(x), y, bound, "two")
    single = _batch_arguments((1, 3), 1, full_dtype)
    y, _, _ = nx.batch_norm(*map(nx.asarray, single), training=False)
    within_size(nx.to_numpy(y), laws.batch_norm(*single, training=False)[0], bound, "one")
    x, scale, shift = (np.array(v, full_dtype) for v in ([[3.5], [-2.0]], [2.0], [0.75]))
    y = nx.to_numpy(nx.layer_norm(*map(nx.asarray, (x, scale, shift))))
    asserts.within(y, np.full((2, 1), 0.75), bound)


@pytest.mark.clause("normalization.any-shape")
@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 4), (3, 4, 1, 2), (2, 1, 3, 2, 2)], ids=str)
@given(st.data())
@settings(EXAMPLES, max_examples=3)
def test_any_shape_axis_and_options(nx, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    eps = data.draw(st.sampled_from([1e-5, 1e-3, 0.5]))
    bound = laws.normalization_bound(dtype)
    ratio = data.draw(st.sampled_from([0.0, 1.0, 1e2]))
    arguments = _batch_arguments(shape, axis, dtype, ratio)
    options = {
        "training": np.prod(shape) > shape[axis] and data.draw(st.booleans()),
        "axis": axis,
        "eps": eps,
        "momentum": data.draw(st.sampled_from([0.0, 0.3, 1.0])),
        "momentum_weights": data.draw(st.sampled_from(["running", "batch"])),
        "running_variance": data.draw(st.sampled_from(["biased", "unbiased"])),
    }
    observed = nx.batch_norm(*map(nx.asarray, arguments), **options)
    for x, y in zip(observed, laws.batch_norm(*arguments, **options), strict=True):
        assert nx.dtype_of(x) == dtype
        within_size(nx.to_numpy(x), y, bound, options)
    rows = [
        arguments[0],
        *(a.astype(dtype) for a in (wave(shape[axis:], 2), wave(shape[axis:], 3))),
    ]
    y = nx.layer_norm(*map(nx.asarray, rows), axis=axis, eps=eps)
    assert nx.dtype_of(y) == dtype
    within_size(nx.to_numpy(y), laws.layer_norm(*rows, axis=axis, eps=eps), bound, "layer norm")


# --- groups of channels, and the root mean square -----------------------------------------------


def _group_norm(nx, shape, axis, groups, **options):
    """Return the layer: `instance_norm` where each channel is a group."""
    if groups == shape[axis]:
        return lambda *a: nx.instance_norm(*a, axis=axis, **options)
    return lambda *a: nx.group_norm(*a, groups=groups, axis=axis, **options)


@pytest.mark.clause("normalization.group")
@pytest.mark.parametrize(("shape", "axis", "groups"), GROUP_SHAPES, ids=str)
def test_group_norm_against_the_reference(nx, mode, full_dtype, prepare, shape, axis, groups):
    arrays = _batch_arguments(shape, axis, full_dtype)[:3]
    y = prepare(_group_norm(nx, shape, axis, groups, eps=1e-3))(*map(nx.asarray, arrays))
    assert nx.dtype_of(y) == full_dtype
    expected = laws.group_norm(*arrays, groups=groups, axis=axis, eps=1e-3)
    within_size(nx.to_numpy(y), expected, laws.normalization_bound(full_dtype), "y")


@pytest.mark.clause("normalization.group-gradient")
@pytest.mark.parametrize(("shape", "axis", "groups"), GROUP_SHAPES[1:2], ids=str)
def test_group_norm_gradients(nx, mode, full_dtype, prepare, shape, axis, groups):
    x, scale, shift = _batch_arguments(shape, axis, full_dtype)[:3]
    dy = wave(shape, 9).astype(full_dtype)
    f = prepare(_group_norm(nx, shape, axis, groups, eps=EPS))
    gradient = _gradients(nx, f, (x, scale, shift), dy)
    expected = laws.group_norm_backward(dy, x, scale, groups=groups, axis=axis, eps=EPS)
    bound = laws.normalization_bound(full_dtype)
    for name, y, exact in zip(("x", "scale", "shift"), gradient, expected, strict=True):
        within_size(y, exact, bound, name)


def _far_groups(ratio: float) -> np.ndarray:
    """Return (32, 8, 8) values, each pair of channels with a mean of its own near +-ratio."""
    size = np.linspace(0.75, 1, 128) * (-1) ** np.arange(128)
    return (wave((128, 16), 1) + ratio * size[:, None]).reshape(32, 8, 8)


@pytest.mark.clause("normalization.group-conditioning")
@pytest.mark.parametrize("groups", [4, 8], ids=["group_norm", "instance_norm"])
def test_groups_far_from_zero(nx, mode, full_dtype, prepare, groups):
    one, zero = np.ones(8, full_dtype), np.zeros(8, full_dtype)
    f = prepare(_group_norm(nx, (32, 8, 8), 1, groups))
    for ratio in RATIOS:
        x = _far_groups(ratio).astype(full_dtype)
        y = nx.to_numpy(f(*map(nx.asarray, (x, one, zero))))
        expected = laws.group_norm(x, one, zero, groups=groups)
        asserts.within(y, expected, laws.normalization_bound(full_dtype))


@pytest.mark.clause("normalization.group-conditioning-gradient")
def test_gradients_of_groups_far_from_zero(nx, mode, full_dtype, prepare):
    groups, shape, rows = 4, (32, 8, 8), (32 * 4, -1)
    scale, shift, dy = (
        a.astype(full_dtype) for a in (1 + 0.1 * wave((8,), 2), wave((8,), 3), wave(shape, 9))
    )
    f = prepare(_group_norm(nx, shape, 1, groups))
    single = laws.normalization_bound("float32")
    unit = laws.normalization_bound(full_dtype) / single
    for ratio in RATIOS:
        x = _far_groups(ratio).astype(full_dtype)
        dx = _gradients(nx, f, (x, scale, shift), dy)[0]
        expected = laws.group_norm_backward(dy, x, scale, groups=groups)[0]
        s = (dy * scale[:, None]).reshape(rows)
        bound, *_ = rounding.normalization_gradient(
            x.reshape(rows), s, np.ones(s.shape[1]), axis=-1, eps=1e-5, output=single
        )
        asserts.within(dx, expected, unit * bound.reshape(shape))


@pytest.mark.clause("normalization.rms")
@pytest.mark.parametrize(("shape", "axis"), LAYER_SHAPES[1::2], ids=str)
def test_rms_norm_against_the_reference(nx, mode, full_dtype, prepare, shape, axis):
    scale = (1 + 0.1 * wave(shape[axis:], 2)).astype(full_dtype)
    f = prepare(lambda *a: nx.rms_norm(*a, axis=axis, eps=1e-3))
    # far from zero, at zero, near eps, and where eps is nothing
    for size, mean in ((1.0, 1e3), (1.0, 0.0), (1e-2, 0.0), (1e6, 0.0)):
        x = (mean + size * wave(shape, 1)).astype(full_dtype)
        y = f(*map(nx.asarray, (x, scale)))
        assert nx.dtype_of(y) == full_dtype
        expected = laws.rms_norm(x, scale, axis=axis, eps=1e-3)
        within_size(nx.to_numpy(y), expected, laws.normalization_bound(full_dtype), "y")


@pytest.mark.clause("normalization.rms-gradient")
@pytest.mark.parametrize(("shape", "axis"), LAYER_SHAPES[1:2], ids=str)
def test_rms_norm_gradients(nx, mode, full_dtype, prepare, shape, axis):
    x, scale, dy = (
        a.astype(full_dtype)
        for a in (1 + wave(shape, 1), 1 + 0.1 * wave(shape[axis:], 2), wave(shape, 9))
    )
    f = prepare(lambda *a: nx.rms_norm(*a, axis=axis, eps=EPS))
    gradient = _gradients(nx, f, (x, scale), dy)
    expected = laws.rms_norm_backward(dy, x, scale, axis=axis, eps=EPS)
    for name, y, exact in zip(("x", "scale"), gradient, expected, strict=True):
        within_size(y, exact, laws.normalization_bound(full_dtype), name)


@pytest.mark.clause("normalization.composed-jvp")
@pytest.mark.parametrize("layer", ["group_norm", "instance_norm", "rms_norm"])
def test_forward_mode_of_groups_and_rms(nx, layer):
    """The Jacobian of the normalized x is symmetric: its gradient is its change, too."""
    shape, dtype = IMAGES, "float32"
    x, scale, shift = _batch_arguments(shape, -1, dtype)[:3]
    tangent, one = wave(shape, 9).astype(dtype), np.ones_like(scale)
    fixed = [nx.asarray(a) for a in (scale, shift)]
    if layer == "rms_norm":
        f, fixed = lambda *a: nx.rms_norm(*a, eps=EPS), fixed[:1]
        exact, _ = laws.rms_norm_backward(tangent, x, one, eps=EPS)
    else:
        groups = shape[-1] // 2 if layer == "group_norm" else shape[-1]
        f = _group_norm(nx, shape, -1, groups, eps=EPS)
        exact, *_ = laws.group_norm_backward(tangent, x, one, groups=groups, axis=-1, eps=EPS)
    found = asserts.change(nx, lambda x: f(x, *fixed), x, tangent)
    if found is not None:
        within_size(found, scale * exact, laws.normalization_bound(dtype), "change")


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.clause("normalization.nothing-to-normalize")
def test_single_equal_and_zero_values_give_the_shift(nx, mode, full_dtype, prepare):
    """An instance of one value, channels of equal values, and zeros for the root mean square."""
    values = [2.0, -1.0, 0.5, 1.0], [0.75, 3.0, -4.0, 0.0]
    scale, shift = (np.array(v * 2, full_dtype) for v in values)
    instance = prepare(lambda *a: nx.instance_norm(*a))
    for x in (np.full((32, 8, 1), 3.7, full_dtype), np.full((32, 8, 8), -3e5, full_dtype)):
        y = nx.to_numpy(instance(*map(nx.asarray, (x, scale, shift))))
        asserts.within(y, np.broadcast_to(shift[:, None], x.shape), 0)
    dx = _gradients(nx, instance, (x, scale, shift), np.ones_like(x))[0]
    assert np.all(np.isfinite(dx))
    rms, zeros = prepare(lambda *a: nx.rms_norm(*a, axis=-2)), np.zeros(IMAGES, full_dtype)
    scale = (1 + 0.1 * wave(IMAGES[-2:], 2)).astype(full_dtype)
    asserts.within(nx.to_numpy(rms(*map(nx.asarray, (zeros, scale)))), zeros, 0)
    dx, dscale = _gradients(nx, rms, (zeros, scale), np.ones_like(zeros))
    expected = np.broadcast_to(scale * 1e3, dx.shape)  # 1 / sqrt(eps)
    asserts.within(dx, expected, rounding.gamma(8, full_dtype) * np.abs(expected))
    asserts.within(dscale, 0, 0)


# case -> (wrong call, message)
REFUSED = {
    "groups that do not divide": (
        lambda nx, a: nx.group_norm(a(4, 6, 3), a(6), a(6), groups=4),
        "groups must divide the 6 channels of x (4, 6, 3) on axis 1; received 4; "
        "use one of 1, 2, 3, 6",
    ),
    "no groups": (
        lambda nx, a: nx.group_norm(a(4, 6), a(6), a(6), groups=0),
        "groups must be at least 1; received 0",
    ),
    "channels on the axis of the examples": (
        lambda nx, a: nx.instance_norm(a(6, 4), a(6), a(6), axis=-2),
        "axis must not be 0, the axis of the examples; received -2 for x of shape (6, 4); "
        "give the axis of the channels",
    ),
    "examples alone": (
        lambda nx, a: nx.instance_norm(a(6), a(6), a(6), axis=0),
        "x must have at least 2 dimensions; received (6,)",
    ),
    "scale of a group": (
        lambda nx, a: nx.group_norm(a(4, 6), a(2), a(6), groups=2),
        "scale must have the shape (6,) of the normalized axes of x (4, 6); received (2,)",
    ),
    "eps of a group": (
        lambda nx, a: nx.group_norm(a(4, 6), a(6), a(6), groups=2, eps=0.0),
        "eps must be greater than 0; received 0",
    ),
    "eps of the root mean square": (
        lambda nx, a: nx.rms_norm(a(4, 6), a(6), eps=-1e-6),
        "eps must be greater than 0; received -1e-06",
    ),
    "one gain for all outputs": (
        lambda nx, a: nx.weight_norm(a(4, 6), a(1)),
        "g must have the shape (4,) of the output axis of v (4, 6); received (1,)",
    ),
    "a vector to normalize": (
        lambda nx, a: nx.weight_norm(a(4), a(4)),
        "v must have at least 2 dimensions; received (4,)",
    ),
    "a bias to standardize": (
        lambda nx, a: nx.weight_standardization(a(4)),
        "weight must have at least 2 dimensions; received (4,)",
    ),
    "a start of the inputs": (
        lambda nx, a: nx.spectral_norm(a(4, 6), a(6), iterations=1),
        "u must have the shape (4,) of the output axis of weight (4, 6); received (6,)",
    ),
    "no iterations": (
        lambda nx, a: nx.spectral_norm(a(4, 6), a(4), iterations=0),
        "iterations must be at least 1; received 0",
    ),
    "samples of images": (
        lambda nx, a: nx.network_deconvolution(a(4, 6, 3), iterations=5),
        "x must have 2 sizes; received (4, 6, 3)",
    ),
    "a singular covariance": (
        lambda nx, a: nx.network_deconvolution(a(6, 6), iterations=5, eps=0),
        "eps 0 needs more samples than features, as the covariance is singular; received x of "
        "shape (6, 6); use more samples, or eps > 0",
    ),
    "negative eps": (
        lambda nx, a: nx.network_deconvolution(a(9, 6), iterations=5, eps=-1.0),
        "eps must be at least 0; received -1",
    ),
    "fractions of iterations": (
        lambda nx, a: nx.network_deconvolution(a(9, 6), iterations=2.5),
        "iterations must be an integer; received 2.5 of type float",
    ),
}


@pytest.mark.clause("normalization.refused")
@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gives_the_common_error(nx, case):
    call, message = REFUSED[case]
    with pytest.raises(InvalidArgument) as caught:
        call(nx, lambda *shape: nx.asarray(np.ones(shape, np.float32)))
    assert str(caught.value) == message  # not match=, which reads the notes that JAX adds as well
