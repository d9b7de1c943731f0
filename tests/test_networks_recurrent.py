"""The recurrent networks: the plain loop over time and units, their laws, their gradients."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Normal
from isometry.common.laws.recurrent import ForgetGateBias
from isometry.common.networks.recurrent import Recurrent

sys.path.insert(0, str(Path(__file__).parent))
from networks_by_hand import assert_gradient

nx = NumpyBackend()
CLOSE = 1e-13  # seven steps of sums of at most 9 terms, of values below 1
KINDS = [
    {"cell": "plain"},
    {"cell": "plain", "activation": "sigmoid", "bias": Normal(0.0, 0.5)},
    {"cell": "lstm"},
    {"cell": "lstm", "bias": Normal(0.0, 0.5)},
]


def drawn(options):
    network = Recurrent(3, 5, **options)
    stream = nx.stream(2)
    parameters = network.initialize(nx, stream, dtype="float64")
    return network, parameters, stream.normal((7, 4, 3), dtype="float64")


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def by_hand(options, parameters, x):
    """Return h of each step, unit by unit."""
    W, U = parameters["input"], parameters["recurrent"]
    b = parameters.get("bias", np.zeros(len(W)))
    phi = sigmoid if options.get("activation") == "sigmoid" else math.tanh
    outputs = np.zeros((7, 4, 5))
    for example in range(4):
        h, c = [0.0] * 5, [0.0] * 5
        for step in range(7):
            z = [
                sum(W[r] * x[step, example]) + sum(U[r, k] * h[k] for k in range(5)) + b[r]
                for r in range(len(W))
            ]
            if options["cell"] == "plain":
                h = [phi(value) for value in z]
            else:
                c = [
                    sigmoid(z[5 + k]) * c[k] + sigmoid(z[k]) * math.tanh(z[10 + k])
                    for k in range(5)
                ]
                h = [sigmoid(z[15 + k]) * math.tanh(c[k]) for k in range(5)]
            outputs[step, example] = h
    return outputs


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_forward_is_the_plain_loop(options):
    network, parameters, x = drawn(options)
    outputs, _ = network.forward(nx, parameters, x)
    np.testing.assert_allclose(outputs, by_hand(options, parameters, x), rtol=CLOSE, atol=CLOSE)
    np.testing.assert_array_equal(network.output(nx, parameters, x), outputs)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_gradient_is_that_of_the_function(options):
    network, parameters, x = drawn(options)
    v = nx.stream(4).normal((7, 4, 5), dtype="float64")

    def loss(p):
        return nx.ops.sum(network.output(nx, p, p["x"]) * v)

    assert_gradient(nx, loss, {**parameters, "x": x})


def test_each_gate_is_drawn_by_itself():
    network = Recurrent(6, 8, cell="lstm", bias=ForgetGateBias())
    parameters = network.initialize(nx, nx.stream(1), dtype="float64")
    assert {path: a.shape for path, a in parameters.items()} == {
        "input": (32, 6),
        "recurrent": (32, 8),
        "bias": (32,),
    }
    for block in parameters["recurrent"].reshape(4, 8, 8):
        np.testing.assert_allclose(block @ block.T, np.eye(8), atol=CLOSE)
    np.testing.assert_array_equal(parameters["bias"], np.repeat([0.0, 1.0, 0.0, 0.0], 8))
    assert set(Recurrent(6, 8).initialize(nx, nx.stream(1))) == {"input", "recurrent"}


def test_a_linear_orthogonal_cell_keeps_the_length_for_a_thousand_steps():
    network = Recurrent(8, 8, activation="linear", input_initializer="identity")
    parameters = network.initialize(nx, nx.stream(3), dtype="float64")
    x = np.zeros((1000, 2, 8))
    x[0] = nx.stream(4).normal((2, 8), dtype="float64")
    last = network.output(nx, parameters, x)[-1]
    np.testing.assert_allclose(
        np.linalg.norm(last, axis=1), np.linalg.norm(x[0], axis=1), rtol=1e-11
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": 0}, "inputs must be at least 1; received 0"),
        ({"units": 0}, "units must be at least 1; received 0"),
        ({"cell": "gru"}, "plain, lstm"),
        ({"activation": "tahn"}, "did you mean 'tanh'"),
        ({"recurrent_initializer": "orthogonl"}, "did you mean 'orthogonal'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        Recurrent(**{"inputs": 2, "units": 3, **arguments})
