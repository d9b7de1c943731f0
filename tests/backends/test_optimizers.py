"""Each update rule on each backend, against its paper's formulas worked out in NumPy."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from isometry.common.contract import Backend
from isometry.common.optimizers.clipping import (
    clip_adaptively,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
)
from isometry.common.optimizers.norms import norm
from isometry.common.optimizers.optimizer import Optimizer
from isometry.common.optimizers.rules import Adam, Momentum

sys.path.insert(0, str(Path(__file__).parents[1]))
import optimizers_by_hand as hand
from optimizers_cases import CASES

ROUNDINGS = 100  # of a step of any rule, each of a number below 4; five steps


@pytest.mark.parametrize("name", CASES)
def test_five_steps_follow_the_paper(nx: Backend, name: str) -> None:
    rule, reference = CASES[name]
    decayed = (0.0, 0.1) if name in ("adam, decoupled", "lars", "quickprop") else (0.1,)
    for decay in decayed:
        optimizer = Optimizer(nx, replace(rule, weight_decay=decay))
        w = {path: nx.asarray(x) for path, x in hand.WEIGHTS.items()}
        state = optimizer.start(w)
        course = reference(hand.WEIGHTS, hand.GRADIENTS, hand.RATES, decay)
        for g, rate, expected in zip(hand.GRADIENTS, hand.RATES, course, strict=True):
            gradients = {path: nx.asarray(x) for path, x in g.items()}
            w, state = optimizer.step(w, gradients, state, rate=rate)
            for path, x in expected.items():
                np.testing.assert_allclose(
                    nx.to_numpy(w[path]), x, rtol=0, atol=ROUNDINGS * 4 * 2.0**-53
                )


def test_half_precision_is_moved_in_float32(nx: Backend) -> None:
    """A thousand steps too small for float16 one by one: the state holds what the weight cannot."""
    optimizer = Optimizer(nx, Adam(rate=1e-3))
    w = {"w": nx.asarray(np.array([1.0, -1.0]), dtype="float16")}
    g = {"w": nx.asarray(np.array([6e-5, 6e4]), dtype="float16")}  # squares beyond float16
    moved, state = optimizer.step(w, g, optimizer.start(w))
    assert nx.dtype_of(moved["w"]) == "float16"
    assert {nx.dtype_of(x) for x in state.arrays.values()} == {"float32"}
    expected = (np.array([1.0, -1.0]) - 1e-3).astype(np.float16)
    np.testing.assert_array_equal(nx.to_numpy(moved["w"]), expected)


def test_zero_gradients_and_no_parameters(nx: Backend) -> None:
    optimizer = Optimizer(nx, Momentum(rate=0.1))
    assert optimizer.step({}, {}, optimizer.start({}))[0] == {}
    w = {"w": nx.asarray([1.0, 2.0]), "none": nx.asarray(np.zeros((0, 3), np.float32))}
    zero = {path: nx.ops.zeros_like(x) for path, x in w.items()}
    moved, state = optimizer.step(w, zero, optimizer.start(w))
    np.testing.assert_array_equal(nx.to_numpy(moved["w"]), [1.0, 2.0])
    assert nx.shape_of(moved["none"]) == (0, 3)
    assert state.step == 1


@pytest.mark.parametrize("size", [2.0**-100, 1.0, 2.0**125])
def test_norms_do_not_overflow(nx: Backend, size: float) -> None:
    """Squares of the first underflow in float32, and those of the last overflow."""
    x = (np.array([0.75, -1.0]) * size).astype(np.float32)
    observed = nx.to_numpy(norm(nx, nx.asarray(x)))
    np.testing.assert_allclose(observed, 1.25 * size, rtol=4 * 2.0**-24)


def test_clipping(nx: Backend) -> None:
    g = {"a": np.array([3.0, 0.0]), "b": np.array([[0.0], [-4.0]])}
    gradients = {path: nx.asarray(x) for path, x in g.items()}

    def clipped(found):
        return {path: nx.to_numpy(x) for path, x in found.items()}

    value = clipped(clip_by_value(nx, gradients, 3.5))
    np.testing.assert_array_equal(value["a"], [3.0, 0.0])
    np.testing.assert_array_equal(value["b"], [[0.0], [-3.5]])
    own = clipped(clip_by_norm(nx, gradients, 3.0))
    np.testing.assert_array_equal(own["a"], [3.0, 0.0])  # equal to the limit: unchanged
    np.testing.assert_array_equal(own["b"], [[0.0], [-3.0]])
    close = partial(np.testing.assert_allclose, rtol=4 * 2.0**-53)
    whole = clipped(clip_by_global_norm(nx, gradients, 2.5))  # the norm is 5
    close(whole["a"], [1.5, 0.0])
    close(whole["b"], [[0.0], [-2.0]])
    weights = {"a": nx.asarray(np.array([100.0, 0.0])), "b": nx.asarray(np.array([[1.0], [200.0]]))}
    unit = clipped(clip_adaptively(nx, weights, gradients, 0.01, eps=1e-3))
    close(unit["a"], [1.0, 0.0])
    close(unit["b"], [[0.0], [-2.0]])


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_norm_that_is_not_finite_is_loud(nx: Backend, bad: float) -> None:
    gradients = {"a": nx.asarray(np.array([bad, 1.0])), "b": nx.asarray(np.array([1.0]))}
    found = clip_by_global_norm(nx, gradients, 1.0, nonfinite="propagate")
    assert all(np.isnan(nx.to_numpy(x)).all() for x in found.values())


def test_the_order_of_paths_is_kept(nx: Backend) -> None:
    """Compilers sort dictionaries: of equal shapes, one layer would be given another's weights."""
    optimizer = Optimizer(nx, Momentum(rate=0.5, momentum=0.25))
    w = {path: nx.asarray([value]) for path, value in (("b", 1.0), ("c", 4.0), ("a", -8.0))}
    state = optimizer.start(w)
    for _ in range(2):
        w, state = optimizer.step(w, w, state)  # w / 2, then w / 2 - (w / 4 + w / 2) / 2
    found = {path: float(nx.to_numpy(x)[0]) for path, x in w.items()}
    assert list(found.items()) == [("b", 0.125), ("c", 0.5), ("a", -1.0)]


def test_large_gradients_are_clipped_and_not_lost(nx: Backend) -> None:
    """limit / norm is subnormal here, and some frameworks take that for 0."""
    g = np.array([1e37, -1e37], np.float32)
    found = nx.to_numpy(clip_by_norm(nx, {"w": nx.asarray(g)}, 1e-3)["w"])
    np.testing.assert_allclose(found, np.sign(g) * 1e-3 / np.sqrt(2), rtol=8 * 2.0**-24)
