"""The global generators of each framework: how a user seeds and draws, to see that we do neither.

Keyed by `Backend.framework`; a framework without a global generator (JAX), or one unknown here,
is watched through NumPy's and Python's alone, which every entry includes.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["GlobalGenerators", "of"]


class GlobalGenerators(NamedTuple):
    """Seed them all; draw the next values of each."""

    seed: Callable[[int], None]
    draw: Callable[[], tuple[Any, ...]]


def _torch() -> tuple[Callable[[int], Any], Callable[[], Any]]:
    torch = importlib.import_module("torch")
    return torch.manual_seed, lambda: torch.rand(4, device="cpu").tolist()


def _tensorflow() -> tuple[Callable[[int], Any], Callable[[], Any]]:
    tf = importlib.import_module("tensorflow")

    def seed(value: int) -> None:
        tf.random.set_seed(value)
        tf.random.get_global_generator().reset_from_seed(value)

    def draw() -> Any:
        stateless = tf.random.uniform((4,)).numpy().tolist()
        return stateless, tf.random.get_global_generator().uniform((4,)).numpy().tolist()

    return seed, draw


def _mxnet() -> tuple[Callable[[int], Any], Callable[[], Any]]:
    mx = importlib.import_module("mxnet")
    return mx.random.seed, lambda: mx.nd.random.uniform(shape=(4,)).asnumpy().tolist()


_FRAMEWORKS = {
    "torch": _torch,
    "tensorflow": _tensorflow,
    "tensorflow-cpu": _tensorflow,
    "mxnet": _mxnet,
}


def of(framework: str) -> GlobalGenerators:
    """Return the global generators of a framework, of NumPy and of Python, as one."""
    own_seed, own_draw = _FRAMEWORKS[framework]() if framework in _FRAMEWORKS else (None, None)

    def seed(value: int) -> None:
        random.seed(value)
        np.random.seed(value)
        if own_seed is not None:
            own_seed(value)

    def draw() -> tuple[Any, ...]:
        own = own_draw() if own_draw is not None else None
        return random.random(), np.random.random(4).tolist(), own

    return GlobalGenerators(seed, draw)
