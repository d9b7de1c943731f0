"""Normalization of weights, and whitening, against the float64 reference and closed forms.

The bound is the running error of the reference's own formula (`Rounded`), where it is in operators.
"""

from __future__ import annotations

import numpy as np
import pytest

from isometry.common.laws import deconvolution
from isometry.common.laws import weight_normalization as laws
from isometry.common.laws.normalization import normalization_bound
from isometry.common.statistics import rounding
from isometry.common.statistics.running_error import Rounded, bound
from isometry.conformance import asserts
from isometry.conformance.waves import wave, within_size

RATIOS = (1.0, 1e3, 1e6)
# (shape, axis of the outputs): a dense weight, and a kernel with as many inputs
WEIGHTS = [((5, 24), 0), ((3, 2, 4, 5), -1)]
# squares of these overflow, or vanish
LARGE = {"float32": 2.0**100, "float64": 2.0**900}


def _near(observed: np.ndarray, exact: Rounded, dtype: str) -> None:
    """Assert that what was computed in `dtype` is off by no more than its running error."""
    assert observed.dtype == dtype
    asserts.within(
        observed, exact.value.reshape(observed.shape), bound(exact, dtype).reshape(observed.shape)
    )


def _matrix(nx, weight, axis):
    """Return a weight of the backend as (outputs, inputs), in its own dtype."""
    found = nx.to_numpy(weight)
    return laws.matrix(found, axis).astype(found.dtype)


def _gradients(nx, f, arrays, dy):
    """Return the gradients of ``sum(f(*arrays) dy)`` in all arrays."""

    def loss(parameters, dy):
        return nx.ops.sum(f(*parameters.values()) * dy)

    parameters = {str(k): nx.asarray(a) for k, a in enumerate(arrays)}
    with nx.scope():
        _, gradient = nx.value_and_gradient(loss)(parameters, nx.asarray(dy))
    return list(gradient.values())


# --- weight norm and weight standardization -----------------------------------------------------


def _sized(shape, axis, dtype):
    """Return a weight, and one whose outputs have sizes that cannot be squared, or 0; the sizes."""
    v = wave(shape, 1).astype(dtype)
    sizes = np.ones(shape[axis])
    sizes[:4] = 1, LARGE[dtype], 1 / LARGE[dtype], 0
    wide = sizes.reshape([-1 if k == axis % len(shape) else 1 for k in range(len(shape))])
    return v * (wide > 0).astype(dtype), (v * wide).astype(dtype), sizes[:, None]


@pytest.mark.clause("normalization.weight")
@pytest.mark.parametrize(("shape", "axis"), WEIGHTS, ids=str)
def test_weight_norm_against_the_reference(nx, mode, full_dtype, prepare, shape, axis):
    v, sized, _ = _sized(shape, axis, full_dtype)
    g = (1 + 0.1 * wave((shape[axis],), 2)).astype(full_dtype)
    w = prepare(lambda *a: nx.weight_norm(*a, axis=axis))(nx.asarray(sized), nx.asarray(g))
    assert nx.shape_of(w) == shape
    exact = laws.weight_norm(Rounded.of(laws.matrix(v, axis)), g[:, None].astype(float))
    _near(_matrix(nx, w, axis), exact, full_dtype)


@pytest.mark.clause("normalization.weight-gradient")
@pytest.mark.parametrize(("shape", "axis"), WEIGHTS[:1], ids=str)
def test_weight_norm_gradients(nx, mode, full_dtype, prepare, shape, axis):
    v, sized, sizes = _sized(shape, axis, full_dtype)
    g = (1 + 0.1 * wave((shape[axis],), 2)).astype(full_dtype)
    dw = wave(shape, 9).astype(full_dtype)
    f = prepare(lambda *a: nx.weight_norm(*a, axis=axis))
    dv, dg = _gradients(nx, f, (sized, g), dw)
    rows = (laws.matrix(a, axis) for a in (dw, v))
    exact_dv, exact_dg = laws.weight_norm_backward(*map(Rounded.of, rows), g[:, None].astype(float))
    sizes = np.where(sizes > 0, sizes, 1).astype(full_dtype)  # powers of 2
    _near(_matrix(nx, dv, axis) * sizes, exact_dv, full_dtype)
    _near(nx.to_numpy(dg), exact_dg, full_dtype)


@pytest.mark.clause("normalization.standardization")
@pytest.mark.parametrize(("shape", "axis"), WEIGHTS, ids=str)
def test_weight_standardization_against_the_reference(nx, mode, full_dtype, prepare, shape, axis):
    f = prepare(lambda w: nx.weight_standardization(w, axis=axis, eps=1e-3))
    for ratio in RATIOS:
        weight = (ratio + wave(shape, 1)).astype(full_dtype)
        found = _matrix(nx, f(nx.asarray(weight)), axis)
        expected = laws.weight_standardization(laws.matrix(weight, axis), eps=1e-3)
        assert found.dtype == full_dtype
        asserts.within(found, expected, normalization_bound(full_dtype))


@pytest.mark.clause("normalization.standardization-gradient")
@pytest.mark.parametrize(("shape", "axis"), WEIGHTS[:1], ids=str)
def test_weight_standardization_gradient(nx, mode, full_dtype, prepare, shape, axis):
    dy = wave(shape, 9).astype(full_dtype)
    f = prepare(lambda w: nx.weight_standardization(w, axis=axis))
    single = normalization_bound("float32")
    unit = normalization_bound(full_dtype) / single
    for ratio in RATIOS:
        weight = (ratio + wave(shape, 1)).astype(full_dtype)
        (found,) = _gradients(nx, f, (weight,), dy)
        rows, s = laws.matrix(weight, axis), laws.matrix(dy, axis)
        within, *_ = rounding.normalization_gradient(
            rows, s, np.ones(s.shape[1]), axis=-1, eps=1e-5, output=single
        )
        exact = laws.weight_standardization_backward(s, rows)
        asserts.within(_matrix(nx, found, axis), exact, unit * within)


# --- spectral norm ------------------------------------------------------------------------------


@pytest.mark.clause("normalization.spectral")
@pytest.mark.parametrize(("shape", "axis"), WEIGHTS, ids=str)
def test_spectral_norm_against_the_reference(nx, mode, full_dtype, prepare, shape, axis):
    start = (2 + wave((shape[axis],), 2)).astype(full_dtype)
    weight = wave(shape, 1).astype(full_dtype)
    f = prepare(lambda *a: nx.spectral_norm(*a, iterations=2, axis=axis))
    rows, u = Rounded.of(laws.matrix(weight, axis)), start[:, None].astype(float)
    expected = laws.power_iteration(rows, u, iterations=2)
    normalized = laws.spectral_norm(rows, u, iterations=2)
    for size in (1.0, LARGE[full_dtype], 1 / LARGE[full_dtype]):
        sized = weight * np.array(size, full_dtype)
        w, u, v, sigma = f(nx.asarray(sized), nx.asarray(start))
        assert nx.shape_of(w) == shape
        _near(_matrix(nx, w, axis), normalized, full_dtype)
        for found, exact in zip((u, v, sigma), expected, strict=True):
            found = nx.to_numpy(found)
            _near(found / found.dtype.type(1 if found.ndim else size), exact, full_dtype)


@pytest.mark.clause("normalization.spectral-convergence")
@pytest.mark.parametrize("iterations", [1, 3])
def test_power_iteration_converges_as_it_should(nx, full_dtype, iterations):
    """Singular values 3, 2 and 1 in rotated bases: u and sigma in closed form."""
    values, components = np.array([3.0, 2.0, 1.0]), np.array([0.25, 1.0, 1.0])
    (outputs, inputs), _ = WEIGHTS[0]
    left, _ = np.linalg.qr(wave((outputs, 3), 1))
    right, _ = np.linalg.qr(wave((inputs, 3), 2))
    weight, start = (left * values) @ right.T, left @ components[:, None]
    # of u each component grows by the square of its singular value
    exact_u = components * values ** (2 * iterations)
    exact_sigma = np.linalg.norm(exact_u) / np.linalg.norm(exact_u / values)
    arrays = [nx.asarray(a.astype(full_dtype)) for a in (weight, start[:, 0])]
    _, u, _, sigma = map(nx.to_numpy, nx.spectral_norm(*arrays, iterations=iterations))
    # the arrays are rounded too
    rounded = [Rounded(a, np.abs(a)) for a in (weight, start)]
    of_u, _, of_sigma = (
        bound(a, full_dtype) for a in laws.power_iteration(*rounded, iterations=iterations)
    )
    asserts.within(u, left @ (exact_u / np.linalg.norm(exact_u)), of_u[:, 0])
    asserts.within(sigma, exact_sigma, of_sigma)
    assert sigma <= 3 * (1 + rounding.gamma(16, full_dtype))  # never above the largest


@pytest.mark.clause("normalization.spectral-gradient")
@pytest.mark.parametrize(("shape", "axis"), WEIGHTS[:1], ids=str)
def test_spectral_norm_gradient(nx, mode, full_dtype, prepare, shape, axis):
    """Through sigma too; u and v are constants."""
    start = (2 + wave((shape[axis],), 2)).astype(full_dtype)
    weight, dy = (wave(shape, k).astype(full_dtype) for k in (1, 9))
    f = prepare(lambda *a: nx.spectral_norm(*a, iterations=2, axis=axis)[0])
    found, of_start = _gradients(nx, f, (weight, start), dy)
    rows, s = (Rounded.of(laws.matrix(a, axis)) for a in (weight, dy))
    exact = laws.spectral_norm_backward(s, rows, start[:, None].astype(float), iterations=2)
    _near(_matrix(nx, found, axis), exact, full_dtype)
    asserts.within(nx.to_numpy(of_start), 0, 0)


@pytest.mark.clause("normalization.zero-weight")
def test_a_weight_of_zeros_stays_zero(nx, mode, full_dtype, prepare):
    """The norm 0 is taken for 1: no NaN in value or gradient, and u is kept for the next time."""
    shape, _ = WEIGHTS[0]
    zeros, dy = np.zeros(shape, full_dtype), wave(shape, 9).astype(full_dtype)
    two = np.full(5, 2, full_dtype)
    spectral = prepare(lambda *a: nx.spectral_norm(*a, iterations=2))
    w, u, v, sigma = map(nx.to_numpy, spectral(nx.asarray(zeros), nx.asarray(two)))
    for found, expected in ((w, zeros), (u, two), (v, np.zeros(24)), (sigma, 0)):
        asserts.within(found, expected, 0)
    dw, _ = _gradients(nx, lambda *a: spectral(*a)[0], (zeros, two), dy)
    asserts.within(nx.to_numpy(dw), dy, 0)
    weight = prepare(lambda *a: nx.weight_norm(*a))
    asserts.within(nx.to_numpy(weight(nx.asarray(zeros), nx.asarray(two))), zeros, 0)
    dv, dg = _gradients(nx, weight, (zeros, two), dy)
    asserts.within(nx.to_numpy(dv), 2 * dy, 0)
    asserts.within(nx.to_numpy(dg), 0, 0)


# --- network deconvolution ----------------------------------------------------------------------

MIXING = np.array(
    [[1.0, 0.5, 0.0, 0.2], [0.0, 0.8, 0.3, 0.0], [0.0, 0.0, 0.6, 0.3], [0, 0, 0, 0.5]]
)


def _samples(ratio: float = 0.0) -> np.ndarray:
    """Return 16 samples of 4 correlated features, each with a mean of its own near +-ratio."""
    return wave((16, 4), 1) @ MIXING + ratio * np.array([1.0, -0.9, 0.8, -0.7])


@pytest.mark.clause("normalization.deconvolution")
def test_deconvolution_against_the_reference(nx, mode, full_dtype, prepare):
    f = prepare(lambda x: nx.network_deconvolution(x, iterations=3, eps=1e-2))
    for ratio in (0.0, *RATIOS):
        x = _samples(ratio).astype(full_dtype)
        y, mean, d, deviation = map(nx.to_numpy, f(nx.asarray(x)))
        exact_y, exact_d, rest = deconvolution.whitened(Rounded.centred(x), iterations=3, eps=1e-2)
        _near(y, exact_y, full_dtype)
        _near(d, exact_d, full_dtype)
        _, exact_mean, _, exact_deviation = deconvolution.network_deconvolution(
            x, iterations=3, eps=1e-2
        )
        asserts.within_ulp(mean, exact_mean, full_dtype, 8 if ratio < 1e3 else 1)
        asserts.within(deviation, exact_deviation, np.linalg.norm(bound(rest, full_dtype)))


@pytest.mark.clause("normalization.deconvolution-gradient")
def test_deconvolution_gradient(nx, mode, full_dtype, prepare):
    """Through the mean and D, which all samples share."""
    dy = wave((16, 4), 9).astype(full_dtype)
    f = prepare(lambda x: nx.network_deconvolution(x, iterations=3, eps=1e-2)[0])
    for ratio in (0.0, RATIOS[-1]):
        x = _samples(ratio).astype(full_dtype)
        (found,) = _gradients(nx, f, (x,), dy)
        exact = deconvolution.whitened_backward(
            dy.astype(float), Rounded.centred(x), iterations=3, eps=1e-2
        )
        _near(nx.to_numpy(found), exact, full_dtype)


@pytest.mark.clause("normalization.deconvolution-iterations")
def test_iterations_whiten_large_directions_first(nx, mode, full_dtype, prepare):
    """Uncorrelated features: D is diagonal, in closed form by eigenvalue, and so is what is left.

    The squares of the features' sizes cannot be represented, or vanish, as eps is 0.
    """
    signs = np.array([[1.0]])
    for _ in range(4):
        signs = np.block([[signs, signs], [signs, -signs]])
    std = np.array([1.0, 2.0**-2, 2.0**-4, 2.0**-6])
    variance = std**2
    for iterations in (1, 5, 20):
        f = prepare(lambda x, k=iterations: nx.network_deconvolution(x, iterations=k, eps=0.0))
        norm = np.linalg.norm(variance)
        z = deconvolution.factor(variance / norm, iterations)
        for size in (1.0, LARGE[full_dtype], 1 / LARGE[full_dtype]):
            x = (signs[:, 1:5] * std * size).astype(full_dtype)
            y, _, d, deviation = map(nx.to_numpy, f(nx.asarray(x)))
            # diagonal matrices: nothing is added up, and each step corrects the last one's error
            error = rounding.gamma(32 + 8 * iterations, full_dtype)
            asserts.within(
                d * d.dtype.type(size), np.diag(z / norm**0.5), error * np.diag(z / norm**0.5)
            )
            asserts.within(y, signs[:, 1:5] * std * z / norm**0.5, 2 * error)
            left = np.linalg.norm(variance * z**2 / norm - 1)
            asserts.within(deviation, left, 8 * error)


@pytest.mark.clause("normalization.deconvolution-rank")
def test_rank_deficient_data_are_finite(nx, full_dtype):
    """Two directions in four features, more iterations than the dtype has digits for."""
    x = (wave((16, 2), 1) @ wave((2, 4), 5)).astype(full_dtype)
    dy = wave((16, 4), 9).astype(full_dtype)
    for eps in (0.0, 1e-12):

        def f(x, eps=eps):
            return nx.network_deconvolution(x, iterations=60, eps=eps)

        y, _, d, deviation = map(nx.to_numpy, f(nx.asarray(x)))
        (dx,) = _gradients(nx, lambda x: f(x)[0], (x,), dy)
        for found in (y, d, deviation, nx.to_numpy(dx)):
            assert np.all(np.isfinite(found))
        # the two are white; of the others there is nothing but rounding
        values = np.linalg.eigvalsh(y.T @ y / len(y))
        asserts.within(values[-2:], 1, 0.01)


@pytest.mark.clause("normalization.deconvolution-one")
def test_one_sample_and_equal_samples(nx, mode, full_dtype, prepare):
    """They are their mean: y is 0, and D that of the covariance eps I."""
    f = prepare(lambda x: nx.network_deconvolution(x, iterations=6, eps=0.25))
    for count in (1, 16):
        x = np.tile(wave((1, 4), 1), (count, 1)).astype(full_dtype)
        y, mean, d, deviation = map(nx.to_numpy, f(nx.asarray(x)))
        error = rounding.gamma(64, full_dtype)
        asserts.within(y, 0, 0)
        asserts.within_ulp(mean, x[0], full_dtype, 0)
        asserts.within(d, 2 * np.eye(4), error)
        asserts.within(deviation, 0, error)


# --- forward mode -------------------------------------------------------------------------------


def _of_weight_norm(nx, v, g, tangent):
    """Return the function of v, and its change: the Jacobian is symmetric."""
    exact, _ = laws.weight_norm_backward(*map(Rounded.of, (tangent, v)), g[:, None].astype(float))
    return lambda v: nx.weight_norm(v, nx.asarray(g)), exact


def _of_standardization(nx, weight, g, tangent):
    """Symmetric, too."""
    exact = laws.weight_standardization_backward(tangent, weight, eps=0.5)
    return lambda w: nx.weight_standardization(w, eps=0.5), exact


def _of_spectral_norm(nx, weight, start, tangent):
    """Through sigma; u and v are constants."""
    rows, u = map(Rounded.of, (tangent, weight)), start[:, None].astype(float)
    exact = laws.spectral_norm_forward(*rows, u, iterations=2)
    return lambda w: nx.spectral_norm(w, nx.asarray(start), iterations=2)[0], exact


def _of_deconvolution(nx, x, _, tangent):
    """Through the mean, the covariance and each iteration."""
    options = {"iterations": 3, "eps": 1e-2}
    c = Rounded.centred(x)
    exact = deconvolution.whitened_forward(Rounded.of(tangent), c, **options)
    return lambda x: nx.network_deconvolution(x, **options)[0], exact


FORWARD = {
    "weight_norm": _of_weight_norm,
    "weight_standardization": _of_standardization,
    "spectral_norm": _of_spectral_norm,
    "network_deconvolution": _of_deconvolution,
}


@pytest.mark.clause("normalization.composed-jvp")
@pytest.mark.parametrize("layer", FORWARD)
def test_forward_mode(nx, layer):
    """Of the weight (outputs, inputs), or of the samples."""
    samples = layer == "network_deconvolution"
    x = (_samples(RATIOS[-1]) if samples else wave(WEIGHTS[0][0], 1)).astype("float32")
    tangent, one = wave(x.shape, 9).astype("float32"), (2 + wave(x.shape[:1], 2)).astype("float32")
    f, exact = FORWARD[layer](nx, x, one, tangent)
    found = asserts.change(nx, f, x, tangent)
    if found is None:
        return
    if isinstance(exact, Rounded):
        _near(found, exact, "float32")
    else:
        within_size(found, exact, normalization_bound("float32"), layer)
