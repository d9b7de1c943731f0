"""What Optax ships of clipping and optimizers, called as its user calls it.

A rate that changes is a schedule there, here ``schedule``: step -> rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from isometry.common.natives import Library
from isometry.common.natives.calls import called, evaluate, natives

__all__ = ["library"]

# kind -> claims and call
NATIVES = {
    "clipping": (("global_norm", "optax.clip_by_global_norm(limit)"),),
    "optimizer": (
        ("momentum_default", "optax.sgd(schedule)"),
        ("momentum", "optax.sgd(schedule, momentum=0.9)"),
        (
            "momentum_decay",
            "optax.chain(optax.add_decayed_weights(0.1), optax.sgd(schedule, momentum=0.9))",
        ),
        ("momentum_nesterov", "optax.sgd(schedule, momentum=0.9, nesterov=True)"),
        ("adam", "optax.adam(schedule)"),
        ("adamw", "optax.adamw(schedule)"),
        ("rmsprop", "optax.rmsprop(schedule)"),
        ("adagrad", "optax.adagrad(schedule)"),
        ("adagrad_eps", "optax.adagrad(schedule, initial_accumulator_value=0.0)"),
    ),
}


def _do(call: str, **names: Any) -> Any:
    return evaluate(call, globals() | names)


def _clipping(call: str, gradients: Sequence[np.ndarray], limit: float) -> list[np.ndarray]:
    arrays = [jnp.asarray(g) for g in gradients]
    clip = _do(call, limit=limit)
    clipped, _ = clip.update(arrays, clip.init(arrays))
    return [np.array(g) for g in clipped]


def _optimizer(
    call: str, w: float, gradients: Sequence[float], rates: Sequence[float] | None = None
) -> list[float] | None:
    if rates is None:  # the argument has no default
        return None
    optimizer = _do(call, schedule=lambda step: jnp.asarray(rates)[step])
    x = jnp.asarray([w])
    state = optimizer.init(x)
    path = []
    for gradient in gradients:
        updates, state = optimizer.update(jnp.asarray([gradient]), state, x)
        x = optax.apply_updates(x, updates)
        path.append(float(x[0]))
    return path


RUNS: dict[str, Callable[..., Any]] = {"clipping": _clipping, "optimizer": _optimizer}


def _source(call: str) -> str:
    name = called(call)
    others = {"optax.chain": "combining_optimizers", "optax.clip_by_global_norm": "transformations"}
    page = others.get(name, "optimizers")
    return f"https://optax.readthedocs.io/en/latest/api/{page}.html#{name}"


def library() -> Library:
    """Return Optax and its natives."""
    versions = {"optax": optax.__version__, "jax": jax.__version__}
    return Library("optax", versions, "in_out", ("float32",), natives(NATIVES, RUNS, _source))
