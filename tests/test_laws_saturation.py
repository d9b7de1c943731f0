"""Saturated and dead units against mpmath, quadrature and nets drawn by hand."""

import math

import mpmath
import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import activations, mean_field
from isometry.common.laws import saturation as laws


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
@pytest.mark.parametrize("share", [0.9, 0.13, 1e-6])
def test_threshold_is_where_the_slope_is_that_share(activation, share):
    slope = {"sigmoid": activations.sigmoid_gradient, "tanh": activations.tanh_gradient}[activation]
    z = laws.threshold(activation, share)
    assert slope(z) / slope(0.0) == pytest.approx(share, rel=1e-12)
    assert slope(0.0) == laws.steepest(activation)


def test_nowhere_steeper():
    z = np.linspace(-5, 5, 10001)
    for name, phi in mean_field.ACTIVATIONS.items():
        if name in laws.STEEPEST:
            assert phi.slope(z).max() == laws.steepest(name)


@pytest.mark.parametrize(("activation", "scale"), [("sigmoid", 2.0), ("tanh", 1.0)])
@pytest.mark.parametrize("variance", [0.37, 5.1])
def test_saturated_share_against_mpmath(activation, scale, variance):
    with mpmath.workdps(30):
        t = scale * mpmath.acosh(1 / mpmath.sqrt(mpmath.mpf("0.07")))
        exact = 2 * mpmath.ncdf(-t / mpmath.sqrt(variance))
    found = laws.saturated_probability(activation, 0.07, variance)
    assert found == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize(("bias", "variance", "m"), [(0.0, 3.0, 5), (-0.8, 1.7, 3), (1.1, 0.6, 2)])
def test_dead_share_against_mpmath(bias, variance, m):
    with mpmath.workdps(30):
        exact = mpmath.ncdf(-mpmath.mpf(bias) / mpmath.sqrt(variance)) ** m
    assert laws.dead_probability(bias, variance, m) == pytest.approx(float(exact), rel=1e-13)


def test_gradient_curve_of_linear_and_relu_units_is_a_power():
    linear = laws.gradient_curve("linear", 0.7, 5)
    assert linear == pytest.approx(0.7 ** np.arange(4, -1, -1), rel=1e-13)
    relu = laws.gradient_curve("relu", 1.6, 4, start=3.0)
    assert relu == pytest.approx(0.8 ** np.arange(3, -1, -1), rel=1e-11)


def test_gradient_curve_of_the_sigmoid_by_quadrature():
    def moments(q):
        def mean(f):
            with mpmath.workdps(20):
                return mpmath.quad(
                    lambda z: f(mpmath.sqrt(q) * z) * mpmath.npdf(z), [-12, -3, 0, 3, 12]
                )

        value = mean(lambda z: (1 / (1 + mpmath.exp(-z))) ** 2)
        return value, mean(lambda z: (1 / (4 * mpmath.cosh(z / 2) ** 2)) ** 2)

    weight, signal, slopes = 1.3, mpmath.mpf(0.9), []
    for _ in range(3):
        signal, slope = moments(weight * signal)
        slopes.append(weight * slope)
    exact = [float(slopes[0] * slopes[1]), float(slopes[1]), 1.0]
    found = laws.gradient_curve("sigmoid", weight, 3, start=0.9)
    assert found == pytest.approx(exact, rel=1e-10)
    assert laws.gradient_curve("sigmoid", weight, 1).tolist() == [1.0]


def test_a_wide_net_follows_the_curve():
    rng, width = np.random.default_rng(5), 3000
    h = rng.normal(size=width)
    W = [rng.normal(size=(width, width)) / math.sqrt(width) for _ in range(3)]
    z = []
    for w in W:
        z.append(w @ h)
        h = np.tanh(z[-1])
    d = [rng.normal(size=width)]
    for w, u in zip(W[:0:-1], z[-2::-1], strict=True):
        d.append((1 - np.tanh(u) ** 2) * (w.T @ d[-1]))
    measured = [float(a @ a / (d[0] @ d[0])) for a in d[::-1]]
    assert measured == pytest.approx(laws.gradient_curve("tanh", 1.0, 3), rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: laws.threshold("relu", 0.1), "sigmoid, tanh"),
        (lambda: laws.steepest("swish"), "activation"),
        (lambda: laws.saturated_probability("tanh", 0.1, 0.0), "variance must be greater than 0"),
        (lambda: laws.dead_probability(0.0, 1.0, 0), "inputs must be at least 1"),
        (lambda: laws.gradient_curve("tanh", 1.0, 0), "depth must be at least 1"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()
