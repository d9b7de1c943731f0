"""What Keras ships, on the engine that KERAS_BACKEND names, called as its user calls it.

The engine is fixed when Keras is imported, so each is measured in a process of its own. A user
seeds an initializer by its `seed`, and a layer by `keras.utils.set_random_seed`, which seeds the
process: each call here leaves it seeded.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.natives import BatchNormed, Library
from isometry.common.natives.calls import called, evaluate, natives
from isometry.common.weights.loading import Parameter, Place

__all__ = ["library", "load_weights"]

ENGINE = keras.config.backend()
SEED = "keras.utils.set_random_seed(seed); "
DRAWN = "(shape, dtype=dtype)"

# kind -> claims, call, and what the call asks for if the claim leaves it open
NATIVES: dict[str, tuple[tuple[Any, ...], ...]] = {
    "initializer": (
        ("he_normal", "keras.initializers.HeNormal(seed=seed)" + DRAWN),
        ("he_uniform", "keras.initializers.HeUniform(seed=seed)" + DRAWN),
        ("xavier_normal", "keras.initializers.GlorotNormal(seed=seed)" + DRAWN),
        ("xavier_uniform", "keras.initializers.GlorotUniform(seed=seed)" + DRAWN),
        ("lecun_normal", "keras.initializers.LecunNormal(seed=seed)" + DRAWN),
        ("lecun_uniform", "keras.initializers.LecunUniform(seed=seed)" + DRAWN),
        (
            "he_normal",
            "keras.initializers.VarianceScaling(2.0, 'fan_in', 'normal', seed=seed)" + DRAWN,
        ),
        (
            "normal",
            "keras.initializers.RandomNormal(stddev=0.02, seed=seed)" + DRAWN,
            {"std": 0.02},
        ),
        (
            "uniform",
            "keras.initializers.RandomUniform(-0.05, 0.05, seed=seed)" + DRAWN,
            {"low": -0.05, "high": 0.05},
        ),
        (
            "truncated_normal",
            "keras.initializers.TruncatedNormal(stddev=0.02, seed=seed)" + DRAWN,
            {"std": 0.02},
        ),
        (
            "truncated_normal",
            "keras.initializers.TruncatedNormal(stddev=2.0, seed=seed)" + DRAWN,
            {"std": 2.0},
        ),
        ("orthogonal", "keras.initializers.Orthogonal(seed=seed)" + DRAWN),
    ),
    "layer": (
        ("dense", SEED + "keras.layers.Dense(256)"),
        ("conv2d", SEED + "keras.layers.Conv2D(128, kernel_size=3)"),
        ("embedding", SEED + "keras.layers.Embedding(1000, 512)"),
        ("lstm", SEED + "keras.layers.LSTM(256)"),
        ("conv2d_grouped", SEED + "keras.layers.Conv2D(128, kernel_size=3, groups=4)"),
        ("conv2d_depthwise", SEED + "keras.layers.DepthwiseConv2D(kernel_size=3)"),
        ("conv2d_transposed", SEED + "keras.layers.Conv2DTranspose(128, kernel_size=3)"),
        ("rnn", SEED + "keras.layers.SimpleRNN(256)"),
        ("gru", SEED + "keras.layers.GRU(256)"),
        ("attention", SEED + "keras.layers.MultiHeadAttention(8, 64)"),
        ("batch_norm_layer", "keras.layers.BatchNormalization()"),
        ("layer_norm_layer", "keras.layers.LayerNormalization()"),
        ("group_norm_layer", "keras.layers.GroupNormalization(groups=4)"),
    ),
    "gradient": (
        ("sigmoid", "keras.activations.sigmoid(x)"),
        ("tanh", "keras.activations.tanh(x)"),
        ("relu", "keras.activations.relu(x)"),
        ("leaky_relu", "keras.activations.leaky_relu(x)"),
        ("leaky_relu", "keras.layers.LeakyReLU()(x)"),
        ("softplus", "keras.activations.softplus(x)"),
        ("gelu", "keras.activations.gelu(x)"),
        ("silu", "keras.activations.silu(x)"),
    ),
    "batch_norm": (("batch_norm", "keras.layers.BatchNormalization()"),),
    "norm": (
        ("layer_norm", "keras.layers.LayerNormalization()"),
        ("group_norm", "keras.layers.GroupNormalization(groups=4)", {"groups": 4}),
        ("rms_norm", "keras.layers.RMSNormalization()"),
    ),
    "clipping": (
        ("global_norm", "keras.optimizers.SGD(learning_rate=1.0, global_clipnorm=limit)"),
        ("tensor_norm", "keras.optimizers.SGD(learning_rate=1.0, clipnorm=limit)"),
    ),
    "optimizer": (
        ("momentum_default", "keras.optimizers.SGD()"),
        ("momentum", "keras.optimizers.SGD(momentum=0.9)"),
        ("momentum_decay", "keras.optimizers.SGD(momentum=0.9, weight_decay=0.1)"),
        ("momentum_nesterov", "keras.optimizers.SGD(momentum=0.9, nesterov=True)"),
        ("adam", "keras.optimizers.Adam()"),
        ("adam_decay", "keras.optimizers.Adam(weight_decay=0.1)"),
        ("adamw", "keras.optimizers.AdamW()"),
        ("rmsprop", "keras.optimizers.RMSprop()"),
        ("adagrad", "keras.optimizers.Adagrad()"),
        ("adagrad_eps", "keras.optimizers.Adagrad(initial_accumulator_value=0.0)"),
    ),
}
# what a layer is built for, since it learns its input's size from the input
IMAGE, SEQUENCE = (1, 8, 8, 64), (1, 1, 512)
INPUTS = {
    "Dense": ((1, 512),),
    "Embedding": ((1, 1),),
    **dict.fromkeys(("Conv2D", "DepthwiseConv2D", "Conv2DTranspose"), (IMAGE,)),
    "LSTM": ((1, 1, 256),),
    **dict.fromkeys(("SimpleRNN", "GRU"), ((1, 1, 128),)),
    "MultiHeadAttention": (SEQUENCE, SEQUENCE),  # of queries and of values
    "LayerNormalization": ((1, 512),),
    **dict.fromkeys(("BatchNormalization", "GroupNormalization"), (IMAGE,)),
}
ROLES = {"kernel": "weight", "embeddings": "weight", "recurrent_kernel": "recurrent"}
OF_NORMS = {"gamma": "scale", "beta": "shift", "moving_mean": "mean", "moving_variance": "variance"}


def _do(call: str, **names: Any) -> Any:
    return evaluate(call, globals() | names)


def _numpy(x: Any) -> np.ndarray:
    # a tensor out of the graph: `convert_to_numpy` of Keras 3.15 on torch 2.13 and NumPy 2 warns
    x = keras.ops.stop_gradient(keras.ops.convert_to_tensor(x))
    half = keras.backend.standardize_dtype(x.dtype) == "bfloat16"
    return np.asarray(keras.ops.cast(x, "float32") if half else x).copy()


def _initializer(
    call: str, shape: Sequence[int], seed: int = 0, dtype: str = "float32"
) -> np.ndarray:
    return _numpy(_do(call, seed=seed, shape=tuple(shape), dtype=dtype))


def _layer(call: str, seed: int = 0) -> dict[str, np.ndarray]:
    layer = _do(call, seed=seed)
    layer.build(*INPUTS[type(layer).__name__])
    roles = ROLES | OF_NORMS | ({"kernel": "input"} if isinstance(layer, keras.layers.RNN) else {})
    # Keras counts up the names of layers, but for those inside attention, which it gives
    attention = isinstance(layer, keras.layers.MultiHeadAttention)
    own = {w.path.partition("/")[2] if attention else w.name: w for w in layer.weights}
    return {f"{roles.get(w.name, w.name)}/{path}": _numpy(w) for path, w in own.items()}


def _gradient(call: str, x: np.ndarray) -> np.ndarray:
    engine = importlib.import_module(ENGINE)
    if ENGINE == "jax":
        with engine.enable_x64(x.dtype == np.float64):  # a user of float64 sets the flag
            return _numpy(engine.grad(lambda x: _do(call, x=x).sum())(x))
    if ENGINE == "torch":
        at = engine.tensor(x, requires_grad=True)
        _do(call, x=at).sum().backward()
        return _numpy(at.grad)
    at = engine.constant(x)
    with engine.GradientTape() as tape:
        tape.watch(at)
        y = _do(call, x=at)
    return _numpy(tape.gradient(y, at))


def _batch_norm(call: str, x: np.ndarray, steps: int = 1) -> BatchNormed:
    layer = _do(call)
    layer.build(x.shape)
    start = _numpy(layer.moving_mean)
    for step in range(steps):
        # the call is where it can move: the backward pass is the engine's, which knows no Keras
        y = layer(x, training=True)
        if step == 0:
            seen = _numpy(layer.moving_mean)
    return BatchNormed(
        _numpy(y),
        _numpy(layer.moving_mean),
        _numpy(layer.moving_variance),
        lambda x: _numpy(layer(x, training=False)),
        "backward" if np.array_equal(seen, start) else "forward",
        layer.momentum,
    )


def _norm(call: str, x: np.ndarray) -> np.ndarray:
    return _numpy(_do(call)(x))


def _clipping(call: str, gradients: Sequence[np.ndarray], limit: float) -> list[np.ndarray]:
    # a step of rate 1 from 0 leads to minus the clipped gradient, exactly
    variables = [keras.Variable(np.zeros_like(g)) for g in gradients]
    tensors = [keras.ops.convert_to_tensor(g) for g in gradients]
    _do(call, limit=limit).apply(tensors, variables)
    return [0 - _numpy(variable) for variable in variables]


def _optimizer(
    call: str, w: float, gradients: Sequence[float], rates: Sequence[float] | None = None
) -> list[float]:
    variable = keras.Variable([w])
    optimizer = _do(call)
    path = []
    for step, gradient in enumerate(gradients):
        if rates is not None:
            optimizer.learning_rate = rates[step]
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [variable])
        path.append(float(_numpy(variable)[0]))
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
    "initializers": "layers/initializers",
    "activations": "layers/activations",
    "SGD": "optimizers/sgd",
    "Adam": "optimizers/adam",
    "AdamW": "optimizers/adamw",
    "RMSprop": "optimizers/rmsprop",
    "Adagrad": "optimizers/adagrad",
    "Dense": "layers/core_layers/dense",
    "Conv2D": "layers/convolution_layers/convolution2d",
    "Embedding": "layers/core_layers/embedding",
    "LSTM": "layers/recurrent_layers/lstm",
    "DepthwiseConv2D": "layers/convolution_layers/depthwise_convolution2d",
    "Conv2DTranspose": "layers/convolution_layers/convolution2d_transpose",
    "SimpleRNN": "layers/recurrent_layers/simple_rnn",
    "GRU": "layers/recurrent_layers/gru",
    "MultiHeadAttention": "layers/attention_layers/multi_head_attention",
    "LeakyReLU": "layers/activation_layers/leaky_relu",
    "BatchNormalization": "layers/normalization_layers/batch_normalization",
    "LayerNormalization": "layers/normalization_layers/layer_normalization",
    "GroupNormalization": "layers/normalization_layers/group_normalization",
    "RMSNormalization": "layers/normalization_layers/rms_normalization",
}


def _source(call: str) -> str:
    _, module, name = called(call).split(".")
    return f"https://keras.io/api/{PAGES.get(name) or PAGES[module]}/"


def library() -> Library:
    """Return Keras on its engine, and its natives.

    Raises
    ------
    InvalidArgument
        If the engine is another one than tensorflow, torch or jax.
    """
    if ENGINE not in ("tensorflow", "torch", "jax"):
        raise InvalidArgument(
            f"Keras runs on {ENGINE!r} here; its natives are measured on tensorflow, torch or jax: "
            "set KERAS_BACKEND before Keras is imported"
        )
    engine = importlib.import_module(ENGINE)
    versions = {"keras": keras.__version__, ENGINE: engine.__version__}
    dtypes = ("float16", "bfloat16", "float32")
    rows = natives(NATIVES, RUNS, _source)
    return Library(f"keras on {ENGINE}", versions, "in_out", dtypes, rows)


# --- the same weights everywhere ------------------------------------------------------------------


def load_weights(model: keras.Layer, place: Place) -> keras.Layer:
    """Fill all weights of a built layer or model, in place."""
    weights = [w for w in model.weights if keras.backend.is_float_dtype(w.dtype)]
    own = {w.path: w for w in weights}
    if len(own) < len(weights):
        paths = [w.path for w in weights]
        raise InvalidArgument(
            f"layers of one name share the paths {sorted({p for p in paths if paths.count(p) > 1})}"
            "; give each layer of the model a name of its own"
        )
    for path, values in place({p: Parameter(tuple(w.shape), w.dtype) for p, w in own.items()}):
        own[path].assign(values)
    return model
