"""Write docs/clipping.md: what each library's clipping does at the edges, measured, beside ours.

``cd tests && python -m clipping_page > ../docs/clipping.md`` with all frameworks, Keras and Optax.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Arrays = Sequence[np.ndarray]
Clip = Callable[[Arrays, float], Arrays]

HEAD = """# Clipping at the edges

What happens to a gradient at the edges of clipping, in this library's functions (the contract of
[optimizers](optimizers.md), the same on every backend, clauses `optimizers.clip-*` of the
[specification](specification.md)) and in those that the frameworks ship. Each cell is measured; the
page is written by `tests/clipping_page.py` and held current by `tests/natives/test_clipping.py`.
Versions: {versions}, on a CPU. Keras runs on JAX.

The gradients: zeros; (3, 4) at a limit of 5, its norm; (3e-5, 4e-5) at a limit of 2.5e-5; (inf, 1)
and (NaN, 1) beside another tensor (1, 1), at a limit of 1; (30,000, 40,000) in float16 at a limit
of 1, where squares overflow; no gradient at all, and one without entries. Ours are asked with
`nonfinite="propagate"`; by default they refuse what is not finite, naming the parameter.
"""


# --- the functions ------------------------------------------------------------------------------


def ours() -> dict[str, Clip]:
    import isometry as iso

    nx = iso.load("numpy")

    def over(clip: Callable[..., Any]) -> Clip:
        def run(arrays: Arrays, limit: float) -> Arrays:
            given = {str(k): nx.asarray(a) for k, a in enumerate(arrays)}
            return [nx.to_numpy(a) for a in clip(nx, given, limit, nonfinite="propagate").values()]

        return run

    return {
        "clip_by_value": over(iso.clip_by_value),
        "clip_by_norm": over(iso.clip_by_norm),
        "clip_by_global_norm": over(iso.clip_by_global_norm),
        "clip_adaptively": over(
            lambda nx, g, limit, **how: iso.clip_adaptively(nx, _weights(g), g, limit, **how)
        ),
    }


def _weights(gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return weights of norm 1, so that the limit is that of the gradient's norm."""
    return {
        path: np.full(g.shape, max(g.size, 1) ** -0.5, g.dtype) for path, g in gradients.items()
    }


def torch() -> dict[str, Clip]:
    import torch

    def over(clip: Callable[..., Any]) -> Clip:
        def run(arrays: Arrays, limit: float) -> Arrays:
            parameters = [torch.nn.Parameter(torch.zeros(a.shape)) for a in arrays]
            parameters = [
                p.to(torch.tensor(a).dtype) for p, a in zip(parameters, arrays, strict=True)
            ]
            for p, a in zip(parameters, arrays, strict=True):
                p.grad = torch.tensor(a)
            clip(parameters, limit)
            return [p.grad.numpy() for p in parameters]

        return run

    return {
        "torch.nn.utils.clip_grad_value_": over(torch.nn.utils.clip_grad_value_),
        "torch.nn.utils.clip_grad_norm_": over(torch.nn.utils.clip_grad_norm_),
    }


def tensorflow() -> dict[str, Clip]:
    import tensorflow as tf

    def each(clip: Callable[..., Any]) -> Clip:
        return lambda arrays, limit: [clip(tf.constant(a), limit).numpy() for a in arrays]

    def together(arrays: Arrays, limit: float) -> Arrays:
        return [
            x.numpy() for x in tf.clip_by_global_norm([tf.constant(a) for a in arrays], limit)[0]
        ]

    return {
        "tf.clip_by_value": each(lambda x, limit: tf.clip_by_value(x, -limit, limit)),
        "tf.clip_by_norm": each(tf.clip_by_norm),
        "tf.clip_by_global_norm": together,
    }


def keras() -> dict[str, Clip]:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    def over(option: str) -> Clip:
        def run(arrays: Arrays, limit: float) -> Arrays:
            # a step of descent at rate 1 from zeros is the clipped gradient
            variables = [keras.Variable(np.zeros_like(a), dtype=str(a.dtype)) for a in arrays]
            optimizer = keras.optimizers.SGD(learning_rate=1.0, **{option: limit})
            optimizer.build(variables)
            optimizer.apply([keras.ops.convert_to_tensor(a) for a in arrays], variables)
            return [-keras.ops.convert_to_numpy(v) for v in variables]

        return run

    return {f"keras {name}": over(name) for name in ("clipvalue", "clipnorm", "global_clipnorm")}


def optax() -> dict[str, Clip]:
    import jax
    import optax

    def over(make: Callable[[float], Any]) -> Clip:
        def run(arrays: Arrays, limit: float) -> Arrays:
            clip = make(limit)
            given = [jax.numpy.asarray(a) for a in arrays]
            return [np.asarray(a) for a in clip.update(given, clip.init(given))[0]]

        return run

    def adaptively(arrays: Arrays, limit: float) -> Arrays:
        clip = optax.adaptive_grad_clip(limit)
        weights = list(_weights(dict(enumerate(arrays))).values())
        given = [jax.numpy.asarray(a) for a in arrays]
        return [np.asarray(a) for a in clip.update(given, clip.init(weights), weights)[0]]

    return {
        "optax.clip": over(optax.clip),
        "optax.clip_by_global_norm": over(optax.clip_by_global_norm),
        "optax.adaptive_grad_clip": adaptively,
    }


def mxnet() -> dict[str, Clip]:
    from isometry.backends.mxnet_backend import mx

    def together(arrays: Arrays, limit: float) -> Arrays:
        given = [mx.nd.array(a, dtype=a.dtype) for a in arrays]
        mx.gluon.utils.clip_global_norm(given, limit, check_isfinite=False)
        return [a.asnumpy() for a in given]

    def value(arrays: Arrays, limit: float) -> Arrays:
        return [mx.nd.clip(mx.nd.array(a, dtype=a.dtype), -limit, limit).asnumpy() for a in arrays]

    return {"mx clip_gradient (nd.clip)": value, "gluon.utils.clip_global_norm": together}


LIBRARIES = {
    "isometry": ours,
    "PyTorch": torch,
    "TensorFlow": tensorflow,
    "Keras": keras,
    "Optax": optax,
    "MXNet": mxnet,
}
DISTRIBUTIONS = ("torch", "tensorflow", "keras", "jax", "optax")


# --- the edges ----------------------------------------------------------------------------------


def _asked(clip: Clip, arrays: Arrays, limit: float) -> Arrays | str:
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(a, np.float64) for a in clip(arrays, limit)]
    except Exception as error:  # whatever a library raises
        return f"raises {type(error).__name__}"


def _shown(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{x:.6g}" for x in values + 0.0) + ")"  # no -0


def zero(clip: Clip) -> str:
    found = _asked(clip, [np.zeros(2, np.float32)], 1.0)
    return found if isinstance(found, str) else _shown(found[0])


def equal(clip: Clip) -> str:
    g = np.array([3, 4], np.float32)
    found = _asked(clip, [g], 5.0)
    if isinstance(found, str):
        return found
    off = float(np.abs(found[0] / g - 1).max())
    return "the same bits" if off == 0 else f"smaller by {off:.1e}"


def above(clip: Clip) -> str:
    found = _asked(clip, [np.array([3e-5, 4e-5], np.float32)], 2.5e-5)
    if isinstance(found, str):
        return found
    size = float(np.linalg.norm(found[0])) / 2.5e-5
    return "the limit" if abs(size - 1) < 1e-5 else f"{size:.4g} of the limit"


def _beside(bad: float) -> Callable[[Clip], str]:
    def ask(clip: Clip) -> str:
        found = _asked(clip, [np.array([bad, 1], np.float32), np.ones(2, np.float32)], 1.0)
        if isinstance(found, str):
            return found
        return f"{_shown(found[0])}, {_shown(found[1])}"

    return ask


def half(clip: Clip) -> str:
    found = _asked(clip, [np.array([3e4, 4e4], np.float16)], 1.0)
    return found if isinstance(found, str) else _shown(found[0])


def nothing(clip: Clip) -> str:
    found = _asked(clip, [], 1.0)
    return found if isinstance(found, str) else "nothing"


def empty(clip: Clip) -> str:
    found = _asked(clip, [np.zeros(0, np.float32)], 1.0)
    return found if isinstance(found, str) else ("stays" if found[0].shape == (0,) else "changes")


EDGES: dict[str, Callable[[Clip], str]] = {
    "norm 0": zero,
    "norm equal to the limit": equal,
    "norm above it becomes": above,
    "(inf, 1), (1, 1)": _beside(np.inf),
    "(NaN, 1), (1, 1)": _beside(np.nan),
    "float16": half,
    "no gradient": nothing,
    "no entries": empty,
}
KINDS = {
    "By value": ("value", "optax.clip", "clip_gradient"),
    "By the norm of each tensor": ("by_norm", " clipnorm"),
    "By the norm of all": ("global", "clip_grad_norm_"),
    "Adaptively, weights of norm 1": ("adaptive",),
}


def _kind(name: str) -> str:
    if name == "optax.clip":
        return "By value"
    return next(k for k, ends in reversed(KINDS.items()) if any(end in name for end in ends))


def write() -> str:
    """Return the page; every function of every library is asked."""
    import importlib

    rows: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for library in LIBRARIES.values():
        for name, clip in library().items():
            cells = [ask(clip) for ask in EDGES.values()]
            if _kind(name) == "By value":
                cells[1:3] = ["-", "-"]
            rows[_kind(name)].append(f"| `{name}` | " + " | ".join(cells) + " |")
    versions = ", ".join(
        f"{name} {importlib.import_module(name).__version__}" for name in DISTRIBUTIONS
    )
    parts = [HEAD.format(versions=versions.replace("+cpu", "") + ", mxnet 1.9.1")]
    for kind, lines in rows.items():
        head = f"| {kind.lower()} | " + " | ".join(EDGES) + " |"
        parts.append("\n".join([f"## {kind}\n", head, "|---" * (len(EDGES) + 1) + "|", *lines]))
    return "\n".join([parts[0], "\n\n".join(parts[1:])])


if __name__ == "__main__":
    print(write())
