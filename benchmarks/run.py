"""Side-by-side timings against each framework's own way: ratios, interleaved, medians.

    python benchmarks/run.py [--backends numpy,torch] [--rounds 15]

Every figure is our time divided by the peer's, both measured in this run in turn, so that a busy
machine slows both. Nothing here is asserted; the targets are printed beside the ratios. Needed
beside the extra `natives`: PyHessian (`pip install pyhessian==0.1`), for PyTorch.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from depth import depth
from optimizers import optimizers
from timing import ratio, show

import isometry as iso

POINTS = 1_000_000
WEIGHT = (4096, 4096)
BATCH = (256, 4096)
DRAWS = 100_000_000  # float32, in a process of its own
CHAINS, LENGTH, SIZE = 1000, 100, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backends", default=",".join(iso.names()))
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print(f"{'what':66} {'ratio':>7}  target")
    start_up(arguments.rounds)
    names = arguments.backends.split(",")
    for name in names:  # first: a process starts from the peak of the one that started it
        memory(name)
    for name in names:
        try:
            nx = iso.load(name)
        except iso.BackendNotInstalled as error:
            print(f"{name}: not run: {error}")
            continue
        with nx.scope():
            peers = PEERS[name](nx)
            derivative(nx, peers, arguments.rounds)
            chain(nx, peers, max(arguments.rounds // 3, 3))
            weights(nx, peers, max(arguments.rounds // 3, 3))
            normalization(nx, peers, arguments.rounds)
            optimizers(nx, max(arguments.rounds // 2, 7))
            depth(nx, max(arguments.rounds // 2, 7))


def start_up(rounds: int) -> None:
    def run(*command: str) -> Callable[[], Any]:
        return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    value = ratio(
        run(sys.executable, "-P", "-m", "isometry", "--help"),
        run(sys.executable, "-c", "import numpy"),
        rounds,
    )
    show("isometry --help / import numpy", value, "at most 1.5")


def derivative(nx: Any, peers: Any, rounds: int) -> None:
    for dtype, target in (("float32", "1.5"), ("float64", "3" if nx.name == "mxnet" else "2")):
        x = nx.stream(0).normal((POINTS,), std=5.0, dtype=dtype)
        value = ratio(
            lambda x=x: peers.wait(nx.sigmoid_gradient(x)), lambda x=x: peers.derivative(x), rounds
        )
        show(
            f"{nx.name}: exact sigmoid' / own forward+backward, {dtype}", value, f"at most {target}"
        )


def chain(nx: Any, peers: Any, rounds: int) -> None:
    """Per chain: ours batched over 1000, against the chapter's loop over one."""
    target = {"numpy": 12, "torch": 35}.get(nx.name, 150)
    value = ratio(
        lambda: nx.matrix_chain(nx.stream(0), length=LENGTH, size=SIZE, batch=CHAINS),
        lambda: peers.wait(peers.chain()),
        rounds,
    )
    show(f"{nx.name}: the chapter's loop / chain in a batch", CHAINS / value, f"at least {target}")


def weights(nx: Any, peers: Any, rounds: int) -> None:
    std = math.sqrt(2 / WEIGHT[1])
    stream = nx.stream(0)
    for rule, peer in (("he_normal", peers.normal), ("he_uniform", peers.uniform)):
        value = ratio(
            lambda rule=rule: peers.wait(nx.initialize(rule, WEIGHT, stream)),
            lambda peer=peer: peers.wait(peer(std)),
            rounds,
        )
        show(f"{nx.name}: initialize {rule} 4096x4096 / own call", value, "at most 1.2")


def normalization(nx: Any, peers: Any, rounds: int) -> None:
    """Forward and backward of a mean square, against the framework's own layer; compiled in JAX."""
    if nx.name == "numpy":  # has none
        return
    x = nx.stream(0).normal(BATCH)
    ones, zeros = (nx.asarray([value] * BATCH[1]) for value in (1.0, 0.0))

    def square(y: Any) -> Any:
        return nx.ops.mean(nx.ops.square(y))

    def batch(p: Any) -> Any:
        y = nx.batch_norm(p["x"], p["scale"], p["shift"], p["mean"], p["var"], training=True)[0]
        return square(y)

    def layer(p: Any) -> Any:
        return square(nx.layer_norm(p["x"], p["scale"], p["shift"]))

    given = {"x": x, "scale": ones, "shift": zeros, "mean": zeros, "var": ones}
    target = {"tensorflow": "at most 1.2"}
    for name, loss, peer in (
        ("batch", batch, peers.batch_norm),
        ("layer", layer, peers.layer_norm),
    ):
        step = nx.value_and_gradient(loss)
        if nx.name == "jax":
            step = nx.compile(step)
        own = peer(x)
        value = ratio(lambda step=step: peers.wait(step(given)[0]), own, rounds)
        what = f"{nx.name}: {name} norm forward+backward {BATCH} / own layer"
        show(what, value, target.get(nx.name, "at most 1.5"))


GROWTH = """
import resource, sys, isometry
nx = isometry.load(sys.argv[1])
def peak(length):
    nx.matrix_chain(nx.stream(0), length=length, size=4, batch=1000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak(10)
print(peak(int(sys.argv[2])) - before)
"""


DRAWN = """
import resource, sys, isometry
nx = isometry.load(sys.argv[1])
def peak(count):
    nx.portable_stream(0).normal((count,))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, count = peak(1000), int(sys.argv[2])
print((peak(count) - before) / (4 * count))
"""


def memory(name: str) -> None:
    """Peak memory of chains and of portable draws, each in a process of its own."""

    def printed(program: str, size: int) -> float:
        command = (sys.executable, "-c", program, name, str(size))
        return float(subprocess.run(command, capture_output=True, text=True).stdout or math.nan)

    value = printed(GROWTH, 300 * LENGTH) / printed(GROWTH, 30 * LENGTH)  # nan: not installed
    show(f"{name}: peak memory of a chain 10 times as long / of the shorter", value, "about 1")
    value = printed(DRAWN, DRAWS)
    show(f"{name}: peak memory of 1e8 portable draws / of the result", value, "about 1")


class NumpyPeers:
    """What a NumPy user writes."""

    def __init__(self, nx: Any) -> None:
        import numpy as np
        from scipy.special import expit

        self.np, self.expit, self.rng = np, expit, np.random.default_rng(0)

    def wait(self, x: Any) -> Any:
        return x

    def derivative(self, x: Any) -> Any:
        y = self.expit(x)
        return y * (1 - y)

    def chain(self) -> Any:
        m = self.rng.normal(size=(SIZE, SIZE))
        for _ in range(LENGTH - 1):
            m = m @ self.rng.normal(size=(SIZE, SIZE))
        return m

    def normal(self, std: float) -> Any:
        return self.rng.standard_normal(WEIGHT, dtype="float32") * self.np.float32(std)

    def uniform(self, std: float) -> Any:
        bound = math.sqrt(3) * std
        return self.rng.uniform(-bound, bound, WEIGHT).astype("float32")


class TorchPeers:
    """What a PyTorch user writes."""

    def __init__(self, nx: Any) -> None:
        import torch

        self.torch = torch

    def wait(self, x: Any) -> Any:
        return x

    def derivative(self, x: Any) -> Any:
        x = x.detach().requires_grad_()
        y = self.torch.sigmoid(x)
        y.backward(self.torch.ones_like(x))
        return x.grad

    def chain(self) -> Any:
        m = self.torch.normal(0, 1, size=(SIZE, SIZE))
        for _ in range(LENGTH - 1):
            m = m @ self.torch.normal(0, 1, size=(SIZE, SIZE))
        return m

    def normal(self, std: float) -> Any:
        return self.torch.nn.init.kaiming_normal_(self.torch.empty(WEIGHT), nonlinearity="relu")

    def uniform(self, std: float) -> Any:
        return self.torch.nn.init.kaiming_uniform_(self.torch.empty(WEIGHT), nonlinearity="relu")

    def batch_norm(self, x: Any) -> Callable[[], Any]:
        return self._layer(self.torch.nn.BatchNorm1d(x.shape[1]), x)

    def layer_norm(self, x: Any) -> Callable[[], Any]:
        return self._layer(self.torch.nn.LayerNorm(x.shape[1]), x)

    def _layer(self, layer: Any, x: Any) -> Callable[[], Any]:
        def step() -> Any:
            given = x.detach().requires_grad_()
            layer.zero_grad()
            value = layer(given).square().mean()
            value.backward()
            return value

        return step


class TensorflowPeers:
    """What a TensorFlow user writes."""

    def __init__(self, nx: Any) -> None:
        import tensorflow as tf

        self.tf = tf

    def wait(self, x: Any) -> Any:
        return getattr(x, "product", x).numpy() if getattr(x, "shape", ()) == () else x

    def derivative(self, x: Any) -> Any:
        with self.tf.GradientTape() as tape:
            tape.watch(x)
            y = self.tf.sigmoid(x)
        return tape.gradient(y, x)

    def chain(self) -> Any:
        m = self.tf.random.normal((SIZE, SIZE))
        for _ in range(LENGTH - 1):
            m = self.tf.matmul(m, self.tf.random.normal((SIZE, SIZE)))
        return m

    def normal(self, std: float) -> Any:
        return self.tf.random.stateless_normal(WEIGHT, seed=(0, 1), stddev=std)

    def uniform(self, std: float) -> Any:
        bound = math.sqrt(3) * std
        return self.tf.random.stateless_uniform(WEIGHT, (0, 1), -bound, bound)

    def batch_norm(self, x: Any) -> Callable[[], Any]:
        layer = self.tf.keras.layers.BatchNormalization()
        return self._layer(lambda x: layer(x, training=True), layer, x)

    def layer_norm(self, x: Any) -> Callable[[], Any]:
        layer = self.tf.keras.layers.LayerNormalization()
        return self._layer(layer, layer, x)

    def _layer(self, call: Callable[[Any], Any], layer: Any, x: Any) -> Callable[[], Any]:
        call(x)  # makes its variables

        def step() -> Any:
            with self.tf.GradientTape() as tape:
                tape.watch(x)
                value = self.tf.reduce_mean(self.tf.square(call(x)))
            tape.gradient(value, [x, *layer.trainable_variables])
            return self.wait(value)

        return step


class JaxPeers:
    """What a JAX user writes."""

    def __init__(self, nx: Any) -> None:
        import jax

        self.jax = jax
        self.gradient = jax.jit(jax.grad(lambda x: jax.nn.sigmoid(x).sum()))
        self.key = jax.random.key(0)

    def wait(self, x: Any) -> Any:
        return self.jax.block_until_ready(x)

    def derivative(self, x: Any) -> Any:
        return self.wait(self.gradient(x))

    def chain(self) -> Any:
        keys = self.jax.random.split(self.key, LENGTH)
        m = self.jax.random.normal(keys[0], (SIZE, SIZE))
        for key in keys[1:]:
            m = m @ self.jax.random.normal(key, (SIZE, SIZE))
        return m

    def normal(self, std: float) -> Any:
        return self.jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")(
            self.key, WEIGHT, "float32"
        )

    def uniform(self, std: float) -> Any:
        return self.jax.nn.initializers.he_uniform()(self.key, WEIGHT, "float32")

    def batch_norm(self, x: Any) -> Callable[[], Any]:
        from flax import linen

        return self._layer(linen.BatchNorm(use_running_average=False), x)

    def layer_norm(self, x: Any) -> Callable[[], Any]:
        from flax import linen

        return self._layer(linen.LayerNorm(), x)

    def _layer(self, layer: Any, x: Any) -> Callable[[], Any]:
        variables = layer.init(self.key, x)

        def loss(x: Any, parameters: Any) -> Any:
            y, _ = layer.apply({**variables, "params": parameters}, x, mutable=["batch_stats"])
            return self.jax.numpy.square(y).mean()

        step = self.jax.jit(self.jax.value_and_grad(loss, argnums=(0, 1)))
        return lambda: self.wait(step(x, variables["params"]))


class MxnetPeers:
    """What an MXNet user writes."""

    def __init__(self, nx: Any) -> None:
        import mxnet as mx

        self.mx = mx

    def wait(self, x: Any) -> Any:
        self.mx.nd.waitall()
        return x

    def derivative(self, x: Any) -> Any:
        x.attach_grad()
        with self.mx.autograd.record():
            y = self.mx.npx.sigmoid(x)
        y.backward()
        return self.wait(x.grad)

    def chain(self) -> Any:
        m = self.mx.np.random.normal(size=(SIZE, SIZE))
        for _ in range(LENGTH - 1):
            m = self.mx.np.dot(m, self.mx.np.random.normal(size=(SIZE, SIZE)))
        return m

    def normal(self, std: float) -> Any:
        return self.mx.np.random.normal(0, std, size=WEIGHT)

    def uniform(self, std: float) -> Any:
        bound = math.sqrt(3) * std
        return self.mx.np.random.uniform(-bound, bound, size=WEIGHT)

    def batch_norm(self, x: Any) -> Callable[[], Any]:
        return self._layer(self.mx.gluon.nn.BatchNorm(), x)

    def layer_norm(self, x: Any) -> Callable[[], Any]:
        return self._layer(self.mx.gluon.nn.LayerNorm(), x)

    def _layer(self, layer: Any, x: Any) -> Callable[[], Any]:
        layer.initialize()
        x.attach_grad()

        def step() -> Any:
            with self.mx.autograd.record():
                value = self.mx.np.square(layer(x)).mean()
            value.backward()
            return self.wait(value)

        return step


PEERS: dict[str, Callable[[Any], Any]] = {
    "numpy": NumpyPeers,
    "torch": TorchPeers,
    "tensorflow": TensorflowPeers,
    "jax": JaxPeers,
    "mxnet": MxnetPeers,
}

if __name__ == "__main__":
    main()
