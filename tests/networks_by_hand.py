"""What networks are held to: the fully connected one as a plain loop, in NumPy, and differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

PHI = {
    "linear": lambda z: z,
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: z if z > 0 else 0.01 * z,
    "tanh": math.tanh,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
}


def layers(stacked: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Return the arrays of each layer, first to last, of ``stackK/name`` -> (count, ...)."""
    found = []
    for k in range(1 + max(int(path.split("/")[0][len("stack") :]) for path in stacked)):
        own = {
            path.split("/")[1]: a for path, a in stacked.items() if path.startswith(f"stack{k}/")
        }
        (count,) = {len(a) for a in own.values()}
        found += [{name: a[i] for name, a in own.items()} for i in range(count)]
    return found


def standardized(values: np.ndarray, eps: float) -> np.ndarray:
    centred = values - values.sum() / len(values)
    return centred / math.sqrt((centred**2).sum() / len(values) + eps)


def normalized(kind: str, z: np.ndarray, own: dict[str, np.ndarray]) -> np.ndarray:
    if kind == "rms":
        return np.array([own["scale"] * row / math.sqrt((row**2).mean() + 1e-6) for row in z])
    along = z if kind == "layer" else z.T
    y = np.array([standardized(row, 1e-5) for row in along])
    return own["scale"] * (y if kind == "layer" else y.T) + own["shift"]


def passed(
    shortcut: str | None, h: np.ndarray, y: np.ndarray, own: dict[str, np.ndarray]
) -> np.ndarray:
    if shortcut == "residual":
        return h + y
    if shortcut == "skipinit":
        return h + float(own["alpha"][0]) * y
    if shortcut == "highway":
        a = np.array([[sum(w * u) for w in own["gate"]] for u in h]) + own["gate_bias"]
        t = np.vectorize(PHI["sigmoid"])(a)
        return t * y + (1 - t) * h
    return y


def forward(
    stacked: dict[str, np.ndarray],
    x: np.ndarray,
    *,
    activation: str = "tanh",
    normalization: str | None = None,
    place: str = "preactivation",
    shortcut: str | None = None,
    **unused: Any,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the output (batch, n_L) and the preactivations of every layer (batch, n_l)."""
    every, h, trace = layers(stacked), x.astype(np.float64), []
    for number, own in enumerate(every, 1):
        z = np.array([[sum(w * u) for w in own["weight"]] for u in h])
        z = z + own.get("bias", 0.0) + own.get("offset", 0.0)
        trace.append(z)
        if number == len(every):
            return z, trace
        y = normalized(normalization, z, own) if normalization and place == "preactivation" else z
        y = np.vectorize(PHI[activation], otypes=[float])(y)
        if normalization and place == "activation":
            y = normalized(normalization, y, own)
        y = y * own.get("mask", 1.0)
        if h.shape == y.shape and shortcut != "dense":
            y = passed(shortcut, h, y, own)
        y = y + own.get("nudge", 0.0)
        h = np.array([[*u, *v] for u, v in zip(h, y, strict=True)]) if shortcut == "dense" else y
    raise AssertionError("a network has a layer")


def assert_gradient(
    nx: Any,
    loss: Callable[[dict[str, np.ndarray]], Any],
    parameters: dict[str, np.ndarray],
    *,
    step: float = 1e-3,
    rel: float = 1e-8,
) -> None:
    """Compare the gradient with the function, along one random direction of each parameter.

    By central differences with Richardson's extrapolation: the error is O(step**4) of fifth
    derivatives, and rounding of about 1e-15 |f| / step.
    """
    _, gradient = nx.value_and_gradient(loss)(parameters)
    assert set(gradient) == set(parameters)
    stream = nx.stream(10)
    for path, value in parameters.items():
        direction = stream.normal(value.shape, dtype="float64")
        direction = direction / np.linalg.norm(direction)

        def slope(h: float, path: str = path, along: np.ndarray = direction) -> float:
            ends = [loss({**parameters, path: parameters[path] + s * h * along}) for s in (1, -1)]
            return float(ends[0] - ends[1]) / (2 * h)

        expected = (4 * slope(step) - slope(2 * step)) / 3
        observed = float(np.sum(gradient[path] * direction))
        assert observed == pytest.approx(expected, rel=rel, abs=rel / 10), path
