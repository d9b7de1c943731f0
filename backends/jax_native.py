"""What JAX itself ships: jax.nn, called as its user calls it.

A user seeds an initializer by its key: here ``key = jax.random.key(seed)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from isometry.common.natives import Library
from isometry.common.natives.calls import called, evaluate, natives

__all__ = ["library"]

DRAWN = "(key, shape, dtype)"

# kind -> claims, call, and what the call asks for if the claim leaves it open
NATIVES: dict[str, tuple[tuple[Any, ...], ...]] = {
    "initializer": (
        ("he_normal", "jax.nn.initializers.he_normal()" + DRAWN),
        ("he_uniform", "jax.nn.initializers.he_uniform()" + DRAWN),
        ("xavier_normal", "jax.nn.initializers.glorot_normal()" + DRAWN),
        ("xavier_uniform", "jax.nn.initializers.glorot_uniform()" + DRAWN),
        ("lecun_normal", "jax.nn.initializers.lecun_normal()" + DRAWN),
        ("lecun_uniform", "jax.nn.initializers.lecun_uniform()" + DRAWN),
        ("he_normal", "jax.nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')" + DRAWN),
        ("normal", "jax.nn.initializers.normal(stddev=0.02)" + DRAWN, {"std": 0.02}),
        ("uniform", "jax.nn.initializers.uniform(scale=0.05)" + DRAWN, {"scale": 0.05}),
        (
            "truncated_normal",
            "jax.nn.initializers.truncated_normal(stddev=0.02)" + DRAWN,
            {"std": 0.02},
        ),
        (
            "truncated_normal",
            "jax.nn.initializers.truncated_normal(stddev=2.0)" + DRAWN,
            {"std": 2.0},
        ),
        ("orthogonal", "jax.nn.initializers.orthogonal()" + DRAWN),
        ("delta_orthogonal", "jax.nn.initializers.delta_orthogonal()" + DRAWN),
    ),
    "gradient": (
        ("sigmoid", "jax.nn.sigmoid(x)"),
        ("tanh", "jax.nn.tanh(x)"),
        ("relu", "jax.nn.relu(x)"),
        ("leaky_relu", "jax.nn.leaky_relu(x)"),
        ("softplus", "jax.nn.softplus(x)"),
        ("gelu", "jax.nn.gelu(x)"),
        ("silu", "jax.nn.silu(x)"),
    ),
}


def _do(call: str, **names: Any) -> Any:
    return evaluate(call, globals() | names)


def _numpy(x: jax.Array) -> np.ndarray:
    return np.array(x.astype("float32") if x.dtype == "bfloat16" else x)


def _initializer(
    call: str, shape: Sequence[int], seed: int = 0, dtype: str = "float32"
) -> np.ndarray:
    return _numpy(_do(call, key=jax.random.key(seed), shape=tuple(shape), dtype=dtype))


def _gradient(call: str, x: np.ndarray) -> np.ndarray:
    with jax.enable_x64(x.dtype == np.float64):  # a user of float64 sets the flag
        return _numpy(jax.grad(lambda x: _do(call, x=x).sum())(x))


RUNS: dict[str, Callable[..., Any]] = {"initializer": _initializer, "gradient": _gradient}


def _source(call: str) -> str:
    return f"https://docs.jax.dev/en/latest/_autosummary/{called(call)}.html"


def library() -> Library:
    """Return jax.nn and its natives."""
    versions = {"jax": jax.__version__}
    dtypes = ("float16", "bfloat16", "float32")
    return Library("jax.nn", versions, "in_out", dtypes, natives(NATIVES, RUNS, _source))
