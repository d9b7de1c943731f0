"""The convolutional network: right on NumPy, against loops; delta-orthogonal at any depth."""

import itertools

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Normal
from isometry.common.networks.convolutional import Convolutional
from isometry.common.networks.stacks import Stack

nx = NumpyBackend()
CLOSE = 1e-12
"""Of values about 1: three layers of at most 60 terms are some hundred roundings of 1.1e-16."""

OPTIONS = [
    {"padding": padding, "kernel": kernel, "bias": bias}
    for padding, kernel, bias in (
        ("circular", 3, None),
        ("circular", 5, Normal(0.0, 0.5)),
        ("zero", 3, Normal(0.0, 0.5)),
        ("zero", 1, None),
        ("circular", 1, None),
    )
]


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


def drawn(options, *, channels=(2, 3, 3, 4), size=5, batch=2):
    """Return a network with Gaussian kernels, its parameters, and images."""
    network = Convolutional(
        channels, size, 3, initializer=Normal(0.0, 0.3), readout=Normal(0.0, 0.2), **options
    )
    stream = nx.stream(5)
    parameters = network.initialize(nx, stream, dtype="float64")
    return network, parameters, stream.normal((batch, channels[0], size, size), dtype="float64")


def by_hand(network, parameters, x):
    """Return the output, by loops over places and taps."""
    half, size = network.kernel // 2, network.size
    h = x
    for stack in network.stacks:
        for k in range(stack.count):
            weight = parameters[f"{stack.name}/weight"][k]
            z = np.zeros((len(x), stack.n_out, size, size))
            for row, column, a, b in itertools.product(
                range(size), range(size), range(network.kernel), range(network.kernel)
            ):
                r, c = row + a - half, column + b - half
                if network.padding == "zero" and not (0 <= r < size and 0 <= c < size):
                    continue
                z[:, :, row, column] += h[:, :, r % size, c % size] @ weight[:, :, a, b].T
            if network.bias is not None:
                z += parameters[f"{stack.name}/bias"][k][:, None, None]
            h = np.tanh(z)
    y = h.reshape(len(x), -1) @ parameters["readout/weight"].T
    return y + parameters["readout/bias"] if network.bias is not None else y


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_forward_is_the_definition(options):
    network, parameters, x = drawn(options)
    y, trace = network.forward(nx, parameters, x)
    assert np.abs(y - by_hand(network, parameters, x)).max() <= CLOSE
    assert {name: z.shape for name, z in trace.items()} == {
        "stack0": (1, 2, 3, 5, 5),
        "stack1": (1, 2, 3, 5, 5),
        "stack2": (1, 2, 4, 5, 5),
        "readout": (1, 2, 3),
    }
    np.testing.assert_array_equal(trace["readout"][0], y)


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_output_is_that_of_forward(options):
    network, parameters, x = drawn(options)
    y = network.output(nx, parameters, x)
    np.testing.assert_array_equal(y, network.forward(nx, parameters, x)[0])


def test_layers_of_one_shape_are_one_stack():
    network = Convolutional((1, 4, 4, 4, 2), 8, 10)
    assert network.depth == 5
    assert network.stacks == (
        Stack("stack0", 1, 1, 1, 4, hidden=True),
        Stack("stack1", 2, 2, 4, 4, hidden=True),
        Stack("stack2", 4, 1, 4, 2, hidden=True),
    )
    wide = Convolutional((4, 4, 4), 8, 10)
    shapes = {k: v.shape for k, v in wide.initialize(nx, nx.stream(1)).items()}
    assert shapes == {"stack0/weight": (2, 4, 4, 3, 3), "readout/weight": (10, 256)}


def test_delta_orthogonal_kernels_keep_the_norm_at_any_depth():
    network = Convolutional((3, *[6] * 200), 4, 96, activation="linear")
    stream = nx.stream(2)
    parameters = network.initialize(nx, stream, dtype="float64")
    x = stream.normal((5, 3, 4, 4), dtype="float64")
    y, _ = network.forward(nx, parameters, x)
    ratio = np.square(y).sum(axis=1) / np.square(x).sum(axis=(1, 2, 3))
    # 200 products with orthogonal matrices of order 6, each off by at most 30 * 6 * 1.1e-16
    assert np.abs(ratio - 1).max() <= 200 * 2 * 30 * 6 * 1.2e-16
    first, second = parameters["stack1/weight"][:2]
    assert np.abs(first - second).max() > 0.1, "the layers share their weights"


def test_a_circular_image_has_no_edge():
    network, parameters, x = drawn({"kernel": 3})
    shifted = np.roll(x, (1, 2), axis=(2, 3))
    trace, moved = (network.forward(nx, parameters, v)[1]["stack2"] for v in (x, shifted))
    assert np.abs(np.roll(trace, (1, 2), axis=(3, 4)) - moved).max() <= CLOSE


def test_gradient_in_the_preactivations_is_that_of_a_difference():
    network, parameters, x = drawn({"kernel": 3}, channels=(2, 3, 3, 3))
    v = nx.stream(9).normal((2, 3), dtype="float64")
    offsets = {"stack1/offset": np.zeros((2, 2, 3, 5, 5))}

    def scalar(offsets):
        return nx.ops.sum(network.forward(nx, parameters, x, offsets)[0] * v)

    _, gradient = nx.value_and_gradient(scalar)(offsets)
    direction = nx.stream(10).normal((2, 2, 3, 5, 5), dtype="float64")
    step = 1e-5
    up, down = (float(scalar({"stack1/offset": s * step * direction})) for s in (1, -1))
    exact = float((gradient["stack1/offset"] * direction).sum())
    # third derivatives of about 100 times step**2 / 6, and rounding of 1e-15 / step
    assert abs((up - down) / (2 * step) - exact) <= 1e-8
    assert abs(exact) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((3,), 8, 10), "at least one layer"),
        (((1, 0), 8, 10), "number of channels"),
        (((1, 4), 0, 10), "size"),
        (((1, 4), 8, 0), "outputs"),
        (((1, 4), 8, 10, 2), "odd"),
        (((1, 4), 4, 10, 5), "kernel"),
        (((1, 4), 8, 10, 3, "reflect"), "padding"),
        (((1, 4), 8, 10, 3, "zero", "softsign"), "activation"),
    ],
)
def test_what_is_refused(arguments, words):
    with pytest.raises(InvalidArgument, match=words):
        Convolutional(*arguments)


def test_a_delta_orthogonal_net_never_narrows():
    with pytest.raises(InvalidArgument, match="no more inputs than outputs"):
        Convolutional((4, 2), 8, 10).initialize(nx, nx.stream(0))
