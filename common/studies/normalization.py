"""What do batch and layer norm make of a badly scaled batch, and what changes at inference?

Twelve float32 columns with standard deviations from 1e-3 to 1e3 and means up to a million standard
deviations are normalized, and each output is compared with the exact result for the same float32
input (float64, :mod:`isometry.common.laws.normalization`). Beside the contract's layers stand two
textbook forms, over ``nx.ops``: the variance as E[x**2] - E[x]**2, which cancels, and the plain
two-pass form, which keeps the rounding error of the mean. Then batch norm trains for some steps
under each library's convention, and its running statistics are compared with an exact recursion and
with the population they estimate: until they are there, inference does not repeat training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.laws import normalization as law
from isometry.common.results import Check, Quantity
from isometry.common.statistics.rounding import gamma, normalization_gradient
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["RATIOS", "SCALES", "naive", "run", "two_pass"]

Array = Any

SCALES = np.repeat([1e-3, 1.0, 1e3], 4)  # standard deviation of each column
RATIOS = np.tile([0.0, 1e2, 1e4, 1e6], 3)  # its mean, in standard deviations
POPULATION_STD = np.array([1e-2, 1.0, 1e2])
POPULATION_MEAN = 3 * POPULATION_STD
EPS = 1e-5
SOURCE = "exact float64 result for the same float32 input (isometry.common.laws.normalization)"


def run(nx: Backend, tell: Tell, /, *, seed: int, batch: int = 128, steps: int = 60) -> Findings:
    """Normalize a badly scaled batch, differentiate, and train running statistics.

    Parameters
    ----------
    batch : int
        Rows of the batch, between 16 and 4096.
    steps : int
        Training steps of the running statistics, at least 1.
    """
    checks.integer("batch", batch, low=16, high=4096)
    checks.integer("steps", steps, low=1, high=10**6)
    data, cotangents, batches = nx.portable_stream(seed).split(3)
    x = _draw(nx, data, batch, RATIOS * SCALES, SCALES)
    dy = _draw(nx, cotangents, batch, np.zeros(12), np.ones(12))
    quantities = {"std": Quantity(SCALES), "mean over std": Quantity(RATIOS)}
    found: list[Check] = []
    tell(0, 3, "outputs")
    outputs, verdicts = _outputs(nx, x)
    quantities |= outputs
    found += verdicts
    tell(1, 3, "gradients")
    found += _gradients(nx, x, dy)
    tell(2, 3, "running statistics")
    running, verdicts = _running(nx, batches, batch, steps)
    quantities |= running
    found += verdicts
    tell(3, 3, "done")
    return Findings(quantities, tuple(found), _finding(quantities, steps))


def _draw(nx: Backend, stream: Stream, rows: int, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return a float32 batch N(mean, std**2), column by column, the same on every backend."""
    unit = nx.to_numpy(stream.normal((rows, len(std)), dtype="float64"))
    return np.asarray(mean + std * unit, dtype=np.float32)


# --- outputs -------------------------------------------------------------------------------------


def naive(nx: Backend, x: Array, /, *, eps: float) -> Array:
    """Normalize columns with ``v = max(E[x**2] - E[x]**2, 0)``, which cancels at large means.

    Clamped at 0, as Flax does; without the clamp the result is NaN wherever v is negative.
    """
    mean = nx.ops.mean(x, axis=0, keepdims=True)
    variance = nx.ops.mean(x * x, axis=0, keepdims=True) - mean * mean
    variance = nx.ops.maximum(variance, nx.ops.zeros_like(variance))
    return (x - mean) / nx.ops.sqrt(variance + eps)


def two_pass(nx: Backend, x: Array, /, *, eps: float) -> Array:
    """Normalize columns with ``v = E[(x - m)**2]``: off by the rounding error of m."""
    mean = nx.ops.mean(x, axis=0, keepdims=True)
    variance = nx.ops.mean(nx.ops.square(x - mean), axis=0, keepdims=True)
    return (x - mean) / nx.ops.sqrt(variance + eps)


def _outputs(nx: Backend, x: np.ndarray) -> tuple[dict[str, Quantity], list[Check]]:
    """Normalize the columns by batch norm and, as rows of the transpose, by layer norm."""
    columns, rows = nx.asarray(x), nx.asarray(np.ascontiguousarray(x.T))
    exact = law.layer_norm(x.T, np.ones(len(x)), np.zeros(len(x)), eps=EPS).T
    ones, zeros = nx.ops.ones((12,)), nx.ops.zeros((12,))
    mean, variance = (RATIOS * SCALES).astype(np.float32), np.square(SCALES).astype(np.float32)
    trained, _, _ = nx.batch_norm(columns, ones, zeros, zeros, ones, training=True, eps=EPS)
    applied, _, _ = nx.batch_norm(
        columns, ones, zeros, nx.asarray(mean), nx.asarray(variance), training=False, eps=EPS
    )
    layered = nx.layer_norm(rows, nx.ops.ones((len(x),)), nx.ops.zeros((len(x),)), eps=EPS)
    inference, _, _ = law.batch_norm(
        x, np.ones(12), np.zeros(12), mean, variance, training=False, eps=EPS
    )
    mixed = nx.layer_norm(columns, ones, zeros, eps=EPS)
    errors = {
        "batch norm": _error(nx, trained, exact),
        "batch norm, inference": _error(nx, applied, inference),
        "layer norm": _error(nx, nx.ops.permute_dims(layered, (1, 0)), exact),
        "E[x^2]-E[x]^2": _error(nx, naive(nx, columns, eps=EPS), exact),
        "two-pass": _error(nx, two_pass(nx, columns, eps=EPS), exact),
    }
    quantities = {f"error/{name}": Quantity(error) for name, error in errors.items()}
    for name, y in (("batch norm", trained), ("layer norm", mixed)):
        values = nx.to_numpy(y).astype(np.float64)
        quantities[f"column mean/{name}"] = Quantity(values.mean(axis=0))
        quantities[f"column std/{name}"] = Quantity(values.std(axis=0))
    verdicts = [
        Check(
            f"{name}: largest output error up to mean/std = 1e6",
            observed=float(errors[name].max()),
            expected=0.0,
            bound=law.normalization_bound(),
            source=f"contract, against the {SOURCE}",
        )
        for name, layer in (
            ("batch norm", "batch_norm"),
            ("batch norm, inference", "batch_norm"),
            ("layer norm", "layer_norm"),
        )
    ]
    return quantities, verdicts


def _error(nx: Backend, y: Array, exact: np.ndarray) -> np.ndarray:
    """Return the largest absolute error of each column; NaN where an output is NaN."""
    return np.asarray(np.abs(nx.to_numpy(y).astype(np.float64) - exact).max(axis=0))


# --- gradients -----------------------------------------------------------------------------------


def _gradients(nx: Backend, x: np.ndarray, dy: np.ndarray) -> list[Check]:
    """Compare the gradient of ``sum(y dy)`` in x, scale and shift with the formula's."""
    zeros, ones = nx.ops.zeros((12,)), nx.ops.ones((12,))

    def batch(scale: Array, shift: Array, x: Array) -> Array:
        return nx.batch_norm(x, scale, shift, zeros, ones, training=True, eps=EPS)[0]

    def layer(scale: Array, shift: Array, x: Array) -> Array:
        return nx.layer_norm(x, scale, shift, eps=EPS)

    scale = np.linspace(0.5, 1.5, 12, dtype=np.float32)
    by_batch = law.batch_norm_backward(
        dy, x, scale, np.zeros(12), np.ones(12), training=True, eps=EPS
    )
    rows, row_scale = np.ascontiguousarray(x.T), np.linspace(0.5, 1.5, len(x), dtype=np.float32)
    by_layer = law.layer_norm_backward(dy.T, rows, row_scale, eps=EPS)
    return [
        _gradient_check(nx, "batch norm", batch, x, dy, scale, by_batch, reduced=0),
        _gradient_check(nx, "layer norm", layer, rows, dy.T, row_scale, by_layer, reduced=1),
    ]


def _gradient_check(
    nx: Backend,
    name: str,
    layer: Callable[[Array, Array, Array], Array],
    x: np.ndarray,
    dy: np.ndarray,
    scale: np.ndarray,
    exact: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    reduced: int,
) -> Check:
    weights = nx.asarray(np.ascontiguousarray(dy))

    def loss(p: dict[str, Array]) -> Array:
        return nx.ops.sum(layer(p["scale"], p["shift"], p["x"]) * weights)

    parameters = {
        "x": nx.asarray(x),
        "scale": nx.asarray(scale),
        "shift": nx.ops.zeros((len(scale),)),
    }
    _, gradient = nx.value_and_gradient(loss)(parameters)
    output = law.normalization_bound()
    bounds = normalization_gradient(x, dy, scale, axis=reduced, eps=EPS, output=output)
    worst = [
        np.max(np.abs(nx.to_numpy(gradient[path]).astype(np.float64) - value) / bound)
        for path, value, bound in zip(("x", "scale", "shift"), exact, bounds, strict=True)
    ]
    return Check(
        f"{name}: gradient in x, scale and shift, largest share of its error bound",
        observed=float(np.max(worst)),
        expected=0.0,
        bound=1.0,
        source="scale / sqrt(v + eps) (dy - mean(dy) - z mean(dy z)) in float64 (Ioffe and Szegedy "
        "2015, section 3); bound: the contract's output error in z, and roundings in any order",
        unit="bound",
    )


# --- training against inference ------------------------------------------------------------------


def _running(
    nx: Backend, stream: Stream, batch: int, steps: int
) -> tuple[dict[str, Quantity], list[Check]]:
    """Train the running statistics under each library's convention, then infer one batch more."""
    batches = [_draw(nx, stream, batch, POPULATION_MEAN, POPULATION_STD) for _ in range(steps + 1)]
    quantities: dict[str, Quantity] = {}
    worst_running = worst_output = 0.0
    for library, convention in law.BATCH_NORM.items():
        means, variances, share = _train(nx, batches[:-1], convention)
        y, error = _infer(nx, batches[-1], means[-1], variances[-1], convention)
        worst_running, worst_output = max(worst_running, share), max(worst_output, error)
        quantities |= {
            f"running mean/{library}": Quantity(means / POPULATION_MEAN),
            f"running variance/{library}": Quantity(variances / np.square(POPULATION_STD)),
            f"inference std/{library}": Quantity(y.std(axis=0)),
        }
    return quantities, [
        Check(
            "batch norm: running statistics under every convention, largest share of their bound",
            observed=worst_running,
            expected=0.0,
            bound=1.0,
            source="the same recursion in float64; roundings of sums in any order (Higham 2002, "
            "section 4.2) and three of each update, forgotten like the statistics themselves",
            unit="bound",
        ),
        Check(
            "batch norm: inference with the running statistics, largest error over max(1, |y|)",
            observed=worst_output,
            expected=0.0,
            bound=law.normalization_bound(),
            source=f"contract, against the {SOURCE}",
        ),
    ]


def _train(
    nx: Backend, batches: list[np.ndarray], convention: law.Convention
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return running mean and variance (steps + 1, channels), and their worst share of the bound.

    Batch mean and variance of n values are right to gamma_{n+3} E|x| and to gamma_{n+8} v plus the
    square of that (Chan, Golub and LeVeque 1983); an update rounds three times; old errors are
    forgotten at the rate of the statistics, so that they add up to at most 1 / (1 - old) of them.
    """
    ones, zeros = nx.ops.ones((3,)), nx.ops.zeros((3,))
    mean, variance = zeros, ones
    exact = (np.zeros(3), np.ones(3))
    means, variances, worst = [exact[0]], [exact[1]], 0.0
    largest = [np.zeros(3), np.zeros(3), np.zeros(3)]  # E|x|, batch variance, running values
    count, kept = len(batches[0]), 1 - convention.old_weight
    for x in batches:
        _, mean, variance = nx.batch_norm(
            nx.asarray(x), ones, zeros, mean, variance, training=True, **convention.options
        )
        _, *updated = law.batch_norm(
            x, np.ones(3), np.zeros(3), *exact, training=True, **convention.options
        )
        exact = (updated[0], updated[1])
        wide = x.astype(np.float64)
        seen = (np.abs(wide).mean(axis=0), wide.var(axis=0), np.maximum(np.abs(exact[0]), exact[1]))
        largest = [np.maximum(a, b) for a, b in zip(largest, seen, strict=True)]
        of_mean = gamma(count + 3) * largest[0]
        update = gamma(3) * np.maximum(largest[2], 1.0) / kept
        bounds = (of_mean + update, gamma(count + 8) * 2 * largest[1] + of_mean**2 + update)
        for value, right, bound in zip((mean, variance), exact, bounds, strict=True):
            error = np.abs(nx.to_numpy(value).astype(np.float64) - right)
            worst = max(worst, float(np.nan_to_num(error / bound, nan=np.inf).max()))
        means.append(nx.to_numpy(mean).astype(np.float64))
        variances.append(nx.to_numpy(variance).astype(np.float64))
    return np.array(means), np.array(variances), worst


def _infer(
    nx: Backend,
    x: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    convention: law.Convention,
) -> tuple[np.ndarray, float]:
    """Return the inference output and its largest error relative to max(1, |y|)."""
    statistics = [nx.asarray(a.astype(np.float32)) for a in (mean, variance)]
    ones, zeros = nx.ops.ones((3,)), nx.ops.zeros((3,))
    y, _, _ = nx.batch_norm(
        nx.asarray(x), ones, zeros, *statistics, training=False, **convention.options
    )
    exact, _, _ = law.batch_norm(
        x, np.ones(3), np.zeros(3), mean, variance, training=False, **convention.options
    )
    values = nx.to_numpy(y).astype(np.float64)
    error = np.abs(values - exact) / np.maximum(1, np.abs(exact))
    return values, float(np.nan_to_num(error, nan=np.inf).max())


def _finding(quantities: dict[str, Quantity], steps: int) -> str:
    def worst(name: str) -> str:
        return f"{quantities[f'error/{name}'].values.max():.1e}"

    batch = quantities["column std/batch norm"].values
    layer = quantities["column std/layer norm"].values
    spread = ", ".join(
        f"{library} {quantities[f'inference std/{library}'].values[2]:.3g}"
        for library in law.BATCH_NORM
    )
    return (
        f"Up to mean/std = 1e6 batch norm is right to {worst('batch norm')} and layer norm to "
        f"{worst('layer norm')}; the two-pass form is off by {worst('two-pass')}, "
        f"E[x^2]-E[x]^2 by {worst('E[x^2]-E[x]^2')}. Batch norm gives every column a standard "
        f"deviation between {batch.min():.2g} (where the variance 1e-6 is below eps = 1e-5) and "
        f"{batch.max():.2g}; layer norm over the columns leaves the badly scaled batch badly "
        f"scaled, from {layer.min():.1e} to {layer.max():.1e}. After {steps} steps the running "
        "statistics of the column with standard deviation 100 give at inference an output whose "
        f"standard deviation, 1 in training, is {spread}: the conventions' momenta."
    )
