"""The tied autoencoder: the untied net of the same weights, principal components, its law."""

import sys
from pathlib import Path

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Normal
from isometry.common.laws.embeddings import Tied
from isometry.common.laws.initializers import VarianceScaling
from isometry.common.networks.autoencoder import TiedAutoencoder
from isometry.common.networks.stacks import Stack
from isometry.common.statistics.assertions import assert_law

sys.path.insert(0, str(Path(__file__).parent))
import networks_by_hand as by_hand

nx = NumpyBackend()
CLOSE = 1e-12  # eight layers of sums of at most 7 terms
BATCH = 5
OPTIONS = [
    {"widths": (6, 4, 4, 4, 2), "bias": Normal(0.0, 0.5)},
    {"widths": (4, 4, 4, 4), "activation": "sigmoid", "bias": Normal(0.0, 0.5)},
    {"widths": (3, 7), "activation": "relu"},
    {"widths": (5, 3, 3), "activation": "linear"},
]


def drawn(options):
    network = TiedAutoencoder(initializer=Normal(0.0, 0.6), **options)
    stream = nx.stream(3)
    parameters = network.initialize(nx, stream, dtype="float64")
    return network, parameters, stream.normal((BATCH, options["widths"][0]), dtype="float64")


def untied(network, parameters):
    """Return the layers of the plain net that it is, each as {"weight", "bias"}."""
    layers = by_hand.layers(parameters)
    there = [(own["weight"], own.get("encoder_bias")) for own in layers]
    back = [(own["weight"].T, own.get("decoder_bias")) for own in reversed(layers)]
    found = {}
    for k, (weight, bias) in enumerate(there + back):
        found[f"stack{k}/weight"] = weight[None]
        if bias is not None:
            found[f"stack{k}/bias"] = bias[None]
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_forward_is_the_plain_loop_of_the_untied_net(options):
    network, parameters, x = drawn(options)
    output, trace = network.forward(nx, parameters, x)
    expected, preactivations = by_hand.forward(
        untied(network, parameters), x, activation=network.activation
    )
    np.testing.assert_allclose(output, expected, rtol=CLOSE, atol=CLOSE)
    rows = [z for stacked in trace.values() for z in stacked]  # in the order of the signal
    assert len(rows) == len(preactivations) == 2 * (len(options["widths"]) - 1)
    for z, right in zip(rows, preactivations, strict=True):
        np.testing.assert_allclose(z, right, rtol=CLOSE, atol=CLOSE)
    for stack in network.stacks:
        for way, width in (("encoder", stack.n_out), ("decoder", stack.n_in)):
            assert trace[f"{stack.name}/{way}"].shape == (stack.count, BATCH, width)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_jacobian_is_the_product_of_the_layers(options):
    network, parameters, x = drawn(options)
    _, preactivations = by_hand.forward(
        untied(network, parameters), x[:1], activation=network.activation
    )
    slope = {
        "linear": np.ones_like,
        "relu": nx.relu_gradient,
        "tanh": nx.tanh_gradient,
        "sigmoid": nx.sigmoid_gradient,
    }[network.activation]
    expected = np.eye(x.shape[1])
    for k, z in enumerate(preactivations):
        expected = untied(network, parameters)[f"stack{k}/weight"][0] @ expected
        if k < len(preactivations) - 1:
            expected = slope(z[0])[:, None] * expected
    _, pullback = nx.vjp(lambda x: network.forward(nx, parameters, x)[0], x[:1])
    observed = np.concatenate([pullback(v[None]) for v in np.eye(x.shape[1])])
    np.testing.assert_allclose(observed, expected, rtol=CLOSE, atol=CLOSE)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradient_is_that_of_the_function(options):
    network, parameters, x = drawn(options)
    v = nx.stream(4).normal(x.shape, dtype="float64")

    def loss(p):
        return nx.ops.sum(network.forward(nx, p, p["x"])[0] * v)

    by_hand.assert_gradient(nx, loss, {**parameters, "x": x}, step=3e-4, rel=1e-7)


def test_a_weights_gradient_is_the_sum_of_both_uses():
    """Of ``sum v . W^T tanh(W x)``: ``g x^T + tanh(W x) v^T`` with ``g = (W v) tanh'(W x)``."""
    network, parameters, x = drawn({"widths": (4, 3)})
    v = nx.stream(4).normal(x.shape, dtype="float64")
    _, gradient = nx.value_and_gradient(lambda p: nx.ops.sum(network.forward(nx, p, x)[0] * v))(
        parameters
    )
    (W,) = parameters["stack0/weight"]
    z = x @ W.T
    there, back = (v @ W.T * nx.tanh_gradient(z)).T @ x, np.tanh(z).T @ v
    np.testing.assert_allclose(gradient["stack0/weight"][0], there + back, rtol=CLOSE, atol=CLOSE)
    assert min(np.abs(there).max(), np.abs(back).max()) > 0.1


# --- the linear one: projections and principal components ----------------------------------------


def test_orthogonal_weights_project():
    network = TiedAutoencoder((7, 5, 5, 5, 3), "linear", "orthogonal")
    parameters = network.initialize(nx, nx.stream(1), dtype="float64")
    P, _ = network.forward(nx, parameters, np.eye(7))
    np.testing.assert_allclose(P, P.T, atol=CLOSE)
    np.testing.assert_allclose(P @ P, P, atol=CLOSE)
    assert np.trace(P) == pytest.approx(3, abs=CLOSE)
    wide = TiedAutoencoder((4, 9), "linear", "orthogonal")
    same, _ = wide.forward(nx, wide.initialize(nx, nx.stream(2), dtype="float64"), np.eye(4))
    np.testing.assert_allclose(same, np.eye(4), atol=CLOSE)


def test_principal_components_are_stationary():
    """There the loss is the sum of the other eigenvalues: Baldi and Hornik 1989, fact 4."""
    x = nx.stream(5).normal((40, 6), dtype="float64") * np.array([5, 4, 3, 2, 1, 0.5])
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    network = TiedAutoencoder((6, 2), "linear")

    def loss(p):
        return nx.ops.sum(nx.ops.square(network.forward(nx, p, x)[0] - x)) / len(x)

    def at(columns):
        W = vectors[:, columns].T[None]
        value, gradient = nx.value_and_gradient(loss)({"stack0/weight": W})
        return float(value), np.abs(gradient["stack0/weight"]).max()

    for columns in ([5, 4], [5, 3]):
        value, slope = at(columns)
        rest = np.delete(values, columns).sum()
        assert value == pytest.approx(rest, rel=CLOSE)
        assert slope <= CLOSE * values.max()
    assert at([5, 4])[0] < at([5, 3])[0]


# --- parameters ----------------------------------------------------------------------------------


def test_layers_of_one_shape_are_one_stack_but_the_first():
    assert TiedAutoencoder((4, 4, 4, 2)).stacks == (
        Stack("stack0", 1, 1, 4, 4, False),
        Stack("stack1", 2, 1, 4, 4, True),
        Stack("stack2", 3, 1, 4, 2, True),
    )
    assert TiedAutoencoder((6, 4, 4, 4)).stacks == (
        Stack("stack0", 1, 1, 6, 4, False),
        Stack("stack1", 2, 2, 4, 4, True),
    )


def test_parameters_have_these_paths_shapes_and_dtypes():
    network = TiedAutoencoder((6, 4, 4, 4), bias="ones")
    parameters = network.initialize(nx, nx.stream(0))
    assert {path: a.shape for path, a in parameters.items()} == {
        "stack0/weight": (1, 4, 6),
        "stack0/encoder_bias": (1, 4),
        "stack0/decoder_bias": (1, 6),
        "stack1/weight": (2, 4, 4),
        "stack1/encoder_bias": (2, 4),
        "stack1/decoder_bias": (2, 4),
    }
    for path, a in parameters.items():
        assert (a == 1).all() == path.endswith("_bias")
    output, trace = network.forward(nx, parameters, nx.stream(1).normal((3, 6)))
    for a in (*parameters.values(), output, *trace.values()):
        assert a.dtype == np.float32
    without = TiedAutoencoder((6, 4)).initialize(nx, nx.stream(0))
    assert set(without) == {"stack0/weight"}


def test_weights_follow_the_law_of_both_uses():
    parameters = [TiedAutoencoder((100, 25)).initialize(nx, s) for s in nx.stream(8).split(4)]
    law = Tied(VarianceScaling()).resolve((25, 100), "out_in")
    assert law.moments[1] == pytest.approx(1 / 50)  # of the fans 100 and 25
    drawn = np.stack([p["stack0/weight"] for p in parameters])
    assert_law(drawn, law, false_alarm=1e-9, detects={"std": ("relative", 0.1)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": ()}, r"at least one layer; received \(\)"),
        ({"widths": (3,)}, r"at least one layer; received \(3,\)"),
        ({"widths": (3, 0)}, "a width must be at least 1; received 0"),
        ({"activation": "tahn"}, "did you mean 'tanh'"),
        ({"initializer": "he_norml"}, "did you mean 'he_normal'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        TiedAutoencoder(**{"widths": (3, 2), **arguments})
