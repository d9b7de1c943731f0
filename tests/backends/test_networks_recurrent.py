"""The recurrent networks on the framework: NumPy's values and gradients, eager and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.contract import Backend
from isometry.common.laws.distributions import Normal
from isometry.common.networks.recurrent import CELLS, Recurrent

CLOSE = 1e-12  # six steps of sums of at most 9 terms, and back: some hundred roundings


@pytest.mark.parametrize("cell", CELLS)
def test_value_and_gradient_eager_and_compiled(nx: Backend, cell: str) -> None:
    network = Recurrent(3, 5, cell=cell, bias=Normal(0.0, 0.5))
    stream = nx.portable_stream(7)
    parameters = network.initialize(nx, stream, dtype="float64")
    x = stream.normal((6, 4, 3), dtype="float64")
    v = stream.normal((6, 4, 5), dtype="float64")

    def loss(backend: Backend) -> Any:
        return lambda p, x, v: backend.ops.sum(network.forward(backend, p, x)[1] * v)

    reference = NumpyBackend()
    plain = {path: nx.to_numpy(a) for path, a in parameters.items()}
    value, exact = reference.value_and_gradient(loss(reference))(
        plain, nx.to_numpy(x), nx.to_numpy(v)
    )
    for f in (loss(nx), nx.compile(loss(nx))):
        found, gradient = nx.value_and_gradient(f)(parameters, x, v)
        np.testing.assert_allclose(nx.to_numpy(found), value, rtol=CLOSE, atol=CLOSE)
        for path, right in exact.items():
            np.testing.assert_allclose(nx.to_numpy(gradient[path]), right, rtol=CLOSE, atol=CLOSE)
