"""Message passing: the plain loop over nodes and neighbours, symmetry, and its gradient."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument
from isometry.common.laws.initializers import INITIALIZERS
from isometry.common.networks.message_passing import MessagePassing, symmetric_adjacency
from isometry.common.statistics.assertions import assert_law

sys.path.insert(0, str(Path(__file__).parent))
from networks_by_hand import assert_gradient

nx = NumpyBackend()
CLOSE = 1e-13  # three layers of sums of at most 5 terms
EDGES = np.array([[0, 1], [1, 2], [2, 0], [3, 2], [3, 2]])
NODES = 5  # the last has no neighbours


def drawn(activation="tanh"):
    network = MessagePassing(3, 4, activation)
    parameters = network.initialize(nx, nx.stream(1), dtype="float64")
    x = nx.stream(2).normal((NODES, 4), dtype="float64")
    return network, parameters, x, symmetric_adjacency(NODES, EDGES)


def test_adjacency_by_hand():
    S = symmetric_adjacency(NODES, EDGES)
    np.testing.assert_allclose(
        S[2], [1 / math.sqrt(12), 1 / math.sqrt(12), 1 / 4, 1 / math.sqrt(8), 0]
    )
    np.testing.assert_array_equal(S, S.T)
    np.testing.assert_array_equal(S[4], [0, 0, 0, 0, 1])
    degrees = np.array([3, 3, 4, 2, 0])
    np.testing.assert_allclose(S @ np.sqrt(degrees), np.sqrt(degrees), atol=CLOSE)
    assert np.linalg.eigvalsh(S).max() == pytest.approx(1)
    np.testing.assert_array_equal(symmetric_adjacency(2, np.zeros((0, 2))), np.eye(2))


@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
def test_forward_is_the_plain_loop(activation):
    network, parameters, x, S = drawn(activation)
    phi = {"tanh": math.tanh, "relu": lambda z: max(z, 0.0), "linear": lambda z: z}[activation]
    neighbours = {0: [0, 1, 2], 1: [0, 1, 2], 2: [0, 1, 2, 3], 3: [2, 3], 4: [4]}
    h, trace = x, []
    for W in parameters["weight"]:
        z = np.zeros_like(h)
        for node, others in neighbours.items():
            heard = sum(h[o] / math.sqrt(len(others) * len(neighbours[o])) for o in others)
            z[node] = [sum(W[k] * heard) for k in range(4)]
        trace.append(z)
        h = np.vectorize(phi, otypes=[float])(z)
    output, preactivations = network.forward(nx, parameters, x, S)
    np.testing.assert_allclose(output, h, rtol=CLOSE, atol=CLOSE)
    np.testing.assert_allclose(preactivations["layers"], trace, rtol=CLOSE, atol=CLOSE)


def test_renaming_nodes_renames_outputs():
    network, parameters, x, S = drawn()
    order = np.array([3, 0, 4, 2, 1])
    renamed, _ = network.forward(nx, parameters, x[order], S[np.ix_(order, order)])
    plain, _ = network.forward(nx, parameters, x, S)
    np.testing.assert_allclose(renamed, plain[order], rtol=CLOSE, atol=CLOSE)


def test_nodes_that_an_automorphism_exchanges_stay_equal():
    """Nodes 0 and 1 of equal features have the same neighbours: no weights tell them apart."""
    network, parameters, x, S = drawn()
    x[1] = x[0]
    output, _ = network.forward(nx, parameters, x, S)
    np.testing.assert_allclose(output[0], output[1], rtol=CLOSE, atol=CLOSE)
    assert np.abs(output[0] - output[2]).max() > 1e-3


def test_gradient_is_that_of_the_function():
    network, parameters, x, S = drawn()
    v = nx.stream(3).normal((NODES, 4), dtype="float64")

    def loss(p):
        return nx.ops.sum(network.forward(nx, p, p["x"], S)[0] * v)

    assert_gradient(nx, loss, {**parameters, "x": x})


def test_weights_follow_the_law_of_one_layer():
    weights = MessagePassing(20, 30).initialize(nx, nx.stream(5))["weight"]
    law = INITIALIZERS["xavier_normal"].resolve((30, 30), "out_in")
    assert_law(weights, law, false_alarm=1e-9, detects={"std": ("relative", 0.1)})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MessagePassing(0, 3), "depth must be at least 1; received 0"),
        (lambda: MessagePassing(2, 0), "features must be at least 1; received 0"),
        (lambda: MessagePassing(2, 2, "rleu"), "did you mean 'relu'"),
        (lambda: MessagePassing(2, 2, "relu", "he_norml"), "did you mean 'he_normal'"),
        (lambda: symmetric_adjacency(0, np.zeros((0, 2))), "nodes must be at least 1"),
        (
            lambda: symmetric_adjacency(3, np.array([[0, 3]])),
            "nodes from 0 to 2; received .* 0 to 3",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()
