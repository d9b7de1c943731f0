"""Clauses on orthogonal initializers: the gain, which side is orthonormal, and Haar's measure."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from isometry.common.laws.fans import rows_and_columns
from isometry.common.natives import Library, Native
from isometry.common.natives.findings import Clause, Found, agrees, diverges, joined
from isometry.common.natives.initializers import in_layout
from isometry.common.statistics import rounding, verdicts
from isometry.common.statistics.bounds import dkw
from isometry.common.statistics.verdicts import FALSE_ALARM

__all__ = ["CLAUSES"]

CLAIMS = ("orthogonal",)
SHAPES = ((6, 6), (12, 5), (5, 12), (8, 4, 3, 3))
SIZE = 6
DETECTS = 0.25  # of a probability that is 1/2 under Haar's measure


def _matrix(native: Native, library: Library, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return the weight as a linear map (out, in * receptive field)."""
    weight = np.asarray(native.run(in_layout(shape, library.layout), seed, "float32"))
    rows, columns = rows_and_columns(shape)
    if library.layout == "in_out":
        weight = np.moveaxis(weight, -1, 0)
    return weight.reshape(rows, columns).astype(np.float64)


def _gram(matrix: np.ndarray) -> np.ndarray:
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return np.asarray(short @ short.T)


def _gain(native: Native, library: Library) -> Found:
    gains = [
        math.sqrt(np.trace(gram) / len(gram))
        for gram in (_gram(_matrix(native, library, shape, 0)) for shape in SHAPES)
    ]
    gain = float(np.mean(gains))
    limit = max(rounding.orthogonality(*rows_and_columns(s), "float32") for s in SHAPES)
    text = f"singular values have a root mean square of {gain:.6f}"
    if abs(gain - 1) <= limit:
        return agrees(text, gain=gain)
    near = abs(gain - math.sqrt(2)) <= 1e-3
    close = f", which is sqrt(2) = {math.sqrt(2):.6f} but for {abs(gain - math.sqrt(2)):.2g}"
    return diverges(
        text + (close if near else ""),
        f"50 linear layers multiply the norm of their input by {gain**50:.3g}, where an "
        "orthogonal matrix keeps it",
        gain=gain,
    )


def _orthonormal(native: Native, library: Library) -> Found:
    worst, where = 0.0, ""
    for shape in SHAPES:
        gram = _gram(_matrix(native, library, shape, 1))
        error = np.abs(gram / (np.trace(gram) / len(gram)) - np.eye(len(gram))).max()
        limit = 2 * rounding.orthogonality(*rows_and_columns(shape), "float32")
        if error / limit > worst:
            worst, where = float(error / limit), f"{shape}"
    text = f"but for the gain, rows or columns are orthonormal to {worst:.2g} of the bound of a QR"
    if worst <= 1:
        return agrees(text, error=worst)
    return diverges(
        f"a weight {where} (out, in, kernel) is {worst:.3g} times the bound of a QR away from "
        "orthonormal rows or columns",
        "as a linear map it does not keep norms",
        error=worst,
    )


# --- Haar's measure -----------------------------------------------------------------------------

STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "positive determinants": lambda q: np.linalg.det(q) > 0,
    "positive first entries": lambda q: q[:, 0, 0] > 0,
    "positive last entries": lambda q: q[:, -1, -1] > 0,
}
"""Each is a fair coin under Haar's measure: a reflection of one row maps it to itself."""


def _svd(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> np.ndarray:
    left, _, _ = np.linalg.svd(draw(np.random.default_rng(0), (20_000, SIZE, SIZE)))
    return np.asarray(left)


@functools.cache
def _candidates() -> dict[str, dict[str, float]]:
    """Return what other ways to make orthogonal matrices give for each statistic, simulated."""
    raw, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(20_000, SIZE, SIZE)))
    made = {
        "a QR of normals without the signs of R's diagonal": np.asarray(raw),
        "an SVD of normals": _svd(lambda rng, shape: rng.normal(size=shape)),
        "an SVD of uniforms": _svd(lambda rng, shape: rng.uniform(-1, 1, size=shape)),
    }
    return {
        words: {name: float(np.mean(hit(q))) for name, hit in STATISTICS.items()}
        for words, q in made.items()
    }


def _haar(native: Native, library: Library) -> Found:
    needed = verdicts.fraction_size(0.5, 0.0, DETECTS, FALSE_ALARM, verdicts.MISS)
    # far from each other: neighbouring seeds have a clause of their own
    q = np.stack([_matrix(native, library, (SIZE, SIZE), 100 * k) for k in range(needed)])
    found = {
        name: verdicts.fraction(
            hit(q), 0.5, detects=DETECTS, claim=f"fraction of {name} of {SIZE}x{SIZE} matrices"
        )
        for name, hit in STATISTICS.items()
    }
    numbers = {name: verdict.observed for name, verdict in found.items()}
    text = f"of {needed} matrices " + ", ".join(f"{v:.3f} have {n}" for n, v in numbers.items())
    if all(verdict.passed for verdict in found.values()):
        return agrees(text, found.values(), **numbers)
    slack = dkw(needed, 1e-6) + dkw(20_000, 1e-6)
    close = [
        words
        for words, expected in _candidates().items()
        if all(abs(numbers[name] - value) <= slack for name, value in expected.items())
    ]
    return diverges(
        f"{text}; under Haar's measure each is 0.500. As of {joined(close)}",
        f"{numbers['positive determinants']:.1%} instead of 50 % of square weights are rotations "
        "rather than reflections, and entries on the diagonal favour one sign",
        found.values(),
        **numbers,
    )


# --- zeros where a name promises them -----------------------------------------------------------


def _delta(native: Native, library: Library) -> Found:
    """Judge a delta-orthogonal kernel: one tap, whose columns are orthonormal."""
    shape = (8, 4, 3, 3)
    weight = np.asarray(native.run(in_layout(shape, library.layout), 0, "float32"))
    kernel = weight if library.layout == "out_in" else weight.transpose(3, 2, 0, 1)
    tap = kernel[:, :, 1, 1].astype(np.float64)
    others = int(np.count_nonzero(kernel)) - int(np.count_nonzero(tap))
    gram = tap.T @ tap
    error = float(np.abs(gram - np.eye(len(gram))).max())
    text = (
        f"{others} entries beside the centre tap are not 0; the tap is orthonormal to {error:.2g}"
    )
    if others == 0 and error <= rounding.orthogonality(8, 4, "float32"):
        return agrees(text, error=error)
    return diverges(text, "the convolution does not keep the norm of its input", error=error)


def _zeros(native: Native, library: Library) -> Found:
    """Judge the zeros of a sparse weight: as many for each input."""
    sparsity = native.settings["sparsity"]
    weight = np.asarray(native.run(in_layout((95, 40), library.layout), 0, "float32"))
    matrix = weight if library.layout == "out_in" else weight.T
    zeros = np.count_nonzero(matrix == 0, axis=0)
    wanted = math.ceil(sparsity * len(matrix))
    text = (
        f"of {len(matrix)} outputs each input is disconnected from {zeros.min()} to {zeros.max()}"
    )
    if zeros.min() == zeros.max() == wanted:
        return agrees(text)
    return diverges(f"{text}, not from {wanted}", "units have different numbers of connections")


CLAUSES = (
    Clause("gain", "the singular values are 1", CLAIMS, _gain),
    Clause("orthonormal", "the linear map has orthonormal rows or columns", CLAIMS, _orthonormal),
    Clause("haar", "the law is Haar's: no direction is favoured", CLAIMS, _haar),
    Clause("tap", "an orthonormal tap at the centre, else zeros", ("delta_orthogonal",), _delta),
    Clause("zeros", "each input has the same number of zeros", ("sparse",), _zeros),
)
