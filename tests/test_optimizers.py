"""Optimizers, schedules and clipping on NumPy: what is refused, and the edges."""

import math
from collections.abc import Callable

import numpy as np
import pytest

import isometry as iso
from isometry.common.optimizers import schedules
from isometry.common.optimizers.clipping import (
    clip_adaptively,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
)
from isometry.common.optimizers.layerwise import LARS, NovoGrad
from isometry.common.optimizers.norms import norm
from isometry.common.optimizers.optimizer import NonFinite, Optimizer, State
from isometry.common.optimizers.presets import PRESETS, optimizer_rule
from isometry.common.optimizers.quickprop import Quickprop
from isometry.common.optimizers.rules import SGD, Adam, Momentum

nx = iso.load("numpy")
W = {"w": np.array([1.0, 2.0], np.float32), "b": np.array(0.5, np.float32)}
G = {"w": np.array([0.5, -1.0], np.float32), "b": np.array(2.0, np.float32)}


# --- optimizers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(rate=-1.0), "rate must be at least 0; received -1"),
        (lambda: SGD(rate=math.nan), "rate must be finite; received nan"),
        (lambda: Momentum(rate=0.1, momentum=1.0), "momentum must be at least 0 and below 1"),
        (lambda: Momentum(rate=0.1, momentum=-0.1), "momentum must be at least 0"),
        (lambda: Momentum(rate=0.1, form="outsde"), "did you mean 'outside'"),
        (lambda: Adam(place="in"), "place 'in'"),
        (lambda: Adam(decay="couple"), "did you mean 'coupled'"),
        (lambda: Adam(eps=-1e-8), "eps must be at least 0"),
        (lambda: LARS(denominator="sum"), "denominator 'sum'"),
        (lambda: LARS(decay="decoupled"), "decay of LARS 'decoupled': known are coupled"),
        (lambda: NovoGrad(averaging="first"), "averaging 'first'"),
        (lambda: Quickprop(growth=-1.0), "growth must be at least 0"),
        (lambda: Optimizer(nx, SGD(rate=1.0), nonfinite="ignore"), "nonfinite 'ignore'"),
        (lambda: optimizer_rule("adm"), "did you mean 'adam'"),
        (lambda: optimizer_rule("adam", library="keas"), "did you mean 'keras'"),
        (lambda: optimizer_rule("adam", epz=1.0), "did you mean 'eps'"),
    ],
)
def test_constants_that_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(iso.InvalidArgument, match=message):
        make()


def test_what_a_step_refuses() -> None:
    optimizer = Optimizer(nx, Momentum(rate=0.1))
    state = optimizer.start(W)
    with pytest.raises(iso.InvalidArgument, match="same paths; received \\['b', 'w'\\] and \\['w'"):
        optimizer.step(W, {"w": G["w"]}, state)
    with pytest.raises(iso.InvalidArgument, match="'w' has shape \\(2,\\)"):
        optimizer.step(W, G | {"w": np.zeros(3, np.float32)}, state)
    with pytest.raises(iso.InvalidArgument, match="gradient \\(2,\\) and float64"):
        optimizer.step(W, G | {"w": np.zeros(2)}, state)
    with pytest.raises(iso.InvalidArgument, match="begin with start"):
        optimizer.step(W, G, State())
    with pytest.raises(iso.InvalidArgument, match="rate must be at least 0"):
        optimizer.step(W, G, state, rate=-0.1)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_gradients_that_are_not_finite(bad: float) -> None:
    wrong = G | {"b": np.array(bad, np.float32)}
    optimizer = Optimizer(nx, Momentum(rate=0.1))
    with pytest.raises(NonFinite, match="gradient of 'b' is not finite at step 1"):
        optimizer.step(W, wrong, optimizer.start(W))
    skipping = Optimizer(nx, Momentum(rate=0.1), nonfinite="skip")
    moved, state = skipping.step(W, wrong, skipping.start(W))
    assert (state.step, state.skipped) == (0, 1)
    assert all(moved[path] is w for path, w in W.items())
    loose = Optimizer(nx, Momentum(rate=0.1), nonfinite="propagate")
    moved, state = loose.step(W, wrong, loose.start(W))
    assert not np.isfinite(moved["b"])
    assert np.isfinite(moved["w"]).all()


def test_a_sum_that_overflows_is_no_infinite_gradient() -> None:
    optimizer = Optimizer(nx, SGD(rate=1e-38))
    large = {"w": np.full(4, 3e38, np.float32)}
    moved, _ = optimizer.step({"w": np.ones(4, np.float32)}, large, optimizer.start(large))
    np.testing.assert_allclose(moved["w"], 1 - 3.0, rtol=1e-6)


def test_lars_on_zero_weights_or_gradients_is_plain_descent() -> None:
    rule = LARS(rate=0.1, trust=1e-3)
    for w, g in ((0.0, 1.0), (1.0, 0.0)):
        optimizer = Optimizer(nx, rule)
        one = {"w": np.full(3, w)}
        moved, _ = optimizer.step(one, {"w": np.full(3, g)}, optimizer.start(one))
        np.testing.assert_array_equal(moved["w"], np.full(3, w - 0.1 * g))


def test_the_forms_of_momentum_part_when_the_rate_changes() -> None:
    def last(form: str, rates: tuple[float, ...]) -> float:
        optimizer = Optimizer(nx, Momentum(rate=0.1, form=form))
        w = {"w": np.array(1.0)}
        state = optimizer.start(w)
        for g, rate in zip((1.0, 0.5, -0.25, 0.1), rates, strict=True):
            w, state = optimizer.step(w, {"w": np.array(g)}, state, rate=rate)
        return float(w["w"])

    same = (0.1,) * 4
    assert last("outside", same) == pytest.approx(last("inside", same), abs=1e-15)
    dropped = (0.1, 0.1, 0.01, 0.01)
    assert last("outside", dropped) == pytest.approx(0.73981, abs=5e-6)
    assert last("inside", dropped) == pytest.approx(0.52435, abs=5e-6)


def test_state_per_parameter() -> None:
    """NovoGrad's is half of Adam's, and one number a layer."""
    w = {"w": np.zeros((100, 50), np.float32)}
    sizes = {
        name: sum(x.size for x in Optimizer(nx, rule).start(w).arrays.values()) / 5000
        for name, rule in PRESETS["paper"].items()
    }
    assert sizes["adam"] == sizes["lamb"] == 2
    assert sizes["novograd"] == 1 + 1 / 5000
    assert sizes["momentum"] == sizes["lars"] == sizes["rmsprop"] == sizes["adagrad"] == 1
    assert sizes["sgd"] == 0


# --- clipping -----------------------------------------------------------------------------------


def test_clipping_refuses() -> None:
    for clip in (clip_by_value, clip_by_norm, clip_by_global_norm):
        with pytest.raises(iso.InvalidArgument, match="limit must be greater than 0"):
            clip(nx, G, 0.0)
        with pytest.raises(NonFinite, match="gradient of 'w' is not finite"):
            clip(nx, {"w": np.array([1.0, math.inf])}, 1.0)
        with pytest.raises(iso.InvalidArgument, match="nonfinite 'skip'"):
            clip(nx, G, 1.0, nonfinite="skip")


def test_adaptive_clipping_refuses_what_does_not_match() -> None:
    with pytest.raises(iso.InvalidArgument, match="same paths; received \\['w'\\] and \\['b', 'w'"):
        clip_adaptively(nx, {"w": W["w"]}, G)
    with pytest.raises(iso.InvalidArgument, match="'w' has shape \\(3,\\), its gradient \\(2,\\)"):
        clip_adaptively(nx, W | {"w": np.zeros(3, np.float32)}, G)


def test_clipping_at_the_edges() -> None:
    zero = {"w": np.zeros(3, np.float32)}
    assert clip_by_global_norm(nx, {}, 1.0) == {}
    np.testing.assert_array_equal(clip_by_norm(nx, zero, 1e-30)["w"], zero["w"])
    empty = {"w": np.zeros((0, 2), np.float32)}
    assert clip_by_global_norm(nx, empty | G, 1.0)["w"].shape == (2,)
    assert clip_by_norm(nx, empty, 1.0)["w"].shape == (0, 2)
    half = {"w": np.full(100, 6e4, np.float16)}  # the norm is 6e5: beyond float16
    found = clip_by_norm(nx, half, 1.0)["w"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(float), 0.1, rtol=2.0**-11)


def test_the_norm_of_what_is_not_finite() -> None:
    assert norm(nx, np.array([math.inf, 1.0])) == math.inf
    assert np.isnan(norm(nx, np.array([math.nan, math.inf])))
    assert norm(nx, np.array([1e308, 1e308])) == pytest.approx(math.sqrt(2) * 1e308)
    assert norm(nx, np.array([5e-324, 0.0])) == 5e-324


# --- schedules ----------------------------------------------------------------------------------


def test_step_decay_and_polynomial() -> None:
    drop = schedules.StepDecay(rate=1.0, factor=0.5, every=10)
    assert [drop(k) for k in (0, 9, 10, 19, 20)] == [1.0, 1.0, 0.5, 0.5, 0.25]
    poly = schedules.Polynomial(rate=1.0, end=0.5, steps=10, power=2)
    assert [poly(k) for k in (0, 5, 10, 11)] == [1.0, 0.5 + 0.5 * 0.25, 0.5, 0.5]


def test_cosine_and_restarts() -> None:
    cosine = schedules.Cosine(rate=1.0, end=0.25, steps=8)
    assert [cosine(k) for k in (0, 4, 8, 100)] == [1.0, 0.625, 0.25, 0.25]
    restarts = schedules.WarmRestarts(rate=0.05, period=1, growth=2)
    assert [k for k in range(300) if restarts(k) == 0.05] == [0, 1, 3, 7, 15, 31, 63, 127, 255]
    assert restarts(5) == 0.025  # halfway between 3 and 7
    even = schedules.WarmRestarts(rate=1.0, period=10)
    assert [even(k) for k in (10, 25, 10**12 + 5)] == [1.0, 0.5, 0.5]
    for k in range(10):  # Loshchilov and Hutter 2017, equation 5
        assert even(k) == pytest.approx((1 + math.cos(math.pi * k / 10)) / 2, abs=1e-15)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cycles_follow_the_formula(mode: str) -> None:
    cyclical = schedules.Cyclical(low=0.001, high=0.006, half=20, mode=mode, gamma=0.999)
    for step in range(130):  # Smith 2017, as his program has it
        cycle = math.floor(1 + step / 40)
        x = abs(step / 20 - 2 * cycle + 1)
        scale = {"triangular": 1, "triangular2": 1 / 2 ** (cycle - 1), "exp_range": 0.999**step}
        expected = 0.001 + 0.005 * max(0, 1 - x) * scale[mode]
        assert cyclical(step) == pytest.approx(expected, abs=1e-16)
    assert cyclical(0) == cyclical(40) == 0.001


def test_warm_up() -> None:
    warm = schedules.WarmUp(rate=1.0, steps=4, then=schedules.Cosine(rate=1.0, steps=2))
    assert [warm(k) for k in range(7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.0]
    assert schedules.WarmUp(rate=0.5, steps=1)(10) == 0.5


def test_divide_when_stuck() -> None:
    schedule = schedules.DivideWhenStuck(rate=1.0, divisor=4, patience=2, margin=0.1)
    rates = []
    for step, loss in enumerate([1.0, 0.95, 0.8, 0.79, 0.78, math.nan, 0.9, 0.5]):
        rates.append(schedule(step))
        schedule.report(loss)
    assert rates == [1.0, 1.0, 1.0, 1.0, 1.0, 0.25, 0.25, 0.0625]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.StepDecay(rate=1.0, every=0), "every must be at least 1"),
        (lambda: schedules.Cosine(rate=0.0, steps=5), "rate must be greater than 0"),
        (lambda: schedules.WarmRestarts(rate=1.0, period=2, growth=0), "growth must be at least 1"),
        (lambda: schedules.Cyclical(mode="triangle"), "did you mean 'triangular'"),
        (lambda: schedules.WarmUp(rate=1.0, steps=-1), "steps must be at least 1"),
        (lambda: schedules.DivideWhenStuck(rate=1.0, patience=0), "patience must be at least 1"),
    ],
)
def test_schedules_that_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(iso.InvalidArgument, match=message):
        make()
