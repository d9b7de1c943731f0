"""Accuracy after equal epochs, as batch and rate grow together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isometry.common.reports.figures.style import Drawing, Results, first, legend, styles, values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

RULES = ("SGD", "momentum", "LARS", "NovoGrad")


def _accuracies(figure: Figure, results: Results) -> None:
    axes = figure.subplots(1, len(RULES), sharey=True)
    batch = values(first(results), "batch")
    places = np.arange(len(batch))  # 32, 128, 512, 1536: nearly even on a logarithmic axis
    for ax, name in zip(axes, RULES, strict=True):
        for column, style in styles(results).items():
            scaled, kept = (
                values(results[column], f"accuracy/{name}/{what}") for what in ("scaled", "kept")
            )
            ax.plot(places, scaled, **style, label=column)
            ax.plot(places, kept, color=style["color"], linewidth=0.7, alpha=0.6)
        ax.axhline(0.1, color="black", linewidth=0.7, linestyle=":", label="guessing")
        ax.plot([], [], color="#888888", linewidth=0.7, label="rate kept")
        ax.set_title(name)
        ax.set(xlabel="batch", ylim=(0, 1.02))
        ax.set_xticks(places, [f"{b:g}" for b in batch])
    axes[0].set_ylabel("accuracy")
    legend(figure, axes[0])


DRAWINGS = (
    Drawing(
        "large-batch",
        2.6,
        "Accuracy on the digits after equal epochs, against the batch size. With markers: the rate "
        "grows in proportion to the batch. Thin: it stays that of batches of 32. The largest batch "
        "is the whole training set.",
        "Four panels, one a rule. With the rate kept, accuracy falls to between 0.15 and 0.45 as "
        "batches grow, for there are fewer steps. With the rate in proportion it stays near one "
        "up to batches of 512; at the full batch plain SGD falls to guessing, momentum and "
        "NovoGrad keep about 0.85 and LARS more than 0.9.",
        _accuracies,
    ),
)
