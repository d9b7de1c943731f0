"""Every family on the framework: NumPy's values, gradients, Jacobian and Hessian products.

NumPy's own are held to loops, closed forms and differences in tests/test_networks_*.py; the fully
connected net with all its options is in test_networks_fully_connected.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.contract import Backend
from isometry.common.laws.distributions import Normal
from isometry.common.networks import curvature
from isometry.common.networks.attention import Attention
from isometry.common.networks.autoencoder import TiedAutoencoder
from isometry.common.networks.convolutional import Convolutional
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.message_passing import MessagePassing, symmetric_adjacency
from isometry.common.networks.recurrent import CELLS, Recurrent
from isometry.common.networks.residual import REMEDIES, Residual

CLOSE = 1e-12  # of values about 1: some hundred roundings of 1.1e-16, there and back
DIFFERENCE = 1e-7  # curvature.STEP (1 + ||w||) is about 5e-5; squared, over 6, times 100
GRAPH = symmetric_adjacency(4, np.array([[0, 1], [1, 2], [2, 0], [3, 2]]))
BIAS = Normal(0.0, 0.5)

FAMILIES: dict[str, tuple[Any, tuple[int, ...]]] = {  # the network, and the shape of its input
    **{f"recurrent,{cell}": (Recurrent(3, 5, cell, bias=BIAS), (6, 4, 3)) for cell in CELLS},
    "convolutional,circular": (Convolutional((3, 3, 3), 4, 2, bias=BIAS), (2, 3, 4, 4)),
    "convolutional,zero": (Convolutional((2, 3), 4, 2, padding="zero"), (2, 2, 4, 4)),
    "message passing": (MessagePassing(3, 5), (4, 5)),
    "attention,before": (Attention(2, 4, 3, layer_norm="before"), (2, 5, 4)),
    "attention,after": (Attention(2, 4, residual=False, layer_norm="after"), (2, 5, 4)),
    "autoencoder": (TiedAutoencoder((4, 4, 4, 4), bias=BIAS), (3, 4)),
    "autoencoder,relu": (TiedAutoencoder((3, 6), "relu"), (4, 3)),
    "fully connected": (FullyConnected((4, 4, 4, 2), shortcut="residual"), (5, 4)),
    **{f"residual,{remedy}": (Residual((4, 5, 3), 3, remedy), (6, 4)) for remedy in REMEDIES},
}
ONE_EACH = [
    "recurrent,lstm",
    "convolutional,circular",
    "message passing",
    "attention,after",
    "autoencoder",
    "fully connected",
]
Arrays = Mapping[str, Any]


def outputs(nx: Backend, network: Any, arrays: Arrays) -> list[Any]:
    """Return the output, as `output` gives it, and the preactivations that forward returns."""
    graph = [arrays["graph"]] if isinstance(network, MessagePassing) else []
    _, trace = network.forward(nx, arrays, arrays["x"], *graph)
    return [network.output(nx, arrays, arrays["x"], *graph), *trace.values()]


def drawn(family: str) -> dict[str, np.ndarray]:
    """Return parameters, an input, a graph, and a weight for each output."""
    network, shape = FAMILIES[family]
    nx = NumpyBackend()
    stream = nx.stream(7)
    arrays = network.initialize(nx, stream, dtype="float64")
    arrays |= {"x": stream.normal(shape, dtype="float64"), "graph": GRAPH}
    weights = [stream.normal(y.shape, dtype="float64") for y in outputs(nx, network, arrays)]
    return {**arrays, **{f"weight{k}": v for k, v in enumerate(weights)}}


def asarrays(nx: Backend, arrays: Arrays) -> dict[str, Any]:
    return {path: nx.asarray(a) for path, a in arrays.items()}


def assert_close(observed: np.ndarray, expected: np.ndarray, tolerance: float, name: str) -> None:
    assert observed.shape == expected.shape, name
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(
        observed / scale, expected / scale, rtol=tolerance, atol=tolerance, err_msg=name
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradient_eager_and_compiled(nx: Backend, family: str) -> None:
    """The gradient of ``sum weight . output`` in the weight is the output."""
    arrays = drawn(family)

    def loss(nx: Backend) -> Callable[[Arrays], Any]:
        def total(arrays: Arrays) -> Any:
            ys = outputs(nx, FAMILIES[family][0], arrays)
            terms = [nx.ops.sum(y * arrays[f"weight{k}"]) for k, y in enumerate(ys)]
            return sum(terms[1:], terms[0])

        return total

    reference = NumpyBackend()
    value, exact = reference.value_and_gradient(loss(reference))(arrays)
    for f in (loss(nx), nx.compile(loss(nx))):
        found, gradient = nx.value_and_gradient(f)(asarrays(nx, arrays))
        assert_close(nx.to_numpy(found), value, CLOSE, "value")
        assert gradient.keys() == exact.keys()
        for path in exact:
            assert_close(nx.to_numpy(gradient[path]), exact[path], CLOSE, path)


@pytest.mark.parametrize("family", ONE_EACH)
def test_products_with_jacobian_and_hessian(nx: Backend, family: str) -> None:
    """Of the output in the input, and of ``sum weight . output**2`` in the parameters."""
    network, shape = FAMILIES[family]
    arrays, draws = drawn(family), np.random.default_rng(1)
    names = network.initialize(NumpyBackend(), NumpyBackend().stream(0)).keys()
    vector = {name: draws.normal(size=arrays[name].shape) for name in sorted(names)}
    tangent = draws.normal(size=shape)

    def products(nx: Backend) -> dict[str, np.ndarray]:
        f = nx.compile(lambda arrays, x: outputs(nx, network, {**arrays, "x": x})[0])
        given = asarrays(nx, arrays)
        x = given.pop("x")
        _, pullback = nx.vjp(lambda x: f(given, x), x)
        found = {"v^T J": pullback(given["weight0"])}
        if "jvp" in nx.capabilities:
            found["J v"] = nx.jvp(lambda x: f(given, x), x, nx.asarray(tangent))[1]

        def loss(parameters: Arrays, given: Arrays, x: Any) -> Any:
            with nx.scope():
                y = f({**given, **parameters}, x)
                return nx.ops.sum(nx.ops.square(y) * given["weight0"])

        hessian = curvature.hessian_vector_product(
            nx, loss, {name: given.pop(name) for name in names}, asarrays(nx, vector), given, x
        )
        found |= {f"H v, {name}": a for name, a in hessian.items()}
        return {name: nx.to_numpy(a) for name, a in found.items()}

    expected, exact = products(NumpyBackend()), curvature.method(nx) == curvature.EXACT
    for name, y in products(nx).items():
        assert_close(y, expected[name], CLOSE if exact or "J" in name else DIFFERENCE, name)
