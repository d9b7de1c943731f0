"""What optimizers compute on the framework, they compile once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isometry.common.contract import Backend
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.training import digits_data
from isometry.common.networks.trials import Regimen, Trainer
from isometry.common.optimizers.optimizer import Optimizer
from isometry.common.optimizers.rules import SGD
from isometry.common.optimizers.second_order import newton_step

Array = Any
DIFFERENCE = 1e-6  # central differences, where there are no second derivatives: curvature.STEP**2


def test_steps_of_newton_do_not_compile_again(nx: Backend) -> None:
    runs = []

    def loss(parameters: Mapping[str, Array], hessian: Array) -> Array:
        runs.append(parameters)
        w = parameters["w"]
        return nx.ops.sum(nx.ops.matmul(w, hessian) * w) / 2

    counts = []
    for top in (2.0, 3.0, 5.0):
        data = nx.asarray(np.array([[top, 1.0], [1.0, 4.0]]))
        w = {"w": nx.asarray(np.array([[top, -1.0]]))}
        moved = newton_step(nx, loss, w, data)["w"]
        np.testing.assert_allclose(nx.to_numpy(moved), 0.0, atol=DIFFERENCE)
        counts.append(len(runs))
    assert (counts[2] == counts[0]) == ("compiled" in nx.capabilities)


def test_trials_of_one_net_do_not_compile_again(nx: Backend) -> None:
    """Other rates, weights and seeds are only numbers."""
    runs = []

    def bent(nx: Backend, z: Array) -> Array:
        runs.append(z)
        return nx.relu(z)

    network = FullyConnected((64, 8, 8, 10), bent, "he_normal")
    trainer = Trainer(nx, network, digits_data(0))
    counts = []
    for seed, rate in enumerate((0.1, 0.01)):
        parameters = network.initialize(nx, nx.stream(seed))
        regimen = Regimen(rule=SGD(rate=1.0), rate=rate, batch=16, steps=2 + seed, seed=seed)
        trainer.run(parameters, regimen)
        counts.append(len(runs))
    assert (counts[1] == counts[0]) == ("compiled" in nx.capabilities)


def test_a_donated_step_takes_memory_over(nx: Backend) -> None:
    given, gradients = ({"w": nx.asarray(x)} for x in ([1.0, 2.0], [0.5, -1.0]))
    optimizer = Optimizer(nx, SGD(rate=1.0), donate=True)
    moved, _ = optimizer.step(given, gradients, optimizer.start(given))
    np.testing.assert_array_equal(nx.to_numpy(moved["w"]), [0.5, 3.0])
    if nx.name == "jax":  # donated buffers are deleted
        assert given["w"].is_deleted()
    else:
        kept = [0.5, 3.0] if nx.mutable else [1.0, 2.0]
        np.testing.assert_array_equal(nx.to_numpy(given["w"]), kept)
