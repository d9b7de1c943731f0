"""Clauses on derivatives by the library's own automatic differentiation."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import numpy as np

from isometry.common.contract import Backend
from isometry.common.laws.activations import exact, exact_gradient, largest_normal
from isometry.common.laws.formats import FORMATS
from isometry.common.natives import Library, Native
from isometry.common.natives.findings import (
    Clause,
    Found,
    agrees,
    differs,
    diverges,
    not_run,
)
from isometry.common.statistics.tolerances import ACTIVATION_ULP, TANH_ULP, ulp_distance

__all__ = ["CLAUSES"]

POINTS = 2048  # asked at once: short vectors may take another path
INTEGERS = {"float16": np.uint16, "float32": np.uint32, "float64": np.uint64}
SMOOTH = ("sigmoid", "tanh")


class _OtherDtypeError(Exception):
    pass


def _at(native: Native, x: np.ndarray) -> np.ndarray:
    y = np.asarray(native.run(x))
    if y.dtype != x.dtype:
        raise _OtherDtypeError(f"it computes {x.dtype} in {y.dtype}")
    return y


def _end(claim: str, dtype: str) -> float:
    """Return the last x of the dtype at which the exact derivative is a normal number."""
    end = largest_normal(claim, dtype)
    return float(np.floor(end / (ulp := FORMATS[dtype].ulp(np.array(end)))) * ulp)


def _first_zero(native: Native, dtype: str, sign: int) -> float | None:
    """Return the smallest |x| on one side at which the derivative is 0, by repeated division."""
    kind = INTEGERS[dtype]
    low, high = 0, int(np.array(_end(native.claims, dtype), dtype).view(kind))
    found = None
    while high - low > 1:
        # in Python's integers: 64 bits of them are more than a float64 holds
        parts = range(POINTS)
        steps = np.unique(np.array([low + (high - low) * k // parts[-1] for k in parts], kind))
        x = sign * steps.view(dtype)
        zero = np.flatnonzero(_at(native, np.resize(x, POINTS))[: x.size] == 0)
        if not zero.size:
            return found
        at = int(zero[0])
        found = float(abs(x[at]))
        low, high = int(steps[at - 1]) if at else low, int(steps[at])
    return found


def _flush(dtype: str) -> Callable[[Native, Library], Found]:
    def flush(native: Native, library: Library) -> Found:
        end = _end(native.claims, dtype)
        try:
            first = {sign: _first_zero(native, dtype, sign) for sign in (1, -1)}
        except _OtherDtypeError as refusal:
            return not_run(str(refusal))
        points = {
            s * x: float(exact_gradient(native.claims, np.array(s * x)).item())
            for s, x in first.items()
            if x is not None
        }
        if not points:
            return agrees(
                f"not 0 anywhere that the exact derivative is a normal number, |x| <= {end:.6g}"
            )
        text = " and ".join(
            f"exactly 0 from x = {x:.9g} on, where the derivative is {true:.3g}"
            for x, true in points.items()
        )
        x, true = max(points.items(), key=lambda item: item[1])
        return diverges(
            f"{text}; it stays a normal number up to |x| = {end:.6g}. {_cause(native, dtype, x)}",
            f"a unit whose preactivation is beyond {x:.6g} learns nothing, although its gradient "
            f"is {true / FORMATS[dtype].smallest_normal:.2g} times the smallest normal number",
            first_zero=x,
            derivative_there=true,
            end=end,
        )

    return flush


def _cause(native: Native, dtype: str, x: float) -> str:
    """Return whether 1 - y is there within the error that y may have, so that y is 1."""
    rest = float(1 - exact(native.claims, np.array(abs(x))).item())
    formula = {"sigmoid": "y (1 - y)", "tanh": "1 - y**2"}[native.claims]
    budget = {"sigmoid": ACTIVATION_ULP, "tanh": TANH_ULP}[native.claims]
    for working in dict.fromkeys((dtype, "float32")) if x > 0 or native.claims == "tanh" else ():
        ulp = 2.0 ** -FORMATS[working].precision  # just below 1
        if rest <= budget[working] * ulp:
            return f"There y is 1 to rounding in {working}, and with it {formula} is 0"
    return "None of the candidates explains the place"


def _accuracy(native: Native, library: Library) -> Found:
    side = np.linspace(0, _end(native.claims, "float32"), POINTS // 2)
    x = np.concatenate([-side, side]).astype(np.float32)
    try:
        y = _at(native, x)
    except _OtherDtypeError as refusal:
        return not_run(str(refusal))
    true = exact_gradient(native.claims, x).astype(np.float64)
    error = ulp_distance(y, true, "float32")
    worst = int(np.argmax(error))
    relative = np.abs(y.astype(np.float64) / true - 1)
    budget = ACTIVATION_ULP["float32"]
    text = f"the largest error is {error[worst]:.3g} units in the last place, at x = {x[worst]:.6g}"
    if error[worst] <= budget:
        return agrees(text, error_ulp=float(error[worst]))
    bad = np.sort(np.abs(x[relative > 0.01]))
    return diverges(
        f"{text}, and up to {error[x < 0].max():.3g} for negative x; the contract allows "
        f"{budget:g}",
        (
            f"the derivative is off by more than 1 % from |x| = {bad[0]:.3g} on"
            if bad.size
            else "the error stays below 1 %"
        ),
        error_ulp=float(error[worst]),
    )


def _at_zero(native: Native, library: Library) -> Found:
    value = float(_at(native, np.zeros(POINTS, np.float32))[0])
    default = 0.0 if native.claims == "relu" else _slope()
    text = f"the derivative at 0 is {value:g}"
    if value == np.float32(default):
        return agrees(text, value=value)
    return differs(
        f"{text}; the contract's is {default:g}",
        f"preactivations that are exactly 0 pass on {value:g} of their gradient",
        value=value,
    )


def _limits(native: Native, library: Library) -> Found:
    """Judge softplus, GELU and SiLU far out, where their derivatives are 0 and 1."""
    x = np.array([30, 100, 1e4, 1e30, np.finfo(np.float32).max], np.float32)
    y = _at(native, np.resize(np.concatenate([-x, x]), POINTS))[: 2 * x.size]
    expected = np.repeat([0.0, 1.0], x.size)
    # at |x| = 30 they are within 30 exp(-30) of their limits
    bad = ~(np.abs(y.astype(np.float64) - expected) <= 1e-10)
    if not bad.any():
        return agrees("the derivative is 0 and 1 at 30 <= |x| <= 3.4e38")
    at = np.concatenate([-x, x])[bad]
    values = ", ".join(f"{v:g} at {u:g}" for v, u in zip(y[bad], at, strict=True))
    return diverges(
        f"the derivative is {values}",
        "one large preactivation makes the gradient of the whole network wrong",
    )


def _slope() -> float:
    return float(inspect.signature(Backend.leaky_relu).parameters["slope"].default)


def _negative(native: Native, library: Library) -> Found:
    value = float(_at(native, np.full(POINTS, -1, np.float32))[0])
    text = f"the slope for negative x is {value:.6g} by default"
    if value == np.float32(_slope()):
        return agrees(text, slope=value)
    return differs(
        f"{text}; the contract's is {_slope():g}",
        f"He's gain for it is sqrt(2 / (1 + slope**2)) = {math.sqrt(2 / (1 + value**2)):.5f} "
        f"instead of {math.sqrt(2 / (1 + _slope() ** 2)):.5f}",
        slope=value,
    )


CLAUSES = (
    *(
        Clause(
            f"flush-{dtype}",
            f"in {dtype} the derivative is 0 only where it underflows",
            SMOOTH,
            _flush(dtype),
        )
        for dtype in ("float32", "float64", "float16")
    ),
    Clause(
        "accuracy",
        "the derivative is right to 4 units in the last place in float32",
        SMOOTH,
        _accuracy,
    ),
    Clause("at-zero", "the derivative at 0 is the contract's", ("relu", "leaky_relu"), _at_zero),
    Clause("limits", "the derivative is 0 and 1 far out", ("softplus", "gelu", "silu"), _limits),
    Clause("slope", "the slope is the contract's", ("leaky_relu",), _negative),
)
