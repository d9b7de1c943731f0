"""Spectra of Hessians and weights, and how fast nets of a given largest eigenvalue learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isometry.common.reports.figures.style import (
    Drawing,
    Results,
    first,
    legend,
    log10,
    styles,
    values,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]


def _spectra(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, 2)
    _exact(axes[0, 0], results)
    _nets(axes[0, 1], results)
    _weights(axes[1, 0], results)
    _training(axes[1, 1], results)
    legend(figure, *axes.flat)


def _exact(ax: Axes, results: Results) -> None:
    exact = values(first(results), "softmax/eigenvalues")
    count = exact.size
    ax.step(exact, (1 + np.arange(count)) / count, where="post", color="#bbbbbb", linewidth=4)
    for name, style in styles(results).items():
        estimated = values(results[name], "softmax/estimated")
        ax.plot(exact, estimated, **{**style, "marker": ""}, label=name)
    ax.set_xscale("symlog", linthresh=1e-2)
    ax.set(xlabel="eigenvalue", ylabel="share below", title="softmax regression, exact in grey")
    ax.set_xticks([0, 1e-2, 1e-1])


def _nets(ax: Axes, results: Results) -> None:
    """Draw the share of eigenvalues beyond x, by size, of the deepest nets."""
    result = first(results)
    depth = int(values(result, "net/depth").max())
    for suffix, color in (("", "#777777"), (", batch norm", "#CC79A7")):
        name = f"{depth} layers, xavier{suffix}"
        nodes, weights = (values(result, f"{name}/{what}") for what in ("nodes", "weights"))
        for sign, line in ((1, "-"), (-1, "--")):
            sizes = np.geomspace(1e-3, np.abs(nodes).max(), 200)
            beyond = (weights[..., None] * (sign * nodes[..., None] > sizes)).sum(axis=1)
            label = f"xavier{suffix}" if sign > 0 else None
            ax.loglog(sizes, beyond.mean(axis=0), color=color, linestyle=line, label=label)
    ax.set(xlabel="size of eigenvalue x", ylabel="share beyond x")
    ax.set_title(f"{depth} layers, dashed: negative")


def _weights(ax: Axes, results: Results) -> None:
    result = first(results)
    x = values(result, "marchenko-pastur/x")
    ax.plot(x, values(result, "marchenko-pastur/cdf"), color="#bbbbbb", linewidth=4)
    for name, style in styles(results).items():
        shares = values(results[name], "marchenko-pastur/lecun_normal")
        ax.plot(x, shares, **{**style, "linestyle": "none"})
    ax.step(
        x,
        values(result, "marchenko-pastur/orthogonal"),
        where="post",
        color="black",
        linewidth=0.8,
        linestyle=":",
        label="orthogonal weights",
    )
    ax.set(xlabel="eigenvalue of W W^T", ylabel="share below")
    ax.set_title("Gaussian weights, Marchenko-Pastur in grey")


def _training(ax: Axes, results: Results) -> None:
    limit = int(first(results).parameters["steps"])
    for name, style in styles(results).items():
        result = results[name]
        largest = log10(values(result, "net/largest"))
        steps = values(result, "net/steps")[:, 0]
        norm = values(result, "net/batch_norm").astype(bool)
        point = {**style, "linestyle": "none"}
        ax.plot(largest[~norm], steps[~norm], **point)
        ax.plot(largest[norm], steps[norm], **{**point, "markerfacecolor": style["color"]})
    ax.axhline(limit, color="#999999", linewidth=0.8)
    ax.annotate("not reached", (0.2, limit), xycoords=("axes fraction", "data"), va="top")
    ax.locator_params(axis="x", integer=True)
    ax.xaxis.set_major_formatter(lambda v, _: rf"$10^{{{v:g}}}$")
    ax.set(xlabel="largest eigenvalue, untrained", ylabel="steps to half the loss")
    ax.set_ylim(0, 1.12 * limit)
    ax.set_title("filled: batch norm")


DRAWINGS = (
    Drawing(
        "hessian-spectrum",
        5.6,
        "Above: share of the Hessian's eigenvalues below x by stochastic Lanczos quadrature, for a "
        "softmax regression whose exact eigenvalues are grey; share beyond x in size for the "
        "deepest nets, untrained, with and without batch normalization. Below: eigenvalues of "
        "random weights against the law of Marchenko and Pastur; steps of gradient descent at one "
        "fixed rate to half the loss of guessing against the largest eigenvalue at the start.",
        "Four charts. Two are distribution functions that lie on their exact grey curves. In the "
        "third the eigenvalues of a deep net with batch normalization reach ten times as far as "
        "without. In the last, a scatter, the net of the smallest largest eigenvalue never reaches "
        "the loss, and those of the largest are not the slowest.",
        _spectra,
    ),
)
