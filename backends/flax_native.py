"""What Flax ships, linen and nnx, called as their user calls them.

Their initializers and activations are those of jax.nn itself. A user seeds a layer of linen by its
key, here ``key = jax.random.key(seed)``, and one of nnx by its `Rngs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen
import flax.nnx
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from isometry.common.natives import BatchNormed, Library, Native
from isometry.common.natives.calls import called, evaluate, natives
from isometry.common.weights.loading import Parameter, Place

__all__ = ["linen", "load_weights", "nnx"]

# kind -> claims, call, and what the call asks for if the claim leaves it open
LINEN: dict[str, tuple[tuple[Any, ...], ...]] = {
    "layer": (
        ("dense", "flax.linen.Dense(256).init(key, vector)"),
        ("conv2d", "flax.linen.Conv(128, kernel_size=(3, 3)).init(key, image)"),
        ("embedding", "flax.linen.Embed(1000, 512).init(key, index)"),
        ("lstm", "flax.linen.LSTMCell(256).init(key, state, x)"),
        ("lstm", "flax.linen.OptimizedLSTMCell(256).init(key, state, x)"),
        (
            "conv2d_grouped",
            "flax.linen.Conv(128, kernel_size=(3, 3), feature_group_count=4).init(key, image)",
        ),
        (
            "conv2d_depthwise",
            "flax.linen.Conv(64, kernel_size=(3, 3), feature_group_count=64).init(key, image)",
        ),
        (
            "conv2d_transposed",
            "flax.linen.ConvTranspose(128, kernel_size=(3, 3)).init(key, image)",
        ),
        ("rnn", "flax.linen.SimpleCell(256).init(key, state[0], x128)"),
        ("gru", "flax.linen.GRUCell(256).init(key, state[0], x128)"),
        ("attention", "flax.linen.MultiHeadDotProductAttention(num_heads=8).init(key, vector)"),
        ("batch_norm_layer", "flax.linen.BatchNorm(use_running_average=False).init(key, image)"),
        ("layer_norm_layer", "flax.linen.LayerNorm().init(key, vector)"),
        ("group_norm_layer", "flax.linen.GroupNorm(num_groups=4).init(key, image)"),
        ("instance_norm_layer", "flax.linen.InstanceNorm().init(key, image)"),
    ),
    "batch_norm": (("batch_norm", "flax.linen.BatchNorm()"),),
    "norm": (
        ("layer_norm", "flax.linen.LayerNorm()"),
        ("group_norm", "flax.linen.GroupNorm(num_groups=4)", {"groups": 4}),
        ("rms_norm", "flax.linen.RMSNorm()"),
        ("instance_norm", "flax.linen.InstanceNorm()"),
    ),
}
NNX: dict[str, tuple[tuple[Any, ...], ...]] = {
    "layer": (
        ("dense", "flax.nnx.Linear(512, 256, rngs=flax.nnx.Rngs(seed))"),
        ("conv2d", "flax.nnx.Conv(64, 128, kernel_size=(3, 3), rngs=flax.nnx.Rngs(seed))"),
        ("embedding", "flax.nnx.Embed(1000, 512, rngs=flax.nnx.Rngs(seed))"),
        ("lstm", "flax.nnx.LSTMCell(256, 256, rngs=flax.nnx.Rngs(seed))"),
        ("lstm", "flax.nnx.OptimizedLSTMCell(256, 256, rngs=flax.nnx.Rngs(seed))"),
        (
            "conv2d_grouped",
            "flax.nnx.Conv(64, 128, (3, 3), feature_group_count=4, rngs=flax.nnx.Rngs(seed))",
        ),
        (
            "conv2d_depthwise",
            "flax.nnx.Conv(64, 64, (3, 3), feature_group_count=64, rngs=flax.nnx.Rngs(seed))",
        ),
        ("conv2d_transposed", "flax.nnx.ConvTranspose(64, 128, (3, 3), rngs=flax.nnx.Rngs(seed))"),
        ("rnn", "flax.nnx.SimpleCell(128, 256, rngs=flax.nnx.Rngs(seed))"),
        ("gru", "flax.nnx.GRUCell(128, 256, rngs=flax.nnx.Rngs(seed))"),
        (
            "attention",
            "flax.nnx.MultiHeadAttention(8, 512, decode=False, rngs=flax.nnx.Rngs(seed))",
        ),
        ("batch_norm_layer", "flax.nnx.BatchNorm(64, rngs=flax.nnx.Rngs(seed))"),
        ("layer_norm_layer", "flax.nnx.LayerNorm(512, rngs=flax.nnx.Rngs(seed))"),
        ("group_norm_layer", "flax.nnx.GroupNorm(64, num_groups=4, rngs=flax.nnx.Rngs(seed))"),
        ("instance_norm_layer", "flax.nnx.InstanceNorm(64, rngs=flax.nnx.Rngs(seed))"),
    ),
    "batch_norm": (("batch_norm", "flax.nnx.BatchNorm(channels, rngs=flax.nnx.Rngs(0))"),),
    "norm": (
        ("layer_norm", "flax.nnx.LayerNorm(channels, rngs=flax.nnx.Rngs(0))"),
        (
            "group_norm",
            "flax.nnx.GroupNorm(channels, num_groups=4, rngs=flax.nnx.Rngs(0))",
            {"groups": 4},
        ),
        ("rms_norm", "flax.nnx.RMSNorm(channels, rngs=flax.nnx.Rngs(0))"),
        ("instance_norm", "flax.nnx.InstanceNorm(1, rngs=flax.nnx.Rngs(0))"),
    ),
}
# what a layer of linen learns its sizes from
INPUTS = {
    "vector": jnp.ones((1, 512)),
    "image": jnp.ones((1, 8, 8, 64)),
    "index": jnp.ones((1,), int),
    "x": jnp.ones((1, 256)),
    "x128": jnp.ones((1, 128)),
    "state": (jnp.ones((1, 256)), jnp.ones((1, 256))),
}


def _do(call: str, **names: Any) -> Any:
    return evaluate(call, globals() | names)


def _roles(parameters: Any) -> dict[str, np.ndarray]:
    """Return role/own path -> array; a gate's name begins with i or h, as in `hf` and `dense_h`."""
    named = {}
    for keys, w in jax.tree_util.tree_flatten_with_path(parameters)[0]:
        path = [entry.key for entry in keys]
        side = path[-2].removeprefix("dense_")[0] if len(path) > 1 else ""
        kernel = {"i": "input", "h": "recurrent"}.get(side, "weight")
        role = "bias" if path[-1] == "bias" else kernel
        named["/".join([role, *path])] = np.array(w)
    return named


def _of_norm(parameters: Any, statistics: Any) -> dict[str, np.ndarray]:
    """Return role/own name -> array of a norm layer: what is learned, and what is averaged."""
    roles = {"scale": "scale", "bias": "shift", "mean": "mean", "var": "variance"}
    return {f"{roles[name]}/{name}": np.array(w) for name, w in (parameters | statistics).items()}


# --- linen: a layer is a function of its variables ------------------------------------------------


def _linen_layer(call: str, seed: int = 0) -> dict[str, np.ndarray]:
    variables = _do(call, key=jax.random.key(seed), **INPUTS)
    if "Norm" in called(call):
        return _of_norm(variables["params"], variables.get("batch_stats", {}))
    return _roles(variables["params"])


def _linen_batch_norm(call: str, x: np.ndarray, steps: int = 1) -> BatchNormed:
    layer = _do(call)
    variables = start = layer.init(jax.random.key(0), x, use_running_average=False)
    for step in range(steps):
        # the call is where it can move: of a backward pass a user gets gradients alone
        y, moved = layer.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        variables = variables | moved
        if step == 0:
            seen = variables
    mean = seen["batch_stats"]["mean"], start["batch_stats"]["mean"]
    return BatchNormed(
        np.array(y),
        np.array(variables["batch_stats"]["mean"]),
        np.array(variables["batch_stats"]["var"]),
        lambda x: np.array(layer.apply(variables, x, use_running_average=True)),
        "backward" if np.array_equal(*mean) else "forward",
        layer.momentum,
    )


def _linen_norm(call: str, x: np.ndarray) -> np.ndarray:
    at = x[..., None] if "InstanceNorm" in call else x  # its one channel, over the positions
    return np.array(_do(call).init_with_output(jax.random.key(0), at)[0]).reshape(x.shape)


# --- nnx: a layer holds its variables -------------------------------------------------------------


def _nnx_layer(call: str, seed: int = 0) -> dict[str, np.ndarray]:
    layer = _do(call, seed=seed)
    parameters, statistics = (
        flax.nnx.to_pure_dict(flax.nnx.state(layer, kind))
        for kind in (flax.nnx.Param, flax.nnx.BatchStat)
    )
    return _of_norm(parameters, statistics) if "Norm" in called(call) else _roles(parameters)


def _nnx_batch_norm(call: str, x: np.ndarray, steps: int = 1) -> BatchNormed:
    layer = _do(call, channels=x.shape[1])
    start = np.array(layer.mean[...])
    for step in range(steps):
        # the call is where it can move: of a backward pass a user gets gradients alone
        y = layer(jnp.asarray(x))
        if step == 0:
            seen = np.array(layer.mean[...])
    layer.eval()
    return BatchNormed(
        np.array(y),
        np.array(layer.mean[...]),
        np.array(layer.var[...]),
        lambda x: np.array(layer(jnp.asarray(x))),
        "backward" if np.array_equal(seen, start) else "forward",
        layer.momentum,
    )


def _nnx_norm(call: str, x: np.ndarray) -> np.ndarray:
    at = x[..., None] if "InstanceNorm" in call else x
    return np.array(_do(call, channels=x.shape[1])(jnp.asarray(at))).reshape(x.shape)


LINEN_RUNS: dict[str, Callable[..., Any]] = {
    "layer": _linen_layer,
    "batch_norm": _linen_batch_norm,
    "norm": _linen_norm,
}
NNX_RUNS: dict[str, Callable[..., Any]] = {
    "layer": _nnx_layer,
    "batch_norm": _nnx_batch_norm,
    "norm": _nnx_norm,
}


def _linen_source(call: str) -> str:
    page = "https://flax-linen.readthedocs.io/en/latest/api_reference/flax.linen/layers.html"
    return f"{page}#{called(call)}"


def _nnx_source(call: str) -> str:
    name = called(call)
    page = "normalization" if name.endswith("Norm") else "linear"
    page = "recurrent" if name.endswith("Cell") else page
    page = "attention" if name.endswith("Attention") else page
    return f"https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/{page}.html#{name}"


def _library(name: str, rows: tuple[Native, ...]) -> Library:
    versions = {"flax": flax.__version__, "jax": jax.__version__}
    return Library(name, versions, "in_out", ("float32",), rows)


def linen() -> Library:
    """Return flax.linen and its natives."""
    return _library("flax.linen", natives(LINEN, LINEN_RUNS, _linen_source))


def nnx() -> Library:
    """Return flax.nnx and its natives."""
    return _library("flax.nnx", natives(NNX, NNX_RUNS, _nnx_source))


# --- the same weights everywhere ------------------------------------------------------------------


def load_weights(model: Any, place: Place) -> Any:
    """Return linen's variables filled, or fill an nnx module in place."""
    if isinstance(model, flax.nnx.Module):
        state = flax.nnx.to_flat_state(flax.nnx.state(model, flax.nnx.Not(flax.nnx.RngState)))
        named = {"/".join(map(str, path)): (path, variable) for path, variable in state}
        filled = _filled({name: v[...] for name, (_, v) in named.items()}, place)
        moved = [(named[name][0], named[name][1].replace(x)) for name, x in filled.items()]
        flax.nnx.update(model, flax.nnx.from_flat_state(moved))
        return model
    own = flax.traverse_util.flatten_dict(model, sep="/")
    return flax.traverse_util.unflatten_dict(own | _filled(own, place), sep="/")


def _filled(own: Mapping[str, jax.Array], place: Place) -> dict[str, jax.Array]:
    floating = {name: x for name, x in own.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    described = {name: Parameter(x.shape, str(x.dtype)) for name, x in floating.items()}
    return {name: jnp.array(values) for name, values in place(described)}
