"""The float64 references of weight normalization and whitening: closed forms and differences."""

import numpy as np
import pytest

import isometry as iso
from isometry.common.laws import deconvolution
from isometry.common.laws import weight_normalization as law
from isometry.common.statistics.running_error import Rounded, bound


def difference(f, x, step=1e-6):
    """Return the gradient of the scalar f by central differences."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        gradient[index] = (f(moved[0]) - f(moved[1])) / (2 * step)
    return gradient


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_weight_norm_and_its_gradient(rng):
    v, dw, g = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.uniform(1, 2, (3, 1))
    w = law.weight_norm(v, g)
    np.testing.assert_allclose(np.linalg.norm(w, axis=1), g[:, 0], rtol=1e-14)
    np.testing.assert_allclose(w / w[:, :1], v / v[:, :1], rtol=1e-14)
    dv, dg = law.weight_norm_backward(dw, v, g)
    wanted = difference(lambda v: (law.weight_norm(v, g) * dw).sum(), v)
    np.testing.assert_allclose(dv, wanted, rtol=1e-6, atol=1e-8)
    wanted = difference(lambda g: (law.weight_norm(v, g) * dw).sum(), g)
    np.testing.assert_allclose(dg, wanted, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose((dv * v).sum(axis=1), 0, atol=1e-14)  # at right angles to v


def test_weight_standardization_and_its_gradient(rng):
    w, dy = rng.normal(2, 1, (3, 5)), rng.normal(size=(3, 5))
    found = law.weight_standardization(w, eps=0.1)
    wanted = (w - w.mean(1, keepdims=True)) / np.sqrt(w.var(1, keepdims=True) + 0.1)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
    wanted = difference(lambda w: (law.weight_standardization(w, eps=0.1) * dy).sum(), w)
    found = law.weight_standardization_backward(dy, w, eps=0.1)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


# --- the power method ---------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 2, 5, 20])
def test_the_estimate_is_a_lower_bound_that_converges_as_stated(rng, iterations):
    for _ in range(20):
        weight, start = rng.normal(size=(6, 4)), rng.normal(size=(6, 1))
        left, values, _ = np.linalg.svd(weight)
        components = (left.T @ start)[:4, 0]  # what W^T sees of the start
        t = np.linalg.norm(components[1:]) / abs(components[0])
        u, v, sigma = law.power_iteration(weight, start, iterations=iterations)
        ratio = values[1] / values[0]
        assert sigma <= values[0] * (1 + 1e-14)
        assert 1 - (sigma / values[0]) ** 2 <= t**2 * ratio ** (4 * iterations - 2) + 1e-14
        inside = np.abs(left.T @ u)[:, 0]
        assert np.linalg.norm(inside[1:]) / inside[0] <= t * ratio ** (2 * iterations) + 1e-14
        np.testing.assert_allclose(sigma, np.linalg.norm(weight @ v), rtol=1e-14)


def test_a_start_at_right_angles_stays_there():
    weight = np.diag([3.0, 2.0])
    _, _, sigma = law.power_iteration(weight, np.array([[0.0], [1.0]]), iterations=50)
    assert sigma == 2


def test_spectral_norm_gradient_with_the_vectors_fixed(rng):
    weight, dy, start = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 1))
    u, v, sigma = law.power_iteration(weight, start, iterations=2)
    np.testing.assert_allclose(
        law.spectral_norm(weight, start, iterations=2), weight / sigma, rtol=1e-15
    )
    wanted = difference(lambda w: (w / (u.T @ w @ v).item() * dy).sum(), weight)
    found = law.spectral_norm_backward(dy, weight, start, iterations=2)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


def test_spectral_norm_forward_is_the_transpose_of_its_gradient(rng):
    weight, dy, dw = (rng.normal(size=(4, 3)) for _ in range(3))
    start = rng.normal(size=(4, 1))
    back = law.spectral_norm_backward(dy, weight, start, iterations=2)
    ahead = law.spectral_norm_forward(dw, weight, start, iterations=2)
    np.testing.assert_allclose((dy * ahead).sum(), (back * dw).sum(), rtol=1e-13)


# --- network deconvolution ----------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 5, 12])
def test_deconvolution_acts_on_each_eigenvalue(rng, iterations):
    x = rng.normal(size=(30, 4)) @ np.diag([1, 0.5, 0.1, 0.02]) @ rng.normal(size=(4, 4)) + 5
    y, mean, d, deviation = deconvolution.network_deconvolution(x, iterations=iterations, eps=1e-3)
    covariance = np.cov(x.T, bias=True) + 1e-3 * np.eye(4)
    values, vectors = np.linalg.eigh(covariance)
    norm = np.linalg.norm(covariance)
    z = deconvolution.factor(values / norm, iterations)
    np.testing.assert_allclose(d, (vectors * (z / norm**0.5)) @ vectors.T, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(y, (x - mean) @ d, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(deviation, np.linalg.norm(values * z**2 / norm - 1), rtol=1e-8)


def test_deconvolution_gradient_against_differences(rng):
    x, dy = rng.normal(2, 1, (6, 3)), rng.normal(size=(6, 3))
    options = {"iterations": 4, "eps": 0.1}
    wanted = difference(
        lambda x: (deconvolution.network_deconvolution(x, **options)[0] * dy).sum(), x
    )
    found = deconvolution.network_deconvolution_backward(dy, x, **options)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("iterations", [1, 4, 12])
def test_deconvolution_forward_is_the_transpose_of_its_gradient(rng, iterations):
    x, dy, dx = (rng.normal(size=(6, 3)) for _ in range(3))
    c, options = x - x.mean(axis=0), {"iterations": iterations, "eps": 0.1}
    back = deconvolution.whitened_backward(dy, c, **options)
    ahead = deconvolution.whitened_forward(dx, c, **options)
    np.testing.assert_allclose((dy * ahead).sum(), (back * dx).sum(), rtol=1e-12)


def test_deconvolution_of_equal_samples_is_zero():
    y, mean, d, _ = deconvolution.network_deconvolution(np.full((5, 2), 3.0), iterations=3, eps=0.0)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(mean, 3)
    np.testing.assert_allclose(d, 1.5**3 * np.eye(2))


def test_deconvolution_folded_into_a_convolution(rng):
    """Patches gathered by a convolution with an identity, whitened, are a convolution with W D."""
    nx = iso.load("numpy")
    x, weight = rng.normal(size=(3, 2, 6, 5)), rng.normal(size=(4, 2, 3, 3))
    identity = np.eye(18).reshape(18, 2, 3, 3)
    patches = np.moveaxis(nx.ops.conv(x, identity), 1, -1)  # (batch, *places, features)
    y, mean, d, _ = nx.network_deconvolution(patches.reshape(-1, 18), iterations=8)
    rows = weight.reshape(4, 18)
    folded = nx.ops.conv(x, (rows @ d).reshape(weight.shape))
    folded = np.moveaxis(folded, 1, -1).reshape(-1, 4) - rows @ d @ mean
    np.testing.assert_allclose(folded, y @ rows.T, rtol=1e-10, atol=1e-10)


def test_nan_is_not_hidden(rng):
    nx = iso.load("numpy")
    weight, x = rng.normal(size=(3, 4)), rng.normal(size=(9, 3))
    weight[1, 2] = x[1, 2] = np.nan
    assert np.isnan(nx.weight_norm(weight, np.ones(3))[1]).all()
    assert all(np.isnan(a).all() for a in nx.spectral_norm(weight, np.ones(3), iterations=2))
    _, _, d, deviation = nx.network_deconvolution(x, iterations=5)
    assert np.isnan(d).all()
    assert np.isnan(deviation)


# --- running errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_running_errors_bound_what_rounding_does(rng, dtype):
    """Every operation, computed in `dtype`, is off by no more than stated, and by some of it."""
    a, b = (rng.uniform(0.5, 2, (8, 8)).astype(dtype) for _ in range(2))

    def formula(a, b):
        c = a @ b - (2 * a + b) / (1 + b)
        norm = (c * c).sum(axis=1, keepdims=True) ** 0.5
        return (c / norm).T @ (1 / norm - -b)

    exact = formula(Rounded.of(a), Rounded.of(b))
    np.testing.assert_allclose(exact.value, formula(a.astype(float), b.astype(float)), rtol=1e-13)
    error, allowed = np.abs(formula(a, b) - exact.value), bound(exact, dtype)
    assert np.all(error <= allowed)
    assert error.max() >= allowed.max() / 1000
