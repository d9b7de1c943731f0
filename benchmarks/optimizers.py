"""An update of ten million parameters against each framework's own optimizer, on the same tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from timing import ratio, show

import isometry as iso

SHAPES = [(1000, 1000)] * 9 + [(1000,)] * 10 + [(990, 1000)]
LIBRARIES = {"torch": "torch", "tensorflow": "keras", "jax": "optax", "mxnet": "mxnet"}
NAMES = ("sgd", "momentum", "adam")
RATE = 1e-3
Step = Callable[[], Any]
Arrays = list[np.ndarray]


def optimizers(nx: Any, rounds: int) -> None:
    """Show the ratios of one backend: a step, and a step that also asks whether it is finite."""
    if nx.name not in LIBRARIES:  # NumPy ships none
        return
    rng = np.random.default_rng(0)
    weights, gradients = (
        [rng.normal(size=shape).astype(np.float32) for shape in SHAPES] for _ in range(2)
    )
    for name in NAMES:
        peer = PEERS[nx.name](name, weights, gradients)
        for nonfinite, target in (
            ("propagate", "at most 2" if nx.name == "mxnet" else "at most 1.2"),
            ("raise", "with a check that the peer does not make"),
        ):
            value = ratio(ours(nx, name, nonfinite, weights, gradients), peer, rounds)
            show(f"{nx.name}: {name}, 1e7 weights, {nonfinite} / own optimizer", value, target)


def ours(nx: Any, name: str, nonfinite: str, weights: Arrays, gradients: Arrays) -> Step:
    rule = iso.optimizer_rule(name, library=LIBRARIES[nx.name], rate=RATE)
    optimizer = iso.Optimizer(nx, rule, nonfinite=nonfinite, donate=True)
    w, g = ({str(k): nx.asarray(x) for k, x in enumerate(xs)} for xs in (weights, gradients))
    held = [w, optimizer.start(w)]

    def step() -> None:
        held[:] = optimizer.step(held[0], g, held[1])
        if nx.name == "jax":
            import jax

            jax.block_until_ready(held[0])
        if nx.name == "mxnet":
            from isometry.backends.mxnet_backend import mx

            mx.nd.waitall()

    return step


def torch(name: str, weights: Arrays, gradients: Arrays) -> Step:
    import torch

    parameters = [torch.nn.Parameter(torch.tensor(w)) for w in weights]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = torch.tensor(g)
    make = {
        "sgd": lambda: torch.optim.SGD(parameters, lr=RATE),
        "momentum": lambda: torch.optim.SGD(parameters, lr=RATE, momentum=0.9),
        "adam": lambda: torch.optim.Adam(parameters, lr=RATE),
    }
    return make[name]().step


def tensorflow(name: str, weights: Arrays, gradients: Arrays) -> Step:
    import os

    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras
    import tensorflow as tf

    make = {
        "sgd": lambda: keras.optimizers.SGD(RATE),
        "momentum": lambda: keras.optimizers.SGD(RATE, momentum=0.9),
        "adam": lambda: keras.optimizers.Adam(RATE),
    }
    optimizer = make[name]()
    variables = [keras.Variable(w) for w in weights]
    optimizer.build(variables)
    given = [tf.constant(g) for g in gradients]
    apply = tf.function(lambda *g: optimizer.apply(list(g), variables))
    return lambda: apply(*given)


def jax(name: str, weights: Arrays, gradients: Arrays) -> Step:
    import jax
    import optax

    make = {
        "sgd": lambda: optax.sgd(RATE),
        "momentum": lambda: optax.sgd(RATE, momentum=0.9),
        "adam": lambda: optax.adam(RATE),
    }
    optimizer = make[name]()
    w, g = ([jax.numpy.asarray(x) for x in xs] for xs in (weights, gradients))
    held = [w, optimizer.init(w)]

    @jax.jit
    def move(w: Any, state: Any, g: Any) -> Any:
        change, state = optimizer.update(g, state, w)
        return optax.apply_updates(w, change), state

    def step() -> None:
        held[:] = move(*held, g)
        jax.block_until_ready(held)

    return step


def mxnet(name: str, weights: Arrays, gradients: Arrays) -> Step:
    from isometry.backends.mxnet_backend import mx

    make = {
        "sgd": lambda: mx.optimizer.SGD(learning_rate=RATE),
        "momentum": lambda: mx.optimizer.SGD(learning_rate=RATE, momentum=0.9),
        "adam": lambda: mx.optimizer.Adam(learning_rate=RATE),
    }
    optimizer = make[name]()
    w, g = ([mx.nd.array(x) for x in xs] for xs in (weights, gradients))
    states = [optimizer.create_state(k, x) for k, x in enumerate(w)]

    def step() -> None:
        for k in range(len(w)):
            optimizer.update(k, w[k], g[k], states[k])
        mx.nd.waitall()

    return step


PEERS = {"torch": torch, "tensorflow": tensorflow, "jax": jax, "mxnet": mxnet}
