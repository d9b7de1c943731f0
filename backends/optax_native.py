"""What Optax ships of clipping, called as its user calls it."""

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
NATIVES = {"clipping": (("global_norm", "optax.clip_by_global_norm(limit)"),)}


def _do(call: str, **names: Any) -> Any:
    return evaluate(call, globals() | names)


def _clipping(call: str, gradients: Sequence[np.ndarray], limit: float) -> list[np.ndarray]:
    arrays = [jnp.asarray(g) for g in gradients]
    clip = _do(call, limit=limit)
    clipped, _ = clip.update(arrays, clip.init(arrays))
    return [np.array(g) for g in clipped]


RUNS: dict[str, Callable[..., Any]] = {"clipping": _clipping}


def _source(call: str) -> str:
    return f"https://optax.readthedocs.io/en/latest/api/transformations.html#{called(call)}"


def library() -> Library:
    """Return Optax and its natives."""
    versions = {"optax": optax.__version__, "jax": jax.__version__}
    return Library("optax", versions, "in_out", ("float32",), natives(NATIVES, RUNS, _source))
