"""Deterministic arrays without structure, and a bound that scales with what is compared."""

from __future__ import annotations

import numpy as np

from isometry.conformance import asserts

__all__ = ["wave", "within_size"]


def wave(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Deterministic values of mean near 0 and variance near 1, without structure."""
    return np.sqrt(2) * np.sin(np.arange(np.prod(shape)) ** 2 * 0.7 + seed).reshape(shape)


def within_size(observed: np.ndarray, expected: np.ndarray, bound: float, name: object) -> None:
    """The bound is that of outputs of size 1; gradients and statistics scale with their size."""
    assert observed.shape == expected.shape, name
    asserts.within(observed, expected, bound * max(1.0, np.abs(expected).max()))
