"""Clauses on batch norm and the norms of one example, each at the library's own defaults."""

from __future__ import annotations

import inspect
import math

import numpy as np

from isometry.common.contract import Backend
from isometry.common.laws.normalization import BOUND
from isometry.common.natives import BatchNormed, Library, Native
from isometry.common.natives.findings import Clause, Found, agrees, differs, diverges, measured
from isometry.common.statistics.rounding import gamma

__all__ = ["CLAUSES", "fit_eps", "running"]

BATCH = ("batch_norm",)
CENTRED = ("batch_norm", "layer_norm", "group_norm")
ALL = (*CENTRED, "rms_norm")
ROWS, CHANNELS = 64, 32
RATIOS = (1e2, 1e3, 1e4, 1e5, 1e6)  # of mean to standard deviation
CLOSE = 0.01  # two values of eps or momentum are the same if so close


def default(method: str, name: str) -> float:
    """Return the contract's default of an option."""
    return float(inspect.signature(getattr(Backend, method)).parameters[name].default)


def _output(native: Native, x: np.ndarray) -> np.ndarray:
    """Return x (features, examples) normalized along its first axis, in float64."""
    if native.kind == "batch_norm":
        return np.asarray(native.run(x).y, np.float64)
    return np.asarray(native.run(np.ascontiguousarray(x.T)), np.float64).T


# --- eps ----------------------------------------------------------------------------------------


def fit_eps(native: Native) -> tuple[float, str]:
    """Return the eps of a norm and its place: "inside" or "outside" the square root.

    Of values +-a the variance is a**2 and the output ``y = a / sqrt(a**2 + eps)`` or
    ``a / (a + eps)``: for each a, y gives the one and the other, and the right one is the same
    for all.
    """
    a = np.geomspace(1e-5, 1, CHANNELS).astype(np.float32).astype(np.float64)
    signs = np.where(np.arange(ROWS) % 2, -1.0, 1.0)[:, None]
    y = np.abs(_output(native, (signs * a).astype(np.float32))[0])
    told = (y > 0.05) & (y < 0.95)  # where y says something about eps in float32
    if np.count_nonzero(told) < 2:
        return 0.0, "inside"
    a, y = a[told], y[told]
    inside, outside = a**2 * (1 / y**2 - 1), a * (1 / y - 1)
    spread = [float(np.std(np.log(e))) for e in (inside, outside)]
    place, values = ("inside", inside) if spread[0] <= spread[1] else ("outside", outside)
    return float(f"{np.median(values):.3g}"), place


def _eps(native: Native, library: Library) -> Found:
    eps, place = fit_eps(native)
    text = f"eps is {eps:g}, {place} the square root"
    if native.claims == "rms_norm":
        return measured(text, eps=eps)
    wanted = default("batch_norm" if native.kind == "batch_norm" else "layer_norm", "eps")
    if abs(eps / wanted - 1) <= CLOSE and place == "inside":
        return agrees(text, eps=eps)
    ratios = [
        1 - math.sqrt((v + wanted) / (v + eps))
        if place == "inside"
        else 1 - math.sqrt(v + wanted) / (math.sqrt(v) + eps)
        for v in (1e-2, 1e-3)
    ]
    return differs(
        f"{text}; the contract's default is {wanted:g}, inside",
        f"at a variance of 0.01 the output is {ratios[0]:+.2%} smaller, at 0.001 {ratios[1]:+.2%}",
        eps=eps,
    )


# --- running statistics -------------------------------------------------------------------------


def _batch(rows: int = 8) -> np.ndarray:
    z = np.random.default_rng(0).normal(size=(rows, CHANNELS))
    return (3 + 2 * z).astype(np.float32)


def running(native: Native) -> tuple[float, float, BatchNormed]:
    """Return the weight of the old value, the kept variance over the biased one, and one step.

    After one and two steps on the same batch of mean m: ``m - r2 = w (m - r1)``.
    """
    x = _batch()
    first, second = native.run(x, 1), native.run(x, 2)
    wide = x.astype(np.float64)
    mean, variance = wide.mean(axis=0), wide.var(axis=0)
    r1, r2 = (np.asarray(step.running_mean, np.float64) for step in (first, second))
    w = float(np.median((mean - r2) / (mean - r1)))
    v1, v2 = (np.asarray(step.running_variance, np.float64) for step in (first, second))
    kept = float(np.median((v2 - w * v1) / (1 - w) / variance))
    return w, kept, first


def _momentum(native: Native, library: Library) -> Found:
    w, _, step = running(native)
    wanted, stated = default("batch_norm", "momentum"), step.momentum
    text = f"the old running value keeps the weight {w:.4g} by default"
    if stated is not None:
        weighs = "old" if abs(stated - w) <= abs(stated - (1 - w)) else "new"
        text += f", written momentum = {stated:g}, the weight of the {weighs} value"
    # of the weight of the new value, which is the smaller one
    same = abs((1 - w) / (1 - wanted) - 1) <= CLOSE
    if same and (stated is None or abs(stated - w) <= CLOSE):
        return agrees(text, old_weight=w)
    steps = [math.log(0.01) / math.log(value) for value in (w, wanted)]
    consequence = f"99 % of the start is forgotten after {steps[0]:.0f} steps, with the contract's "
    consequence += f"{wanted:g} after {steps[1]:.0f}"
    if same:
        consequence = "the same number given to the contract forgets after "
        consequence += f"{math.log(0.01) / math.log(stated or w):.3g} steps, not {steps[0]:.0f}"
    return differs(
        f"{text}; the contract's is {wanted:g}, of the old value", consequence, old_weight=w
    )


def _kept_variance(native: Native, library: Library) -> Found:
    _, kept, _ = running(native)
    rows = len(_batch())
    text = f"of a batch of {rows} the running variance gets {kept:.5g} times the biased one"
    if abs(kept - 1) <= 1e-3:
        return agrees(f"{text}: sum/n", ratio=kept)
    close = "sum/(n - 1)" if abs(kept - rows / (rows - 1)) <= 1e-3 else "none of the candidates"
    return differs(
        f"{text}: {close}; the contract's default is sum/n",
        f"in inference the output is {1 - 1 / math.sqrt(kept):.2%} smaller after batches of "
        f"{rows}, {1 - math.sqrt(1 - 1 / 256):.2%} after batches of 256, if it is sum/(n - 1)",
        ratio=kept,
    )


def _pass(native: Native, library: Library) -> Found:
    where = running(native)[2].updated_in
    text = f"the running statistics move in the {where} pass"
    if where == "forward":
        return agrees(text)
    return differs(
        f"{text}; the contract's in the forward pass",
        "a forward pass in training without its backward pass leaves them as they were",
    )


def _inference(native: Native, library: Library) -> Found:
    step = running(native)[2]
    eps, place = fit_eps(native)
    x = _batch(16)
    mean, variance = (np.asarray(a, np.float64) for a in (step.running_mean, step.running_variance))
    root = np.sqrt(variance + eps) if place == "inside" else np.sqrt(variance) + eps
    expected = (x.astype(np.float64) - mean) / root
    error = float(np.abs(np.asarray(step.inference(x), np.float64) - expected).max())
    text = f"inference is within {error:.2g} of (x - running mean) / sqrt(running variance + eps)"
    # eps is known to three digits, and the rest is a handful of roundings
    bound = float((np.abs(expected) * (CLOSE * eps / variance + gamma(16))).max())
    if error <= bound:
        return agrees(text, error=error)
    return diverges(text, "inference does not use the running statistics alone", error=error)


def _one(native: Native, library: Library) -> Found:
    x = _batch(1)
    try:
        step = native.run(x)
    except Exception as error:  # whatever a library raises
        return agrees(f"a batch of one is refused: {type(error).__name__}")
    largest, kept = float(np.abs(step.y).max()), float(np.max(step.running_variance))
    return differs(
        f"a batch of one is accepted in training: the output is at most {largest:.3g}, the running "
        f"variance {kept:.3g}; the contract refuses it",
        "the output does not depend on the input, and no gradient reaches it",
        largest=largest,
    )


# --- how the variance is computed ---------------------------------------------------------------


def _ill(ratio: float) -> np.ndarray:
    """Return float32 features (64, 32 examples) with this ratio of mean to standard deviation."""
    z = np.random.default_rng(1).normal(size=(ROWS, CHANNELS))
    return (ratio + z).astype(np.float32)


def _fast(x: np.ndarray) -> np.ndarray:
    """Return ``E[x**2] - E[x]**2`` in float32 over the first axis."""
    return np.asarray((x * x).mean(axis=0) - x.mean(axis=0) ** 2)


def _deviation(native: Native, x: np.ndarray, eps: float) -> float:
    """Return how far the spread of the output is from the right one, relatively, at worst."""
    y = _output(native, x)
    if not np.isfinite(y).all():
        return math.inf
    groups = int(native.settings.get("groups", 1))
    wide = x.astype(np.float64).reshape(groups, -1, x.shape[1])
    variance = wide.var(axis=1)
    right = np.sqrt(variance / (variance + eps))
    return float(np.abs(y.reshape(groups, -1, x.shape[1]).std(axis=1) / right - 1).max())


def _variance(native: Native, library: Library) -> Found:
    eps, place = fit_eps(native)
    eps = eps if place == "inside" else 0.0
    off = {ratio: _deviation(native, _ill(ratio), eps) for ratio in RATIOS}
    # two passes: the mean is off by gamma(n) ratio, which adds its square to the variance
    bad = [r for r, d in off.items() if d > (gamma(ROWS) * r) ** 2 + gamma(8 * ROWS)]
    shown = ", ".join(f"{d:.2g} at {r:.0e}" for r, d in off.items())
    text = f"relative error of the output's spread by mean/std: {shown}"
    numbers = {f"off_{r:.0e}": d for r, d in off.items()}
    if not bad:
        return agrees(text, (), **numbers)
    x = _ill(bad[0])
    fast = np.abs(np.sqrt(np.maximum(_fast(x), 0) / x.astype(np.float64).var(axis=0)) - 1).max()
    like = (
        ""
        if fast < off[bad[0]] / 30
        else (
            f"; E[x**2] - E[x]**2 in float32 is off by {fast:.2g} at {bad[0]:.0e}, two passes by "
            f"at most {(gamma(ROWS) * bad[0]) ** 2 + gamma(8 * ROWS):.2g}"
        )
    )
    first = next((r for r in bad if off[r] > 0.1), bad[-1])
    return diverges(
        text + like,
        f"features with a mean of {first:.0e} standard deviations come out with a spread that is "
        f"off by {'no finite number' if math.isinf(off[first]) else f'{off[first]:.0%}'}",
        (),
        **numbers,
    )


def _accuracy(native: Native, library: Library) -> Found:
    eps, place = fit_eps(native)
    errors = {}
    for ratio in (1.0, *RATIOS):
        x = _ill(ratio)
        groups = int(native.settings.get("groups", 1))
        wide = x.astype(np.float64).reshape(groups, -1, x.shape[1])
        centred = wide - wide.mean(axis=1, keepdims=True)
        centred = centred - centred.mean(axis=1, keepdims=True)
        std = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + eps * (place == "inside"))
        exact = (centred / std).reshape(x.shape)
        error = np.abs(_output(native, x) - exact)
        errors[ratio] = float(error.max()) if np.isfinite(error).all() else math.inf
    shown = ", ".join(f"{e:.2g} at {r:.0e}" for r, e in errors.items())
    text = f"largest error of the output by mean/std: {shown}"
    if max(errors.values()) <= BOUND:
        return agrees(text, largest=max(errors.values()))
    first = next(r for r, e in errors.items() if e > BOUND)
    return differs(
        f"{text}; the contract allows {BOUND:g} up to 1e+06",
        f"from a mean of {first:.0e} standard deviations on, outputs are off by more than "
        f"{BOUND:g}",
        (),
        **{f"error_{r:.0e}": e for r, e in errors.items()},
    )


CLAUSES = (
    Clause("eps", "eps is the contract's, inside the square root", ALL, _eps),
    Clause(
        "momentum", "momentum is the contract's weight of the old running value", BATCH, _momentum
    ),
    Clause("running-variance", "the running variance averages sum/n", BATCH, _kept_variance),
    Clause("updated-in", "the running statistics move in the forward pass", BATCH, _pass),
    Clause("inference", "inference normalizes by the running statistics", BATCH, _inference),
    Clause("batch-of-one", "one value per channel is refused in training", BATCH, _one),
    Clause("variance", "the variance does not cancel where the mean is large", CENTRED, _variance),
    Clause(
        "accuracy",
        "outputs are right to 1e-5 up to a mean of 1e6 standard deviations",
        CENTRED,
        _accuracy,
    ),
)
