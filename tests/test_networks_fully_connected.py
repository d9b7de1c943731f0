"""The fully connected network: right on NumPy, drawn by its laws, differentiated as it is."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Constant, Normal
from isometry.common.laws.initializers import INITIALIZERS, Orthogonal
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.stacks import Stack
from isometry.common.statistics.assertions import assert_law
from isometry.common.statistics.bounds import proportion

sys.path.insert(0, str(Path(__file__).parent))
import networks_by_hand as by_hand

nx = NumpyBackend()
WIDTHS = (5, 4, 4, 4, 6, 6, 3)
BATCH = 7
CLOSE = 1e-12
"""Of values about 1: six layers of at most 30 terms are some thousand roundings of 1.1e-16."""

OPTIONS = [
    {"activation": "linear"},
    {"activation": "relu", "initializer": "he_normal"},
    {"activation": "leaky_relu", "bias": Normal(0.0, 0.5)},
    {"activation": "sigmoid", "bias": Normal(0.1, 1.0)},
    {"activation": "tanh", "initializer": Orthogonal(1.3), "bias": Constant(0.2)},
    *(
        {"normalization": kind, "place": place, "shortcut": shortcut, "bias": Normal(0.0, 0.3)}
        for kind in ("batch", "layer", "rms")
        for place in ("preactivation", "activation")
        for shortcut in (None, "residual", "dense")
    ),
    {"shortcut": "residual"},
    {"shortcut": "dense"},
    {"shortcut": "residual", "dropout": 0.4},
    {"shortcut": "dense", "normalization": "batch", "dropout": 0.25},
    {"shortcut": "highway"},
    {"shortcut": "highway", "normalization": "layer", "bias": Normal(0.0, 0.3), "dropout": 0.3},
    {"shortcut": "skipinit"},
    {"shortcut": "skipinit", "normalization": "rms", "dropout": 0.3},
]


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


def drawn(options, *, widths=WIDTHS, seed=5):
    """Return the network, its parameters with none of a special value, and x."""
    network = FullyConnected(widths, **options)
    stream = nx.stream(seed)
    parameters = network.initialize(nx, stream, dtype="float64")
    for path, value in parameters.items():
        if path.endswith(("scale", "shift", "alpha", "gate_bias")):
            parameters[path] = value + stream.normal(value.shape, std=0.3, dtype="float64")
    return network, parameters, stream.normal((BATCH, widths[0]), dtype="float64")


def extras(network, *, seed=6):
    """Return masks, if the network drops out, offsets of every layer, and nudges of hidden ones."""
    stream = nx.stream(seed)
    found = network.masks(nx, stream, BATCH, dtype="float64") if network.dropout else {}
    for stack in network.stacks:
        shape = (stack.count, BATCH, stack.n_out)
        for name in ("offset", "nudge") if stack.hidden else ("offset",):
            found[f"{stack.name}/{name}"] = stream.normal(shape, std=0.2, dtype="float64")
    return found


# --- forward -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=named)
@pytest.mark.parametrize("extra", [False, True], ids=["plain", "extras"])
def test_forward_is_the_plain_loop(options, extra):
    network, parameters, x = drawn(options)
    more = extras(network) if extra else {}
    output, trace = network.forward(nx, parameters, x, more)
    expected, preactivations = by_hand.forward({**parameters, **more}, x, **options)
    np.testing.assert_allclose(output, expected, rtol=CLOSE, atol=CLOSE)
    rows = [z for stack in network.stacks for z in trace[stack.name]]
    assert [z.shape for z in rows] == [(BATCH, n) for n in WIDTHS[1:]]
    for z, right in zip(rows, preactivations, strict=True):
        np.testing.assert_allclose(z, right, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_output_is_that_of_forward(options):
    network, parameters, x = drawn(options)
    more = extras(network)
    output = network.output(nx, parameters, x, more)
    np.testing.assert_array_equal(output, network.forward(nx, parameters, x, more)[0])


def test_output_keeps_no_preactivations():
    """Forward keeps 400 layers of 50 x 40 float64, 6.4 MB; the output alone takes a few of them."""
    network = FullyConnected((40,) * 401)
    parameters = network.initialize(nx, nx.stream(1), dtype="float64")
    x = nx.stream(2).normal((50, 40), dtype="float64")

    def peak(run):
        tracemalloc.start()
        run(nx, parameters, x)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    layer = 50 * 40 * 8
    assert peak(network.forward) > 400 * layer
    assert peak(network.output) < 40 * layer


def test_activation_can_be_a_function():
    _, parameters, x = drawn({})
    network = FullyConnected(WIDTHS, activation=lambda nx, z: nx.ops.sqrt(1 + z * z) - 1)
    h = x
    for own in by_hand.layers(parameters):
        z = h @ own["weight"].T
        h = np.sqrt(1 + z**2) - 1
    np.testing.assert_allclose(network.forward(nx, parameters, x)[0], z, rtol=CLOSE, atol=CLOSE)


def test_masks_drop_and_rescale():
    network, parameters, x = drawn({"dropout": 0.4})
    masks = network.masks(nx, nx.stream(8), 2000, dtype="float64")
    assert set(masks) == {"stack0/mask", "stack1/mask", "stack2/mask", "stack3/mask"}
    assert masks["stack1/mask"].shape == (2, 2000, 4)
    values = np.concatenate([mask.ravel() for mask in masks.values()])
    assert set(np.unique(values)) == {0.0, 1 / (1 - 0.4)}
    low, high = proportion((0.6, 0.6), values.size, 1e-9)
    assert low <= np.mean(values > 0) <= high
    assert high - low < 0.04
    assert (masks["stack1/mask"][0] != masks["stack1/mask"][1]).any()
    # without masks nothing is dropped
    whole = FullyConnected(WIDTHS).forward(nx, parameters, x)[0]
    np.testing.assert_array_equal(network.forward(nx, parameters, x)[0], whole)


def test_dtype_is_kept():
    network = FullyConnected((4, 3, 3, 2), bias="zeros", normalization="layer", dropout=0.5)
    parameters = network.initialize(nx, nx.stream(1))
    masks = network.masks(nx, nx.stream(2), 5)
    x = nx.stream(3).normal((5, 4))
    output, trace = network.forward(nx, parameters, x, masks)
    for values in (*parameters.values(), *masks.values(), output, *trace.values()):
        assert values.dtype == np.float32


# --- stacks and parameters -----------------------------------------------------------------------


def test_layers_of_one_shape_are_one_stack():
    assert FullyConnected((5, 4, 4, 4, 6, 6, 3)).stacks == (
        Stack("stack0", 1, 1, 5, 4, True),
        Stack("stack1", 2, 2, 4, 4, True),
        Stack("stack2", 4, 1, 4, 6, True),
        Stack("stack3", 5, 1, 6, 6, True),
        Stack("stack4", 6, 1, 6, 3, False),
    )
    # the last layer has no activation, and so is by itself
    assert FullyConnected((2,) * 9).stacks == (
        Stack("stack0", 1, 7, 2, 2, True),
        Stack("stack1", 8, 1, 2, 2, False),
    )
    dense = FullyConnected((5, 4, 4, 3), shortcut="dense").stacks
    assert [(s.n_in, s.n_out) for s in dense] == [(5, 4), (9, 4), (13, 3)]
    assert FullyConnected((1, 1)).stacks == (Stack("stack0", 1, 1, 1, 1, False),)
    assert FullyConnected((5, 4, 4, 3)).depth == 3


@pytest.mark.parametrize(
    ("normalization", "names"),
    [
        (None, {"weight", "bias"}),
        ("rms", {"weight", "bias", "scale"}),
        ("layer", {"weight", "bias", "scale", "shift"}),
        ("batch", {"weight", "bias", "scale", "shift"}),
    ],
)
def test_parameters_have_these_paths_and_shapes(normalization, names):
    network = FullyConnected((3, 2, 2, 2, 4), bias="ones", normalization=normalization)
    parameters = network.initialize(nx, nx.stream(0))
    shapes = {"weight": (2, 2, 2), "bias": (2, 2), "scale": (2, 2), "shift": (2, 2)}
    assert {path: parameters[path].shape for path in parameters if path.startswith("stack1/")} == {
        f"stack1/{name}": shapes[name] for name in names
    }
    # nothing is normalized after the last layer
    last = {path.split("/")[1] for path in parameters if path.startswith("stack2/")}
    assert last == {"weight", "bias"}
    for name, value in (("bias", 1), ("scale", 1), ("shift", 0)):
        for path in parameters:
            if path.endswith(name):
                assert (parameters[path] == value).all()
    without = FullyConnected((3, 2, 4)).initialize(nx, nx.stream(0))
    assert set(without) == {"stack0/weight", "stack1/weight"}


@pytest.mark.parametrize("rule", ["xavier_normal", "he_uniform", "lecun_truncated"])
def test_weights_follow_the_law_of_their_fans(rule):
    network = FullyConnected((30, 60, 60, 60, 20), initializer=rule, bias=Normal(1.0, 2.0))
    networks = [network.initialize(nx, stream) for stream in nx.stream(11).split(16)]
    effect = {"std": ("relative", 0.1), "mean": ("sd", 0.1)}
    for stack, shape in (("stack0", (60, 30)), ("stack1", (60, 60)), ("stack2", (20, 60))):
        weights = np.stack([parameters[f"{stack}/weight"] for parameters in networks])
        law = INITIALIZERS[rule].resolve(shape, "out_in")
        assert_law(weights, law, false_alarm=1e-9, detects=effect)
    bias = np.stack([parameters["stack1/bias"] for parameters in networks])
    few = {"std": ("relative", 0.3), "mean": ("sd", 0.3)}
    assert_law(bias, Normal(1.0, 2.0), false_alarm=1e-9, detects=few)


def test_layers_of_a_stack_are_independent():
    network = FullyConnected((50,) * 5, initializer="lecun_normal")
    first, second, third = network.initialize(nx, nx.stream(2))["stack0/weight"]
    pairs = np.stack([first, second])
    assert_law(
        pairs,
        INITIALIZERS["lecun_normal"].resolve((50, 50), "out_in"),
        false_alarm=1e-9,
        detects={"independence": ("absolute", 0.15)},
    )
    assert not np.isin(third, first).any()


def test_each_orthogonal_layer_is_orthogonal_and_drawn_by_itself():
    network = FullyConnected((8,) * 5, initializer=Orthogonal(1.5))
    weights = network.initialize(nx, nx.stream(3), dtype="float64")["stack0/weight"]
    for W in weights:
        np.testing.assert_allclose(W @ W.T, 2.25 * np.eye(8), atol=CLOSE)
    assert (weights[0] != weights[1]).any()


def test_the_same_stream_gives_the_same_network():
    network = FullyConnected(WIDTHS, bias=Normal(0.0, 1.0))
    one, two, three = (network.initialize(nx, nx.stream(seed)) for seed in (4, 4, 5))
    for path, value in one.items():
        np.testing.assert_array_equal(value, two[path])
        assert (value != three[path]).all()


# --- gradients -----------------------------------------------------------------------------------

SMOOTH = [
    options for options in OPTIONS if options.get("activation", "tanh") in ("tanh", "sigmoid")
]


@pytest.mark.parametrize("options", SMOOTH, ids=named)
def test_gradient_is_that_of_the_function(options):
    network, parameters, x = drawn(options)
    weights = nx.stream(9).normal((BATCH, WIDTHS[-1]), dtype="float64")

    def loss(p):
        return nx.ops.sum(network.forward(nx, p, p["x"])[0] * weights)

    # batch norm of seven examples has large higher derivatives: a smaller step, and more rounding
    every = {**parameters, **extras(network), "x": x}
    by_hand.assert_gradient(nx, loss, every, step=1e-4, rel=1e-7)


def test_gradient_of_offsets_is_that_of_preactivations():
    """``dL/dW_l`` is the outer product of it with what enters the layer, summed over the batch."""
    network, parameters, x = drawn({"activation": "relu"})
    given = extras(network)
    offsets = {path: np.zeros_like(a) for path, a in given.items() if path.endswith("offset")}
    weights = nx.stream(9).normal((BATCH, WIDTHS[-1]), dtype="float64")

    def loss(p):
        return nx.ops.sum(network.forward(nx, p, x)[0] * weights)

    _, gradient = nx.value_and_gradient(loss)({**parameters, **offsets})
    _, trace = by_hand.forward(parameters, x, activation="relu")
    h = x
    for own, z in zip(by_hand.layers(gradient), trace, strict=True):
        np.testing.assert_allclose(own["offset"].T @ h, own["weight"], rtol=CLOSE, atol=CLOSE)
        h = np.maximum(z, 0)


@pytest.mark.parametrize("shortcut", [None, "residual", "dense", "highway", "skipinit"])
def test_gradient_of_nudges_is_that_of_signals(shortcut):
    """That of the last hidden layer is W^T times the output's, whatever the shortcut."""
    network, parameters, x = drawn({"shortcut": shortcut})
    last = f"{network.stacks[-2].name}/nudge"
    weights = nx.stream(9).normal((BATCH, WIDTHS[-1]), dtype="float64")
    _, gradient = nx.value_and_gradient(
        lambda p: nx.ops.sum(network.output(nx, {**parameters, **p}, x) * weights)
    )({last: np.zeros((1, BATCH, WIDTHS[-2]))})
    expected = (weights @ parameters[f"{network.stacks[-1].name}/weight"][0])[:, -WIDTHS[-2] :]
    np.testing.assert_allclose(gradient[last][0], expected, rtol=CLOSE, atol=CLOSE)


# --- shortcuts -----------------------------------------------------------------------------------


def test_skipinit_begins_as_the_identity():
    """Every block passes signal and gradient to the bit, whatever its weights."""
    network = FullyConnected((4,) * 8, shortcut="skipinit", initializer=Normal(0.0, 9.0))
    parameters = network.initialize(nx, nx.stream(1), dtype="float64")
    assert parameters["stack0/alpha"].shape == (6, 1)
    x = nx.stream(2).normal((3, 4), dtype="float64")
    np.testing.assert_array_equal(
        network.output(nx, parameters, x), x @ parameters["stack1/weight"][0].T
    )
    nudges = {"stack0/nudge": np.zeros((6, 3, 4))}
    _, gradient = nx.value_and_gradient(
        lambda p: nx.ops.sum(network.output(nx, {**parameters, **p}, x))
    )(nudges)
    np.testing.assert_array_equal(
        gradient["stack0/nudge"], np.repeat(gradient["stack0/nudge"][-1:], 6, axis=0)
    )


def test_a_highway_begins_nearly_closed():
    """With gate weights of 0 a layer passes ``1 - sigmoid(-2)`` of its input."""
    network = FullyConnected((4,) * 4, shortcut="highway", initializer="zeros")
    parameters = network.initialize(nx, nx.stream(1), dtype="float64")
    assert parameters["stack0/gate"].shape == (2, 4, 4)
    assert (parameters["stack0/gate_bias"] == -2).all()
    _, trace = FullyConnected((4,) * 4, shortcut="highway").forward(
        nx, {**parameters, "stack1/weight": np.eye(4)[None]}, np.ones((1, 4))
    )
    np.testing.assert_allclose(trace["stack1"][0], (1 / (1 + np.exp(-2))) ** 2, rtol=CLOSE)


def test_gates_are_drawn_apart_from_weights():
    network = FullyConnected((6, 6, 6, 6, 2), shortcut="highway", initializer="he_normal")
    parameters = network.initialize(nx, nx.stream(4))
    gates, weights = parameters["stack0/gate"], parameters["stack0/weight"]
    assert not np.isin(gates, weights).any()
    changed = FullyConnected((5, 6, 6, 2), shortcut="highway").initialize(nx, nx.stream(0))
    assert "stack0/gate" not in changed  # the width changes
    assert "stack1/gate" in changed
    assert "stack2/gate" not in changed


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": ()}, r"at least one layer; received \(\)"),
        ({"widths": 5}, "at least one layer; received 5"),
        ({"widths": (3,)}, r"at least one layer; received \(3,\)"),
        ({"widths": (3, 0, 2)}, "a width must be at least 1; received 0"),
        ({"widths": (3, 2.5)}, "a width must be an integer; received 2.5"),
        ({"activation": "tahn"}, "did you mean 'tanh'"),
        ({"normalization": "bacth"}, "did you mean 'batch'"),
        ({"place": "activations"}, "did you mean 'activation'"),
        ({"shortcut": "skip"}, "residual, dense, highway, skipinit"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); received 1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\); received -0.1"),
        ({"dropout": float("nan")}, r"dropout must be in \[0, 1\); received nan"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        FullyConnected(**{"widths": (3, 2), **arguments})


def test_refuses_an_unknown_initializer_when_drawn():
    with pytest.raises(InvalidArgument, match="did you mean 'he_normal'"):
        FullyConnected((3, 2), initializer="he_norml").initialize(nx, nx.stream(0))


def test_batch_norm_refuses_one_example():
    network = FullyConnected((3, 4, 2), normalization="batch")
    parameters = network.initialize(nx, nx.stream(0))
    with pytest.raises(InvalidArgument, match="training"):
        network.forward(nx, parameters, np.ones((1, 3), np.float32))
