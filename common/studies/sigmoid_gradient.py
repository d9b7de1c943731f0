"""Where does the gradient of the sigmoid vanish, and where does only the framework's vanish?

The chapter plots the sigmoid and its gradient for x from -8 to 8. Here the contract's derivative,
accurate wherever it is a normal number, stands beside the one that the framework's own automatic
differentiation delivers, there and far out in the tails, for the sigmoid and for tanh.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from isometry.common import checks
from isometry.common.laws import activations as laws
from isometry.common.results import Check, Quantity
from isometry.common.statistics.tolerances import ACTIVATION_ULP, AGREEMENT_ULP, ulp_distance
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["run"]

CHAPTER = 8.0
TAIL = {"float32": 110.0, "float64": 750.0}  # beyond the last subnormal of either derivative
ERROR_AT = (1.0, 2.0, 4.0, 8.0, 12.0, 15.0, 16.0, 17.0, 20.0, 30.0, 36.0, 50.0, 80.0)
NO_FLUSH = 1e4  # both derivatives are 0 from here on in every dtype

Function = Callable[[np.ndarray], np.ndarray]


def run(
    nx: Backend, tell: Tell, /, *, seed: int, points: int = 161, tail_points: int = 441
) -> Findings:
    """Compare the exact and the native derivative of sigmoid and tanh.

    Parameters
    ----------
    nx : Backend
    tell : callable
    seed : int
        Unused: nothing is drawn.
    points : int
        Number of points from -8 to 8; 161 is the chapter's step of 0.1.
    tail_points : int
        Number of points across the tails, -110 to 110 in float32 and -750 to 750 in float64.
    """
    checks.integer("points", points, low=2, high=10**6)
    checks.integer("tail_points", tail_points, low=2, high=10**6)
    x = np.linspace(-CHAPTER, CHAPTER, points).astype(np.float32)
    agree = AGREEMENT_ULP["float32"]
    quantities = {
        "x": Quantity(x, ulp=0),
        "sigmoid": Quantity(_on(nx, nx.sigmoid)(x), ulp=agree),
        "error_x": Quantity(np.array(ERROR_AT), ulp=0),
    }
    found: list[Check] = [*_special_values(nx), *_piecewise(nx, x)]
    steps = [(a, d) for a in laws.SMOOTH for d in TAIL]
    for done, (activation, dtype) in enumerate(steps):
        tell(done, len(steps), f"{activation} in {dtype}")
        exact, native = _gradients(nx, activation)
        tail = np.linspace(-TAIL[dtype], TAIL[dtype], tail_points).astype(dtype)
        if dtype == "float32":
            quantities[f"{activation}_gradient"] = Quantity(exact(x), ulp=agree)
            quantities[f"native_{activation}_gradient"] = Quantity(native(x))
        name = f"{activation}_gradient_{dtype}"
        at = np.array(ERROR_AT, dtype=dtype)
        quantities |= {
            f"tail_x_{dtype}": Quantity(tail, ulp=0),
            f"tail_{name}": Quantity(exact(tail)),
            f"tail_native_{name}": Quantity(native(tail)),
            f"flush_{name}": Quantity(_flush_point(exact, dtype)),
            f"flush_native_{name}": Quantity(_flush_point(native, dtype)),
            f"error_native_{name}": Quantity(_relative_error(native, activation, at)),
        }
        grid = np.concatenate([x.astype(dtype), tail])
        found.append(_accuracy(exact, activation, dtype, grid))
    tell(len(steps), len(steps), "done")
    return Findings(quantities, tuple(found), _finding(nx, quantities, found))


def _on(nx: Backend, function: Callable[..., object]) -> Function:
    """Return an operation of the backend as a function of NumPy arrays."""
    return lambda x: nx.to_numpy(function(nx.asarray(x)))


def _gradients(nx: Backend, activation: str) -> tuple[Function, Function]:
    exact = {"sigmoid": nx.sigmoid_gradient, "tanh": nx.tanh_gradient}[activation]
    return _on(nx, exact), _on(nx, lambda x: nx.native_gradient(activation, x))


def _flush_point(gradient: Function, dtype: str) -> np.ndarray:
    """Return the first positive number of `dtype` at which the gradient is exactly 0.

    A search on the framework itself, down to two neighbouring numbers: positive floats are
    ordered as their bit patterns, which are divided into 1024 parts again and again (a power of
    two: what is left over after whole SIMD vectors may round differently). NaN if the gradient is
    not 0 at 10,000.
    """
    bits = np.dtype(f"int{8 * np.dtype(dtype).itemsize}")
    if np.any(gradient(np.full(1024, NO_FLUSH, dtype)) != 0):
        return np.array(math.nan)
    low, high = 0, int(np.array(NO_FLUSH, dtype).view(bits))
    while high - low > 1:
        parts = [low + (high - low) * k // 1024 for k in range(1, 1025)]
        zero = gradient(np.array(parts, bits).view(dtype)) == 0
        first = int(np.argmax(zero)) if zero.any() else 1023
        low, high = parts[first - 1] if first else low, parts[first]
    return np.array(high, bits).view(dtype).astype(np.float64)


def _relative_error(gradient: Function, activation: str, x: np.ndarray) -> np.ndarray:
    right = laws.exact_gradient(activation, x).astype(np.float64)
    return np.asarray(np.abs(gradient(x).astype(np.float64) - right) / right)


def _accuracy(gradient: Function, activation: str, dtype: str, x: np.ndarray) -> Check:
    """Check the budget at every x where the true derivative is a normal number.

    To two decimals of x: a value that is exactly the smallest normal number may round below it.
    """
    edge = math.floor(100 * laws.largest_normal(activation, dtype)) / 100
    x = np.append(x[np.abs(x) <= edge], np.array([-edge, edge], dtype))
    distance = ulp_distance(gradient(x), laws.exact_gradient(activation, x), dtype)
    return Check(
        claim=f"the derivative of {activation} is exact in {dtype} to |x| = {edge:.2f}",
        observed=float(distance.max()),
        expected=0.0,
        bound=ACTIVATION_ULP[dtype],
        source="oracle: e / (1 + e)**2 in 50 decimal digits; bound: the contract's",
        unit="ULP",
    )


def _special_values(nx: Backend) -> list[Check]:
    ends, nan = np.array([-np.inf, np.inf], np.float32), np.array([np.nan], np.float32)
    zero = np.zeros(1, np.float32)
    operations = {
        "sigmoid": nx.sigmoid,
        "sigmoid_gradient": nx.sigmoid_gradient,
        "tanh": nx.tanh,
        "tanh_gradient": nx.tanh_gradient,
        "relu": nx.relu,
        "relu_gradient": nx.relu_gradient,
        "leaky_relu": nx.leaky_relu,
        "leaky_relu_gradient": nx.leaky_relu_gradient,
    }
    stayed = [bool(np.isnan(_on(nx, f)(nan)).all()) for f in operations.values()]
    found = [
        Check(
            claim="NaN stays NaN in every activation and derivative",
            observed=float(sum(stayed)),
            expected=float(len(stayed)),
            bound=0.0,
            source="IEEE 754-2019, section 6.2",
            unit="functions",
        )
    ]
    for activation, peak in (("sigmoid", 0.25), ("tanh", 1.0)):
        exact, _ = _gradients(nx, activation)
        for claim, at, expected in (
            (f"the derivative of {activation} is 0 at -inf and inf", ends, 0.0),
            (f"the derivative of {activation} is {peak:g} at 0", zero, peak),
        ):
            values = exact(at).astype(np.float64)
            farthest = values[np.argmax(np.abs(values - expected))]
            found.append(Check(claim, float(farthest), expected, 0.0, "its limit and maximum"))
    return found


def _piecewise(nx: Backend, x: np.ndarray) -> list[Check]:
    grid = np.append(x, np.float32(0.0))
    cases = (
        ("relu", nx.relu_gradient, laws.relu_gradient),
        ("leaky_relu", nx.leaky_relu_gradient, laws.leaky_relu_gradient),
    )
    return [
        Check(
            claim=f"the derivative of {name} is right at every point, 0 included",
            observed=float(np.sum(_on(nx, function)(grid) != law(grid).astype(np.float32))),
            expected=0.0,
            bound=0.0,
            source="1 for x > 0, the slope for x <= 0",
            unit="points",
        )
        for name, function, law in cases
    ]


def _finding(nx: Backend, quantities: dict[str, Quantity], found: list[Check]) -> str:
    def flush(name: str) -> str:
        x = float(quantities[f"flush_{name}"].values)
        return "nowhere" if math.isnan(x) else f"from x = {x:.5g}"

    tail = quantities["tail_native_sigmoid_gradient_float32"].values
    lost = quantities["tail_x_float32"].values[np.isnan(tail)]
    nan = f" (and NaN up to x = {lost.max():g})" if lost.size else ""
    worst = max(check.observed for check in found if check.unit == "ULP")
    reach = laws.largest_normal("sigmoid", "float32")
    return (
        f"{nx.framework}'s own gradient of the sigmoid is exactly 0 "
        f"{flush('native_sigmoid_gradient_float32')} in float32{nan} and "
        f"{flush('native_sigmoid_gradient_float64')} in float64, that of tanh "
        f"{flush('native_tanh_gradient_float32')} and {flush('native_tanh_gradient_float64')}; the "
        f"true one is a normal float32 to x = {reach:.5g}. The contract's derivative is 0 "
        f"{flush('sigmoid_gradient_float32')} in float32 and at most {worst:.2f} ULP from the "
        "exact value wherever that is normal."
    )
