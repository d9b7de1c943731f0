"""Assertions that say which value was worst."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isometry.common.contract import CAPABILITIES, Backend
from isometry.common.errors import Unsupported
from isometry.common.statistics.tolerances import ulp_distance


def within_ulp(observed: np.ndarray, exact: np.ndarray, dtype: str, budget: float) -> None:
    """Assert that every observed value is within `budget` ULP of the exact one."""
    assert np.shape(observed) == np.shape(exact)
    distance = ulp_distance(observed, exact, dtype)
    worst = np.unravel_index(np.argmax(distance), distance.shape) if distance.size else ()
    assert np.all(distance <= budget), (
        f"{np.count_nonzero(distance > budget)} of {distance.size} values are beyond {budget:g} "
        f"ULP of {dtype}; the worst, at index {tuple(map(int, worst))}, is "
        f"{np.asarray(observed)[worst]!r} instead of {np.asarray(exact)[worst]!r}, "
        f"{distance[worst]:.3g} ULP away"
    )


def within(observed: Any, expected: Any, bound: Any) -> None:
    """Assert ``|observed - expected| <= bound`` elementwise, in float64."""
    error = np.abs(np.asarray(observed, np.float64) - np.asarray(expected, np.float64))
    assert np.all(error <= bound), (
        f"off by up to {np.max(error):.3g}, allowed {np.max(np.asarray(bound)):.3g}"
    )


def same_bits(observed: np.ndarray, expected: np.ndarray) -> None:
    """Assert equal dtype, shape and bits (any NaN equals any NaN)."""
    assert observed.dtype == expected.dtype
    assert observed.shape == expected.shape
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(observed), nan)
    differ = (observed != expected) | (np.signbit(observed) != np.signbit(expected))
    count = np.count_nonzero(differ & ~nan)
    assert count == 0, f"{count} of {expected.size} values differ"


def same_signature(observed: Callable[..., Any], expected: Callable[..., Any]) -> None:
    """Assert equal names, kinds and defaults of the parameters."""
    ours, theirs = (
        [
            (p.name, p.kind, p.default)
            for p in inspect.signature(inspect.unwrap(f)).parameters.values()
        ]
        for f in (observed, expected)
    )
    assert ours == theirs


def change(
    nx: Backend, f: Callable[[Any], Any], x: np.ndarray, tangent: np.ndarray
) -> np.ndarray | None:
    """Return J tangent at x by forward mode, of x's dtype; None from a backend that lacks it.

    Such a backend is asserted to say so.
    """
    arguments = (f, nx.asarray(x), nx.asarray(tangent))
    if "jvp" not in nx.capabilities:
        unsupported(nx, "jvp", arguments)
        return None
    _, found = nx.jvp(*arguments)
    assert nx.dtype_of(found) == str(x.dtype)
    return nx.to_numpy(found)


def unsupported(nx: Backend, capability: str, arguments: tuple[Any, ...]) -> None:
    """Assert that the method of a capability that is not declared says so."""
    declared = ", ".join(sorted(nx.capabilities)) or "none"
    message = (
        f"backend {nx.name!r} does not support {capability!r} ({CAPABILITIES[capability]}); "
        f"it declares: {declared}"
    )
    with pytest.raises(Unsupported, match=f"^{re.escape(message)}$"):
        getattr(nx, capability)(*arguments)
