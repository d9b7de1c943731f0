"""Training with and without batch norm, and the law of a value standardized in its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isometry.common.laws.batch_statistics import standardized_cdf
from isometry.common.reports.figures.style import (
    Drawing,
    Results,
    every,
    first,
    legend,
    styles,
    values,
)
from isometry.common.studies.batch_norm import KINDS, LAW_BATCHES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]


def _training(figure: Figure, results: Results) -> None:
    axes = figure.subplots(len(KINDS), 4, sharey="col", sharex="col")
    for row, kind in zip(axes, KINDS, strict=True):
        scale, batch, drift, lipschitz = row
        _losses(scale, results, f"loss/scale/{kind}", values(first(results), "scale"))
        scale.set_ylabel(f"{kind}\nloss (nat)")
        _losses(batch, results, f"loss/batch/{kind}", values(first(results), "batch"))
        _alike(batch, results, kind)
        for ax, name in ((drift, "drift"), (lipschitz, "lipschitz/gradient")):
            for k, (column, style) in enumerate(styles(results).items()):
                curve = values(results[column], f"{name}/{kind}")
                ax.plot(curve, **style, markevery=every(3 * curve.size, k, len(results)))
    for ax in (axes[0, 0], axes[0, 1]):
        low, high = ax.get_ylim()
        shown = (0.3, 1, 3, 10, 30) if high > 10 * low else (0.5, 1, 2)
        ax.set_yticks(shown, [f"{v:g}" for v in shown])
        ax.set_ylim(low, high)
    for ax in axes[0, 2:]:
        ax.set_ylim(bottom=0)
    titles = ("by initial scale", "by batch size", "drift", "Lipschitz constant")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax, label in zip(axes[-1], ("scale", "examples", "step", "step"), strict=True):
        ax.set_xlabel(label)
    legend(figure, *axes.flat)


def _losses(ax: Axes, results: Results, name: str, x: np.ndarray) -> None:
    """Draw the mean loss over nets, and every net."""
    for column, style in styles(results).items():
        loss = values(results[column], name)
        ax.plot(x, loss.mean(axis=1), **style, label=column)
        ax.plot(x, loss, ".", color=style["color"], markersize=2)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(x, [f"{v:g}" for v in x])
    ax.minorticks_off()


def _alike(ax: Axes, results: Results, kind: str) -> None:
    largest = values(first(results), "batch")[-1]
    for k, (column, style) in enumerate(styles(results).items()):
        ax.plot(
            largest,
            values(results[column], f"loss/one class/{kind}").mean(),
            color=style["color"],
            marker="x",
            linestyle="none",
            label="batches of one class" if k == 0 else None,
        )


def _law(figure: Figure, results: Results) -> None:
    axes = figure.subplots(1, 1 + len(LAW_BATCHES), sharey=True)
    for ax, batch in zip(axes, (2, *LAW_BATCHES), strict=True):
        if batch > 2:
            limit = min(np.sqrt(batch - 1), 3.5)
            z = np.linspace(-limit, limit, 201)
            exact = standardized_cdf(z, batch)
            ax.plot(z, exact, color="#bbbbbb", linewidth=4, label="exact")
        else:
            ax.plot([-1, -1, 1, 1], [0, 0.5, 0.5, 1], color="#bbbbbb", linewidth=4)
        for k, (column, style) in enumerate(styles(results).items()):
            z = values(results[column], f"standardized/{batch}")
            below = (np.arange(z.size) + 0.5) / z.size
            ax.plot(z, below, **style, markevery=every(3 * z.size, k, len(results)), label=column)
        ax.set(title=f"batch of {batch}", xlabel="standardized value", xlim=(-3, 3))
    axes[0].set_ylabel("fraction below")
    legend(figure, *axes)


DRAWINGS = (
    Drawing(
        "batch-norm",
        4.0,
        "Training on digits without (above) and with batch norm (below): the loss of a probe after "
        "the steps, by the scale of the initial weights and by the size of the mini-batch (cross: "
        "mini-batches of one class each), how far the inputs of the last activation drift, in "
        "their first standard deviations, and the local Lipschitz constant of the gradient along "
        "each step.",
        "Two rows of four charts. By initial scale the loss without batch norm stays at chance "
        "for small weights and is far above it for the largest; with it the curve climbs gently. "
        "By batch size the loss with batch norm is high for two examples and falls as batches "
        "grow, and is high for batches of one class. The last two "
        "charts follow the drift and the Lipschitz constant over the steps.",
        _training,
    ),
    Drawing(
        "batch-norm-law",
        2.4,
        "Distribution of one of m normal values after standardizing it in its batch, against the "
        "exact law: two values become -1 and +1, three crowd at the ends, and many are normal.",
        "Five charts of the fraction of values below, for batches of 2, 3, 4, 8 and 32: a step at "
        "-1 and one at +1, then an S bent the wrong way, a straight line, and two ordinary S "
        "curves. The curves of the backends lie on the grey exact ones.",
        _law,
    ),
)
