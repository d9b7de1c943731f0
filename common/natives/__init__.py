"""Natives: what a library itself ships, as functions of NumPy arrays that can be measured.

A *native* is one function or layer of a library as its user meets it, by the name of the law or
rule it claims to be. It belongs to a library (torch.nn, Keras on an engine, flax.linen), not to a
backend. The functions here take and give NumPy arrays (float32 for bfloat16, which NumPy lacks),
so that one set of clauses measures all of them, and know nothing of what will be found.

============== ============================================== =====================================
kind           call                                           gives
============== ============================================== =====================================
initializer    ``f(shape, seed=0, dtype="float32")``           weight of `shape`, in the own layout
layer          ``f(seed=0)``                                   path -> array, of a fresh layer
gradient       ``f(x)``                                        derivative at x, by its own autodiff
batch_norm     ``f(x, steps=1)``                               `BatchNormed`, of x (batch, channels)
norm           ``f(x)``                                        x (batch, channels), normalized
clipping       ``f(gradients, limit)``                         the list of arrays, clipped
optimizer      ``f(w, gradients, rates=None)``                 the weight w after each step
============== ============================================== =====================================

The paths of a layer are ``role/own name``: the role is ``weight`` or ``bias``, in an LSTM ``input``
(of x), ``recurrent`` (of the state) or ``bias``; the name is the library's, as in
``recurrent/weight_hh_l0``. A role may have several arrays, such as one for each gate. Of a norm
(``batch_norm_layer``) the roles are ``scale``, ``shift``, ``mean`` and ``variance``, the last two
of what is averaged over batches. Sizes: ``dense`` 512 -> 256; ``conv2d``, ``conv2d_transposed`` and
``conv2d_grouped`` (4 groups) 64 -> 128 channels by 3 x 3, ``conv2d_depthwise`` 64 -> 64;
``embedding`` 1000 x 512 (of that shape in every library); ``lstm`` 256 -> 256, ``rnn`` and ``gru``
128 -> 256;
``attention`` of 8 heads 512 -> 512; norms of 64 channels or 512 features. An instance norm is
called with x as one channel's positions. An optimizer without `rates` runs at its default rate, and
gives None where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

__all__ = ["KINDS", "BatchNormed", "Library", "Native"]

KINDS = ("initializer", "layer", "gradient", "batch_norm", "norm", "clipping", "optimizer")


class BatchNormed(NamedTuple):
    """What a fresh batch norm layer, with all its defaults, does with a batch in training."""

    y: np.ndarray
    """Output of the last training step, of x's shape."""
    running_mean: np.ndarray
    running_variance: np.ndarray
    """After the steps, from whatever the layer starts with."""
    inference: Callable[[np.ndarray], np.ndarray]
    """The same layer afterwards, in inference."""
    updated_in: str
    """``"forward"`` or ``"backward"``: the pass after which the statistics had moved."""
    momentum: float | None = None
    """As the layer itself states its default; which value it weighs is measured."""


@dataclass(frozen=True)
class Native:
    """One function or layer of a library.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    claims : str
        What it is called in the field: ``he_normal``, ``truncated_normal``, ``orthogonal``,
        ``sigmoid``, ``batch_norm``, ``layer_norm``, ``dense``, ``global_norm``.
    call : str
        As a user of the library writes it, with its defaults:
        ``torch.nn.init.kaiming_normal_(w)``.
    run : callable
        As `KINDS` says.
    source : str
        Where the library documents or defines it.
    settings : mapping
        What the call asks for, if the claim leaves it open: ``{"std": 0.02}``.
    """

    kind: str
    claims: str
    call: str
    run: Callable[..., Any]
    source: str
    settings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Library:
    """A library on its engine, and its natives.

    Attributes
    ----------
    name : str
        ``"torch.nn"``, ``"keras on jax"``, ``"flax.linen"``.
    versions : mapping
        Distribution -> version, of the library and its engine.
    layout : {"out_in", "in_out"}
        Of its weights.
    dtypes : sequence of str
        In which its initializers draw.
    natives : sequence of Native
    """

    name: str
    versions: Mapping[str, str]
    layout: str
    dtypes: tuple[str, ...]
    natives: tuple[Native, ...]
