"""Deep nets against the same nets by hand: a stack of layers, its cost by depth, its curvature.

On Linux set MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ to 8000000000, so that memory stays
with the process: the C library gives back what a step took, of one of the two more than of the
other as it happens, and mapping its pages anew takes up to a fifth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from timing import ratio, seconds, show

from isometry.common.laws.orthogonal import Orthogonal
from isometry.common.networks.fully_connected import FullyConnected

LAYERS, WIDTH, BATCH = 1000, 128, 128  # the batch of ten-thousand-layers
DEPTHS = (250, 500, 1000, 2000)
CURVED = (64, *[128] * 8, 10)  # the net whose Hessian is multiplied by
Step = Callable[[], Any]


def depth(nx: Any, rounds: int) -> None:
    """Show all figures of one backend."""
    stack(nx, rounds)
    by_depth(nx, rounds)
    if nx.name == "torch":  # PyHessian's framework
        hessian(nx, 10 * rounds)


TANH = {
    "exact tanh'": "tanh",
    "its own tanh'": lambda nx, z: nx.ops.tanh(z),  # what is compared with: 1 - tanh**2
}


def ours(nx: Any, layers: int, tanh: Any) -> tuple[Step, dict[str, Any], Any]:
    """Return forward and backward of a mean square, the weights and the input.

    A step returns the loss, and the gradient in the first weight, as NumPy arrays.
    """
    network = FullyConnected((WIDTH,) * (layers + 1), tanh, Orthogonal())
    stream = nx.stream(0)
    parameters, x = network.initialize(nx, stream), stream.normal((BATCH, WIDTH))

    def loss(parameters: Any, x: Any) -> Any:
        return nx.ops.mean(nx.ops.square(network.output(nx, parameters, x)))

    step = nx.value_and_gradient(nx.compile(loss))

    def run() -> Any:
        value, gradient = step(parameters, x)
        return nx.to_numpy(value), nx.to_numpy(gradient["stack0/weight"][0])

    return run, parameters, x


def stack(nx: Any, rounds: int) -> None:
    runs = {how: ours(nx, LAYERS, tanh) for how, tanh in TANH.items()}
    _, parameters, x = runs["exact tanh'"]
    weights = np.concatenate([nx.to_numpy(parameters[f"stack{k}/weight"]) for k in (0, 1)])
    for way, by_hand in BY_HAND[nx.name].items():
        peer = by_hand(weights, nx.to_numpy(x))
        value, gradient = peer()
        for how, (run, _, _) in runs.items():
            found, first = run()
            np.testing.assert_allclose(found, value, rtol=1e-3)  # 2000 layers of float32 roundings
            assert np.abs(first - gradient).max() <= 1e-2 * np.abs(gradient).max()
            what = f"{nx.name}: {LAYERS} layers forward+backward, {how} / {way}"
            show(what, ratio(run, peer, rounds), "at most 1.3")


def by_depth(nx: Any, rounds: int) -> None:
    """Fit a power of depth to the time, round by round: the median, and its interval of 95 %."""
    runs = [ours(nx, layers, "tanh")[0] for layers in DEPTHS]
    for run in runs:
        run()
    logs = np.log(DEPTHS)
    slopes = sorted(
        np.polyfit(logs, np.log([seconds(run) for run in runs]), 1)[0] for _ in range(rounds)
    )
    skip = below_median(rounds)
    what = f"{nx.name}: time as a power of depth, {DEPTHS[0]} to {DEPTHS[-1]}"
    show(
        f"{what}, {slopes[skip]:.2f} to {slopes[-1 - skip]:.2f}",
        float(np.median(slopes)),
        "about 1",
    )


def below_median(rounds: int) -> int:
    """Return how many of the lowest and highest values an interval of the median may leave out.

    Of independent values, by the binomial distribution: it is missed in at most 5 % of cases.
    """
    left_out = 0
    while sum(math.comb(rounds, j) for j in range(left_out + 2)) <= 0.025 * 2**rounds:
        left_out += 1
    return left_out


# --- the stack by hand ---------------------------------------------------------------------------


def numpy_by_hand(weights: np.ndarray, x: np.ndarray) -> Step:
    """Loops, with the signals kept and 1 - h**2 for tanh'."""

    def step() -> Any:
        signals = [x]
        for W in weights[:-1]:
            signals.append(np.tanh(signals[-1] @ W.T))
        y = signals[-1] @ weights[-1].T
        gradient = np.empty_like(weights)
        g = 2 / y.size * y
        for k in reversed(range(len(weights))):
            np.matmul(g.T, signals[k], out=gradient[k])
            if k:
                g = (g @ weights[k]) * (1 - signals[k] * signals[k])
        return np.mean(y * y), gradient[0]

    return step


def numpy_autograd(weights: np.ndarray, x: np.ndarray) -> Step:
    """The package autograd, an array for each layer."""
    import autograd.numpy as anp
    from autograd import value_and_grad

    def loss(layers: list[Any]) -> Any:
        h = x
        for W in layers[:-1]:
            h = anp.tanh(anp.dot(h, W.T))
        y = anp.dot(h, layers[-1].T)
        return anp.sum(y * y) / y.size

    def step() -> Any:
        value, gradient = value_and_grad(loss)(list(weights))
        return value, gradient[0]

    return step


def torch_stacked(weights: np.ndarray, x: np.ndarray) -> Step:
    """One parameter for all layers."""
    import torch

    stacked, given = torch.tensor(weights, requires_grad=True), torch.tensor(x)

    def step() -> Any:
        h, (*hidden, last) = given, stacked.unbind()
        for W in hidden:
            h = torch.tanh(h @ W.T)
        loss = (h @ last.T).square().mean()
        (gradient,) = torch.autograd.grad(loss, stacked)
        return loss.detach().numpy(), gradient[0].numpy()

    return step


def torch_layers(weights: np.ndarray, x: np.ndarray) -> Step:
    """One parameter for each layer."""
    import torch

    leaves = [torch.tensor(W, requires_grad=True) for W in weights]
    given = torch.tensor(x)

    def step() -> Any:
        h = given
        for W in leaves[:-1]:
            h = torch.tanh(h @ W.T)
        loss = (h @ leaves[-1].T).square().mean()
        gradients = torch.autograd.grad(loss, leaves)
        return loss.detach().numpy(), gradients[0].numpy()

    return step


def tensorflow_layers(weights: np.ndarray, x: np.ndarray) -> Step:
    """One variable for each layer, written out in one graph."""
    import tensorflow as tf

    variables, given = [tf.Variable(W) for W in weights], tf.constant(x)

    @tf.function
    def graph(x: Any) -> Any:
        with tf.GradientTape() as tape:
            h = x
            for W in variables[:-1]:
                h = tf.tanh(tf.matmul(h, W, transpose_b=True))
            loss = tf.reduce_mean(tf.square(tf.matmul(h, variables[-1], transpose_b=True)))
        return loss, tape.gradient(loss, variables)

    def step() -> Any:
        loss, gradients = graph(given)
        return loss.numpy(), gradients[0].numpy()

    return step


def tensorflow_scan(weights: np.ndarray, x: np.ndarray) -> Step:
    """One variable for all layers, and TensorFlow's own fold, of the last state alone."""
    import tensorflow as tf

    hidden, last, given = tf.Variable(weights[:-1]), tf.Variable(weights[-1]), tf.constant(x)

    @tf.function
    def graph(x: Any) -> Any:
        with tf.GradientTape() as tape:
            h = tf.foldl(lambda h, W: tf.tanh(tf.matmul(h, W, transpose_b=True)), hidden, x)
            loss = tf.reduce_mean(tf.square(tf.matmul(h, last, transpose_b=True)))
        return loss, tape.gradient(loss, [hidden, last])

    def step() -> Any:
        loss, gradients = graph(given)
        return loss.numpy(), tf.convert_to_tensor(gradients[0])[0].numpy()

    return step


def jax_scan(weights: np.ndarray, x: np.ndarray) -> Step:
    import jax
    import jax.numpy as jnp

    stacked, last, given = jnp.asarray(weights[:-1]), jnp.asarray(weights[-1]), jnp.asarray(x)

    @jax.jit
    @jax.value_and_grad
    def loss(parameters: Any, x: Any) -> Any:
        stacked, last = parameters
        h, _ = jax.lax.scan(lambda h, W: (jnp.tanh(h @ W.T), None), x, stacked)
        return jnp.mean(jnp.square(h @ last.T))

    def step() -> Any:
        value, (gradient, _) = loss((stacked, last), given)
        return np.asarray(value), np.asarray(gradient[0])

    return step


def mxnet_foreach(weights: np.ndarray, x: np.ndarray) -> Step:
    """One parameter for all layers, and MXNet's own loop in a graph."""
    import mxnet as mx

    class Stack(mx.gluon.HybridBlock):
        def hybrid_forward(self, F: Any, x: Any, hidden: Any, last: Any) -> Any:
            def layer(W: Any, h: Any) -> Any:
                h = F.Activation(F.dot(h, W, transpose_b=True), act_type="tanh")  # F.tanh is slower
                return h.slice_axis(axis=0, begin=0, end=1), h  # what is returned is stacked

            _, h = F.contrib.foreach(layer, hidden, x)
            return F.dot(h, last, transpose_b=True)

    net = Stack()
    net.hybridize()
    hidden, last, given = (mx.nd.array(a) for a in (weights[:-1], weights[-1], x))
    hidden.attach_grad()
    last.attach_grad()

    def step() -> Any:
        with mx.autograd.record():
            loss = mx.nd.square(net(given, hidden, last)).mean()
        loss.backward()
        return loss.asnumpy(), hidden.grad[0].asnumpy()

    return step


def mxnet_layers(weights: np.ndarray, x: np.ndarray) -> Step:
    """One Dense layer after the other, hybridized."""
    import mxnet as mx

    net = mx.gluon.nn.HybridSequential()
    for k, W in enumerate(weights):
        activation = "tanh" if k < len(weights) - 1 else None
        net.add(mx.gluon.nn.Dense(len(W), activation, use_bias=False, in_units=W.shape[1]))
    net.initialize()
    for layer, W in zip(net, weights, strict=True):
        layer.weight.set_data(mx.nd.array(W))
    net.hybridize(static_alloc=True, static_shape=True)
    given = mx.nd.array(x)

    def step() -> Any:
        with mx.autograd.record():
            loss = mx.nd.square(net(given)).mean()
        loss.backward()
        return loss.asnumpy(), net[0].weight.grad().asnumpy()

    return step


BY_HAND: dict[str, dict[str, Callable[[np.ndarray, np.ndarray], Step]]] = {
    # with one array for all layers, as ours; and, where it is faster, with one for each
    "numpy": {"by hand": numpy_by_hand, "autograd": numpy_autograd},
    "torch": {"one parameter": torch_stacked, "one each": torch_layers},
    "tensorflow": {"foldl": tensorflow_scan, "written out": tensorflow_layers},
    "jax": {"lax.scan": jax_scan},
    "mxnet": {"foreach": mxnet_foreach, "HybridSequential": mxnet_layers},
}

# --- curvature -----------------------------------------------------------------------------------


def hessian(nx: Any, rounds: int) -> None:
    """Products with the Hessian of a mean square, against the package PyHessian (0.1).

    On one batch PyHessian keeps the graph of the gradient, as we do of all data; on a data loader
    it goes forward and backward for each vector again. The nets are ours, with tanh' exact or
    PyTorch's own, and one of PyTorch's layers: each against PyHessian on itself, and ours, too,
    against it on PyTorch's layers, whose second derivative of tanh is fused.
    """
    import pyhessian
    import torch
    from pyhessian.utils import hessian_vector_product

    stream = nx.stream(0)
    weights = FullyConnected(CURVED, "tanh", Orthogonal()).initialize(nx, stream)
    x, y = stream.normal((BATCH, CURVED[0])), stream.normal((BATCH, CURVED[-1]))
    vector = {path: stream.normal(nx.shape_of(a)) for path, a in weights.items()}

    class Net(torch.nn.Module):
        """One of our nets."""

        def __init__(self, tanh: Any) -> None:
            super().__init__()
            self.network = FullyConnected(CURVED, tanh)
            self.weights = torch.nn.ParameterList([a.clone() for a in weights.values()])

        def forward(self, x: Any) -> Any:
            return self.network.output(nx, dict(zip(weights, self.weights, strict=True)), x)

    layers: list[Any] = []
    for W in (W for stacked in weights.values() for W in stacked):
        layers += [torch.nn.Linear(W.shape[1], W.shape[0], bias=False), torch.nn.Tanh()]
        layers[-2].weight.data = W.clone()
    stacked = list(vector.values())
    torchs = "torch.nn", torch.nn.Sequential(*layers[:-1]), [rows for a in stacked for rows in a]
    for ours in (*((f"our net, {how}", Net(tanh), stacked) for how, tanh in TANH.items()), torchs):
        product, right = product_on(nx, *ours[1:], x, y)
        for peer, net, v in (ours,) if ours is torchs else (ours, torchs):
            kept, anew = (
                pyhessian.hessian(net, torch.nn.MSELoss(), cuda=False, **data)
                for data in ({"data": (x, y)}, {"dataloader": [(x, y)]})
            )
            for way, theirs in (
                ("one batch", partial(hessian_vector_product, kept.gradsH, kept.params, v)),
                ("data loader", lambda peer=anew, v=v: peer.dataloader_hv_product(v)[1]),
            ):
                found = torch.cat([a.reshape(-1) for a in theirs()])
                torch.testing.assert_close(right, found, rtol=1e-3, atol=1e-5)
                on = "the same" if net is ours[1] else peer
                what = f"torch: Hessian times vector, {ours[0]} / PyHessian on {on}, {way}"
                show(what, ratio(product, theirs, rounds), "at most 1")


def product_on(nx: Any, net: Any, vectors: list[Any], x: Any, y: Any) -> tuple[Step, Any]:
    """Return our product with the Hessian of a PyTorch module's mean square, and it, flat."""
    import torch

    named = {path: p.detach() for path, p in net.named_parameters()}

    def loss(parameters: Any) -> Any:
        return nx.ops.mean(nx.ops.square(torch.func.functional_call(net, parameters, (x,)) - y))

    product = partial(nx.hessian(loss, named), dict(zip(named, vectors, strict=True)))
    return product, torch.cat([a.reshape(-1) for a in product().values()])
