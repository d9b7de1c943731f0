"""What normalization makes of a badly scaled batch, and when running statistics are there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from isometry.common.laws.normalization import (
    BATCH_NORM,
    BOUND,
)
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

FORMS = {  # quantity -> whether the contract's bound holds for it
    "batch norm": True,
    "layer norm": True,
    "two-pass": False,
    "E[x^2]-E[x]^2": False,
}
CHANNEL = 0  # the one whose variance starts farthest from the population's


def _errors(figure: Figure, results: Results) -> None:
    axes = figure.subplots(1, len(FORMS), sharey=True)
    columns = values(first(results), "mean over std")
    ratios = np.unique(columns)
    offsets = np.linspace(-0.3, 0.3, len(results)) if len(results) > 1 else np.zeros(1)
    for ax, (form, bounded) in zip(axes, FORMS.items(), strict=True):
        for offset, (name, style) in zip(offsets, styles(results).items(), strict=True):
            error = values(results[name], f"error/{form}")
            worst = np.array([error[columns == ratio].max() for ratio in ratios])
            at = np.arange(ratios.size) + offset
            ax.plot(at, log10(worst), **{**style, "linestyle": "none"}, label=name)
        if bounded:
            ax.axhline(
                math.log10(BOUND),
                color="#555555",
                linewidth=0.8,
                linestyle=(0, (6, 2)),
                label="bound",
            )
        ax.set_title(form.replace("^2", "²"))
        labels = [rf"$10^{{{math.log10(r):g}}}$" if r > 0 else "0" for r in ratios]
        ax.set_xticks(range(ratios.size), labels)
        ax.set(xlabel="mean / std", xlim=(-0.6, ratios.size - 0.4))
    axes[0].set_ylabel("largest output error")
    decades(axes[0])
    legend(figure, *axes)


def _running(figure: Figure, results: Results) -> None:
    axes = figure.subplots(1, 2)
    for ax, statistic in zip(axes, ("mean", "variance"), strict=True):
        ends = {}
        for library in BATCH_NORM:
            name = f"running {statistic}/{library}"
            for k, (backend, style) in enumerate(styles(results).items()):
                ratio = log10(values(results[backend], name)[:, CHANNEL])
                if statistic == "mean":
                    ratio = values(results[backend], name)[:, CHANNEL]
                ax.plot(
                    ratio, **style, markevery=every(2 * ratio.size, k, len(results)), label=backend
                )
            ends[library] = float(ratio[-1])
        population = 1.0 if statistic == "mean" else 0.0
        ax.axhline(population, color="#bbbbbb", linewidth=4, zorder=0, label="population")
        ax.set(xlabel="step", title=f"running {statistic}", xlim=(0, ratio.size - 1))
        ax.locator_params(axis="x", integer=True)
        name_ends(ax, ends)
    axes[0].set_ylabel("fraction of the population's")
    decades(axes[1])
    legend(figure, *axes)


DRAWINGS = (
    Drawing(
        "normalization-error",
        3.6,
        "Largest error of a normalized float32 output against the exact result for the same input, "
        "by the mean of the batch in standard deviations: the contract's layers, and two textbook "
        "forms computed in float32.",
        "Four charts on a logarithmic axis. The errors of the contract's batch norm and layer norm "
        "are compared with their bound, drawn as a dashed line, at means of 0 to a million "
        "standard deviations. The errors of the two-pass form and of the form that subtracts the "
        "squared mean from the mean square grow with the mean.",
        _errors,
    ),
    Drawing(
        "normalization-running",
        3.6,
        "Running mean and variance of batch norm as a fraction of the population's, against the "
        "training step, under the default convention of each library (named at the right), for a "
        "channel of standard deviation 0.01. Until they are near 1, inference does not repeat "
        "training.",
        "Two line charts. The running mean rises from 0 towards the population's, the running "
        "variance falls from ten thousand times the population's towards it. The defaults of "
        "Keras and Flax approach slowly, those of PyTorch and MXNet about ten times as fast.",
        _running,
    ),
)
