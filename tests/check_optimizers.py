"""Run a library's own optimizers beside the presets that are said to be them.

``python check_optimizers.py torch|keras|optax|mxnet`` prints, for each preset, the largest relative
difference of how far a weight has moved in a hundred steps, with the rate dropped in the middle;
and ends with 1 if one is above its bound.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import isometry as iso
from isometry.common.optimizers.presets import PRESETS

STEPS, DROP = 100, 50
RATE, DROPPED = 2.0**-7, 2.0**-10  # float32 holds them
EXACT = 1e-12
SCALARS = 4 * STEPS * 2.0**-24  # MXNet's numbers are float32: a few roundings a step

rng = np.random.default_rng(0)
WEIGHTS = [rng.normal(size=(3, 4)), rng.normal(size=5)]
GRADIENTS = [
    [rng.normal(size=w.shape) * 10.0 ** rng.integers(-5, 2, size=w.shape) for w in WEIGHTS]
    for _ in range(STEPS)
]
Course = Callable[[], Sequence[np.ndarray]]


def rate(step: int) -> float:
    return RATE if step < DROP else DROPPED


def ours(library: str, name: str, dtype: str) -> list[np.ndarray]:
    nx = iso.load("numpy")
    optimizer = iso.Optimizer(nx, iso.optimizer_rule(name, library=library))
    w = {f"{k}/weight": x.astype(dtype) for k, x in enumerate(WEIGHTS)}
    state = optimizer.start(w)
    for step, gradients in enumerate(GRADIENTS):
        g = {f"{k}/weight": x.astype(dtype) for k, x in enumerate(gradients)}
        w, state = optimizer.step(w, g, state, rate=rate(step))
    return list(w.values())


def torch() -> dict[str, tuple[Course, str, float]]:
    import torch

    def run(make: Callable[..., Any], **options: Any) -> Course:
        def course() -> list[np.ndarray]:
            parameters = [torch.nn.Parameter(torch.tensor(w)) for w in WEIGHTS]
            optimizer = make(parameters, lr=RATE, **options)
            for step, gradients in enumerate(GRADIENTS):
                for p, g in zip(parameters, gradients, strict=True):
                    p.grad = torch.tensor(g)
                for group in optimizer.param_groups:
                    group["lr"] = rate(step)
                optimizer.step()
            return [p.detach().numpy() for p in parameters]

        return course

    own = torch.optim
    return {
        name: (course, "float64", EXACT)
        for name, course in {
            "sgd": run(own.SGD),
            "momentum": run(own.SGD, momentum=0.9),
            "nesterov": run(own.SGD, momentum=0.9, nesterov=True),
            "adam": run(own.Adam),
            "adamw": run(own.AdamW),
            "rmsprop": run(own.RMSprop),
            "adagrad": run(own.Adagrad),
        }.items()
    }


def keras() -> dict[str, tuple[Course, str, float]]:
    import os

    # on torch its weight decay is `1 - decay * rate` rounded to float32, whatever the weights are
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    jax.config.update("jax_enable_x64", True)

    def run(make: Callable[..., Any], **options: Any) -> Course:
        def course() -> list[np.ndarray]:
            variables = [keras.Variable(w, dtype="float64") for w in WEIGHTS]
            optimizer = make(learning_rate=RATE, **options)
            optimizer.build(variables)
            for step, gradients in enumerate(GRADIENTS):
                optimizer.learning_rate = rate(step)
                optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
            return [keras.ops.convert_to_numpy(v) for v in variables]

        return course

    own = keras.optimizers
    return {
        name: (course, "float64", EXACT)
        for name, course in {
            "sgd": run(own.SGD),
            "momentum": run(own.SGD, momentum=0.9),
            "nesterov": run(own.SGD, momentum=0.9, nesterov=True),
            "adam": run(own.Adam),
            "adamw": run(own.AdamW),
            "rmsprop": run(own.RMSprop),
            "adagrad": run(own.Adagrad),
            "lamb": run(own.Lamb),
        }.items()
    }


def optax() -> dict[str, tuple[Course, str, float]]:
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)

    def run(make: Callable[..., Any], **options: Any) -> Course:
        def course() -> list[np.ndarray]:
            weights = [jax.numpy.asarray(w) for w in WEIGHTS]
            optimizer = make(lambda count: jax.numpy.where(count < DROP, RATE, DROPPED), **options)
            state = optimizer.init(weights)
            for gradients in GRADIENTS:
                moves, state = optimizer.update(
                    [jax.numpy.asarray(g) for g in gradients], state, weights
                )
                weights = optax.apply_updates(weights, moves)
            return [np.asarray(w) for w in weights]

        return course

    return {
        name: (course, "float64", EXACT)
        for name, course in {
            "sgd": run(optax.sgd),
            "momentum": run(optax.sgd, momentum=0.9),
            "nesterov": run(optax.sgd, momentum=0.9, nesterov=True),
            "adam": run(optax.adam),
            "adamw": run(optax.adamw),
            "rmsprop": run(optax.rmsprop),
            "adagrad": run(optax.adagrad),
            "lars": run(optax.lars),
            "lamb": run(optax.lamb),
            "novograd": run(optax.novograd),
        }.items()
    }


def mxnet() -> dict[str, tuple[Course, str, float]]:
    from isometry.backends.mxnet_backend import mx

    def run(make: Callable[..., Any], dtype: str, **options: Any) -> Course:
        def course() -> list[np.ndarray]:
            weights = [mx.nd.array(w, dtype=dtype) for w in WEIGHTS]
            optimizer = make(learning_rate=RATE, **options)
            states = [optimizer.create_state(k, w) for k, w in enumerate(weights)]
            for step, gradients in enumerate(GRADIENTS):
                optimizer.set_learning_rate(rate(step))
                given = [mx.nd.array(g, dtype=dtype) for g in gradients]
                if isinstance(optimizer, mx.optimizer.LARS):  # one rate for all, told once a step
                    optimizer.update(list(range(len(weights))), weights, given, states)
                    continue
                for k, (w, g) in enumerate(zip(weights, given, strict=True)):
                    optimizer.update(k, w, g, states[k])
            return [w.asnumpy() for w in weights]

        return course

    own = mx.optimizer
    double = {
        "sgd": (own.SGD, {}),
        "momentum": (own.SGD, {"momentum": 0.9}),
        "nesterov": (own.NAG, {"momentum": 0.9}),
        "adam": (own.Adam, {}),
    }
    single = {  # these make their state in float32
        "rmsprop": (own.RMSProp, {}),
        "adagrad": (own.AdaGrad, {}),
        "lars": (own.LARS, {}),
        "lamb": (own.LAMB, {}),
    }
    return {
        name: (run(make, dtype, **options), dtype, SCALARS)
        for dtype, table in (("float64", double), ("float32", single))
        for name, (make, options) in table.items()
    }


def main(library: str) -> int:
    cases = {f.__name__: f for f in (torch, keras, optax, mxnet)}[library]()
    if cases.keys() != PRESETS[library].keys():
        print(f"presets {sorted(PRESETS[library])}, optimizers {sorted(cases)}")
        return 1
    wrong = 0
    for name, (course, dtype, bound) in cases.items():
        apart = max(
            float(np.max(np.abs(a - b) / np.abs(b - w.astype(dtype))))
            for a, b, w in zip(ours(library, name, dtype), course(), WEIGHTS, strict=True)
        )
        print(f"{library:6} {name:9} {dtype} {apart:.1e}, at most {bound:.0e}")
        wrong += not apart <= bound
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
