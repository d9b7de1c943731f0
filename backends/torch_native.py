"""What PyTorch itself ships: torch.nn, called as its user calls it.

A user seeds an initializer by its `generator`, and a layer by the global seed, which is put back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from isometry.common.natives import BatchNormed, Library
from isometry.common.natives.calls import called, evaluate, natives
from isometry.common.weights.loading import Parameter, Place

__all__ = ["library", "load_weights"]

SEED = "torch.manual_seed(seed); "

# kind -> claims, call, and what the call asks for if the claim leaves it open
NATIVES: dict[str, tuple[tuple[Any, ...], ...]] = {
    "initializer": (
        ("he_normal", "torch.nn.init.kaiming_normal_(w, generator=g)"),
        ("he_uniform", "torch.nn.init.kaiming_uniform_(w, generator=g)"),
        ("xavier_normal", "torch.nn.init.xavier_normal_(w, generator=g)"),
        ("xavier_uniform", "torch.nn.init.xavier_uniform_(w, generator=g)"),
        ("normal", "torch.nn.init.normal_(w, std=0.02, generator=g)", {"std": 0.02}),
        (
            "uniform",
            "torch.nn.init.uniform_(w, -0.05, 0.05, generator=g)",
            {"low": -0.05, "high": 0.05},
        ),
        (
            "truncated_normal",
            "torch.nn.init.trunc_normal_(w, std=0.02, generator=g)",
            {"std": 0.02},
        ),
        ("truncated_normal", "torch.nn.init.trunc_normal_(w, std=2.0, generator=g)", {"std": 2.0}),
        ("orthogonal", "torch.nn.init.orthogonal_(w, generator=g)"),
        ("sparse", "torch.nn.init.sparse_(w, sparsity=0.1, generator=g)", {"sparsity": 0.1}),
    ),
    "layer": (
        ("dense", SEED + "torch.nn.Linear(512, 256)"),
        ("conv2d", SEED + "torch.nn.Conv2d(64, 128, kernel_size=3)"),
        ("embedding", SEED + "torch.nn.Embedding(1000, 512)"),
        ("lstm", SEED + "torch.nn.LSTM(256, 256)"),
        ("conv2d_grouped", SEED + "torch.nn.Conv2d(64, 128, kernel_size=3, groups=4)"),
        ("conv2d_depthwise", SEED + "torch.nn.Conv2d(64, 64, kernel_size=3, groups=64)"),
        ("conv2d_transposed", SEED + "torch.nn.ConvTranspose2d(64, 128, kernel_size=3)"),
        ("rnn", SEED + "torch.nn.RNN(128, 256)"),
        ("gru", SEED + "torch.nn.GRU(128, 256)"),
        ("attention", SEED + "torch.nn.MultiheadAttention(512, 8)"),
        ("batch_norm_layer", "torch.nn.BatchNorm1d(64)"),
        ("layer_norm_layer", "torch.nn.LayerNorm(512)"),
        ("group_norm_layer", "torch.nn.GroupNorm(4, 64)"),
        ("instance_norm_layer", "torch.nn.InstanceNorm1d(64)"),
    ),
    "gradient": (
        ("sigmoid", "torch.nn.functional.sigmoid(x)"),
        ("tanh", "torch.nn.functional.tanh(x)"),
        ("relu", "torch.nn.functional.relu(x)"),
        ("leaky_relu", "torch.nn.functional.leaky_relu(x)"),
        ("softplus", "torch.nn.functional.softplus(x)"),
        ("gelu", "torch.nn.functional.gelu(x)"),
        ("silu", "torch.nn.functional.silu(x)"),
    ),
    "batch_norm": (("batch_norm", "torch.nn.BatchNorm1d(channels)"),),
    "norm": (
        ("layer_norm", "torch.nn.LayerNorm(channels)"),
        ("group_norm", "torch.nn.GroupNorm(4, channels)", {"groups": 4}),
        ("rms_norm", "torch.nn.RMSNorm(channels)"),
        ("instance_norm", "torch.nn.InstanceNorm1d(1)"),
    ),
    "clipping": (("global_norm", "torch.nn.utils.clip_grad_norm_(parameters, limit)"),),
    "optimizer": (
        ("momentum_default", "torch.optim.SGD(parameters)"),
        ("momentum", "torch.optim.SGD(parameters, momentum=0.9)"),
        ("momentum_decay", "torch.optim.SGD(parameters, momentum=0.9, weight_decay=0.1)"),
        ("momentum_nesterov", "torch.optim.SGD(parameters, momentum=0.9, nesterov=True)"),
        ("adam", "torch.optim.Adam(parameters)"),
        ("adam_decay", "torch.optim.Adam(parameters, weight_decay=0.1)"),
        ("adamw", "torch.optim.AdamW(parameters)"),
        ("rmsprop", "torch.optim.RMSprop(parameters)"),
        ("adagrad", "torch.optim.Adagrad(parameters)"),
    ),
}
ROLES = {
    "weight_ih_l0": "input",
    "weight_hh_l0": "recurrent",
    "bias_ih_l0": "bias",
    "bias_hh_l0": "bias",
    "in_proj_weight": "weight",
    "in_proj_bias": "bias",
    "out_proj.weight": "weight",
    "out_proj.bias": "bias",
}
OF_NORMS = {"weight": "scale", "bias": "shift", "running_mean": "mean", "running_var": "variance"}


def _do(call: str, **names: Any) -> Any:
    return evaluate(call, globals() | names)


def _numpy(x: torch.Tensor) -> np.ndarray:
    x = x.detach()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy().copy()


def _initializer(
    call: str, shape: Sequence[int], seed: int = 0, dtype: str = "float32"
) -> np.ndarray:
    w = torch.empty(*shape, dtype=getattr(torch, dtype))
    _do(call, w=w, g=torch.Generator().manual_seed(seed))
    return _numpy(w)


def _layer(call: str, seed: int = 0) -> dict[str, np.ndarray]:
    with torch.random.fork_rng(devices=[]):
        layer = _do(call, seed=seed)
    roles = OF_NORMS if "Norm" in type(layer).__name__ else ROLES
    stored = {name: w for name, w in layer.state_dict().items() if w.is_floating_point()}
    return {f"{roles.get(name, name)}/{name}": _numpy(w) for name, w in stored.items()}


def _gradient(call: str, x: np.ndarray) -> np.ndarray:
    at = torch.tensor(x, requires_grad=True)
    _do(call, x=at).sum().backward()
    return _numpy(at.grad)


def _batch_norm(call: str, x: np.ndarray, steps: int = 1) -> BatchNormed:
    layer = _do(call, channels=x.shape[1])
    start = _numpy(layer.running_mean)
    for step in range(steps):
        y = layer(torch.tensor(x))
        if step == 0:
            seen = _numpy(layer.running_mean)
        y.sum().backward()
    layer.eval()
    return BatchNormed(
        _numpy(y),
        _numpy(layer.running_mean),
        _numpy(layer.running_var),
        lambda x: _numpy(layer(torch.tensor(x))),
        "backward" if np.array_equal(seen, start) else "forward",
        layer.momentum,
    )


def _norm(call: str, x: np.ndarray) -> np.ndarray:
    at = x[:, None] if "InstanceNorm" in call else x  # its one channel, over the positions
    return _numpy(_do(call, channels=x.shape[1])(torch.tensor(at))).reshape(x.shape)


def _clipping(call: str, gradients: Sequence[np.ndarray], limit: float) -> list[np.ndarray]:
    parameters = [torch.nn.Parameter(torch.zeros(g.shape)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    _do(call, parameters=parameters, limit=limit)
    return [_numpy(parameter.grad) for parameter in parameters]


def _optimizer(
    call: str, w: float, gradients: Sequence[float], rates: Sequence[float] | None = None
) -> list[float]:
    parameter = torch.nn.Parameter(torch.tensor([w]))
    optimizer = _do(call, parameters=[parameter])
    path = []
    for step, gradient in enumerate(gradients):
        parameter.grad = torch.tensor([gradient])
        if rates is not None:
            optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.step()
        path.append(float(parameter.detach()))
    return path


RUNS: dict[str, Callable[..., Any]] = {
    "initializer": _initializer,
    "layer": _layer,
    "gradient": _gradient,
    "batch_norm": _batch_norm,
    "norm": _norm,
    "clipping": _clipping,
    "optimizer": _optimizer,
}


def _source(call: str) -> str:
    name = called(call)
    page = "nn.init" if name.startswith("torch.nn.init.") else f"generated/{name}"
    return f"https://docs.pytorch.org/docs/stable/{page}.html#{name}"


def library() -> Library:
    """Return torch.nn and its natives."""
    dtypes = ("float16", "bfloat16", "float32", "float64")
    versions = {"torch": torch.__version__}
    return Library("torch.nn", versions, "out_in", dtypes, natives(NATIVES, RUNS, _source))


# --- the same weights everywhere ------------------------------------------------------------------


def load_weights(model: torch.nn.Module, place: Place) -> torch.nn.Module:
    """Fill the parameters and buffers that a state dict holds, in place, on their own devices."""
    saved = model.state_dict()
    named = (*model.named_parameters(), *model.named_buffers())
    own = {name: x for name, x in named if name in saved and x.is_floating_point()}
    placed = place({name: Parameter(_shape(x), _dtype(x)) for name, x in own.items()})
    with torch.no_grad():
        for name, values in placed:
            own[name].copy_(torch.from_numpy(values))
    return model


def _shape(x: torch.Tensor) -> tuple[int, ...] | None:
    lazy = isinstance(x, torch.nn.parameter.UninitializedTensorMixin)
    return None if lazy or x.is_meta else tuple(x.shape)


def _dtype(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
