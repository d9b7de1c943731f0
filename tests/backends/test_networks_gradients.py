"""Gradients compiled as a whole are those of the parts, on the framework as in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.contract import Backend
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.gradients import both_passes, compiled_gradient, placed

Array = Any
CLOSE = 1e-5  # of values about 1: some tens of roundings of 6e-8, there and back
NETWORKS = {
    "one stack": FullyConnected((3, 3, 3, 2), "tanh"),
    "two stacks": FullyConnected((4, 3, 3, 2), "tanh", bias="zeros"),
    "dense": FullyConnected((3, 3, 3, 2), "tanh", shortcut="dense"),
}
V = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 1.0]])


def drawn(network: FullyConnected) -> tuple[dict[str, np.ndarray], np.ndarray]:
    numpy = NumpyBackend()
    stream = numpy.stream(2)
    return network.initialize(numpy, stream), stream.normal((len(V), network.widths[0]))


@pytest.mark.parametrize("place", ["offset", "nudge"])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_both_passes(nx: Backend, network: FullyConnected, place: str) -> None:
    """Beside NumPy's preactivations, and its differences of the functional."""
    numpy = NumpyBackend()
    parameters, x = drawn(network)
    given = placed(nx, {path: nx.asarray(a) for path, a in parameters.items()})
    z, d, output = both_passes(nx, network, place)(given, nx.asarray(x), V)
    wide = {path: a.astype(np.float64) for path, a in parameters.items()}
    hidden = [stack for stack in network.stacks if stack.hidden]
    added = np.zeros((network.depth - 1, len(V), 3))

    def run(added: np.ndarray) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        extras = {f"{s.name}/{place}": added[s.first - 1 : s.first - 1 + s.count] for s in hidden}
        return network.forward(numpy, wide, x.astype(np.float64), extras)

    exact, trace = run(added)
    np.testing.assert_allclose(output, exact, atol=CLOSE)
    np.testing.assert_allclose(z, np.concatenate([trace[s.name] for s in hidden]), atol=CLOSE)
    step = 1e-6
    for at in np.ndindex(added.shape):
        ends = []
        for change in (step, -step):
            moved = added.copy()
            moved[at] = change
            ends.append(float(np.sum(run(moved)[0] * V)))
        assert abs(d[at] - (ends[0] - ends[1]) / (2 * step)) < CLOSE


def test_a_gradient_compiled_as_a_whole(nx: Backend) -> None:
    """Of ``sum((a b + c)**2)``, in any order of the paths."""

    def loss(p: Mapping[str, Array], c: Array) -> Array:
        return nx.ops.sum(nx.ops.square(p["b"] * p["a"] + c))

    evaluate = compiled_gradient(nx, loss)
    a, b, c = (np.array(values) for values in ([1.0, 2.0], [3.0, -1.0], [0.5, 0.25]))
    for _ in range(2):
        value, slopes = evaluate({"b": nx.asarray(b), "a": nx.asarray(a)}, nx.asarray(c))
        inner = a * b + c
        assert float(nx.to_numpy(value)) == float(np.sum(inner**2))
        assert slopes.keys() == {"a", "b"}
        np.testing.assert_array_equal(nx.to_numpy(slopes["a"]), 2 * inner * b)
        np.testing.assert_array_equal(nx.to_numpy(slopes["b"]), 2 * inner * a)
