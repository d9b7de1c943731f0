"""What mends a dying and an exploding net, and what shortcuts do to signal and gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from isometry.common.reports.figures.style import (
    Drawing,
    Results,
    decades,
    every,
    first,
    legend,
    log10,
    name_ends,
    styles,
    values,
)
from isometry.common.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

NETS = ("dying", "exploding")
GREY = "#bbbbbb"


def _named(result: Result, prefix: str) -> list[str]:
    found = (name.removeprefix(prefix) for name in result.quantities if name.startswith(prefix))
    return [name for name in found if "/theory" not in name]


def _remedies(figure: Figure, results: Results) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    rows = _named(first(results), "steps/dying/")
    steps = int(first(results).parameters["steps"])
    for ax, net in zip(axes, NETS, strict=True):
        for k, (column, style) in enumerate(styles(results).items()):
            found = [_steps(results[column], net, name) for name in rows]
            beside = np.arange(len(rows)) + 0.6 * ((k + 0.5) / len(results) - 0.5)
            look = {**style, "linestyle": "none"}
            ax.plot(np.minimum(found, 1.12 * steps), beside, **look, label=column)
        _failures(ax, results, net, rows, steps)
        ax.set_yticks(range(len(rows)), rows)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set(xlim=(0, 1.42 * steps), xlabel="steps to 90 %", title=f"the {net} net")
        ax.set_xticks([0, steps // 2, steps])
        ax.grid(visible=False, axis="y")
    legend(figure, axes[0])


def _failures(ax: Axes, results: Results, net: str, rows: Iterable[str], steps: int) -> None:
    """Shade what none reached, and write the accuracy there at the end, mean of the backends."""
    ax.axvspan(1.03 * steps, 1.42 * steps, color="#eeeeee", linewidth=0)
    for k, name in enumerate(rows):
        ends = [_value(result, "accuracy", net, name) for result in results.values()]
        reached = [math.isfinite(_steps(result, net, name)) for result in results.values()]
        if not any(reached) and np.isfinite(ends).all():
            text = f"{np.mean(ends):.0%}"
            ax.text(1.4 * steps, k, text, ha="right", va="center")


def _steps(result: Result, net: str, name: str) -> float:
    return _value(result, "steps", net, name)


def _value(result: Result, what: str, net: str, name: str) -> float:
    """Return a number of a remedy, or NaN if it was not tried."""
    quantity = result.quantities.get(f"{what}/{net}/{name}")
    return float(quantity.values) if quantity else math.nan


def _layers(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, 2, sharex="col")
    for row, net in zip(axes, NETS, strict=True):
        for ax, what in zip(row, ("signal", "gradient"), strict=True):
            _curves(ax, results, f"{what}/{net}/")
            ax.set_title(f"{what}, {net} net")
    for signal, gradient in axes:
        signal.set_ylabel("rms of z")
        gradient.set_ylabel("rms, of that at the last")
    for ax in axes[1]:
        ax.set_xlabel("layer")
        ax.locator_params(axis="x", integer=True)
    axes[1, 1].invert_xaxis()  # as it travels
    legend(figure, axes[0, 0])


def _curves(ax: Axes, results: Results, prefix: str) -> None:
    layer = values(first(results), "layer")
    ends = {}
    for kind in _named(first(results), prefix):
        theory = log10(values(first(results), f"{prefix}{kind}/theory"))
        ax.plot(layer, theory, color=GREY, linewidth=4)
        for k, (column, style) in enumerate(styles(results).items()):
            curve = log10(values(results[column], prefix + kind))
            label = column if kind == "nothing" else None
            ax.plot(
                layer, curve, **style, markevery=every(layer.size, k, len(results)), label=label
            )
        ends[kind] = float(theory[0] if prefix.startswith("gradient") else theory[-1])
    ax.plot([], [], color=GREY, linewidth=4, label="theory")
    decades(ax)
    name_ends(ax, ends)


DRAWINGS = (
    Drawing(
        "fix-after-the-fact",
        5.2,
        "Steps of training until 90 % of the images are right, of a net whose weights are too "
        "small and of one whose weights are too large, with one remedy at a time and with the "
        "best two. Shaded: not reached; the number is the accuracy where no backend reached it.",
        "Two charts with a row for each remedy. In the dying net shortcuts, batch norm and a "
        "better initialization train within 10 to 75 steps, while clipping, rates, LARS, LAMB, "
        "NovoGrad, Adam, weight decay and dropout do not get there. In the exploding net clipping, "
        "LARS, LAMB, NovoGrad and Adam train in 50 to 100 steps, batch norm and initialization "
        "too, while residual shortcuts, warm-up, weight decay and dropout fail.",
        _remedies,
    ),
    Drawing(
        "fix-after-the-fact-layers",
        5.0,
        "Root mean square of the preactivations, and of the gradient in each layer's output over "
        "that of the last, from the last layer back, before training, with one remedy at a time "
        "in the same net. Grey: theory.",
        "Four charts on logarithmic axes over the layers. In the dying net signal and gradient "
        "fall on straight lines by more than four orders; with residual, dense, highway or "
        "SkipInit shortcuts or batch norm they stay nearly level. In the exploding net they rise "
        "steeply, and more so with residual shortcuts, less with highway and dense ones; with "
        "batch norm and SkipInit they stay nearly level. All lie on the grey theory.",
        _layers,
    ),
)
