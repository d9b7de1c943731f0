"""What MXNet itself ships: Gluon and mx.init, called as their user calls them.

MXNet has one global generator, and a user seeds it: each call here leaves it seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from isometry.backends.mxnet_compat import load_mxnet
from isometry.common.natives import BatchNormed, Library
from isometry.common.natives.calls import called, evaluate, natives
from isometry.common.weights.loading import Parameter, Place

__all__ = ["library", "load_weights"]

mx = load_mxnet()

SEED = "mx.random.seed(seed); "
FILLED = "(mx.init.InitDesc('weight'), w)"

# kind -> claims, call, and what the call asks for if the claim leaves it open
NATIVES: dict[str, tuple[tuple[Any, ...], ...]] = {
    "initializer": (
        ("he_normal", SEED + "mx.init.MSRAPrelu()" + FILLED),
        ("he_normal", SEED + "mx.init.MSRAPrelu(factor_type='in', slope=0)" + FILLED),
        ("xavier_normal", SEED + "mx.init.Xavier(rnd_type='gaussian')" + FILLED),
        ("xavier_uniform", SEED + "mx.init.Xavier()" + FILLED),
        ("normal", SEED + "mx.init.Normal(sigma=0.02)" + FILLED, {"std": 0.02}),
        ("uniform", SEED + "mx.init.Uniform(scale=0.05)" + FILLED, {"scale": 0.05}),
        ("orthogonal", SEED + "mx.init.Orthogonal()" + FILLED),
    ),
    "layer": (
        ("dense", SEED + "mx.gluon.nn.Dense(256, in_units=512)"),
        ("conv2d", SEED + "mx.gluon.nn.Conv2D(128, kernel_size=3, in_channels=64)"),
        ("embedding", SEED + "mx.gluon.nn.Embedding(1000, 512)"),
        ("lstm", SEED + "mx.gluon.rnn.LSTM(256, input_size=256)"),
        (
            "conv2d_grouped",
            SEED + "mx.gluon.nn.Conv2D(128, kernel_size=3, groups=4, in_channels=64)",
        ),
        (
            "conv2d_depthwise",
            SEED + "mx.gluon.nn.Conv2D(64, kernel_size=3, groups=64, in_channels=64)",
        ),
        (
            "conv2d_transposed",
            SEED + "mx.gluon.nn.Conv2DTranspose(128, kernel_size=3, in_channels=64)",
        ),
        ("rnn", SEED + "mx.gluon.rnn.RNN(256, input_size=128)"),
        ("gru", SEED + "mx.gluon.rnn.GRU(256, input_size=128)"),
        ("batch_norm_layer", "mx.gluon.nn.BatchNorm(in_channels=64)"),
        ("layer_norm_layer", "mx.gluon.nn.LayerNorm(in_channels=512)"),
        ("group_norm_layer", "mx.gluon.nn.GroupNorm(num_groups=4)"),
        ("instance_norm_layer", "mx.gluon.nn.InstanceNorm(in_channels=64)"),
    ),
    "gradient": (
        ("sigmoid", "mx.nd.sigmoid(x)"),
        ("sigmoid", "mx.gluon.nn.Activation('sigmoid')(x)"),
        ("tanh", "mx.nd.tanh(x)"),
        ("tanh", "mx.gluon.nn.Activation('tanh')(x)"),
        ("relu", "mx.nd.relu(x)"),
        ("leaky_relu", "mx.nd.LeakyReLU(x)"),
        ("softplus", "mx.gluon.nn.Activation('softrelu')(x)"),
        ("gelu", "mx.gluon.nn.GELU()(x)"),
        ("silu", "mx.gluon.nn.Swish()(x)"),
    ),
    "batch_norm": (("batch_norm", "mx.gluon.nn.BatchNorm(in_channels=channels)"),),
    "norm": (
        ("layer_norm", "mx.gluon.nn.LayerNorm(in_channels=channels)"),
        ("group_norm", "mx.gluon.nn.GroupNorm(num_groups=4)", {"groups": 4}),
        ("instance_norm", "mx.gluon.nn.InstanceNorm(in_channels=1)"),
    ),
    "clipping": (("global_norm", "mx.gluon.utils.clip_global_norm(gradients, limit)"),),
    "optimizer": (
        ("momentum_default", "mx.optimizer.SGD()"),
        ("momentum", "mx.optimizer.SGD(momentum=0.9)"),
        ("momentum_decay", "mx.optimizer.SGD(momentum=0.9, wd=0.1)"),
        ("momentum_default", "mx.optimizer.NAG()"),
        ("momentum_nesterov", "mx.optimizer.NAG(momentum=0.9)"),
        ("adam", "mx.optimizer.Adam()"),
        ("adam_decay", "mx.optimizer.Adam(wd=0.1)"),
        ("rmsprop", "mx.optimizer.RMSProp()"),
        ("adagrad", "mx.optimizer.AdaGrad()"),
    ),
}
ROLES = {
    "l0_i2h_weight": "input",
    "l0_h2h_weight": "recurrent",
    "l0_i2h_bias": "bias",
    "l0_h2h_bias": "bias",
    "gamma": "scale",
    "beta": "shift",
    "running_mean": "mean",
    "running_var": "variance",
}


def _do(call: str, **names: Any) -> Any:
    return evaluate(call, globals() | names)


def _initializer(
    call: str, shape: Sequence[int], seed: int = 0, dtype: str = "float32"
) -> np.ndarray:
    w = mx.nd.empty(tuple(shape), dtype=dtype)
    _do(call, w=w, seed=seed)
    return w.asnumpy()


def _layer(call: str, seed: int = 0) -> dict[str, np.ndarray]:
    layer = _do(call, seed=seed)
    layer.initialize()
    parameters = layer.collect_params()
    own = {name.removeprefix(layer.prefix): p.data() for name, p in parameters.items()}
    return {f"{ROLES.get(name, name)}/{name}": w.asnumpy() for name, w in own.items()}


def _gradient(call: str, x: np.ndarray) -> np.ndarray:
    at = mx.nd.array(x, dtype=x.dtype)
    at.attach_grad()
    with mx.autograd.record():
        y = _do(call, x=at)
    y.backward()
    return at.grad.asnumpy()


def _batch_norm(call: str, x: np.ndarray, steps: int = 1) -> BatchNormed:
    layer = _do(call, channels=x.shape[1])
    layer.initialize()
    start = layer.running_mean.data().asnumpy()
    for step in range(steps):
        with mx.autograd.record():
            y = layer(mx.nd.array(x))
        if step == 0:
            seen = layer.running_mean.data().asnumpy()
        y.backward()
    return BatchNormed(
        y.asnumpy(),
        layer.running_mean.data().asnumpy(),
        layer.running_var.data().asnumpy(),
        lambda x: layer(mx.nd.array(x)).asnumpy(),
        "backward" if np.array_equal(seen, start) else "forward",
        layer._kwargs["momentum"],
    )


def _norm(call: str, x: np.ndarray) -> np.ndarray:
    layer = _do(call, channels=x.shape[1])
    layer.initialize()
    # group norm wants an axis of positions, a picture of one pixel; instance norm one channel
    at = x[:, :, None] if "GroupNorm" in call else x[:, None] if "InstanceNorm" in call else x
    return layer(mx.nd.array(at)).asnumpy().reshape(x.shape)


def _clipping(call: str, gradients: Sequence[np.ndarray], limit: float) -> list[np.ndarray]:
    arrays = [mx.nd.array(g) for g in gradients]
    _do(call, gradients=arrays, limit=limit)
    return [array.asnumpy() for array in arrays]


def _optimizer(
    call: str, w: float, gradients: Sequence[float], rates: Sequence[float] | None = None
) -> list[float]:
    weight = mx.nd.array([w])
    optimizer = _do(call)
    state = optimizer.create_state(0, weight)
    path = []
    for step, gradient in enumerate(gradients):
        if rates is not None:
            optimizer.set_learning_rate(rates[step])
        optimizer.update(0, weight, mx.nd.array([gradient]), state)
        path.append(float(weight.asscalar()))
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

PAGES = {
    "mx.init": "initializer/index.html#mxnet.initializer",
    "mx.optimizer": "optimizer/index.html#mxnet.optimizer",
    "mx.nd": "ndarray/ndarray.html#mxnet.ndarray",
    "mx.gluon.nn": "gluon/nn/index.html#mxnet.gluon.nn",
    "mx.gluon.rnn": "gluon/rnn/index.html#mxnet.gluon.rnn",
    "mx.gluon.utils": "gluon/utils/index.html#mxnet.gluon.utils",
}


def _source(call: str) -> str:
    module, _, name = called(call).rpartition(".")
    return f"https://mxnet.apache.org/versions/1.9.1/api/python/docs/api/{PAGES[module]}.{name}"


def library() -> Library:
    """Return Gluon and its natives."""
    versions = {"mxnet": mx.__version__}
    dtypes = ("float16", "float32")
    return Library("mxnet.gluon", versions, "out_in", dtypes, natives(NATIVES, RUNS, _source))


# --- the same weights everywhere ------------------------------------------------------------------


def load_weights(model: Any, place: Place) -> Any:
    """Fill all parameters of an initialized block, in place, on all their devices."""
    named = model._collect_params_with_prefix()  # as `save_parameters` names them
    first = {parameter: name for name, parameter in reversed(named.items())}
    own = {name: p for p, name in first.items() if np.dtype(p.dtype).kind == "f"}
    described = {n: Parameter(_shape(p), np.dtype(p.dtype).name) for n, p in own.items()}
    for name, values in place(described):
        own[name].set_data(mx.nd.array(values, dtype=values.dtype))
    return model


def _shape(parameter: Any) -> tuple[int, ...] | None:
    try:
        parameter.list_data()
    except RuntimeError:  # not initialized, or not before the first call
        return None
    return tuple(parameter.shape)
