"""The optimizers' papers, line by line in NumPy's float64: references that share no code with ours.

Each takes the weights of some layers, the gradients of each step and its rate, and returns the
weights after each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Layers = dict[str, np.ndarray]
Course = list[Layers]
Reference = Callable[[Layers, Sequence[Layers], Sequence[float], float], Course]

WEIGHTS: Layers = {
    "first/weight": np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]),
    "second/bias": np.array([1.0, -0.5]),
}
GRADIENTS: list[Layers] = [
    {
        name: np.sin((step + 1.0) * (np.arange(w.size) + 1.0)).reshape(w.shape) * size
        for name, w in WEIGHTS.items()
    }
    for step, size in enumerate((1.0, 0.1, 3.0, 1e-3, 0.5))
]
RATES = (0.1, 0.1, 0.025, 0.025, 0.025)  # the third step has another


def sgd(layers: Layers, gradients: Sequence[Layers], rates: Sequence[float], l2: float) -> Course:
    """Robbins and Monro 1951."""
    w, course = dict(layers), []
    for g, rate in zip(gradients, rates, strict=True):
        w = {k: w[k] - rate * (g[k] + l2 * w[k]) for k in w}
        course.append(w)
    return course


def momentum(form: str, *, nesterov: bool = False, m: float = 0.9) -> Reference:
    """Polyak 1964 and Sutskever et al. 2013, with the look-ahead made explicit."""

    def run(
        layers: Layers, gradients: Sequence[Layers], rates: Sequence[float], l2: float
    ) -> Course:
        w, v, course = dict(layers), {k: 0 * x for k, x in layers.items()}, []
        for g, rate in zip(gradients, rates, strict=True):
            moved = {}
            for k in w:
                d = g[k] + l2 * w[k]
                if form == "outside":
                    v[k] = m * v[k] + d
                    moved[k] = w[k] - rate * (d + m * v[k] if nesterov else v[k])
                elif form == "inside":
                    v[k] = m * v[k] + rate * d
                    moved[k] = w[k] - (rate * d + m * v[k] if nesterov else v[k])
                else:
                    v[k] = m * v[k] + (1 - m) * d
                    moved[k] = w[k] - rate * ((1 - m) * d + m * v[k] if nesterov else v[k])
            w = moved
            course.append(w)
        return course

    return run


def adam(
    place: str = "outside",
    *,
    decay: str = "coupled",
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Reference:
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2."""

    def run(
        layers: Layers, gradients: Sequence[Layers], rates: Sequence[float], l2: float
    ) -> Course:
        w, course = dict(layers), []
        m, v = ({k: 0 * x for k, x in layers.items()} for _ in range(2))
        for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
            moved = {}
            for k in w:
                d = g[k] + (l2 * w[k] if decay == "coupled" else 0)
                m[k] = b1 * m[k] + (1 - b1) * d
                v[k] = b2 * v[k] + (1 - b2) * d**2
                first, second = m[k] / (1 - b1**t), v[k] / (1 - b2**t)
                step = {
                    "outside": rate * first / (np.sqrt(second) + eps),
                    "hat": rate * np.sqrt(1 - b2**t) / (1 - b1**t) * m[k] / (np.sqrt(v[k]) + eps),
                    "inside": rate * first / np.sqrt(second + eps),
                }[place]
                beside = {"coupled": 0, "decoupled": rate * l2, "independent": l2}[decay]
                moved[k] = w[k] - step - beside * w[k]
            w = moved
            course.append(w)
        return course

    return run


def rmsprop(place: str, *, b: float = 0.9, eps: float = 1e-8) -> Reference:
    """Tieleman and Hinton 2012."""

    def run(
        layers: Layers, gradients: Sequence[Layers], rates: Sequence[float], l2: float
    ) -> Course:
        w, v, course = dict(layers), {k: 0 * x for k, x in layers.items()}, []
        for g, rate in zip(gradients, rates, strict=True):
            moved = {}
            for k in w:
                d = g[k] + l2 * w[k]
                v[k] = b * v[k] + (1 - b) * d**2
                root = np.sqrt(v[k] + eps) if place == "inside" else np.sqrt(v[k]) + eps
                moved[k] = w[k] - rate * d / root
            w = moved
            course.append(w)
        return course

    return run


def adagrad(place: str, *, initial: float = 0.0, eps: float = 1e-10) -> Reference:
    """Duchi, Hazan and Singer 2011, figure 1."""

    def run(
        layers: Layers, gradients: Sequence[Layers], rates: Sequence[float], l2: float
    ) -> Course:
        w, course = dict(layers), []
        past: dict[str, list[np.ndarray]] = {k: [] for k in layers}
        for g, rate in zip(gradients, rates, strict=True):
            moved = {}
            for k in w:
                past[k].append(g[k] + l2 * w[k])
                total = initial + sum(d**2 for d in past[k])
                root = np.sqrt(total + eps) if place == "inside" else np.sqrt(total) + eps
                moved[k] = w[k] - rate * past[k][-1] / root
            w = moved
            course.append(w)
        return course

    return run


def lars(
    denominator: str = "separate",
    *,
    form: str = "inside",
    clip: bool = False,
    trust: float = 1e-3,
    eps: float = 0.0,
    m: float = 0.9,
    exempt: tuple[str, ...] = (),
) -> Reference:
    """You, Gitman and Ginsburg 2017, algorithm 1, and its variants."""

    def run(
        layers: Layers, gradients: Sequence[Layers], rates: Sequence[float], l2: float
    ) -> Course:
        w, v, course = dict(layers), {k: 0 * x for k, x in layers.items()}, []
        for g, rate in zip(gradients, rates, strict=True):
            moved = {}
            for k in w:
                d = g[k] + l2 * w[k]
                size, push = np.linalg.norm(w[k]), np.linalg.norm(g[k])
                below = push + l2 * size if denominator == "separate" else np.linalg.norm(d)
                zero = size == 0 or (push if denominator == "separate" else below) == 0
                q = 1.0 if zero else trust * size / (below + eps)
                if clip:
                    q = min(q / rate, 1)
                if k.endswith(exempt):
                    q = 1.0
                if form == "inside":
                    v[k] = m * v[k] + rate * q * d
                    moved[k] = w[k] - v[k]
                else:
                    v[k] = m * v[k] + q * d
                    moved[k] = w[k] - rate * v[k]
            w = moved
            course.append(w)
        return course

    return run


def lamb(
    decay: str = "coupled", *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6
) -> Reference:
    """You et al. 2020, algorithm 2, with phi the identity."""

    def run(
        layers: Layers, gradients: Sequence[Layers], rates: Sequence[float], l2: float
    ) -> Course:
        w, course = dict(layers), []
        m, v = ({k: 0 * x for k, x in layers.items()} for _ in range(2))
        for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
            moved = {}
            for k in w:
                m[k] = b1 * m[k] + (1 - b1) * g[k]
                v[k] = b2 * v[k] + (1 - b2) * g[k] ** 2
                r = m[k] / (1 - b1**t) / (np.sqrt(v[k] / (1 - b2**t)) + eps)
                x = w[k]
                if decay == "coupled":
                    r = r + l2 * x
                else:
                    x = x - rate * l2 * x
                a, b = np.linalg.norm(x), np.linalg.norm(r)
                moved[k] = x - rate * (a / b if a > 0 and b > 0 else 1.0) * r
            w = moved
            course.append(w)
        return course

    return run


def novograd(
    averaging: str = "never", *, b1: float = 0.95, b2: float = 0.98, eps: float = 1e-8
) -> Reference:
    """Ginsburg et al. 2019, algorithm 1."""

    def run(
        layers: Layers, gradients: Sequence[Layers], rates: Sequence[float], l2: float
    ) -> Course:
        w, course = dict(layers), []
        m: Layers = {}
        v: dict[str, Any] = {}
        for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
            moved = {}
            for k in w:
                square = np.linalg.norm(g[k]) ** 2
                v[k] = square if t == 1 else b2 * v[k] + (1 - b2) * square
                p = g[k] / (np.sqrt(v[k]) + eps) + l2 * w[k] if v[k] > 0 else g[k] + l2 * w[k]
                if averaging == "always" or (averaging == "after the first" and t > 1):
                    p = (1 - b1) * p
                m[k] = p if t == 1 else b1 * m[k] + p
                moved[k] = w[k] - rate * m[k]
            w = moved
            course.append(w)
        return course

    return run


def quickprop(*, growth: float = 1.75) -> Reference:
    """Fahlman 1988: the update of quickprop1.lisp, weight by weight."""

    def run(
        layers: Layers, gradients: Sequence[Layers], rates: Sequence[float], l2: float
    ) -> Course:
        shrink = growth / (1 + growth)
        w, course = dict(layers), []
        last = {k: np.zeros(x.size) for k, x in layers.items()}
        slopes = {k: np.zeros(x.size) for k, x in layers.items()}
        for g, rate in zip(gradients, rates, strict=True):
            moved = {}
            for k in w:
                new = np.zeros(w[k].size)
                for i, s in enumerate(-(g[k] + l2 * w[k]).ravel()):
                    p, x = slopes[k][i], last[k][i]
                    if x > 0:
                        new[i] += rate * s if s > 0 else 0
                        new[i] += growth * x if s > shrink * p else x * s / (p - s)
                    elif x < 0:
                        new[i] += rate * s if s < 0 else 0
                        new[i] += growth * x if s < shrink * p else x * s / (p - s)
                    else:
                        new[i] += rate * s
                    slopes[k][i] = s
                last[k] = new
                moved[k] = w[k] + new.reshape(w[k].shape)
            w = moved
            course.append(w)
        return course

    return run
