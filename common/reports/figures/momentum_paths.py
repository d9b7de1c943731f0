"""Paths of the optimizers down one bowl."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isometry.common.reports.figures.style import Drawing, Results, first, legend, styles, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS"]

LEVELS = 8  # of the loss, each a quarter of the one outside it
NAMES = (
    "gradient descent",
    "heavy ball",
    "Nesterov",
    "Newton",
    "Adam",
    "RMSprop",
    "Adagrad",
    "Quickprop",
)


def _paths(figure: Figure, results: Results) -> None:
    axes = figure.subplots(2, 4, sharex=True, sharey=True)
    steps = int(first(results).parameters["steps"])
    box = _box(results)
    for ax, name in zip(axes.flat, NAMES, strict=True):
        _bowl(ax, values(first(results), "hessian"), box)
        for k, (column, style) in enumerate(styles(results).items()):
            path = values(results[column], f"path/{name}")
            look = {**style, "markersize": 3, "markeredgewidth": 0.7, "linewidth": 0.8}
            ax.plot(path[:, 0], path[:, 1], **look, markevery=(k, len(results)), label=column)
        ax.plot([0], [0], "+", color="black", markersize=8, label="minimum")
        within = int(values(first(results), f"steps/{name}"))
        ax.set_title(f"{name}: {within if within <= steps else f'> {steps}'}")
        ax.set(xlim=box[0], ylim=box[1], aspect="equal")
    for ax in axes[1]:
        ax.set_xlabel("first weight")
    for ax in axes[:, 0]:
        ax.set_ylabel("second weight")
    legend(figure, axes[0, 0])


def _box(results: Results) -> np.ndarray:
    """Return the limits (2, 2) of both axes: all that the first column's paths reach."""
    paths = np.concatenate([values(first(results), f"path/{name}") for name in NAMES])
    paths = paths[np.isfinite(paths).all(axis=1)]
    paths = np.append(paths, [[-0.2, -0.2], [0.2, 0.2]], axis=0)
    return np.stack([paths.min(axis=0) - 0.1, paths.max(axis=0) + 0.1], axis=1)


def _bowl(ax: Axes, hessian: np.ndarray, box: np.ndarray) -> None:
    """Draw lines of equal loss."""
    x, y = (np.linspace(low, high, 61) for low, high in box)
    w = np.stack(np.meshgrid(x, y), axis=-1)
    loss = np.nan_to_num(np.einsum("ijk,kl,ijl->ij", w, hessian, w))
    levels = loss.max() * 4.0 ** np.arange(-LEVELS, 0)
    if levels[0] > 0:
        ax.contour(x, y, loss, levels, colors="#cccccc", linewidths=0.6)


DRAWINGS = (
    Drawing(
        "momentum-paths",
        4.0,
        "Paths down a long valley, each backend's over the others, and the number of steps until "
        "the distance to the minimum is 1 % of the start's. Grey: lines of equal loss. The first "
        "three are at their best constants.",
        "Eight small maps of the same tilted valley. Gradient descent zigzags along it; heavy "
        "ball and Nesterov's method swing to the minimum in far fewer steps; Newton is there in "
        "one. Adam overshoots and turns round, RMSprop and Adagrad set out along the diagonal, "
        "and Quickprop jumps. The backends' paths coincide.",
        _paths,
    ),
)
