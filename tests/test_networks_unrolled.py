"""Passes unrolled: rows, offsets and bounds of every family, gradients, and what cannot be."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Normal
from isometry.common.networks.attention import Attention
from isometry.common.networks.autoencoder import TiedAutoencoder
from isometry.common.networks.convolutional import Convolutional
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.message_passing import MessagePassing, symmetric_adjacency
from isometry.common.networks.passes import Runner
from isometry.common.networks.recurrent import Recurrent
from isometry.common.networks.residual import Residual
from isometry.common.networks.unrolled import Trace, unroll

nx = NumpyBackend()
CLOSE = 1e-12  # of values about 1, some hundred roundings
BIAS = Normal(0.0, 0.5)
GRAPH = symmetric_adjacency(4, np.array([[0, 1], [1, 2], [2, 0], [3, 2]]))
FAMILIES = {
    "plain": (FullyConnected((4, 5, 5, 3), bias=BIAS), (6, 4)),
    "residual, batch": (
        FullyConnected((4, 4, 4, 3), "relu", normalization="batch", shortcut="residual"),
        (6, 4),
    ),
    "dense, rms": (
        FullyConnected((4, 4, 4, 3), normalization="rms", place="activation", shortcut="dense"),
        (6, 4),
    ),
    "circular": (Convolutional((2, 3, 3), 4, 2, initializer="he_normal", bias=BIAS), (5, 2, 4, 4)),
    "zero": (Convolutional((3, 3, 3), 4, 2, padding="zero"), (5, 3, 4, 4)),
    "recurrent": (Recurrent(3, 5, bias=BIAS), (6, 4, 3)),
    "lstm": (Recurrent(3, 5, "lstm", bias=BIAS), (6, 4, 3)),
    "attention": (Attention(2, 4, 3), (2, 5, 4)),
    "attention, before": (Attention(2, 4, 3, layer_norm="before"), (2, 5, 4)),
    "attention, after": (
        Attention(2, 4, fused=True, residual=False, layer_norm="after"),
        (2, 5, 4),
    ),
    "autoencoder": (TiedAutoencoder((4, 5, 5, 5), bias=BIAS), (3, 4)),
    "message passing": (MessagePassing(3, 5), (4, 5)),
}


def drawn(name):
    """Return a net, its parameters and inputs, a random offset for every layer, and a trace."""
    network, shape = FAMILIES[name]
    stream = nx.stream(11)
    parameters = network.initialize(nx, stream, dtype="float64")
    inputs = (stream.normal(shape, dtype="float64"),)
    inputs += (GRAPH,) if isinstance(network, MessagePassing) else ()
    _, trace = network.forward(nx, parameters, *inputs)
    assert tuple(trace) == network.traced
    offsets = {f"{k}/offset": stream.normal(z.shape, dtype="float64") for k, z in trace.items()}
    _, moved = network.forward(nx, parameters, *inputs, offsets)
    # an offset stands where a gradient does, to see it in the rows that belong to it
    gradients = {k: offsets[f"{k}/offset"] for k in trace}
    return network, inputs, Trace("float64", inputs, parameters, parameters, moved, gradients)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_map_is_w_r_plus_b_plus_its_offset(name):
    network, inputs, trace = drawn(name)
    found = unroll(network, trace)
    for m in found.maps:
        z = m.rows @ m.weight.T + m.bias + m.gradients
        np.testing.assert_allclose(m.outputs, z, rtol=CLOSE, atol=CLOSE)
        np.testing.assert_array_equal(m.weight_gradient, m.weight)
        assert m.errors.shape == (len(m.rows),)
        assert sum(columns for _, columns in m.laws) == m.weight.shape[1]
        assert m.errors.max() < 1e-10
        drawn_as = m.weight.T if m.transposed else m.weight
        np.testing.assert_array_equal(drawn_as, m.key.of(trace.parameters))
    output, _ = network.forward(
        nx, trace.parameters, *inputs, {f"{k}/offset": a for k, a in trace.gradients.items()}
    )
    last = output[-1] if isinstance(network, Recurrent) else output
    np.testing.assert_allclose(found.signals[-1], last, rtol=CLOSE, atol=CLOSE)
    x = inputs[0].swapaxes(0, 1) if isinstance(network, Recurrent) else inputs[0]
    np.testing.assert_array_equal(found.signals[0], x)
    assert len(found.signals) == len(found.layers) + 1
    assert all(s.min() >= 0 and s.max() <= 1 for s in found.slopes)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_those_of_the_functional(name):
    """``dL/dW = sum g r^T`` of all uses, and the output's gradient is v."""
    network, shape = FAMILIES[name]
    _, inputs, trace = drawn(name)
    runner = Runner(nx, network, inputs, "float64")
    found = runner.propagate(dict(trace.parameters), nx.stream(3))
    for m in found.maps:
        shared = [other for other in found.maps if other.key == m.key]
        total = sum(
            (other.gradients.T @ other.rows).T
            if other.transposed != m.transposed
            else other.gradients.T @ other.rows
            for other in shared
        )
        np.testing.assert_allclose(m.weight_gradient, total, rtol=CLOSE, atol=CLOSE)
    if isinstance(network, (FullyConnected, Convolutional)):
        size = (shape[0], found.signals[-1].shape[1])
        v = nx.stream(3).normal(size, dtype="float64")
        np.testing.assert_allclose(found.maps[-1].gradients, v, rtol=CLOSE)


def test_an_lstm_s_slopes_are_those_of_its_gates():
    network, _, trace = drawn("lstm")
    z = trace.preactivations["steps"][2]
    s = 1 / (1 + np.exp(-z))
    expected = 4 * s * (1 - s)
    expected[:, 10:15] = 1 / np.cosh(z[:, 10:15]) ** 2
    np.testing.assert_allclose(unroll(network, trace).slopes[2], expected, rtol=CLOSE)


def test_attention_s_slopes_are_those_of_its_weights():
    network, _, trace = drawn("attention")
    z = trace.preactivations["projection"][0]
    e = np.exp(np.stack([q @ k.T / 3**0.5 for q, k in zip(z[..., :3], z[..., 3:6], strict=True)]))
    a = e / e.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(unroll(network, trace).slopes[0], 4 * a * (1 - a), rtol=CLOSE)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Residual((4, 5, 3), 3), "families Attention, .*TiedAutoencoder; received Residual"),
        (FullyConnected((4, 4, 2), shortcut="highway"), "no shortcuts; received 'highway'"),
    ],
)
def test_refuses(network, message):
    _, _, trace = drawn("plain")
    with pytest.raises(InvalidArgument, match=message):
        unroll(network, trace)
