"""The fully connected network on the framework: the plain loop's values, eager and compiled."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.contract import Backend
from isometry.common.laws.distributions import Normal
from isometry.common.networks.fully_connected import FullyConnected

sys.path.insert(0, str(Path(__file__).parents[1]))
import networks_by_hand as by_hand

WIDTHS = (5, 4, 4, 4, 3)
BATCH = 6
CLOSE = 1e-12  # some thousand roundings of 1.1e-16, of values about 1
OPTIONS: list[dict[str, Any]] = [
    {"activation": "relu", "shortcut": "residual", "dropout": 0.4},
    {"bias": Normal(0.0, 0.3), "normalization": "batch", "place": "preactivation"},
    {"normalization": "layer", "place": "activation", "shortcut": "dense"},
    {"normalization": "rms", "shortcut": "residual", "activation": "sigmoid"},
    {"shortcut": "highway", "normalization": "layer"},
    {"shortcut": "skipinit", "activation": "relu"},
]
NAMES = ["dropout", "batch", "dense", "rms", "highway", "skipinit"]


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_value_and_gradient_eager_and_compiled(nx: Backend, options: dict[str, Any]) -> None:
    network = FullyConnected(WIDTHS, **options)
    stream = nx.portable_stream(3)
    arrays = network.initialize(nx, stream, dtype="float64")
    arrays |= network.masks(nx, stream, BATCH, dtype="float64") if network.dropout else {}
    for stack in network.stacks:
        shape = (stack.count, BATCH, stack.n_out)
        for name in ("offset", "nudge") if stack.hidden else ("offset",):
            arrays[f"{stack.name}/{name}"] = stream.normal(shape, std=0.2, dtype="float64")
        if f"{stack.name}/alpha" in arrays:  # begun at 0
            alpha = stream.normal((stack.count, 1), std=0.5, dtype="float64")
            arrays[f"{stack.name}/alpha"] = alpha
    x = stream.normal((BATCH, WIDTHS[0]), dtype="float64")
    weights = stream.normal((BATCH, WIDTHS[-1]), dtype="float64")

    def loss(p: Any, x: Any, weights: Any) -> Any:
        return nx.ops.sum(network.forward(nx, p, x)[0] * weights)

    plain = {path: nx.to_numpy(a) for path, a in arrays.items()}
    expected, _ = by_hand.forward(plain, nx.to_numpy(x), **options)
    output, _ = network.forward(nx, arrays, x)
    np.testing.assert_allclose(nx.to_numpy(output), expected, rtol=CLOSE, atol=CLOSE)
    value = float((expected * nx.to_numpy(weights)).sum())
    reference = NumpyBackend()
    _, exact = reference.value_and_gradient(
        lambda p: reference.ops.sum(
            network.forward(reference, p, nx.to_numpy(x))[0] * nx.to_numpy(weights)
        )
    )(plain)
    for f in (loss, nx.compile(loss)):
        found, gradient = nx.value_and_gradient(f)(arrays, x, weights)
        np.testing.assert_allclose(nx.to_numpy(found), value, rtol=CLOSE, atol=CLOSE)
        for path, right in exact.items():
            np.testing.assert_allclose(
                nx.to_numpy(gradient[path]), right, rtol=CLOSE, atol=CLOSE, err_msg=path
            )
