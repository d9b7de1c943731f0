"""How far apart hidden units come in training, and what tells them apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from isometry.common.reports.figures.style import (
    MARKERS,
    Drawing,
    Results,
    every,
    first,
    legend,
    log10,
    name_ends,
    styles,
    values,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

Curves = dict[str, dict[str, np.ndarray]]  # what -> column -> distance after each step


def _distances(figure: Figure, results: Results) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    panels = [_trials(results, units) for units in (2, 4)]
    floor = _floor([d for curves in panels for each in curves.values() for d in each.values()])
    for ax, curves, units in zip(axes, panels, (2, 4), strict=True):
        for by_backend in curves.values():
            _curves(ax, results, by_backend, floor)
        ax.set(xlabel="step", title=f"{units} units")
        name_ends(ax, {name: _end(next(iter(d.values())), floor) for name, d in curves.items()})
    axes[0].set_ylabel("largest difference between units")
    _axis(axes[0], floor)
    legend(figure, *axes)


def _trials(results: Results, units: int) -> Curves:
    prefix, suffix = f"{units} units/", "/incoming"
    return {
        name.removeprefix(prefix).removesuffix(suffix): {
            backend: values(result, name) for backend, result in results.items()
        }
        for name in first(results).quantities
        if name.startswith(prefix) and name.endswith(suffix)
    }


def _floor(distances: list[np.ndarray]) -> float:
    """Return the height at which an exact 0 is drawn: below all others, and below 1e-9."""
    positive = [float(d[d > 0].min()) for d in distances if np.any(d > 0)]
    return math.floor(math.log10(min([1e-9, *positive]))) - 1


def _curves(ax: Axes, results: Results, distances: dict[str, np.ndarray], floor: float) -> None:
    """Draw the positive distances of each backend as a curve, its zeros on the floor."""
    for k, (backend, style) in enumerate(styles(results).items()):
        distance = distances[backend]
        step = np.arange(distance.size)
        few = distance.size <= 2 * MARKERS  # then each point shows, one between two zeros too
        marked = None if few else every(4 * distance.size, k, len(results))
        zeros = np.where(distance == 0, floor, np.nan)
        ax.plot(step, log10(distance), **style, markevery=marked, label=backend)
        ax.plot(step, zeros, **style, markevery=marked)
    ax.set_xlim(0, step[-1])
    ax.locator_params(axis="x", integer=True)
    ax.axhline(floor, color="#555555", linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)


def _end(distance: np.ndarray, floor: float) -> float:
    return math.log10(distance[-1]) if distance[-1] > 0 else floor


def _axis(ax: Axes, floor: float) -> None:
    """Label powers of ten, and the floor as what it stands for."""
    low, high = ax.get_ylim()
    every_other = max(math.ceil((high - floor) / 8), 1)
    ticks = [floor, *np.arange(floor + every_other, high, every_other)]
    ax.set_yticks(ticks, ["exactly 0", *(rf"$10^{{{v:g}}}$" for v in ticks[1:])])
    ax.set_ylim(low, high)


def _rounding(figure: Figure, results: Results) -> None:
    ax = figure.subplots()
    bound = values(first(results), "rounding/bound")
    spread = {name: values(result, "rounding/spread") for name, result in results.items()}
    floor = _floor(list(spread.values()))
    ax.plot(log10(bound), color="#bbbbbb", linewidth=4, label="bound of rounding")
    _curves(ax, results, spread, floor)
    ax.set(xlabel="step", ylabel="distance between equal units")
    _axis(ax, floor)
    legend(figure, ax)


DRAWINGS = (
    Drawing(
        "symmetry-distance",
        4.0,
        "Largest difference between the incoming weights of two hidden units while a small net "
        "learns handwritten digits, on a logarithmic axis; an exact 0 is drawn on the dotted "
        "floor. Every backend trains the same nets on the same batches.",
        "Two line charts, for nets of two and of four units. Trained from constant weights by SGD, "
        "momentum or Adam the difference lies on the floor labelled exactly 0 or next to it. With "
        "dropout, with Xavier weights and with unequal outgoing weights it lies far above.",
        _distances,
    ),
    Drawing(
        "symmetry-rounding",
        3.2,
        "Distance between 37 units that start equal, where rounding is the only difference, under "
        "its bound.",
        "Line chart on a logarithmic axis. The bound of rounding errors grows with each step; each "
        "backend's distance lies below it, or on the floor labelled exactly 0.",
        _rounding,
    ),
)
