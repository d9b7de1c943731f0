"""Optimizers at work on the backend's arrays: updates, rules, schedules, clipping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from isometry.common.optimizers import clipping, schedules
from isometry.common.optimizers.layerwise import LAMB, LARS, NovoGrad
from isometry.common.optimizers.optimizer import NonFinite, Optimizer
from isometry.common.optimizers.quickprop import Quickprop
from isometry.common.optimizers.rules import SGD, Adagrad, Adam, Momentum, RMSprop
from isometry.conformance import asserts
from isometry.conformance import optimizers_by_hand as hand

RULES: dict[str, dict[str, Any]] = {
    "optimizers.sgd": {"sgd": (SGD(rate=0.1), hand.sgd)},
    "optimizers.momentum": {
        form: (Momentum(rate=0.1, form=form), hand.momentum(form))
        for form in ("outside", "inside", "average")
    },
    "optimizers.nesterov": {
        form: (
            Momentum(rate=0.1, form=form, nesterov=True),
            hand.momentum(form, nesterov=True),
        )
        for form in ("outside", "inside", "average")
    },
    "optimizers.adam": {
        place: (Adam(place=place, eps=1e-3), hand.adam(place, eps=1e-3))
        for place in ("outside", "hat", "inside")
    },
    "optimizers.adamw": {
        decay: (Adam(decay=decay), hand.adam(decay=decay)) for decay in ("decoupled", "independent")
    },
    "optimizers.rmsprop": {
        place: (RMSprop(place=place, eps=1e-3), hand.rmsprop(place, eps=1e-3))
        for place in ("outside", "inside")
    },
    "optimizers.adagrad": {
        "outside": (Adagrad(eps=1e-3), hand.adagrad("outside", eps=1e-3)),
        "inside": (
            Adagrad(eps=1e-3, initial=0.1, place="inside"),
            hand.adagrad("inside", initial=0.1, eps=1e-3),
        ),
    },
    "optimizers.lars": {
        "separate": (LARS(trust=0.1), hand.lars(trust=0.1)),
        "together": (
            LARS(trust=0.1, eps=1e-2, denominator="together"),
            hand.lars("together", trust=0.1, eps=1e-2),
        ),
        "exempt": (
            LARS(trust=0.1, form="outside", exempt=("bias",)),
            hand.lars(form="outside", trust=0.1, exempt=("bias",)),
        ),
    },
    "optimizers.larc": {
        "larc": (
            LARS(trust=0.02, form="outside", clip=True),
            hand.lars(form="outside", trust=0.02, clip=True),
        )
    },
    "optimizers.lamb": {
        "coupled": (LAMB(), hand.lamb()),
        "decoupled": (LAMB(decay="decoupled"), hand.lamb("decoupled")),
    },
    "optimizers.novograd": {
        averaging.replace(" ", "-"): (NovoGrad(averaging=averaging), hand.novograd(averaging))
        for averaging in ("never", "always", "after the first")
    },
    "optimizers.quickprop": {"quickprop": (Quickprop(), hand.quickprop())},
}
"""Clause -> case -> rule, and its paper by hand."""

SCHEDULES = {
    "optimizers.step-decay": (
        schedules.StepDecay(rate=0.5, factor=0.1, every=3),
        {0: 0.5, 2: 0.5, 3: 0.05, 5: 0.05, 6: 0.005},
    ),
    "optimizers.polynomial": (
        schedules.Polynomial(rate=0.5, end=0.0, steps=4, power=2.0),
        {0: 0.5, 1: 0.5 * 9 / 16, 2: 0.125, 4: 0.0, 5: 0.0},
    ),
    "optimizers.cosine": (
        schedules.Cosine(rate=0.75, end=0.25, steps=6),
        {0: 0.75, 2: 0.625, 3: 0.5, 4: 0.375, 6: 0.25, 7: 0.25},
    ),
    "optimizers.cyclical": (
        schedules.Cyclical(low=2.0**-10, high=0.5, half=2, mode="triangular2"),
        {0: 2.0**-10, 2: 0.5, 4: 2.0**-10, 6: (0.5 + 2.0**-10) / 2, 8: 2.0**-10},
    ),
    "optimizers.warm-restarts": (
        schedules.WarmRestarts(rate=0.875, period=2, growth=2),
        {0: 0.875, 1: 0.4375, 2: 0.875, 4: 0.4375, 6: 0.875},
    ),
    "optimizers.warm-up": (
        schedules.WarmUp(rate=0.6, steps=4, then=schedules.StepDecay(rate=0.6, every=1)),
        {0: 0.15, 1: 0.3, 3: 0.6, 4: 0.6, 5: 0.06},
    ),
}
"""Clause -> schedule, and its rate at some steps, from the source's formula."""

ROUNDINGS = 100  # of a step of any rule, each of a number below 4; five steps
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


def _clauses(table: Mapping[str, Iterable[str]]) -> list[object]:
    return [
        pytest.param(
            clause, case, id=f"{clause.partition('.')[2]}-{case}", marks=pytest.mark.clause(clause)
        )
        for clause, cases in table.items()
        for case in cases
    ]


def _arrays(nx, values, dtype="float64"):
    return {path: nx.asarray(np.asarray(x, dtype)) for path, x in values.items()}


def _numbers(nx, arrays):
    return {path: nx.to_numpy(x).astype(np.float64) for path, x in arrays.items()}


# --- updates ------------------------------------------------------------------------------------

UPDATES = {
    "scaled": (lambda x, a, y, z: a * x, 1),
    "axpy": (lambda x, a, y, z: x + a * y, 2),
    "addcmul": (lambda x, a, y, z: x + a * y * z, 3),
    "addcdiv": (lambda x, a, y, z: x + a * y / z, 3),
}
X, Y, Z = (np.array(v) for v in ([1.0, -3.0, 0.0, 0.75], [0.3, 7.0, -2.0, 1e-9], [3.0, -0.7, 5, 9]))


@pytest.mark.clause("optimizers.updates")
@pytest.mark.parametrize("donating", [False, True], ids=["plain", "donating"])
@pytest.mark.parametrize("name", UPDATES)
def test_updates_against_longdouble(nx, full_dtype, name, donating):
    formula, ulp = UPDATES[name]
    x, y, z = (v.astype(full_dtype) for v in (X, Y, Z))
    count = {"scaled": 0, "axpy": 1}.get(name, 2)
    array = np.array(-0.3, full_dtype)
    for a in (-0.375, 3.0, 0.1, array, np.linspace(-1, 1, 4).astype(full_dtype)):
        given = nx.asarray(x)
        others = [nx.asarray(v) for v in (y, z)][:count]
        with nx.scope():
            number = a if isinstance(a, float) else nx.asarray(a)
            found = getattr(nx.donating() if donating else nx, name)(given, number, *others)
        wide = [v.astype(np.longdouble) for v in (x, y, z)]
        exact = formula(wide[0], np.asarray(a, np.longdouble), *wide[1:])
        part = formula(0 * wide[0], np.asarray(a, np.longdouble), *wide[1:])
        size = np.abs(wide[0]) + np.abs(part)
        size = size if name != "scaled" else np.abs(exact)
        assert nx.dtype_of(found) == full_dtype
        # the number may be rounded to the dtype first
        asserts.within(nx.to_numpy(found), exact, 2 * (ulp + 0.5) * UNIT[full_dtype] * size)
        changed = donating and nx.mutable
        np.testing.assert_array_equal(nx.to_numpy(given), nx.to_numpy(found) if changed else x)
        for other, before in zip(others, (y, z), strict=False):
            np.testing.assert_array_equal(nx.to_numpy(other), before)


@pytest.mark.clause("optimizers.updates")
def test_mutable_says_whether_arrays_change(nx):
    x = y = nx.asarray([1.0, 2.0])
    with nx.scope():
        y += 1
    np.testing.assert_array_equal(nx.to_numpy(x), [2.0, 3.0] if nx.mutable else [1.0, 2.0])
    assert nx.donating().overwrites is not nx.overwrites


@pytest.mark.clause("optimizers.updates")
def test_functions_that_take_memory_over(nx, full_dtype):
    x, y = (v.astype(full_dtype) for v in (X, Y))
    given, other = {"x": nx.asarray(x)}, {"y": nx.asarray(y)}
    plus = nx.donating().compile(lambda held, others: held["x"] + others["y"])
    for times in (1, 2):
        given["x"] = plus(given, other)
        expected = x + y if times == 1 else x + y + y
        np.testing.assert_array_equal(nx.to_numpy(given["x"]), expected)
    np.testing.assert_array_equal(nx.to_numpy(other["y"]), y)

    def total(held, rows):
        return nx.ops.scan(lambda s, row: (s + row, None), held["x"], rows)[0]

    found = nx.donating().compile(total)({"x": nx.asarray(x)}, nx.asarray(np.stack([y, y, y])))
    np.testing.assert_array_equal(nx.to_numpy(found), x + y + y + y)


@pytest.mark.clause("optimizers.all-finite")
def test_one_entry_tells(nx, dtype):
    largest = {"float16": 65504.0, "float64": 1.7e308}.get(dtype, 3e38)
    for finite in ([1.0, -2.0], [largest, largest], [largest, -largest], [], 5.0):
        assert nx.all_finite(nx.asarray(finite, dtype=dtype)) is True
    for bad in (np.inf, -np.inf, np.nan):
        for values in (bad, [0.0, bad], [[largest, 1.0], [bad, largest]], [np.inf, -np.inf]):
            assert nx.all_finite(nx.asarray(values, dtype=dtype)) is False


# --- rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clause", "case"), _clauses(RULES))
def test_five_steps_follow_the_paper(nx, clause, case):
    rule, reference = RULES[clause][case]
    for decay in (0.1, 0.0) if clause == "optimizers.sgd" else (0.1,):
        optimizer = Optimizer(nx, replace(rule, weight_decay=decay))
        _follow(nx, optimizer, reference, decay, "float64")


@pytest.mark.parametrize(
    ("clause", "case"), _clauses({clause: list(cases)[:1] for clause, cases in RULES.items()})
)
def test_five_steps_in_place(nx, clause, case):
    rule, reference = RULES[clause][case]
    _follow(nx, Optimizer(nx, rule, donate=True), reference, rule.weight_decay, "float32")


def _follow(nx, optimizer, reference, decay, dtype):
    w = _arrays(nx, hand.WEIGHTS, dtype)
    state = optimizer.start(w)
    course = reference(hand.WEIGHTS, hand.GRADIENTS, hand.RATES, decay)
    for g, rate, expected in zip(hand.GRADIENTS, hand.RATES, course, strict=True):
        gradients = _arrays(nx, g, dtype)
        w, state = optimizer.step(w, gradients, state, rate=rate)
        assert {nx.dtype_of(x) for x in w.values()} == {dtype}
        for path, x in _numbers(nx, w).items():
            asserts.within(x, expected[path], ROUNDINGS * 4 * UNIT[dtype])
            before = g[path].astype(dtype)
            np.testing.assert_array_equal(nx.to_numpy(gradients[path]), before)


@pytest.mark.clause("optimizers.zeros")
@pytest.mark.parametrize("clause", RULES)
def test_zeros_stay_finite(nx, clause):
    rule, _ = next(iter(RULES[clause].values()))
    optimizer = Optimizer(nx, replace(rule, weight_decay=0.0))
    w = _arrays(nx, {"zero": np.zeros(3), "one": np.ones(3)})
    g = _arrays(nx, {"zero": np.ones(3), "one": np.zeros(3)})
    state = optimizer.start(w)
    for _ in range(2):
        w, state = optimizer.step(w, g, state)
        found = _numbers(nx, w)
        assert all(np.isfinite(x).all() for x in found.values())
    assert (found["zero"] < 0).all()  # zeros move
    np.testing.assert_array_equal(found["one"], 1.0)


@pytest.mark.clause("optimizers.empty")
def test_nothing_to_move(nx):
    for rule in (SGD(rate=0.1), LAMB(weight_decay=0.0)):
        optimizer = Optimizer(nx, rule)
        moved, state = optimizer.step({}, {}, optimizer.start({}))
        assert (moved, state.step) == ({}, 1)
        w = _arrays(nx, {"w": [1.0, 2.0], "none": np.zeros((0, 3))})
        zero = {path: nx.ops.zeros_like(x) for path, x in w.items()}
        moved, state = optimizer.step(w, zero, optimizer.start(w))
        np.testing.assert_array_equal(nx.to_numpy(moved["w"]), [1.0, 2.0])
        assert nx.shape_of(moved["none"]) == (0, 3)
        assert state.step == 1


@pytest.mark.clause("optimizers.order")
def test_the_order_of_paths_is_kept(nx):
    """Compilers sort dictionaries: of equal shapes, one layer would be given another's weights."""
    optimizer = Optimizer(nx, Momentum(rate=0.5, momentum=0.25))
    w = _arrays(nx, {"b": [1.0], "c": [4.0], "a": [-8.0]})
    state = optimizer.start(w)
    for _ in range(2):
        w, state = optimizer.step(w, w, state)  # w / 2, then w / 2 - (w / 4 + w / 2) / 2
    found = {path: float(x[0]) for path, x in _numbers(nx, w).items()}
    assert list(found.items()) == [("b", 0.125), ("c", 0.5), ("a", -1.0)]


@pytest.mark.clause("optimizers.half")
def test_half_precision_is_moved_in_float32(nx):
    optimizer = Optimizer(nx, Adam(rate=1e-3))
    w = _arrays(nx, {"w": [1.0, -1.0]}, "float16")
    g = _arrays(nx, {"w": [6e-5, 6e4]}, "float16")  # whose squares float16 does not hold
    moved, state = optimizer.step(w, g, optimizer.start(w))
    assert nx.dtype_of(moved["w"]) == "float16"
    assert {nx.dtype_of(x) for x in state.arrays.values()} == {"float32"}
    expected = (np.array([1.0, -1.0]) - 1e-3).astype(np.float16)
    np.testing.assert_array_equal(nx.to_numpy(moved["w"]), expected)


@pytest.mark.clause("optimizers.non-finite")
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_gradients_that_are_not_finite(nx, bad):
    w = _arrays(nx, {"b": [1.0, 2.0], "w": [3.0]})
    g = _arrays(nx, {"b": [0.5, bad], "w": [1.0]})
    rule = SGD(rate=0.5)
    with pytest.raises(NonFinite, match="gradient of 'b' is not finite at step 1"):
        Optimizer(nx, rule).step(w, g, Optimizer(nx, rule).start(w))
    skipping = Optimizer(nx, rule, nonfinite="skip")
    moved, state = skipping.step(w, g, skipping.start(w))
    assert (state.step, state.skipped) == (0, 1)
    np.testing.assert_array_equal(nx.to_numpy(moved["b"]), [1.0, 2.0])
    loose = Optimizer(nx, rule, nonfinite="propagate")
    found = _numbers(nx, loose.step(w, g, loose.start(w))[0])
    np.testing.assert_array_equal(found["b"], [0.75, 2.0 - 0.5 * bad])
    np.testing.assert_array_equal(found["w"], [2.5])


# --- schedules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "clause",
    [pytest.param(c, id=c.partition(".")[2], marks=pytest.mark.clause(c)) for c in SCHEDULES],
)
def test_each_step_is_as_long_as_the_schedule_says(nx, clause):
    schedule, rates = SCHEDULES[clause]
    optimizer = Optimizer(nx, SGD(rate=1.0))
    w, one = _arrays(nx, {"w": [0.0]}), _arrays(nx, {"w": [1.0]})
    state = optimizer.start(w)
    for step in range(max(rates) + 1):
        moved, state = optimizer.step(w, one, state, rate=schedule(step))
        if step in rates:
            asserts.within(nx.to_numpy(moved["w"]), -rates[step], 8 * UNIT["float64"])


@pytest.mark.clause("optimizers.divide-when-stuck")
def test_the_rate_is_divided_when_the_loss_stays(nx):
    schedule = schedules.DivideWhenStuck(rate=0.7, divisor=3.0, patience=2)
    optimizer = Optimizer(nx, SGD(rate=1.0))
    w, one = _arrays(nx, {"w": [0.0]}), _arrays(nx, {"w": [1.0]})
    state = optimizer.start(w)
    lengths = []
    for step, loss in enumerate((3.0, 2.0, 2.0, 2.5, 1.0, np.nan, 1.0)):
        moved, state = optimizer.step(w, one, state, rate=schedule(step))
        lengths.append(-float(nx.to_numpy(moved["w"])[0]))
        schedule.report(loss)
    expected = np.array([0.7, 0.7, 0.7, 0.7, 0.7 / 3, 0.7 / 3, 0.7 / 3])
    asserts.within(lengths, expected, 8 * UNIT["float64"])
    assert schedule(0) == pytest.approx(0.7 / 9, rel=1e-15)


# --- clipping -----------------------------------------------------------------------------------

CLIPPED = {"a": [3.0, 0.0], "b": [[0.0], [-4.0]], "zero": [0.0, 0.0], "none": np.zeros((0, 2))}
WEIGHTS = {"a": [100.0, 0.0], "b": [[1.0], [200.0]], "zero": [0.0, 1.0], "none": np.zeros((0, 2))}
CLIPS = {
    "optimizers.clip-by-value": (
        lambda nx, w, g, **how: clipping.clip_by_value(nx, g, 3.5, **how),
        {"a": [3.0, 0.0], "b": [[0.0], [-3.5]]},
    ),
    "optimizers.clip-by-norm": (
        lambda nx, w, g, **how: clipping.clip_by_norm(nx, g, 3.0, **how),
        {"a": [3.0, 0.0], "b": [[0.0], [-3.0]]},  # equal to the limit: unchanged
    ),
    "optimizers.clip-by-global-norm": (
        lambda nx, w, g, **how: clipping.clip_by_global_norm(nx, g, 2.5, **how),
        {"a": [1.5, 0.0], "b": [[0.0], [-2.0]]},  # the norm is 5
    ),
    "optimizers.clip-adaptively": (
        lambda nx, w, g, **how: clipping.clip_adaptively(nx, w, g, 0.01, eps=1e-3, **how),
        {"a": [1.0, 0.0], "b": [[0.0], [-2.0]]},
    ),
}
_EACH_CLIP = pytest.mark.parametrize(
    "clause", [pytest.param(c, id=c.partition(".")[2], marks=pytest.mark.clause(c)) for c in CLIPS]
)


@_EACH_CLIP
def test_what_is_above_the_limit_is_scaled_to_it(nx, clause, full_dtype):
    clip, expected = CLIPS[clause]
    w, g = (_arrays(nx, x, full_dtype) for x in (WEIGHTS, CLIPPED))
    found = clip(nx, w, g)
    assert {nx.dtype_of(x) for x in found.values()} == {full_dtype}
    expected = {**CLIPPED, **expected}
    assert list(found) == list(expected)
    for path, x in _numbers(nx, found).items():
        asserts.within(x, expected[path], 16 * UNIT[full_dtype])
        assert x.shape == np.shape(expected[path])
        np.testing.assert_array_equal(nx.to_numpy(g[path]), np.asarray(CLIPPED[path], full_dtype))
    assert clip(nx, {}, {}) == {}


@_EACH_CLIP
def test_half_precision_does_not_overflow_in_the_norm(nx, clause):
    clip, _ = CLIPS[clause]
    w = _arrays(nx, {"a": [1.0, 1.0]}, "float16")
    g = _arrays(nx, {"a": [60000.0, 60000.0]}, "float16")
    found = clip(nx, w, g)["a"]
    assert nx.dtype_of(found) == "float16"
    expected = {
        "optimizers.clip-by-value": 3.5,
        "optimizers.clip-by-norm": 3 / np.sqrt(2),
        "optimizers.clip-by-global-norm": 2.5 / np.sqrt(2),
        "optimizers.clip-adaptively": 0.01,
    }[clause]
    # the quotient of two numbers is rounded to float32, and the result to float16
    np.testing.assert_allclose(nx.to_numpy(found).astype(float), [expected] * 2, rtol=2.0**-10)


@_EACH_CLIP
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_is_loud(nx, clause, bad):
    clip, _ = CLIPS[clause]
    w, g = _arrays(nx, {"a": [1.0, 1.0]}), _arrays(nx, {"a": [bad, 1.0]})
    with pytest.raises(NonFinite, match="gradient of 'a' is not finite"):
        clip(nx, w, g)
    found = _numbers(nx, clip(nx, w, g, nonfinite="propagate"))["a"]
    if clause == "optimizers.clip-by-value":
        np.testing.assert_array_equal(found, [np.clip(bad, -3.5, 3.5), 1.0])
    else:
        assert np.isnan(found).all()


@pytest.mark.clause("optimizers.clip-by-norm")
@pytest.mark.parametrize("size", [2.0**-100, 1.0, 2.0**125])
def test_squares_do_not_overflow(nx, size):
    """Squares of the first underflow in float32, and those of the last overflow."""
    g = _arrays(nx, {"w": np.array([0.75, -1.0]) * size}, "float32")
    found = nx.to_numpy(clipping.clip_by_norm(nx, g, size)["w"])
    np.testing.assert_allclose(found, np.array([0.6, -0.8]) * size, rtol=8 * UNIT["float32"])


@pytest.mark.clause("optimizers.clip-by-norm")
def test_large_gradients_are_clipped_and_not_lost(nx):
    """limit / norm is subnormal here, and some frameworks take that for 0."""
    g = np.array([1e37, -1e37], np.float32)
    found = nx.to_numpy(clipping.clip_by_norm(nx, {"w": nx.asarray(g)}, 1e-3)["w"])
    np.testing.assert_allclose(found, np.sign(g) * 1e-3 / np.sqrt(2), rtol=8 * UNIT["float32"])
