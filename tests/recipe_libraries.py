"""The libraries of the recipes as `check_recipes.py` uses them: each seeded, filled and run.

Each function returns the same names: `made` evaluates a call and builds what it makes, `weights`
and `fill` take kernel (or table) and bias in this order, `apply` runs a layer, `train` makes one
training pass forward, `norm` trains on all batches but the last and infers that one, `statistics`
are the running mean and variance, `descend` steps through gradients, and `decayed` is Adam with a
weight decay of 0.1. What the library compiles is compiled.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

RATE = 0.001


def torch() -> SimpleNamespace:
    import torch

    def made(call: str, names: dict[str, Any]) -> Any:
        return eval(call, {"torch": torch, **names})

    def weights(layer: Any) -> list[np.ndarray]:
        return [p.detach().numpy().copy() for p in layer.parameters()]

    def fill(layer: Any, values: Sequence[np.ndarray]) -> None:
        with torch.no_grad():
            for parameter, value in zip(layer.parameters(), values, strict=True):
                parameter.copy_(torch.from_numpy(value.copy()))

    def norm(layer: Any, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs = [layer(torch.tensor(x)) for x in batches[:-1]]
        layer.eval()
        outputs.append(layer(torch.tensor(batches[-1])))
        return [y.detach().numpy() for y in outputs]

    def descend(optimizer: Any, gradients: np.ndarray, start: float = 0.0) -> np.ndarray:
        (parameter,) = optimizer.param_groups[0]["params"]
        parameter.data.fill_(start)
        path = []
        for gradient in gradients:
            parameter.grad = torch.tensor(gradient)
            optimizer.step()
            path.append(parameter.detach().numpy().copy())
        return np.array(path)

    return SimpleNamespace(
        made=lambda call, names: made(
            call, {"parameters": [torch.nn.Parameter(torch.zeros(8))], **names}
        ),
        seed=torch.manual_seed,
        weights=weights,
        fill=fill,
        apply=lambda layer, x: layer(torch.tensor(x)).detach().numpy(),
        train=lambda layer, x: layer(torch.tensor(x)),
        norm=norm,
        statistics=lambda layer: (layer.running_mean.numpy(), layer.running_var.numpy()),
        descend=descend,
        decayed="torch.optim.Adam(parameters, weight_decay=0.1)",
    )


def keras() -> SimpleNamespace:
    import keras

    # as `fit` runs it; on JAX that needs a model
    tensorflow = keras.backend.backend() == "tensorflow"
    compiled = importlib.import_module("tensorflow").function if tensorflow else lambda f: f
    shapes = {
        "Dense": lambda s: ((None, s["inputs"]),),
        "Conv2D": lambda s: ((None, None, None, s["inputs"]),),
        "Embedding": lambda s: (),
    }

    def array(x: Any) -> np.ndarray:
        return np.asarray(keras.ops.stop_gradient(keras.ops.convert_to_tensor(x))).copy()

    def made(call: str, names: dict[str, Any]) -> Any:
        layer = eval(call, {"keras": keras, **names})
        if isinstance(layer, keras.Layer):
            shape = shapes.get(type(layer).__name__)  # norms are built by their first input
            if shape is not None:
                layer.build(*shape(names))
        return layer

    def fill(layer: Any, values: Sequence[np.ndarray]) -> None:
        for variable, value in zip(layer.weights, values, strict=True):
            variable.assign(value)

    def train(layer: Any, x: np.ndarray) -> Any:
        if not layer.built:
            layer.build(x.shape)
        return compiled(lambda x: layer(x, training=True))(keras.ops.convert_to_tensor(x))

    def norm(layer: Any, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs = [array(train(layer, x)) for x in batches[:-1]]
        return [*outputs, array(layer(batches[-1], training=False))]

    def descend(optimizer: Any, gradients: np.ndarray, start: float = 0.0) -> np.ndarray:
        variable = keras.Variable(np.full(gradients.shape[1:], start, "float32"))
        optimizer.build([variable])
        step = compiled(lambda gradient: optimizer.apply([gradient], [variable]))
        path = []
        for gradient in gradients:
            step(keras.ops.convert_to_tensor(gradient))
            path.append(array(variable))
        return np.array(path)

    return SimpleNamespace(
        made=made,
        seed=keras.utils.set_random_seed,
        weights=lambda layer: [array(w) for w in layer.weights],
        fill=fill,
        apply=lambda layer, x: array(layer(x)),
        train=train,
        norm=norm,
        statistics=lambda layer: (array(layer.moving_mean), array(layer.moving_variance)),
        descend=descend,
        decayed="keras.optimizers.Adam(weight_decay=0.1)",
    )


def flax() -> SimpleNamespace:
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    seeds = [0]

    def made(call: str, names: dict[str, Any]) -> Any:
        own = {"nnx": nnx, "optax": optax, "rngs": nnx.Rngs(seeds[0]), "learning_rate": RATE}
        return eval(call, own | names)

    @nnx.jit
    def train(layer: Any, x: Any) -> Any:
        return layer(x)

    def parameters(layer: Any) -> list[Any]:
        names = ("kernel", "embedding", "scale", "bias")
        return [getattr(layer, name) for name in names if getattr(layer, name, None) is not None]

    def fill(layer: Any, values: Sequence[np.ndarray]) -> None:
        for parameter, value in zip(parameters(layer), values, strict=True):
            parameter[...] = jnp.array(value)

    def norm(layer: Any, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs = [np.array(train(layer, jnp.array(x))) for x in batches[:-1]]
        layer.eval()
        return [*outputs, np.array(layer(jnp.array(batches[-1])))]

    def descend(optimizer: Any, gradients: np.ndarray, start: float = 0.0) -> np.ndarray:
        w = jnp.full(gradients.shape[1], start)
        state, update = optimizer.init(w), jax.jit(optimizer.update)
        path = []
        for gradient in gradients:
            updates, state = update(jnp.array(gradient), state, w)
            w = optax.apply_updates(w, updates)
            path.append(np.array(w))
        return np.array(path)

    return SimpleNamespace(
        made=made,
        seed=lambda seed: seeds.__setitem__(0, seed),
        weights=lambda layer: [np.array(p[...]) for p in parameters(layer)],
        fill=fill,
        apply=lambda layer, x: np.array(layer(jnp.array(x))),
        train=train,
        norm=norm,
        statistics=lambda layer: (np.array(layer.mean[...]), np.array(layer.var[...])),
        descend=descend,
        decayed="optax.adamw(learning_rate, weight_decay=0.1)",
    )


def gluon() -> SimpleNamespace:
    from isometry.backends.mxnet_compat import load_mxnet

    mx = load_mxnet()

    def made(call: str, names: dict[str, Any]) -> Any:
        layer = eval(call, {"mx": mx, **names})
        if isinstance(layer, mx.gluon.Block):
            layer.initialize()
        return layer

    def parameters(layer: Any) -> list[Any]:
        return [p for p in layer.collect_params().values() if p.grad_req != "null"]

    def fill(layer: Any, values: Sequence[np.ndarray]) -> None:
        for parameter, value in zip(parameters(layer), values, strict=True):
            parameter.set_data(mx.nd.array(value))

    def train(layer: Any, x: np.ndarray) -> Any:
        with mx.autograd.record():
            return layer(mx.nd.array(x))

    def norm(layer: Any, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs = []
        for x in batches[:-1]:
            y = train(layer, x)
            y.backward()
            outputs.append(y.asnumpy())
        return [*outputs, layer(mx.nd.array(batches[-1])).asnumpy()]

    def descend(optimizer: Any, gradients: np.ndarray, start: float = 0.0) -> np.ndarray:
        w = mx.nd.full(gradients.shape[1], start)
        state = optimizer.create_state(0, w)
        path = []
        for gradient in gradients:
            optimizer.update(0, w, mx.nd.array(gradient), state)
            path.append(w.asnumpy())
        return np.array(path)

    return SimpleNamespace(
        made=made,
        seed=mx.random.seed,
        weights=lambda layer: [p.data().asnumpy() for p in parameters(layer)],
        fill=fill,
        apply=lambda layer, x: layer(mx.nd.array(x)).asnumpy(),
        train=train,
        norm=norm,
        statistics=lambda layer: (
            layer.running_mean.data().asnumpy(),
            layer.running_var.data().asnumpy(),
        ),
        descend=descend,
        decayed="mx.optimizer.Adam(wd=0.1)",
    )


LIBRARIES = {f.__name__: f for f in (torch, keras, flax, gluon)}


@functools.cache
def library(name: str) -> SimpleNamespace:
    """Return a library, imported when it is first asked for."""
    return LIBRARIES[name]()
