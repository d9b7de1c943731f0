"""What TensorFlow itself ships beside Keras: gradients and clipping, called as its user calls them.

Its initializers and layers are those of Keras: see `keras_native`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from isometry.common.natives import Library
from isometry.common.natives.calls import called, evaluate, natives

__all__ = ["library"]

# kind -> claims and call
NATIVES = {
    "gradient": (
        ("sigmoid", "tf.nn.sigmoid(x)"),
        ("tanh", "tf.nn.tanh(x)"),
        ("relu", "tf.nn.relu(x)"),
        ("leaky_relu", "tf.nn.leaky_relu(x)"),
        ("softplus", "tf.nn.softplus(x)"),
        ("gelu", "tf.nn.gelu(x)"),
        ("silu", "tf.nn.silu(x)"),
    ),
    "clipping": (
        ("global_norm", "tf.clip_by_global_norm(gradients, limit)[0]"),
        ("tensor_norm", "[tf.clip_by_norm(g, limit) for g in gradients]"),
    ),
}


def _do(call: str, **names: Any) -> Any:
    return evaluate(call, globals() | names)


def _gradient(call: str, x: np.ndarray) -> np.ndarray:
    at = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(at)
        y = _do(call, x=at)
    return tape.gradient(y, at).numpy()


def _clipping(call: str, gradients: Sequence[np.ndarray], limit: float) -> list[np.ndarray]:
    tensors = [tf.constant(g) for g in gradients]
    return [g.numpy() for g in _do(call, gradients=tensors, limit=limit)]


RUNS: dict[str, Callable[..., Any]] = {"gradient": _gradient, "clipping": _clipping}


def _source(call: str) -> str:
    return "https://www.tensorflow.org/api_docs/python/" + called(call).replace(".", "/")


def library() -> Library:
    """Return TensorFlow and its natives."""
    versions = {"tensorflow": tf.__version__}
    return Library("tensorflow", versions, "in_out", ("float32",), natives(NATIVES, RUNS, _source))
