"""What a library's adaptive optimizers do: what they average, from where, and where eps is added.

Each is run at rate 1 on one weight with given gradients. Its steps are compared with those of
every decay of one digit, ``1 - d / 10**e``, in the formulas in use; then the gradient is made so
small that eps shows. Everything here is deterministic.

Adam: Kingma and Ba 2015, algorithm 1. RMSProp: Tieleman and Hinton 2012, lecture 6.5; centered:
Graves 2013, equations 38 to 45. AdaGrad: Duchi, Hazan and Singer 2011, figure 1, diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from isometry.common.natives import Library, Native
from isometry.common.natives.findings import Clause, Found, joined, measured

__all__ = ["CLAUSES"]

Array = np.ndarray[Any, np.dtype[np.float64]]

GRADIENTS = np.cos(np.arange(64.0) ** 2)  # a chirp: no two decays average it alike
DECAYS = np.array([1 - d * 10.0**-e for e in (1, 2, 3, 4) for d in range(9, 0, -1)])
CLOSE = 1e-3
"""Of a step, at most: libraries take ``1 - decay`` in float32, and 0.9999 is off by 6e-4 there."""
FEW = 4  # steps in which eps is looked for
NONE = "none of the formulas in use"


def _steps(native: Native, gradients: Array) -> Array:
    """Return by how much w falls in each step at rate 1."""
    path = native.run(0.0, tuple(map(float, gradients)), (1.0,) * len(gradients))
    return -np.diff([0.0, *path])


def _kept(decay: Array, steps: int) -> Array:
    """Return what is left of the start, ``decay**k`` after step k, of shape (decays, steps)."""
    return decay[:, None] ** np.arange(1, steps + 1)


def _average(x: Array, decay: Array) -> Array:
    """Return ``a <- decay a + (1 - decay) x`` from 0, after each step: (decays, steps)."""
    a, after = np.zeros_like(decay), []
    for value in x:
        a = decay * a + (1 - decay) * value
        after.append(a)
    return np.stack(after, axis=1)


# --- Adam ---------------------------------------------------------------------------------------


def _corrected(x: Array, decay: Array) -> Array:
    return _average(x, decay) / (1 - _kept(decay, len(x)))


def _adam(native: Native) -> tuple[float, float] | None:
    """Return both decays, or None if no two of them give the steps."""
    mean, square = (_corrected(GRADIENTS**power, DECAYS) for power in (1, 2))
    steps = mean[:, None] / np.sqrt(square)
    off = np.abs(steps - _steps(native, GRADIENTS)).max(axis=-1)
    first, second = np.unravel_index(off.argmin(), off.shape)
    return (float(DECAYS[first]), float(DECAYS[second])) if off.min() <= CLOSE else None


def _betas(native: Native, library: Library) -> Found:
    found = _adam(native)
    if found is None:
        return measured(NONE)
    first, second = found
    return measured(f"{first:g} and {second:g}", first=first, second=second)


def _eps_of_adam(native: Native, library: Library) -> Found:
    """Find eps as it is, or as Kingma and Ba have it just above section 2.1: times a correction."""
    found = _adam(native)
    if found is None:
        return measured(NONE)
    correction = np.sqrt(1 - _kept(np.array(found[1:]), FEW)[0])
    before = f"added before it: sqrt(v) + eps, at first {1 / correction[0]:.3g} eps"
    forms: Forms = {
        "added after the correction of the bias: sqrt(v') + eps": lambda divisor, root: (
            divisor - root
        ),
        before: lambda divisor, root: (divisor - root) * correction,
    }
    return _eps(native, np.abs, forms)


# --- RMSProp ------------------------------------------------------------------------------------

MEAN_SQUARES: Mapping[str, Callable[[Array, Array, Array], Array]] = {
    "from 0, not centered": lambda square, mean, kept: square,
    "from 0 and corrected for it, not centered": lambda square, mean, kept: square / (1 - kept),
    "from 1, not centered": lambda square, mean, kept: square + kept,
    "from 0, centered (less the squared mean)": lambda square, mean, kept: square - mean**2,
    "from 1, centered (less the squared mean)": lambda square, mean, kept: square + kept - mean**2,
}


def _root(g: Array, decay: Array, words: str) -> Array:
    """Return what divides the gradient but for eps, after each step: (decays, steps)."""
    square, mean = _average(g * g, decay), _average(g, decay)
    return np.sqrt(MEAN_SQUARES[words](square, mean, _kept(decay, len(g))))


def _rmsprop(native: Native) -> tuple[float, str] | None:
    """Return the decay and the words of the mean square, or None if nothing gives the steps."""
    steps, found = _steps(native, GRADIENTS), []
    for words in MEAN_SQUARES:
        off = np.abs(GRADIENTS / _root(GRADIENTS, DECAYS, words) - steps).max(axis=-1)
        found.append((float(off.min()), float(DECAYS[off.argmin()]), words))
    off, decay, words = min(found)
    return (decay, words) if off <= CLOSE else None


def _form_of_rmsprop(native: Native, library: Library) -> Found:
    found = _rmsprop(native)
    return measured(f"{found[0]:g}, {found[1]}", decay=found[0]) if found else measured(NONE)


def _eps_of_rmsprop(native: Native, library: Library) -> Found:
    found = _rmsprop(native)
    if found is None:
        return measured(NONE)
    decay, words = np.array(found[:1]), found[1]
    return _eps(native, lambda g: _root(g, decay, words)[0], ROOT)


# --- AdaGrad ------------------------------------------------------------------------------------


def _adagrad(native: Native) -> float | None:
    """Return the start of the sum of squares, or None if the steps are not those of the sum."""
    steps = _steps(native, GRADIENTS)
    with np.errstate(divide="ignore"):
        start = (GRADIENTS[0] / steps[0]) ** 2 - GRADIENTS[0] ** 2
    start = float(f"{start:.2g}") if start > CLOSE else 0.0
    off = np.abs(GRADIENTS / np.sqrt(start + np.cumsum(GRADIENTS**2)) - steps).max()
    return start if off <= CLOSE else None


def _start(native: Native, library: Library) -> Found:
    start = _adagrad(native)
    return measured(NONE) if start is None else measured(f"{start:g}", start=start)


def _eps_of_adagrad(native: Native, library: Library) -> Found | None:
    """A sum that starts above 0 hides eps: then it is asked of a call that starts it there."""
    start = _adagrad(native)
    if start is None:
        return measured(NONE)
    return None if start else _eps(native, lambda g: np.sqrt(np.cumsum(g * g)), ROOT)


# --- eps ----------------------------------------------------------------------------------------

Forms = Mapping[str, Callable[[Array, Array], Array]]

ROOT: Forms = {
    "outside the root: sqrt(v) + eps": lambda divisor, root: divisor - root,
    "inside the root: sqrt(v + eps)": lambda divisor, root: divisor**2 - root**2,
}


def _eps(native: Native, exact: Callable[[Array], Array], forms: Forms) -> Found:
    """Solve what divides a gradient for eps, at the first and the last step, by each form.

    `exact` gives the divisor without eps after each step; a form takes the divisor and that one.
    The right form finds one eps at all steps of all gradients.
    """
    found: dict[str, list[float]] = {words: [] for words in forms}
    for size in np.geomspace(1e-12, 0.1, 34):
        g = np.full(FEW, size)
        root, divisor = exact(g), g / _steps(native, g)
        share = root / divisor
        if all(0.05 < share[k] < 0.95 for k in (0, -1)):
            for words, solved in forms.items():
                found[words] += list(solved(divisor, root)[[0, -1]])
    if not any(found.values()):
        return measured("no eps shows at gradients from 1e-12 to 0.1")
    right = [words for words, eps in found.items() if max(eps) <= 1.01 * min(eps)]
    eps = float(np.median(found[right[0] if right else next(iter(found))]))
    words = joined(right, "added where no formula in use has it")
    return measured(f"{float(f'{eps:.2g}'):g}, {words}", eps=eps)


CLAUSES: tuple[Clause, ...] = (
    Clause("betas", "decays of the mean gradient and of its square", ("adam",), _betas),
    Clause(
        "form", "decay of the mean square, its start, centering", ("rmsprop",), _form_of_rmsprop
    ),
    Clause("start", "where the sum of squares starts", ("adagrad",), _start),
    Clause("eps", "eps, and where it is added", ("adam",), _eps_of_adam),
    Clause("eps", "eps, and where it is added", ("rmsprop",), _eps_of_rmsprop),
    Clause("eps", "eps, and where it is added", ("adagrad", "adagrad_eps"), _eps_of_adagrad),
)
