"""The perceptron with one hidden layer of tanh units: logits, loss, accuracy, over ``nx.ops``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["accuracy", "cross_entropy", "logits", "loss"]

Array = Any


def logits(nx: Backend, parameters: Mapping[str, Array], x: Array, mask: Array | None) -> Array:
    """Return ``tanh(x W1^T + b1) * mask @ W2^T + b2``, of shape (batch, 10).

    Parameters
    ----------
    parameters : mapping
        ``hidden/weight`` (units, 64), ``hidden/bias`` (units,), ``output/weight`` (10, units),
        ``output/bias`` (10,).
    mask : array (batch, units) or None
        Dropout: the inverse of its probability where a unit is kept, 0 where it is dropped.
    """
    ops = nx.ops
    hidden = nx.tanh(ops.linear(x, parameters["hidden/weight"]) + parameters["hidden/bias"])
    if mask is not None:
        hidden = hidden * mask
    return ops.linear(hidden, parameters["output/weight"]) + parameters["output/bias"]


def cross_entropy(nx: Backend, scores: Array, targets: Array) -> Array:
    """Return the mean over the batch of ``ln sum exp(s) - s . target``, in nats.

    The largest score is subtracted first, so that nothing overflows; the result does not depend
    on it, so no gradient flows through it.
    """
    ops = nx.ops
    shifted = scores - ops.stop_gradient(ops.max(scores, axis=1, keepdims=True))
    normalizer = ops.log(ops.sum(ops.exp(shifted), axis=1))
    return ops.mean(normalizer - ops.sum(shifted * targets, axis=1))


def accuracy(nx: Backend, scores: Array, labels: np.ndarray) -> float:
    """Return the fraction of rows whose largest score is the label's."""
    return float(np.mean(nx.to_numpy(nx.ops.argmax(scores, axis=1)) == labels))


def loss(nx: Backend) -> Callable[..., Array]:
    """Return ``f(parameters, x, targets[, mask])``, the cross-entropy of the logits."""

    def loss(parameters: Mapping[str, Array], x: Array, targets: Array, *mask: Array) -> Array:
        scores = logits(nx, parameters, x, mask[0] if mask else None)
        return cross_entropy(nx, scores, targets)

    return loss
