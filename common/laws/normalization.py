"""Batch, layer, group and RMS normalization: conventions as data, and the float64 reference.

The reference takes NumPy arrays, computes in float64 whatever their dtype, and subtracts the mean
and then the mean of what is left, so that rounding errors do not grow with mean/std: for n values
in each mean its outputs are within ``(n + 10) 2**-53 max(1, |z|)`` of the exact ones for the given
input, z being the normalized x. It is the oracle of studies and of the conformance suite.

The conventions in which frameworks differ, what their layers do when nothing is said:

======= ========= ======== ================ ================ ========= ========= ======== ========
library batch eps momentum momentum weights running variance layer eps group eps instance RMS eps
======= ========= ======== ================ ================ ========= ========= ======== ========
torch   1e-5      0.1      batch            unbiased         1e-5      1e-5      1e-5     2**-23
keras   1e-3      0.99     running          biased           1e-3      1e-3      1e-3     1e-6
flax    1e-5      0.99     running          biased           1e-6      1e-6      1e-6     1e-6
mxnet   1e-5      0.9      running          biased           1e-5      1e-5      1e-5     none
======= ========= ======== ================ ================ ========= ========= ======== ========

All add eps inside the square root. `conventions` gives a column as keyword arguments. Layers:
torch.nn; keras.layers (Keras 3), where instance norm is GroupNormalization(groups=-1); flax.linen
and flax.nnx alike; mxnet.gluon.nn on the CPU, whose scale of a group norm is one for each group.
The eps of torch's RMS norm is the spacing of x's dtype at 1: of float32, also for half precisions;
in float64 it is 2**-52.

Sources: torch/nn/modules/batchnorm.py, normalization.py and instancenorm.py;
keras/src/layers/normalization/*.py; flax/nnx/nn/normalization.py and flax/linen/normalization.py;
mxnet/gluon/nn/basic_layers.py and src/operator/nn/batch_norm.cc. Where the running variance is
kept and normalized by is not documented everywhere: it was measured on each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.common import checks
from isometry.common.laws.formats import FORMATS

__all__ = [
    "BATCH_NORM",
    "BOUND",
    "EPS",
    "Convention",
    "batch_norm",
    "batch_norm_backward",
    "conventions",
    "group_norm",
    "group_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "normalization_bound",
    "rms_norm",
    "rms_norm_backward",
]


@dataclass(frozen=True)
class Convention:
    """How a library's batch norm treats its running statistics; see `Backend.batch_norm`."""

    eps: float
    momentum: float
    momentum_weights: str
    running_variance: str

    @property
    def options(self) -> dict[str, Any]:
        """The convention as keyword arguments of `Backend.batch_norm`."""
        return dict(vars(self))

    @property
    def old_weight(self) -> float:
        """Weight of the old running value in the new one, whichever way it is written."""
        return self.momentum if self.momentum_weights == "running" else 1 - self.momentum


BATCH_NORM: dict[str, Convention] = {
    "torch": Convention(1e-5, 0.1, "batch", "unbiased"),
    "keras": Convention(1e-3, 0.99, "running", "biased"),
    "flax": Convention(1e-5, 0.99, "running", "biased"),
    "mxnet": Convention(1e-5, 0.9, "running", "biased"),
}
"""Library -> its defaults."""

EPS: dict[str, dict[str, float]] = {
    "layer_norm": {"torch": 1e-5, "keras": 1e-3, "flax": 1e-6, "mxnet": 1e-5},
    "group_norm": {"torch": 1e-5, "keras": 1e-3, "flax": 1e-6, "mxnet": 1e-5},
    "instance_norm": {"torch": 1e-5, "keras": 1e-3, "flax": 1e-6, "mxnet": 1e-5},
    "rms_norm": {"torch": 2.0**-23, "keras": 1e-6, "flax": 1e-6},
}
"""Norm of an example -> library -> its default eps; MXNet has no RMS norm."""


def conventions(library: str, norm: str) -> dict[str, Any]:
    """Return what a library's layer does by default, as options of the contract's method.

    ``nx.batch_norm(..., training=True, **conventions("torch", "batch_norm"))``: by name, so that
    it stands in the call which options are taken over, and Python refuses one given twice.

    Parameters
    ----------
    library : {"torch", "keras", "flax", "mxnet"}
    norm : {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"}

    Raises
    ------
    InvalidArgument
        If either is unknown, or the library has no such layer.

    >>> conventions("keras", "batch_norm")["momentum"], conventions("flax", "layer_norm")
    (0.99, {'eps': 1e-06})
    """
    checks.choice("library", library, tuple(BATCH_NORM))
    if checks.choice("norm", norm, ("batch_norm", *EPS)) == "batch_norm":
        return BATCH_NORM[library].options
    return {"eps": EPS[norm][checks.choice(f"library with {norm}", library, tuple(EPS[norm]))]}


BOUND = 1e-5
"""Largest absolute error of a normalized float32 output (scale 1, shift 0) up to mean/std 1e6."""


def normalization_bound(dtype: str = "float32") -> float:
    """Return the contract's bound on the output of batch, layer, group and RMS norm.

    In float64 it is the same number of roundings, 168 units of 2**-53: the error is a sum of
    products of the unit roundoff with quantities that do not depend on it.
    """
    return BOUND * FORMATS[dtype].eps / FORMATS["float32"].eps


def _centre(x: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``x - m``, m and the biased variance."""
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    # the mean of the centred values is the rounding error of the mean
    correction = centred.mean(axis=axes, keepdims=True)
    centred = centred - correction
    return centred, mean + correction, np.square(centred).mean(axis=axes, keepdims=True)


def _backward(
    dz: np.ndarray, z: np.ndarray, inverse: np.ndarray, axes: tuple[int, ...]
) -> np.ndarray:
    """Return ``inverse (dz - mean(dz) - z mean(dz z))``: the mean and variance depend on x."""
    mean = dz.mean(axis=axes, keepdims=True)
    along = (dz * z).mean(axis=axes, keepdims=True)
    return np.asarray(inverse * (dz - mean - z * along))


def _channels(x: np.ndarray, axis: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return all other axes, and the shape that broadcasts a vector of channels against x."""
    axis %= x.ndim
    others = tuple(k for k in range(x.ndim) if k != axis)
    return others, tuple(size if k == axis else 1 for k, size in enumerate(x.shape))


def batch_norm(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    /,
    *,
    training: bool,
    axis: int = 1,
    eps: float = 1e-5,
    momentum: float = 0.9,
    momentum_weights: str = "running",
    running_variance: str = "biased",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return y and the new running mean and variance, all float64; see `Backend.batch_norm`.

    ``y = (x - m) / sqrt(v + eps) * scale + shift`` (Ioffe and Szegedy 2015, algorithms 1 and 2).
    """
    x, scale, shift, mean, variance = (
        np.asarray(a, np.float64) for a in (x, scale, shift, mean, variance)
    )
    axes, shape = _channels(x, axis)
    if training:
        centred, batch_mean, batch_variance = _centre(x, axes)
        count = x.size // x.shape[axis]
        kept = batch_variance * (count / (count - 1) if running_variance == "unbiased" else 1)
        old = momentum if momentum_weights == "running" else 1 - momentum
        mean = old * mean + (1 - old) * batch_mean.reshape(-1)
        variance = old * variance + (1 - old) * kept.reshape(-1)
    else:
        centred, batch_variance = x - mean.reshape(shape), variance.reshape(shape)
    z = centred / np.sqrt(batch_variance + eps)
    return z * scale.reshape(shape) + shift.reshape(shape), mean, variance


def batch_norm_backward(
    dy: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    /,
    *,
    training: bool,
    axis: int = 1,
    eps: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dx, dscale and dshift in float64 for the gradient dy of the output.

    ``dx = scale / sqrt(v + eps) (dy - mean(dy) - z mean(dy z))`` in training (Ioffe and Szegedy
    2015, section 3), ``scale / sqrt(v + eps) dy`` in inference; ``dscale = sum(dy z)``,
    ``dshift = sum(dy)``, over all axes but the channels'.
    """
    dy, x, scale, mean, variance = (
        np.asarray(a, np.float64) for a in (dy, x, scale, mean, variance)
    )
    axes, shape = _channels(x, axis)
    if training:
        centred, _, v = _centre(x, axes)
    else:
        centred, v = x - mean.reshape(shape), variance.reshape(shape)
    inverse = 1 / np.sqrt(v + eps)
    z = centred * inverse
    dz = dy * scale.reshape(shape)
    dx = _backward(dz, z, inverse, axes) if training else dz * inverse
    return dx, (dy * z).sum(axis=axes), dy.sum(axis=axes)


def layer_norm(
    x: np.ndarray, scale: np.ndarray, shift: np.ndarray, /, *, axis: int = -1, eps: float = 1e-5
) -> np.ndarray:
    """Return y in float64; see `Backend.layer_norm` (Ba, Kiros and Hinton 2016, eq. 3 and 4)."""
    x = np.asarray(x, np.float64)
    centred, _, variance = _centre(x, tuple(range(axis % x.ndim, x.ndim)))
    z = centred / np.sqrt(variance + eps)
    return np.asarray(z * np.asarray(scale, np.float64) + np.asarray(shift, np.float64))


def layer_norm_backward(
    dy: np.ndarray, x: np.ndarray, scale: np.ndarray, /, *, axis: int = -1, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dx, dscale and dshift in float64 for the gradient dy of the output.

    ``dx = (s - mean(s) - z mean(s z)) / sqrt(v + eps)`` with ``s = dy scale``, means over the
    normalized axes; ``dscale = sum(dy z)`` and ``dshift = sum(dy)`` over all the other axes.
    """
    dy, x, scale = (np.asarray(a, np.float64) for a in (dy, x, scale))
    first = axis % x.ndim
    axes, others = tuple(range(first, x.ndim)), tuple(range(first))
    centred, _, variance = _centre(x, axes)
    inverse = 1 / np.sqrt(variance + eps)
    z = centred * inverse
    dx = _backward(dy * scale, z, inverse, axes)
    return dx, (dy * z).sum(axis=others), dy.sum(axis=others)


def _grouped(x: np.ndarray, groups: int, axis: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return x as rows (examples, groups, values), and its shape with the channels second."""
    moved = np.moveaxis(x, axis, 1)
    return moved.reshape(len(x), groups, -1), moved.shape


def group_norm(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    /,
    *,
    groups: int,
    axis: int = 1,
    eps: float = 1e-5,
) -> np.ndarray:
    """Return y in float64; see `Backend.group_norm` (Wu and He 2018, eq. 7).

    With a group for each channel it is `Backend.instance_norm`.
    """
    x, scale, shift = (np.asarray(a, np.float64) for a in (x, scale, shift))
    rows, moved = _grouped(x, groups, axis)
    centred, _, variance = _centre(rows, (2,))
    z = np.moveaxis((centred / np.sqrt(variance + eps)).reshape(moved), 1, axis)
    _, wide = _channels(x, axis)
    return np.asarray(z * scale.reshape(wide) + shift.reshape(wide))


def group_norm_backward(
    dy: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    /,
    *,
    groups: int,
    axis: int = 1,
    eps: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dx, dscale and dshift in float64 for the gradient dy of the output.

    ``dx = (s - mean(s) - z mean(s z)) / sqrt(v + eps)`` with ``s = dy scale``, means over each
    group of each example; ``dscale = sum(dy z)`` and ``dshift = sum(dy)`` for each channel.
    """
    dy, x, scale = (np.asarray(a, np.float64) for a in (dy, x, scale))
    others, wide = _channels(x, axis)
    rows, moved = _grouped(x, groups, axis)
    centred, _, variance = _centre(rows, (2,))
    inverse = 1 / np.sqrt(variance + eps)
    z = centred * inverse
    s, _ = _grouped(dy * scale.reshape(wide), groups, axis)
    dx, z = (np.moveaxis(a.reshape(moved), 1, axis) for a in (_backward(s, z, inverse, (2,)), z))
    return dx, (dy * z).sum(axis=others), dy.sum(axis=others)


def rms_norm(
    x: np.ndarray, scale: np.ndarray, /, *, axis: int = -1, eps: float = 1e-6
) -> np.ndarray:
    """Return y in float64; see `Backend.rms_norm` (Zhang and Sennrich 2019, eq. 4)."""
    x = np.asarray(x, np.float64)
    square = np.square(x).mean(axis=tuple(range(axis % x.ndim, x.ndim)), keepdims=True)
    return np.asarray(x / np.sqrt(square + eps) * np.asarray(scale, np.float64))


def rms_norm_backward(
    dy: np.ndarray, x: np.ndarray, scale: np.ndarray, /, *, axis: int = -1, eps: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """Return dx and dscale in float64 for the gradient dy of the output.

    ``dx = (s - z mean(s z)) / sqrt(mean(x**2) + eps)`` with ``s = dy scale`` and z the output
    before its scale; ``dscale = sum(dy z)`` over the axes that are not normalized.
    """
    dy, x, scale = (np.asarray(a, np.float64) for a in (dy, x, scale))
    first = axis % x.ndim
    axes, others = tuple(range(first, x.ndim)), tuple(range(first))
    inverse = 1 / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + eps)
    z, s = x * inverse, dy * scale
    along = (s * z).mean(axis=axes, keepdims=True)
    return inverse * (s - z * along), (dy * z).sum(axis=others)
