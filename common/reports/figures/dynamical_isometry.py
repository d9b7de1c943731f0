"""Spectra of singular values, Gaussian against orthogonal, and their variance against theory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isometry.common.reports.figures.style import (
    Drawing,
    Results,
    decades,
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

WEIGHTS = {"gaussian": ("#bbbbbb", 0.0), "orthogonal": ("#d9e8f2", 0.38)}  # bars: colour, shift
LINES = {"gaussian": "-", "orthogonal": (0, (2, 1))}
SHOWN = ("linear", "relu", "tanh, q = 1/depth", "sigmoid")
LOWEST, HIGHEST = -3.0, 1.2  # decades of singular values


def _spectra(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for ax, name in zip(axes.flat, SHOWN, strict=True):
        _distribution(ax, results, name)
    for ax in axes[-1]:
        ax.set_xlabel("singular value")
    for row in axes:
        row[0].set_ylabel("share below")
    legend(figure, *axes.flat)


def _distribution(ax: Axes, results: Results, name: str) -> None:
    """Draw the distribution functions of a case; values below the panel enter it at its left."""
    if name == "linear":
        s, density = (values(first(results), f"density/{part}") for part in ("squared", "value"))
        above = np.append(np.cumsum((np.diff(s) * (density[1:] + density[:-1]) / 2)[::-1])[::-1], 0)
        ax.plot(log10(s) / 2, 1 - above, color="#cccccc", linewidth=5, label="gaussian, exact")
    for weights, line in LINES.items():
        for backend, style in styles(results).items():
            s = values(results[backend], f"{name}/{weights}/singular")
            share = (np.arange(s.size) + 0.5) / s.size
            x = log10(np.maximum(s, 10 ** (LOWEST - 1)))
            ax.plot(x, share, color=style["color"], linestyle=line)
    for backend, style in styles(results).items():
        ax.plot([], [], color=style["color"], label=backend)
    for weights, line in LINES.items():
        ax.plot([], [], color="black", linestyle=line, label=weights)
    ax.set(xlim=(LOWEST, HIGHEST), ylim=(0, 1.02), title=name)
    decades(ax, "x")


def _variances(figure: Figure, results: Results) -> None:
    bars, images = figure.subplots(1, 2, width_ratios=(3, 2))
    result = first(results)
    names = [n.removesuffix("/critical") for n in result.quantities if n.endswith("/critical")]
    for k, (weights, (color, shift)) in enumerate(WEIGHTS.items()):
        x = np.arange(len(names)) + shift
        exact = [values(result, f"{name}/{weights}/variance")[1] for name in names]
        bars.bar(x, exact, width=0.36, color=color, label=f"{weights}, theory")
        for j, (backend, style) in enumerate(styles(results).items()):
            measured = [values(results[backend], f"{name}/{weights}/variance")[0] for name in names]
            offset = 0.06 * (j - (len(results) - 1) / 2)
            bars.plot(
                x + offset,
                measured,
                **{**style, "linestyle": "none"},
                label=backend if k == 0 else None,
            )
    bars.set_xticks(np.arange(len(names)) + 0.19, [n.replace(", ", ",\n") for n in names])
    bars.tick_params(axis="x", rotation=90)
    bars.set(xlabel="net", ylabel="variance of squared singular values", title="layers grown wide")
    bars.grid(False, axis="x")
    _images(images, results)
    legend(figure, bars, images)


def _images(ax: Axes, results: Results) -> None:
    layer = values(first(results), "convolution/layer")
    for backend, style in styles(results).items():
        for rule, line in (("lecun_normal", "gaussian"), ("delta_orthogonal", "orthogonal")):
            norm = values(results[backend], f"convolution/{rule}")
            ax.plot(layer, norm, color=style["color"], linestyle=LINES[line], linewidth=1)
    for text, line in (("Gaussian kernels", "gaussian"), ("delta-orthogonal", "orthogonal")):
        ax.plot([], [], color="black", linestyle=LINES[line], label=text)
    ax.set(xlabel="convolution", ylabel="norm of the image", title="linear, circular padding")
    ax.set_xlim(0, float(layer[-1]))


DRAWINGS = (
    Drawing(
        "dynamical-isometry-spectra",
        5.2,
        "Distribution of the singular values of the input-output Jacobian at criticality, all nets "
        "together: the steeper at 1, the nearer to an isometry. Solid: Gaussian weights, dashed: "
        "orthogonal ones; grey: the exact law of wide linear Gaussian nets. Values too small for "
        "the panel enter it at its left edge.",
        "Four charts of the share of singular values below each size, on a logarithmic axis. "
        "Linear: a slow rise for Gaussian weights along the exact grey curve, one step at 1 for "
        "orthogonal ones. ReLU: more than half of all are zero for both. Tanh at small q: nearly a "
        "step at 1 with orthogonal weights. Sigmoid: both spread over many decades.",
        _spectra,
    ),
    Drawing(
        "dynamical-isometry-variance",
        3.8,
        "Left: variance of the squared singular values, whose mean is 1, extrapolated to infinite "
        "width from two widths (markers), and predicted (bars); the sigmoid's markers keep a term "
        "in 1 / width^2, as few of its units are active. Right: norm of an image through linear "
        "convolutions.",
        "Left: pairs of bars, Gaussian and orthogonal weights, for six kinds of nets, with markers "
        "near their tops. Orthogonal bars vanish for linear nets and nearly for tanh and the "
        "centred sigmoid at small q, and stay high for ReLU and above all for the logistic "
        "sigmoid. Right: the norm stays exactly 1 with delta-orthogonal kernels and wanders with "
        "Gaussian ones.",
        _variances,
    ),
)
