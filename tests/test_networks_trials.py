"""Trials: steps are those of the rule on each layer's arrays, and ends are what they say."""

import math
from dataclasses import replace

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.laws.distributions import Normal
from isometry.common.laws.perceptron import cross_entropy
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.training import digits_data, rows
from isometry.common.networks.trials import Regimen, Trainer
from isometry.common.optimizers.clipping import clip_by_value
from isometry.common.optimizers.presets import optimizer_rule
from isometry.common.optimizers.schedules import WarmUp

nx = NumpyBackend()
NETWORK = FullyConnected((64, 8, 8, 8, 10), "relu", "he_normal")
DATA = digits_data(0)
SGD = optimizer_rule("sgd")


def begun(network=NETWORK, seed=1):
    return network.initialize(nx, nx.stream(seed), dtype="float64")


def trained(network=NETWORK, rule=SGD, rate=0.1, parameters=None, **constants):
    regimen = Regimen(rule=rule, rate=rate, **{"steps": 3, "batch": 16, **constants})
    return Trainer(nx, network, DATA).run(parameters or begun(network), regimen)


def gradient(parameters, step, seed=0):
    """Return loss and gradient of the step's batch, of the stacks as they are."""
    chosen = rows(seed, 16, step, DATA.trained)
    return nx.value_and_gradient(
        lambda p: cross_entropy(nx, NETWORK.output(nx, p, DATA.x[chosen]), DATA.labels[chosen])
    )(parameters)


def test_steps_are_the_rule_s():
    parameters, losses = begun(), []
    for step in range(3):
        loss, slopes = gradient(parameters, step)
        losses.append(loss)
        parameters = {path: w - 0.1 * slopes[path] for path, w in parameters.items()}
    outcome = trained()
    np.testing.assert_allclose(outcome.losses, losses, rtol=1e-12)
    assert outcome.parameters.keys() == parameters.keys()
    for path, w in parameters.items():
        np.testing.assert_allclose(outcome.parameters[path], w, rtol=1e-10, atol=1e-12)


def test_a_rule_goes_by_the_norm_of_each_layer():
    """LARS without momentum moves each layer by trust times its norm, those of a stack too."""
    rule = optimizer_rule("lars", momentum=0.0, trust=0.01)
    parameters = begun()
    parameters["stack1/weight"] = parameters["stack1/weight"] * np.array([1.0, 5.0])[:, None, None]
    outcome = trained(rule=rule, rate=0.5, steps=1, parameters=parameters)
    for path, w in parameters.items():
        for before, after in zip(w, outcome.parameters[path], strict=True):
            way = np.linalg.norm(after - before)
            assert way == pytest.approx(0.005 * np.linalg.norm(before), rel=1e-9)


@pytest.mark.parametrize("name", ["lars", "lamb", "novograd"])
def test_stacks_move_as_their_layers_do(name):
    """Three steps of given gradients, one of a layer zero: beside each layer by itself."""
    alone = optimizer_rule(name)
    together = replace(alone, stacked=True)
    start = np.random.default_rng(3).normal(size=(2, 3, 4)) * np.array([1.0, 9.0])[:, None, None]
    stacked, state = {"w": start}, {}
    layers, states = [{"w": w} for w in start], [{}, {}]
    for step, gradient in enumerate(np.random.default_rng(4).normal(size=(3, 2, 3, 4)), 1):
        gradient[1] *= step != 1
        with nx.scope():
            stacked, state = together.advance(nx, stacked, {"w": gradient}, state, step=step)
            for i, g in enumerate(gradient):
                layers[i], states[i] = alone.advance(nx, layers[i], {"w": g}, states[i], step=step)
    np.testing.assert_allclose(stacked["w"], [w["w"] for w in layers], rtol=1e-14)
    for slot, a in state.items():
        np.testing.assert_allclose(np.squeeze(a), [own[slot] for own in states], rtol=1e-14)


def test_the_schedule_gives_the_rates():
    parameters = begun()
    _, slopes = gradient(parameters, 0)
    outcome = trained(steps=1, schedule=WarmUp(rate=0.4, steps=4))
    for path, w in parameters.items():
        np.testing.assert_allclose(outcome.parameters[path], w - 0.1 * slopes[path], rtol=1e-9)


def test_gradients_are_clipped():
    parameters = begun()
    _, slopes = gradient(parameters, 0)
    limit = 1e-3
    assert max(np.abs(g).max() for g in slopes.values()) > limit
    outcome = trained(steps=1, clip=lambda nx, _, g: clip_by_value(nx, g, limit))
    for path, w in parameters.items():
        expected = w - 0.1 * np.clip(slopes[path], -limit, limit)
        np.testing.assert_allclose(outcome.parameters[path], expected, rtol=1e-12)


def test_it_ends_at_the_accuracy_wanted():
    outcome = trained(steps=400, batch=128, until=0.6)
    assert outcome.accuracies[-1] >= 0.6 > max(outcome.accuracies[:-1])
    assert outcome.checked == list(range(0, outcome.checked[-1] + 1, 5))
    assert len(outcome.losses) == outcome.checked[-1] == outcome.reached(0.6)
    assert outcome.reached(0.99) is None
    logits = NETWORK.output(nx, outcome.parameters, DATA.x[: DATA.trained])
    right = logits.argmax(axis=1) == DATA.labels[: DATA.trained].argmax(axis=1)
    assert outcome.accuracies[-1] == right.mean()
    again = trained(parameters=outcome.parameters, until=0.6)
    assert (again.losses, again.checked) == ([], [0])


@pytest.mark.parametrize(
    ("look", "checked"), [(0, []), (2, [0, 2, 3]), (5, [0, 3]), (1, [0, 1, 2, 3])]
)
def test_looks(look, checked):
    outcome = trained(look=look)
    assert outcome.checked == checked
    assert len(outcome.accuracies) == len(checked)
    assert len(outcome.losses) == 3


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_a_loss_that_is_not_finite_ends_it():
    outcome = trained(rate=1e200, steps=10)
    assert outcome.failed == len(outcome.losses) == 2
    assert not math.isfinite(outcome.losses[-1])
    _, slopes = gradient(begun(), 0)
    for path, w in begun().items():  # after the last whole step
        np.testing.assert_allclose(outcome.parameters[path], w - 1e200 * slopes[path], rtol=1e-9)
    assert trained().failed is None


def test_a_gradient_that_is_not_finite_ends_it():
    def broken(nx, parameters, gradients):
        return {path: g + math.inf for path, g in gradients.items()}

    outcome = trained(clip=broken)
    assert outcome.failed == 1
    assert np.isfinite(outcome.losses).all()
    np.testing.assert_array_equal(outcome.parameters["stack0/weight"], begun()["stack0/weight"])


@pytest.mark.parametrize(
    ("rule", "numbers"),
    [
        ("sgd", 0),
        ("momentum", 64 * 8 + 2 * 64 + 80),
        ("adam", 2 * (64 * 8 + 2 * 64 + 80)),
        ("novograd", 64 * 8 + 2 * 64 + 80 + 4),
    ],
)
def test_state_is_counted(rule, numbers):
    assert trained(rule=optimizer_rule(rule), rate=0.001, steps=1).state == numbers


def test_a_seed_decides_order_and_dropout():
    network = FullyConnected((64, 8, 8, 10), "relu", Normal(0.0, 0.3), dropout=0.5)
    one, two, three = (trained(network, seed=seed).losses for seed in (3, 3, 4))
    assert one == two
    assert one != three
    same = trained(FullyConnected((64, 8, 8, 10), "relu", Normal(0.0, 0.3)), seed=3).losses
    assert one[0] != same[0]


def test_a_trainer_is_used_again_and_tells():
    trainer, told = Trainer(nx, NETWORK, DATA), []
    regimen = Regimen(rule=SGD, rate=0.1, steps=2, batch=16)
    first = trainer.run(begun(), regimen, told.append)
    second = trainer.run(begun(), regimen)
    assert told == [1, 2]
    assert first.losses == second.losses
