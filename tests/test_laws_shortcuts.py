"""Shortcuts' mean squares: closed forms, mean-field's recursion, quadrature, and drawn nets."""

import math

import mpmath
import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument
from isometry.common.laws import shortcuts, signals
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.networks.fully_connected import GATE, FullyConnected

nx = NumpyBackend()


def test_plain_nets_go_as_powers():
    curves = shortcuts.propagate("none", 64, 9, 0.2)
    np.testing.assert_allclose(
        curves.preactivation, 2 * 0.2 ** (2 * np.arange(1.0, 10)), rtol=1e-13
    )
    np.testing.assert_allclose(curves.gradient, 0.2 ** (2 * np.arange(7.0, -1, -1)), rtol=1e-13)


@pytest.mark.parametrize("shortcut", ["none", "residual"])
def test_mean_field_says_the_same(shortcut):
    """signals.propagate has the gradient in z_l: half of that in h_l."""
    widths, gain, mean = (32,) * 7 + (10,), 0.7, -0.3
    variances = [2 * gain**2 / 32] * 7
    expected = signals.propagate(
        "relu", widths, variances, mean=mean, residual=shortcut == "residual"
    )
    found = shortcuts.propagate(shortcut, 32, 7, gain, mean=mean)
    variance = 2 * gain**2 * expected.second[:-1]
    np.testing.assert_allclose(found.preactivation, variance, rtol=1e-10)
    gradient = expected.gradient[:-1]
    np.testing.assert_allclose(found.gradient, gradient / gradient[-1], rtol=1e-10)


def test_dense_nets_grow_as_a_product():
    """Sum of squares and gradient: ``prod_l (1 + g^2 / l)``, binomial coefficients at g = 1."""
    curves = shortcuts.propagate("dense", 16, 6, 1.0)
    np.testing.assert_allclose(curves.preactivation / 2, np.ones(6), rtol=1e-13)  # He's: kept
    np.testing.assert_allclose(curves.gradient, [3.0, 2.0, 1.5, 1.2, 1.0][0:5], rtol=1e-13)
    curves = shortcuts.propagate("dense", 16, 40, 2.0)
    units = np.arange(1.0, 41)
    expected = np.array([math.prod(1 + 4 / k for k in range(1, int(n))) for n in units])
    np.testing.assert_allclose(curves.preactivation, 8 * expected / units, rtol=1e-12)


def test_skipinit_changes_nothing():
    curves = shortcuts.propagate("skipinit", 64, 20, 3.0)
    assert (curves.preactivation == 18.0).all()
    assert (curves.gradient == 1.0).all()


@pytest.mark.parametrize(("gain", "gate", "mean"), [(0.4, -2.0, 0.1), (2.0, 0.7, -0.5)])
def test_a_highway_by_quadrature(gain, gate, mean):
    q, G = 2 * gain**2, lambda f: gate_mean(f, gate, 2 * gain**2)
    level = math.sqrt(q / (2 * math.pi))
    square = (
        G(lambda t: t**2) * q / 2
        + G(lambda t: (1 - t) ** 2)
        + 2 * G(lambda t: t * (1 - t)) * mean * level
    )
    found = shortcuts.propagate("highway", 8, 2, gain, mean=mean, gate=gate)
    assert found.preactivation[1] == pytest.approx(2 * gain**2 * square, rel=1e-9)
    moved = G(lambda t: t) * level + (1 - G(lambda t: t)) * mean
    q2 = 2 * gain**2 * square
    G = lambda f: gate_mean(f, gate, q2)  # noqa: E731
    apart = q2 / 2 - 2 * moved * math.sqrt(q2 / (2 * math.pi)) + square
    expected = G(lambda t: (1 - t) ** 2) + 2 * gain**2 * (
        G(lambda t: t**2) / 2 + G(lambda t: (t * (1 - t)) ** 2) * apart
    )
    gradient = shortcuts.propagate("highway", 8, 3, gain, mean=mean, gate=gate).gradient
    assert gradient[0] == pytest.approx(expected, rel=1e-9)


def gate_mean(f, gate, variance):
    """Return ``E f(sigmoid(u))``, u ~ N(gate, variance), by mpmath."""
    deviation = mpmath.sqrt(variance)

    def term(x):
        return f(1 / (1 + mpmath.exp(-gate - deviation * x))) * mpmath.npdf(x)

    return float(mpmath.quad(term, range(-12, 13, 2)))


@pytest.mark.parametrize("shortcut", shortcuts.SHORTCUTS)
@pytest.mark.parametrize("gain", [0.4, 1.5])
def test_wide_nets_follow(shortcut, gain):
    """Four layers of 400 units: each mean square is within 12 % (some 5 / sqrt(400 * 8 nets))."""
    width, depth, batch = 400, 4, 4
    network = FullyConnected(
        (width,) * depth + (10,),
        "relu",
        VarianceScaling(gain * 2**0.5),
        shortcut=None if shortcut == "none" else shortcut,
    )
    signal, gradient = np.zeros(depth), np.zeros(depth - 1)
    for stream in nx.stream(3).split(8):
        parameters = network.initialize(nx, stream, dtype="float64")
        x = stream.normal((batch, width), mean=0.5, dtype="float64")
        x /= np.sqrt(np.square(x).mean(axis=1, keepdims=True))
        zeros = {
            f"{s.name}/nudge": np.zeros((s.count, batch, s.n_out))
            for s in network.stacks
            if s.hidden
        }
        v = stream.normal((batch, 10), dtype="float64")
        _, found = nx.value_and_gradient(
            lambda p, q=parameters, x=x, v=v: nx.ops.sum(network.output(nx, {**q, **p}, x) * v)
        )(zeros)
        _, trace = network.forward(nx, parameters, x)
        signal += [np.square(z).mean() for s in network.stacks for z in trace[s.name]]
        gradient += [np.square(g).mean() for path in zeros for g in found[path]]
    mean = 0.5 / math.sqrt(1.25)
    theory = shortcuts.propagate(shortcut, width, depth, gain, mean=mean, gate=GATE)
    np.testing.assert_allclose(signal[:-1] / 8, theory.preactivation[:-1], rtol=0.12)
    np.testing.assert_allclose(gradient / gradient[-1], theory.gradient, rtol=0.12)


def test_batch_norm_is_the_arc_cosine_at_zero():
    assert pytest.approx(0.5 / (0.5 - 1 / (2 * math.pi)), rel=1e-15) == shortcuts.BATCH_NORM


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("skipint", 8, 3, 1.0), "did you mean 'skipinit'"),
        (("none", 0, 3, 1.0), "width must be at least 1; received 0"),
        (("none", 8, 1, 1.0), "depth must be at least 2; received 1"),
        (("none", 8, 3, 0.0), "gain must be"),
        (("none", 8, 3, math.nan), "gain must be"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        shortcuts.propagate(*arguments)
