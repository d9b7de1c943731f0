"""Activations and their derivatives: ULP against 50 digits, and the well-known mistakes by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from isometry.common.grading.questions import Answer, Finding, Judgement, Question, Request
from isometry.common.laws import activations as laws
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics.tolerances import ulp_distance

__all__ = ["BUDGET", "FUNCTIONS", "ask", "judge"]

BUDGET = 16.0
"""ULP of float64. Ordinary code of a right formula calls one or two functions of NumPy, each within
4 ULP (its own tests' bound), squares or divides, and rounds a few times: 1/cosh(x)**2 is within
2 * 4 + 2 in relative units of the format, which are up to 2 ULP where the significand is small."""

SLOPE = 0.25
END = 16.0  # of what is called ordinary
NEAR = 1e-2  # where a difference of two exponentials has lost two digits

Formula = Callable[[np.ndarray], np.ndarray]


def _e(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-x))


def _y(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


# function -> mistake in words -> what it computes
MISTAKES: Mapping[str, Mapping[str, Formula]] = {
    "sigmoid": {
        "exp(x) / (1 + exp(x)): exp(x) overflows, and infinity / infinity is NaN": (
            lambda x: np.exp(x) / (1 + np.exp(x))
        ),
        "(1 + tanh(x/2)) / 2: 1 + tanh cancels for negative x": lambda x: (1 + np.tanh(x / 2)) / 2,
        "1 - 1 / (1 + exp(x)): the difference cancels for negative x": (
            lambda x: 1 - 1 / (1 + np.exp(x))
        ),
        "1 / (1 + exp(x)): the sign of x is missing": lambda x: _y(-x),
    },
    "sigmoid_gradient": {
        "y (1 - y): 1 - y is 0 once y rounds to 1": lambda x: _y(x) * (1 - _y(x)),
        "exp(-x) / (1 + exp(-x))**2: the square overflows, and infinity / infinity is NaN": (
            lambda x: _e(x) / (1 + _e(x)) ** 2
        ),
        "exp(x) / (1 + exp(x))**2: the square overflows, and infinity / infinity is NaN": (
            lambda x: _e(-x) / (1 + _e(-x)) ** 2
        ),
        "x (1 - x): the formula y (1 - y) given the input instead of the output": (
            lambda x: x * (1 - x)
        ),
        "the sigmoid itself, not its derivative": _y,
    },
    "tanh": {
        "(exp(x) - exp(-x)) / (exp(x) + exp(-x)): the difference cancels near 0, and far from it "
        "infinity / infinity is NaN": lambda x: (_e(-x) - _e(x)) / (_e(-x) + _e(x)),
        "(exp(2x) - 1) / (exp(2x) + 1): the difference cancels near 0, and for large x "
        "infinity / infinity is NaN": lambda x: (_e(-2 * x) - 1) / (_e(-2 * x) + 1),
        "(1 - exp(-2x)) / (1 + exp(-2x)): the difference cancels near 0, and for large negative x "
        "infinity / infinity is NaN": lambda x: (1 - _e(2 * x)) / (1 + _e(2 * x)),
        "2 sigmoid(2x) - 1: the difference cancels near 0": lambda x: 2 * _y(2 * x) - 1,
        "sinh(x) / cosh(x): both overflow, and infinity / infinity is NaN": (
            lambda x: np.sinh(x) / np.cosh(x)
        ),
        "2 sigmoid(x) - 1, which is tanh(x/2)": lambda x: 2 * _y(x) - 1,
    },
    "tanh_gradient": {
        "1 - y**2: it is 0 once y rounds to 1": lambda x: 1 - np.tanh(x) ** 2,
        "1 - x**2: the formula 1 - y**2 given the input instead of the output": lambda x: 1 - x**2,
        "1 - y: the square is missing": lambda x: 1 - np.tanh(x),
        "tanh itself, not its derivative": np.tanh,
    },
    "relu": {
        "|x|: negative x must give 0": np.abs,
        "min(x, 0): the other half": lambda x: np.minimum(x, 0),
        "the derivative, not relu itself": lambda x: np.where(x > 0, 1.0, 0.0),
    },
    "relu_gradient": {
        "relu(x) / x: 0 / 0 is NaN at 0": lambda x: np.maximum(x, 0) / x,
        "relu itself, not its derivative": lambda x: np.maximum(x, 0),
        "the sign of x: negative x must give 0": np.sign,
    },
    "leaky_relu": {
        "relu: the slope is not used": lambda x: np.maximum(x, 0),
        "the slope on the wrong side": lambda x: np.where(x > 0, SLOPE * x, x),
    },
    "leaky_relu_gradient": {
        "the derivative of relu: the slope is not used": lambda x: np.where(x > 0, 1.0, 0.0),
        "the slope on the wrong side": lambda x: np.where(x > 0, SLOPE, 1.0),
        "leaky relu itself, not its derivative": lambda x: np.where(x > 0, x, SLOPE * x),
    },
}
FUNCTIONS = tuple(MISTAKES)


def ask(name: str, _request: Request) -> list[Question]:
    """Return one call: a matrix of points, both signs, near 0, ordinary, and far."""
    x = _points(name)
    words = f"x of shape {x.shape}" + (f", {SLOPE:g}" if "leaky" in name else "")
    return [Question((x, SLOPE) if "leaky" in name else (x,), words, x.shape)]


@functools.cache
def _points(name: str) -> np.ndarray:
    """Return points to beyond where the value, or exp(x), leaves the range of float64."""
    positive = [
        np.geomspace(FORMATS["float64"].smallest_normal, NEAR, 40),
        np.linspace(NEAR, END, 100),
        np.linspace(END, 709, 150),
        np.array([710.0, 720.0, 745.0, 800.0, 1e3, 2.0**15]),
    ]
    activation = name.removesuffix("_gradient")
    if activation in laws.SMOOTH:
        flush = laws.rounds_to_one(activation, "float64")
        positive.append(np.linspace(flush - 1, flush + 1, 20))
    x = np.sort(np.concatenate([s * p for p in positive for s in (1, -1)] + [np.zeros(2)]))
    return x.reshape(2, -1)  # a matrix: whatever expects a number or a vector shows


@functools.cache
def _exact(name: str) -> np.ndarray:
    """Return the exact values: decimals of 45 digits, or floats where nothing is rounded."""
    activation, x = name.removesuffix("_gradient"), _points(name)
    if activation in laws.SMOOTH:
        return (laws.exact if name == activation else laws.exact_gradient)(activation, x)
    options = {"slope": SLOPE} if "leaky" in name else {}
    return np.asarray(getattr(laws, name)(x, **options))


def judge(name: str, answers: Sequence[Answer], _request: Request) -> Judgement:
    """Return whether the values keep `BUDGET` everywhere, and which mistake they are of if not."""
    (answer,) = answers
    x, y, exact = _points(name), answer.value, _exact(name)
    off = _distance(name, x, y, exact)
    size = np.abs(x)
    regions = {
        f"near 0, |x| < {NEAR:g}": size < NEAR,
        f"ordinary x, |x| to {END:g}": (size >= NEAR) & (size <= END),
        f"far from 0, |x| to {size.max():g}": size > END,
    }
    findings = tuple(
        Finding(
            f"{where}: within {BUDGET:g} ULP",
            bool((off[here] <= BUDGET).all()),
            _worst(x[here], y[here], exact[here], off[here]),
        )
        for where, here in regions.items()
    )
    failed = [finding.said for finding in findings if not finding.passed]
    if not failed:
        warned = (
            f"; it warns, but the values are right: {answer.warned[0]}" if answer.warned else ""
        )
        return Judgement(
            f"this is {name}, within {BUDGET:g} ULP of the exact values{warned}", findings
        )
    mistake = _mistake(name, x, y)
    said = f"this is {mistake}; {failed[-1]}" if mistake else failed[0]
    if answer.dtype in ("float16", "float32"):
        said += f"; it returns {answer.dtype} for float64: digits are lost"
    return Judgement(said, findings)


def _distance(name: str, x: np.ndarray, y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the error in ULP; none where the exact value is too small or has no derivative."""
    y = np.where(np.isfinite(y), y, np.nan)
    with np.errstate(over="ignore"):  # units of the smallest numbers
        off = ulp_distance(y, exact, "float64")
    rounded, tiny = exact.astype(np.float64), FORMATS["float64"].smallest_normal
    off[(np.abs(rounded) < tiny) & (np.abs(y) <= tiny) & (y * np.sign(rounded) >= 0)] = 0
    if name in ("relu_gradient", "leaky_relu_gradient"):  # any slope between is a subgradient
        least = SLOPE if "leaky" in name else 0.0
        off[(x == 0) & (y >= least) & (y <= 1)] = 0
    return off


def _worst(x: np.ndarray, y: np.ndarray, exact: np.ndarray, off: np.ndarray) -> str:
    """Return the NaN, infinity or false 0 nearest to 0, or else the largest error."""
    if (off <= BUDGET).all():
        return f"at most {off.max():.2g} ULP off"
    wrong = np.flatnonzero(off > BUDGET)
    lost = [k for k in wrong if y[k] == 0 or not np.isfinite(y[k])]
    k = min(lost, key=lambda k: abs(x[k])) if lost else wrong[np.argmax(off[wrong])]
    given, right = f"{y[k]:.6g}", f"{float(exact[k]):.6g}"
    near = f", {off[k]:.2g} ULP off" if given == right else ""
    return (
        f"at x = {x[k]:.5g} it gives {given}{near}, exact is {right} "
        f"({wrong.size} of {off.size} points are wrong)"
    )


def _mistake(name: str, x: np.ndarray, y: np.ndarray) -> str:
    """Return the mistake that gives nearly the same numbers, zeros and NaNs; empty if none does.

    What cancels differs from code to code in the last bits of 1. Zeros and NaNs begin a little
    earlier or later: one point in thirty may differ.
    """
    with np.errstate(all="ignore"):
        alike = {
            words: _alike(y, np.asarray(formula(x), np.float64)).mean()
            for words, formula in MISTAKES[name].items()
        }
    best = max(alike, key=alike.__getitem__)
    return best if alike[best] >= 29 / 30 else ""


def _alike(y: np.ndarray, other: np.ndarray) -> np.ndarray:
    lost = 8 * np.finfo(np.float64).eps
    close = np.abs(y - other) <= lost * np.maximum(1, np.abs(other))
    same = (np.isnan(y) & np.isnan(other)) | (close & ((y == 0) == (other == 0)))
    return np.asarray(same)
