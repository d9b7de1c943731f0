"""Recursions of the update rules against their papers by hand; their bound against long doubles."""

import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws import descent_paths as laws
from isometry.common.laws import quadratic_stability
from isometry.conformance import optimizers_by_hand as hand

HESSIAN = np.array([[0.9, 0.3], [0.3, 0.2]])
START = np.array([0.8, -1.1])
CASES = {  # recursion, slots, the same by hand, rate
    "descent": (laws.momentum(0.4, 0.0), 2, hand.sgd, 0.4),
    "heavy ball": (laws.momentum(0.4, 0.7), 2, hand.momentum("outside", m=0.7), 0.4),
    "Nesterov": (
        laws.momentum(0.4, 0.7, nesterov=True),
        2,
        hand.momentum("inside", nesterov=True, m=0.7),
        0.4,
    ),
    "adam": (laws.adam(0.07), 3, hand.adam(), 0.07),
    "rmsprop": (laws.rmsprop(0.03), 2, hand.rmsprop("outside"), 0.03),
    "adagrad": (laws.adagrad(0.3), 2, hand.adagrad("outside"), 0.3),
    "quickprop": (laws.quickprop(0.15), 3, hand.quickprop(), 0.15),
}
STEPS = 25


def by_hand(reference, rate, steps):
    """Run a reference that takes all gradients at once: the last is found from those before."""
    gradients, course = [], [START]
    for _ in range(steps):
        gradients.append({"w": HESSIAN @ course[-1]})
        course = [START]
        for layers in reference({"w": START}, gradients, [rate] * len(gradients), 0.0):
            course.append(layers["w"])
    return np.array(course)


@pytest.mark.parametrize("name", CASES)
def test_recursions_are_the_papers(name):
    step, slots, reference, rate = CASES[name]
    found = laws.follow(step, slots, HESSIAN, START, STEPS)
    other = by_hand(reference, rate, STEPS)
    assert (np.abs(found.weights - other) <= 4 * found.error).all()
    assert found.error.max() < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_rounding_stays_within_its_bound_and_is_not_far_below(name):
    """Against the recursion in long doubles, where those are longer."""
    step, slots, _, _ = CASES[name]
    found = laws.follow(step, slots, HESSIAN, START, STEPS)
    state = np.zeros((slots, 2), dtype=np.longdouble)
    state[0] = START
    exact = [state[0]]
    for t in range(1, STEPS + 1):
        state = step(state, state[0] @ HESSIAN.astype(np.longdouble), t)[0]
        exact.append(state[0])
    off = np.abs(found.weights - np.array(exact))
    assert (off <= 2 * found.error).all()
    if np.finfo(np.longdouble).eps < np.finfo(float).eps:
        assert off.max() > 1e-4 * found.error.max()


@pytest.mark.parametrize("nesterov", [False, True])
def test_linear_rules_are_powers_of_the_companion_matrix(nesterov):
    curvatures, rate, m = np.array([0.1, 1.3]), 0.5, 0.8
    found = laws.follow(
        laws.momentum(rate, m, nesterov=nesterov), 2, np.diag(curvatures), START, 40
    )
    powers = quadratic_stability.multipliers(rate * curvatures, m, 40, nesterov=nesterov)
    assert (np.abs(found.weights - START * powers) <= 4 * found.error).all()


def test_an_error_grows_as_the_jacobians_say():
    """Beyond the edge by the larger root a step; contracting, it stays at a few roundings."""
    unstable = laws.follow(laws.momentum(2.5, 0.0), 2, np.diag([1.0, 0.1]), START, 60).error
    assert unstable[-1, 0] == pytest.approx(1.5 * unstable[-2, 0], rel=0.1)
    stable = laws.follow(laws.momentum(1.0, 0.0), 2, np.diag([1.0, 0.1]), START, 60).error
    assert stable.max() < 1e-13


def test_rounding_grows_in_rmsprop_once_its_scaled_rate_is_past_the_edge():
    step, steps = laws.rmsprop(0.05), 150
    error = laws.follow(step, 2, HESSIAN, START, steps).error.max(axis=1)
    state, past = np.stack([START, 0 * START]), 0
    for t in range(1, steps + 1):
        state, _ = step(state, state[0] @ HESSIAN, t)
        scale = state[1] ** -0.25  # the same eigenvalues as rate / sqrt(v) times H
        if 0.05 * np.linalg.eigvalsh(scale[:, None] * HESSIAN * scale)[-1] > 2:
            past = t
            break
    assert 10 < past < steps
    assert error[past] < 1e-12
    assert error.max() > 1e-3


def test_no_steps_and_refusal():
    found = laws.follow(laws.adam(0.1), 3, HESSIAN, START, 0)
    assert (found.weights == START).all()
    assert (found.error == 0).all()
    with pytest.raises(InvalidArgument, match="steps must be at least 0; received -1"):
        laws.follow(laws.adam(0.1), 3, HESSIAN, START, -1)
