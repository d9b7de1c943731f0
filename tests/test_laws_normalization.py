"""The float64 references of normalization, against mpmath, finite differences and libraries."""

import mpmath as mp
import numpy as np
import pytest

import isometry as iso
from isometry.common.errors import InvalidArgument
from isometry.common.laws import normalization as law


def exact(values, eps):
    """Normalize one vector with 50 digits."""
    with mp.workdps(50):
        x = [mp.mpf(float(v)) for v in values]
        mean = mp.fsum(x) / len(x)
        variance = mp.fsum((v - mean) ** 2 for v in x) / len(x)
        return np.array([float((v - mean) / mp.sqrt(variance + eps)) for v in x])


@pytest.mark.parametrize("std", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("ratio", [0.0, 1e3, 1e6])
def test_outputs_against_mpmath(std, ratio):
    rng = np.random.default_rng(3)
    x = (std * (ratio + rng.normal(size=(40, 2)))).astype(np.float32)
    wanted = np.stack([exact(x[:, k], 1e-5) for k in range(2)], axis=1)
    ones, zeros = np.ones(2), np.zeros(2)
    y, _, _ = law.batch_norm(x, ones, zeros, zeros, ones, training=True)
    np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-9)
    rows = law.layer_norm(x.T, np.ones(40), np.zeros(40))
    np.testing.assert_allclose(rows, wanted.T, rtol=0, atol=1e-9)


def test_axes_scale_shift_and_running_statistics():
    rng = np.random.default_rng(4)
    x = rng.normal(2, 3, (5, 3, 4))
    scale, shift, mean, variance = rng.normal(size=(4, 3)) ** 2 + 0.1
    y, m, v = law.batch_norm(
        x, scale, shift, mean, variance, training=True,
        momentum=0.1, momentum_weights="batch", running_variance="unbiased",
    )  # fmt: skip
    for c in range(3):
        wanted = exact(x[:, c].ravel(), 1e-5).reshape(5, 4) * scale[c] + shift[c]
        np.testing.assert_allclose(y[:, c], wanted, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(m[c], 0.9 * mean[c] + 0.1 * x[:, c].mean(), rtol=1e-13)
        np.testing.assert_allclose(v[c], 0.9 * variance[c] + 0.1 * x[:, c].var(ddof=1), rtol=1e-13)
    last, _, _ = law.batch_norm(
        np.moveaxis(x, 1, -1), scale, shift, mean, variance, training=True, axis=-1
    )
    np.testing.assert_allclose(np.moveaxis(last, -1, 1), y, rtol=1e-13)
    y, m, v = law.batch_norm(x, scale, shift, mean, variance, training=False)
    wanted = (x[:, 1] - mean[1]) / np.sqrt(variance[1] + 1e-5) * scale[1] + shift[1]
    np.testing.assert_allclose(y[:, 1], wanted, rtol=1e-13)
    assert (m == mean).all()
    assert (v == variance).all()


def differences(f, arrays, step=1e-6):
    """Return the gradient of the scalar f in each array by central differences."""
    gradients = []
    for k, a in enumerate(arrays):
        g = np.zeros_like(a)
        for index in np.ndindex(a.shape):
            values = []
            for sign in (1, -1):
                moved = [b.copy() for b in arrays]
                moved[k][index] += sign * step
                values.append(f(*moved))
            g[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(g)
    return gradients


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_backward_against_differences(training):
    rng = np.random.default_rng(5)
    x, dy = rng.normal(1, 2, (2, 4, 3, 2)), rng.normal(size=(4, 3, 2))
    x = x[0]
    scale, shift, mean, variance = rng.uniform(0.5, 2, (4, 3))

    def loss(x, scale, shift):
        return (law.batch_norm(x, scale, shift, mean, variance, training=training)[0] * dy).sum()

    found = law.batch_norm_backward(dy, x, scale, mean, variance, training=training)
    for value, wanted in zip(found, differences(loss, [x, scale, shift]), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_norm_backward_against_differences(axis):
    rng = np.random.default_rng(6)
    x, dy = rng.normal(1, 2, (3, 4, 2)), rng.normal(size=(3, 4, 2))
    scale, shift = rng.uniform(0.5, 2, (2, *x.shape[axis:]))

    def loss(x, scale, shift):
        return (law.layer_norm(x, scale, shift, axis=axis) * dy).sum()

    found = law.layer_norm_backward(dy, x, scale, axis=axis)
    for value, wanted in zip(found, differences(loss, [x, scale, shift]), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-7)


def test_conventions():
    torch, keras = law.BATCH_NORM["torch"], law.BATCH_NORM["keras"]
    assert torch.old_weight == pytest.approx(0.9)
    assert keras.old_weight == 0.99
    assert torch.options == {
        "eps": 1e-5,
        "momentum": 0.1,
        "momentum_weights": "batch",
        "running_variance": "unbiased",
    }
    assert law.normalization_bound() == law.BOUND == 1e-5
    assert law.normalization_bound("float64") == 1e-5 * 2**-29


def test_group_norm_takes_neighbouring_channels():
    rng = np.random.default_rng(7)
    x, (scale, shift) = rng.normal(3, 2, (2, 6, 5)), rng.uniform(0.5, 2, (2, 6))
    y = law.group_norm(x, scale, shift, groups=3)
    for example in range(2):
        for first in (0, 2, 4):
            channels = slice(first, first + 2)
            wanted = exact(x[example, channels].ravel(), 1e-5).reshape(2, 5)
            wanted = wanted * scale[channels, None] + shift[channels, None]
            np.testing.assert_allclose(y[example, channels], wanted, rtol=1e-12, atol=1e-12)
    last = law.group_norm(np.moveaxis(x, 1, -1), scale, shift, groups=3, axis=-1)
    np.testing.assert_allclose(np.moveaxis(last, -1, 1), y, rtol=1e-13)
    one, zero = np.ones(6), np.zeros(6)
    whole = law.layer_norm(x, np.ones((6, 5)), np.zeros((6, 5)), axis=1)
    np.testing.assert_allclose(law.group_norm(x, one, zero, groups=1), whole, rtol=1e-12)


def test_group_norm_backward_against_differences():
    rng = np.random.default_rng(8)
    x, dy = rng.normal(1, 2, (2, 2, 3, 4))
    scale, shift = rng.uniform(0.5, 2, (2, 4))
    options = {"groups": 2, "axis": -1}

    def loss(x, scale, shift):
        return (law.group_norm(x, scale, shift, **options) * dy).sum()

    found = law.group_norm_backward(dy, x, scale, **options)
    for value, wanted in zip(found, differences(loss, [x, scale, shift]), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-7)


def test_rms_norm_against_mpmath_and_differences():
    rng = np.random.default_rng(9)
    x, dy = rng.normal(1, 2, (2, 3, 4, 2))
    scale = rng.uniform(0.5, 2, (4, 2))
    y = law.rms_norm(x, scale, axis=1, eps=0.25)
    with mp.workdps(50):
        root = mp.sqrt(mp.fsum(mp.mpf(float(v)) ** 2 for v in x[1].ravel()) / 8 + mp.mpf(0.25))
        wanted = np.array([float(mp.mpf(float(v)) / root) for v in x[1].ravel()]).reshape(4, 2)
    np.testing.assert_allclose(y[1], wanted * scale, rtol=1e-14)

    def loss(x, scale):
        return (law.rms_norm(x, scale, axis=1, eps=0.25) * dy).sum()

    found = law.rms_norm_backward(dy, x, scale, axis=1, eps=0.25)
    for value, wanted in zip(found, differences(loss, [x, scale]), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-7)


# --- the conventions of the libraries -----------------------------------------------------------


def test_conventions_are_the_options_of_the_methods():
    options = {
        (library, norm): law.conventions(library, norm)
        for library in law.BATCH_NORM
        for norm in ("batch_norm", *law.EPS)
        if (library, norm) != ("mxnet", "rms_norm")
    }
    assert options["keras", "batch_norm"] == {
        "eps": 1e-3,
        "momentum": 0.99,
        "momentum_weights": "running",
        "running_variance": "biased",
    }
    assert options["flax", "instance_norm"] == {"eps": 1e-6}
    x, scale = np.random.default_rng(10).normal(1, 0.01, (2, 8, 4)).astype(np.float32)
    calls = {
        "batch_norm": lambda nx, **o: nx.batch_norm(x, *scale[:4], training=True, **o)[0],
        "layer_norm": lambda nx, **o: nx.layer_norm(x, *scale[:2], **o),
        "group_norm": lambda nx, **o: nx.group_norm(x, *scale[:2], groups=2, **o),
        "instance_norm": lambda nx, **o: nx.instance_norm(x[..., None], *scale[:2], **o),
        "rms_norm": lambda nx, **o: nx.rms_norm(x, scale[0], **o),
    }
    for (_, norm), given in options.items():
        assert np.all(np.isfinite(calls[norm](iso.load("numpy"), **given)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("troch", "batch_norm"), "unknown library 'troch': known are torch, keras, flax, mxnet; "
         "did you mean 'torch'?"),
        (("torch", "batchnorm"), "unknown norm 'batchnorm': known are batch_norm, layer_norm, "
         "group_norm, instance_norm, rms_norm; did you mean 'batch_norm'?"),
        (("mxnet", "rms_norm"), "unknown library with rms_norm 'mxnet': known are torch, keras, "
         "flax"),
    ],
)  # fmt: skip
def test_unknown_conventions_are_refused(arguments, message):
    with pytest.raises(InvalidArgument) as caught:
        law.conventions(*arguments)
    assert str(caught.value) == message
