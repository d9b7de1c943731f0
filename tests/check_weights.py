"""Load the same weights into a model of one library, and check it: ``check_weights.py torch``.

Not a test but a program that the tests start: Keras fixes its engine when it is imported. Each
model is a convolution over the whole image, ReLU and a dense layer: no two libraries agree on how
an image is flattened, and the kernel's axes all differ, so that none can be exchanged for another.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

import isometry as iso

CHANNELS, HEIGHT, WIDTH, HIDDEN, CLASSES, BATCH = 3, 4, 5, 8, 6, 32
# stored differently on purpose: what a weight is does not depend on it
SPEC = {
    "conv.weight": iso.Weight("he_normal", (HIDDEN, CHANNELS, HEIGHT, WIDTH)),
    "conv.bias": iso.Weight(iso.Normal(0.0, 0.1), (HIDDEN,)),
    "dense.weight": iso.Weight("xavier_uniform", (HIDDEN, CLASSES), "in_out"),
    "dense.bias": iso.Weight(iso.Uniform(-1.0, 1.0), (CLASSES,)),
}
EPS = 2.0**-24  # unit roundoff of float32


def names(prefix: str, weight: str) -> dict[str, str]:
    """Return the own name of each path: prefix, layer, and what the library calls a weight."""
    return {path: prefix + path.replace(".weight", weight) for path in SPEC}


# --- the libraries: a model, its own names, its layout, its output, and its parameters ------------


def torch() -> SimpleNamespace:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(CHANNELS, HIDDEN, (HEIGHT, WIDTH))
            self.dense = torch.nn.Linear(HIDDEN, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.dense(self.conv(x).relu().flatten(1))

    tied = torch.nn.Sequential(*(torch.nn.Linear(4, 4, bias=False) for _ in range(2)))
    tied[1].weight = tied[0].weight
    return SimpleNamespace(
        model=Net(),
        names=None,
        layout="out_in",
        forward=lambda net, x: net(torch.tensor(x)).detach().numpy(),
        parameters=lambda net: {n: p.detach().numpy() for n, p in net.state_dict().items()},
        normed=torch.nn.BatchNorm1d(4),
        statistics={"bias", "running_mean", "running_var", "weight"},
        unbuilt=(torch.nn.LazyLinear(3), {"weight", "bias"}),
        tied=[(tied, "0.weight", lambda net: net[1].weight.detach().numpy())],
    )


def keras() -> SimpleNamespace:
    import keras

    def array(x: Any) -> np.ndarray:
        return np.asarray(keras.ops.stop_gradient(keras.ops.convert_to_tensor(x))).copy()

    model = keras.Sequential(
        [
            keras.Input((HEIGHT, WIDTH, CHANNELS)),
            keras.layers.Conv2D(HIDDEN, (HEIGHT, WIDTH), activation="relu", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(CLASSES, name="dense"),
        ],
        name="net",
    )
    norm = keras.layers.BatchNormalization(name="norm")
    norm.build((None, 4))
    kinds = ("beta", "gamma", "moving_mean", "moving_variance")
    return SimpleNamespace(
        model=model,
        names={p: n.replace(".", "/") for p, n in names("net/", ".kernel").items()},
        layout="in_out",
        forward=lambda net, x: array(net(x.transpose(0, 2, 3, 1), training=False)),
        parameters=lambda net: {w.path: array(w) for w in net.weights},
        normed=norm,
        statistics={w.path for w in norm.weights if w.name in kinds},
        unbuilt=(keras.Sequential([keras.layers.Dense(3)]), ()),
        tied=[],
    )


def linen() -> SimpleNamespace:
    import flax.linen
    import flax.traverse_util
    import jax

    class Net(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x: Any) -> Any:
            x = flax.linen.Conv(HIDDEN, (HEIGHT, WIDTH), padding="VALID", name="conv")(x)
            x = flax.linen.relu(x).reshape(x.shape[0], -1)
            return flax.linen.Dense(CLASSES, name="dense")(x)

    net, key = Net(), jax.random.key(0)
    norm = flax.linen.BatchNorm(use_running_average=True)
    flat = flax.traverse_util.flatten_dict
    return SimpleNamespace(
        model=net.init(key, np.zeros((1, HEIGHT, WIDTH, CHANNELS), "float32")),
        names={p: n.replace(".", "/") for p, n in names("params/", ".kernel").items()},
        layout="in_out",
        forward=lambda variables, x: np.array(net.apply(variables, x.transpose(0, 2, 3, 1))),
        parameters=lambda variables: {n: np.array(x) for n, x in flat(variables, sep="/").items()},
        normed=norm.init(key, np.zeros((1, 4), "float32")),
        statistics={"params/bias", "params/scale", "batch_stats/mean", "batch_stats/var"},
        unbuilt=({}, ()),
        tied=[],
    )


def nnx() -> SimpleNamespace:
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.conv = nnx.Conv(CHANNELS, HIDDEN, (HEIGHT, WIDTH), padding="VALID", rngs=rngs)
            self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
            self.layers = nnx.List([nnx.Linear(HIDDEN, CLASSES, rngs=rngs)])

        def __call__(self, x: Any) -> Any:
            x = nnx.relu(self.conv(x))
            return self.layers[0](self.drop(x.reshape(x.shape[0], -1)))

    tied = Net(nnx.Rngs(0))
    linear = (nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0)) for _ in range(2))
    tied.conv, tied.layers = None, nnx.List(linear)
    tied.layers[1].kernel = tied.layers[0].kernel
    own = {p: n.replace("dense", "layers/0") for p, n in names("", ".kernel").items()}
    return SimpleNamespace(
        model=Net(nnx.Rngs(0)),
        names={p: n.replace(".", "/") for p, n in own.items()},
        layout="in_out",
        forward=lambda net, x: np.array(net(x.transpose(0, 2, 3, 1))),
        parameters=lambda net: {
            "/".join(map(str, path)): np.array(x[...])
            for path, x in nnx.to_flat_state(nnx.state(net, nnx.Param))
        },
        normed=nnx.BatchNorm(4, rngs=nnx.Rngs(0)),
        statistics={"bias", "mean", "scale", "var"},
        unbuilt=(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), ()),
        tied=[(tied, "layers/0/kernel", lambda net: np.array(net.layers[1].kernel[...]))],
    )


def gluon() -> SimpleNamespace:
    from isometry.backends.mxnet_compat import load_mxnet

    mx = load_mxnet()
    nn = mx.gluon.nn
    net, norm, lazy = (
        nn.HybridSequential(),
        nn.BatchNorm(in_channels=4),
        nn.Dense(3, use_bias=False),
    )
    net.add(nn.Conv2D(HIDDEN, (HEIGHT, WIDTH), in_channels=CHANNELS, activation="relu"))
    net.add(nn.Dense(CLASSES, in_units=HIDDEN))
    tied, first = nn.Sequential(), nn.Dense(4, use_bias=False, in_units=4)
    tied.add(first, nn.Dense(4, use_bias=False, in_units=4, params=first.params))
    for block in (net, norm, lazy, tied):
        block.initialize()
    own = {path: f"{'01'[path.startswith('dense')]}.{path.split('.')[1]}" for path in SPEC}
    return SimpleNamespace(
        model=net,
        names=own,
        layout="out_in",
        forward=lambda net, x: net(mx.nd.array(x)).asnumpy(),
        parameters=lambda net: {
            n: p.data().asnumpy() for n, p in net._collect_params_with_prefix().items()
        },
        normed=norm,
        statistics={"beta", "gamma", "running_mean", "running_var"},
        unbuilt=(lazy, {"weight"}),
        tied=[(tied, "0.weight", lambda net: net[1].weight.data().asnumpy())],
    )


# --- the checks -----------------------------------------------------------------------------------


def gamma(n: int) -> float:
    """Return ``n eps / (1 - n eps)`` (Higham 2002, Accuracy and Stability, lemma 3.1)."""
    return n * EPS / (1 - n * EPS)


def exact(w: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the output in float64, and how far float32 may be from it, in any order of sums.

    A sum of n products and a bias is off by at most gamma(n + 1) of the sum of their sizes (Higham
    2002, equation 3.5, with one term more); one gamma more covers the float64 here. ReLU does not
    increase an error, and the dense layer carries that of its input along.
    """
    taps, kernel = CHANNELS * HEIGHT * WIDTH, w["conv.weight"].reshape(HIDDEN, -1)
    flat = x.reshape(len(x), -1)
    h = flat @ kernel.T + w["conv.bias"]
    off = gamma(taps + 2) * (np.abs(flat) @ np.abs(kernel).T + np.abs(w["conv.bias"]))
    h, size = np.maximum(h, 0), np.abs(w["dense.weight"])
    y = h @ w["dense.weight"] + w["dense.bias"]
    carried = off @ size
    return y, carried + gamma(HIDDEN + 2) * ((h + off) @ size + np.abs(w["dense.bias"]))


def refused(model: Any, *arguments: Any, **options: Any) -> str:
    """Return the message with which loading is refused."""
    try:
        iso.load_weights(model, *arguments, **options)
    except iso.InvalidArgument as error:
        return str(error)
    raise AssertionError("loaded")


def check(library: SimpleNamespace) -> str:
    weights = iso.weights(SPEC, 2024)
    own = library.names or {path: path for path in SPEC}
    layouts = dict.fromkeys(("conv.weight", "dense.weight"), library.layout)

    # everything wrong at once: one error, nothing changed
    before = library.parameters(library.model)
    other = "in_out" if library.layout == "out_in" else "out_in"
    wrong = {**own, "dense.bias": "nowhere"}
    message = refused(library.model, weights, {"conv.weight": other}, names=wrong)
    for problem in (
        "conv.weight: float32 ",
        "dense.weight: layouts must say",
        "dense.bias: the model has no parameter 'nowhere'",
        f"{own['dense.bias']}: missing",
    ):
        assert f"\n  {problem}" in message, message
    after = library.parameters(library.model)
    assert all(np.array_equal(before[name], after[name]) for name in before)

    # running statistics are wanted, too
    missing = refused(library.normed, iso.weights({}, 0), {}).splitlines()[1:]
    listed = {line.strip().removesuffix(": missing, no weight is placed there") for line in missing}
    assert listed == library.statistics, missing
    unbuilt, names = library.unbuilt
    hidden = iso.weights({name: iso.Weight("ones", (3,)) for name in names}, 0)
    message = refused(unbuilt, hidden, {})
    assert message.count("yet; build, initialize or call it first") == max(len(names), 1), message

    for shared, name, second in library.tied:
        square = iso.weights({name: iso.Weight(iso.Normal(), (4, 4), library.layout)}, 0)
        iso.load_weights(shared, square, {name: library.layout})
        assert np.array_equal(second(shared), square[name])

    model = iso.load_weights(library.model, weights, layouts, names=library.names)
    found = library.parameters(model)
    assert found.keys() == set(own.values())
    canonical = {path: np.transpose(w, np.argsort(SPEC[path].axes)) for path, w in weights.items()}
    axes = (2, 3, 1, 0) if library.layout == "in_out" else (0, 1, 2, 3)
    for path, w in canonical.items():
        stored = w.transpose(axes if w.ndim == 4 else [a for a in axes if a < w.ndim])
        assert found[own[path]].dtype == np.float32
        assert np.array_equal(found[own[path]], stored), path

    x = iso.Weight(iso.Normal(), (BATCH, CHANNELS, HEIGHT, WIDTH)).draw(1, "images")
    wide = {path: w.astype("float64") for path, w in weights.items()}
    y, bound = exact(wide, x.astype("float64"))
    share = np.max(np.abs(library.forward(model, x) - y) / bound)
    assert share <= 1, share
    flipped, _ = exact({**wide, "conv.weight": wide["conv.weight"][..., ::-1]}, x.astype("float64"))
    assert np.max(np.abs(flipped - y) / bound) > 1000
    return f"output within {share:.3f} of its bound"


LIBRARIES = {f.__name__: f for f in (torch, keras, linen, nnx, gluon)}

if __name__ == "__main__":
    print(check(LIBRARIES[sys.argv[1]]()))
