"""A pass through a net of any family, unrolled to its linear maps ``z = W r + b``.

The rows r that enter a map are the layer's inputs (fully connected, autoencoder), the patches of
images (convolutional), a step's input beside the state before it (recurrent), tokens (attention),
or what nodes hear (message passing). A float64 reference computes them from the preactivations z
of the backend, with a bound of how far the backend's own may be off: roundings count twice, for in
float64 the reference rounds as much.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws import normalization as norms
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.initializers import Initializer, initializer
from isometry.common.laws.mean_field import ACTIVATIONS, named
from isometry.common.networks.attention import Attention
from isometry.common.networks.autoencoder import TiedAutoencoder
from isometry.common.networks.convolutional import Convolutional
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.message_passing import MessagePassing
from isometry.common.networks.recurrent import CELLS, Recurrent
from isometry.common.statistics.rounding import gamma
from isometry.common.statistics.tolerances import TANH_ULP

__all__ = ["Key", "LinearMap", "Trace", "Unrolled", "lengths", "unroll"]

Valued = tuple[np.ndarray, np.ndarray]
"""Vectors along the last axis, and bounds of ``||error||_2`` of the backend's own, one for each."""


@dataclass(frozen=True)
class Trace:
    """What a backend computed in one pass, as float64.

    Attributes
    ----------
    dtype : str
        In which it did.
    inputs : tuple of array
        What `forward` was given after the parameters.
    parameters, parameter_gradients : mapping of str to array
        As `initialize` names them, and the gradients in them.
    preactivations, gradients : mapping of str to array
        As `forward` names them, and the gradients in them.
    """

    dtype: str
    inputs: tuple[np.ndarray, ...]
    parameters: Mapping[str, np.ndarray]
    parameter_gradients: Mapping[str, np.ndarray]
    preactivations: Mapping[str, np.ndarray]
    gradients: Mapping[str, np.ndarray]

    @property
    def x(self) -> Valued:
        """The input, which is exact."""
        return self.inputs[0], np.zeros(self.inputs[0].shape[:-1])


@dataclass(frozen=True)
class Key:
    """Where the weights of a map are: paths of matrices side by side, and the layer of a stack."""

    paths: tuple[str, ...]
    layer: int | None = None

    def of(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the weights, or what else is named as they are, as a matrix (n_out, n_in)."""
        parts = [
            arrays[path] if self.layer is None else arrays[path][self.layer] for path in self.paths
        ]
        parts = [a.reshape(len(a), -1) for a in parts]
        return np.hstack(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """``z = W r + b``, of every row r of a batch.

    Attributes
    ----------
    key : Key
        Where its weights are: maps of one key share them.
    weight, weight_gradient : array (n_out, n_in)
        W, and the gradient in it, of all maps that share it.
    bias : array (n_out,)
    rows : array (rows, n_in)
        r by the reference, those of one example next to each other.
    errors : array (rows,)
        Bounds of ``||error||_2`` of the backend's own r.
    outputs, gradients : array (rows, n_out)
        The backend's z, and the gradient in it.
    laws : tuple of (law, int)
        Of the weights, as rules resolve, and of how many columns each.
    gates : int
        Blocks of rows of W that were drawn by themselves.
    transposed : bool
        Whether W is the transpose of what was drawn.
    """

    key: Key
    weight: np.ndarray
    weight_gradient: np.ndarray
    bias: np.ndarray
    rows: np.ndarray
    errors: np.ndarray
    outputs: np.ndarray
    gradients: np.ndarray
    laws: tuple[tuple[Any, int], ...]
    gates: int = 1
    transposed: bool = False


@dataclass(frozen=True)
class Unrolled:
    """A pass, layer by layer.

    Attributes
    ----------
    signals : list of array (examples, ...)
        h_0, the input, to h_L, the output of the last layer.
    slopes : list of array (examples, ...)
        Of each activation, its derivative as a share of the largest that it can have.
    layers : list of tuple of LinearMap
        The maps of each layer, of which the last gives its preactivation.
    """

    signals: list[np.ndarray]
    slopes: list[np.ndarray]
    layers: list[tuple[LinearMap, ...]]

    @functools.cached_property
    def uses(self) -> dict[Key, list[LinearMap]]:
        """The maps that share weights, by where these are, as the signal meets them."""
        found: dict[Key, list[LinearMap]] = {}
        for m in self.maps:
            found.setdefault(m.key, []).append(m)
        return found

    @functools.cached_property
    def maps(self) -> list[LinearMap]:
        """The maps of all layers, as the signal meets them."""
        return [m for layer in self.layers for m in layer]


@functools.singledispatch
def unroll(network: Any, trace: Trace) -> Unrolled:
    """Return the linear maps of a pass, and the signals and slopes between them.

    Scales and shifts of normalizations are taken to be 1 and 0, as they begin.

    Raises
    ------
    InvalidArgument
        If the network is of another family than those imported here, has shortcuts other than
        residual and dense ones, or an activation of which no reference is known.
    """
    raise InvalidArgument(
        f"a pass can be unrolled through the families {', '.join(_FAMILIES)}; "
        f"received {type(network).__name__}"
    )


@unroll.register
def _(network: FullyConnected, trace: Trace) -> Unrolled:
    if network.shortcut not in (None, "residual", "dense"):
        raise InvalidArgument(
            "a pass can be unrolled through nets with residual, dense or no shortcuts; received "
            f"{network.shortcut!r}"
        )
    h = trace.x
    found = Unrolled([h[0]], [], [])
    for stack in network.stacks:
        law = _law(network.initializer, (stack.n_out, stack.n_in))
        for k in range(stack.count):
            key, bias = Key((f"{stack.name}/weight",), k), _layer(trace, f"{stack.name}/bias", k)
            m = _map(trace, stack.name, k, key, bias, h, law)
            found.layers.append((m,))
            if stack.hidden:
                u, y = _activated(network, m.outputs, trace)
                h = _passed(network, h, y, trace)
                found.slopes.append(_slope(network.activation, u))
            found.signals.append(h[0] if stack.hidden else m.outputs)
    return found


@unroll.register
def _(network: Convolutional, trace: Trace) -> Unrolled:
    x = trace.inputs[0]
    found = Unrolled([x], [], [])
    h = x.transpose(0, 2, 3, 1), np.zeros((len(x), *x.shape[2:]))  # channels last
    for stack in network.stacks:
        shape = (stack.n_out, stack.n_in, network.kernel, network.kernel)
        law = _law(network.initializer, shape)
        for k in range(stack.count):
            key, bias = Key((f"{stack.name}/weight",), k), _layer(trace, f"{stack.name}/bias", k)
            seen = _patches(network, h)
            found.layers.append((_map(trace, stack.name, k, key, bias, seen, law),))
            z = trace.preactivations[stack.name][k].transpose(0, 2, 3, 1)
            h = _phi(network.activation, z, trace)
            found.signals.append(h[0].transpose(0, 3, 1, 2))
            found.slopes.append(_slope(network.activation, z))
    key = Key(("readout/weight",))
    law = _law(network.readout, key.of(trace.parameters).shape)
    bias = trace.parameters.get("readout/bias")
    flat = found.signals[-1].reshape(len(x), -1), np.linalg.norm(h[1].reshape(len(x), -1), axis=1)
    found.layers.append((_map(trace, "readout", 0, key, bias, flat, law),))
    found.signals.append(trace.preactivations["readout"][0])
    return found


@unroll.register
def _(network: Recurrent, trace: Trace) -> Unrolled:
    x, gates, units = trace.inputs[0], CELLS[network.cell], network.units
    key, bias = Key(("input", "recurrent")), trace.parameters.get("bias")
    laws = (
        *_law(network.input_initializer, (units, network.inputs)),
        *_law(network.recurrent_initializer, (units, units)),
    )
    zeros = np.zeros((x.shape[1], units)), np.zeros(x.shape[1])
    h, c = zeros, zeros
    found = Unrolled([x.swapaxes(0, 1)], [], [])
    for t, z in enumerate(trace.preactivations["steps"]):
        rows = np.hstack([x[t], h[0]]), h[1]
        m = _map(trace, "steps", t, key, bias, rows, laws, gates=gates)
        found.layers.append((m,))
        if network.cell == "plain":
            h = _phi(network.activation, z, trace)
            found.slopes.append(_slope(network.activation, z))
        else:
            h, c = _lstm(z, c, trace)
            names = ("sigmoid", "sigmoid", "tanh", "sigmoid")
            parts = zip(names, np.split(z, 4, axis=1), strict=True)
            found.slopes.append(np.hstack([_slope(name, part) for name, part in parts]))
        found.signals.append(h[0])
    return found


@unroll.register
def _(network: Attention, trace: Trace) -> Unrolled:
    h, d = trace.x, network.size
    rows = 3 * d if network.fused else d
    laws = {
        "projection": _law(network.initializer, (rows, network.features)),
        "output": _law(network.initializer, (network.features, d)),
    }
    found = Unrolled([h[0]], [], [])
    for k in range(network.depth):
        heard = _normalized("layer", h, trace) if network.layer_norm == "before" else h
        z = trace.preactivations["projection"][k]
        weighted, mixed = _mixed(z, d, trace)
        gates = {"projection": 1 if network.fused else 3, "output": 1}
        found.layers.append(
            tuple(
                _map(trace, name, k, Key((name,), k), None, r, laws[name], gates=gates[name])
                for name, r in zip(laws, (heard, mixed), strict=True)
            )
        )
        y = trace.preactivations["output"][k]
        branch = y, np.zeros(y.shape[:-1])
        h = _sum(h, branch, trace) if network.residual else branch
        if network.layer_norm == "after":
            h = _normalized("layer", h, trace)
        found.signals.append(h[0])
        found.slopes.append(4 * weighted * (1 - weighted))
    return found


@unroll.register
def _(network: TiedAutoencoder, trace: Trace) -> Unrolled:
    h = trace.x
    found = Unrolled([h[0]], [], [])
    for way, stacks in (("encoder", network.stacks), ("decoder", network.stacks[::-1])):
        back = way == "decoder"
        for stack in stacks:
            ((law, _),) = _law(network.initializer, (stack.n_out, stack.n_in))
            laws = ((law, stack.n_out if back else stack.n_in),)
            for k in range(stack.count):
                own = stack.count - 1 - k if back else k
                key = Key((f"{stack.name}/weight",), own)
                bias = _layer(trace, f"{stack.name}/{way}_bias", own)
                m = _map(trace, f"{stack.name}/{way}", k, key, bias, h, laws, transposed=back)
                found.layers.append((m,))
                if back and not stack.hidden:
                    found.signals.append(m.outputs)
                else:
                    h = _phi(network.activation, m.outputs, trace)
                    found.signals.append(h[0])
                    found.slopes.append(_slope(network.activation, m.outputs))
    return found


@unroll.register
def _(network: MessagePassing, trace: Trace) -> Unrolled:
    h, mixing = trace.x, trace.inputs[1]
    law = _law(network.initializer, (network.features, network.features))
    found = Unrolled([h[0]], [], [])
    for k in range(network.depth):
        rounded = gamma(2 * len(mixing), trace.dtype) * lengths(np.abs(mixing) @ np.abs(h[0]))
        heard = mixing @ h[0], rounded + np.abs(mixing) @ h[1]
        m = _map(trace, "layers", k, Key(("weight",), k), None, heard, law)
        found.layers.append((m,))
        h = _phi(network.activation, m.outputs, trace)
        found.signals.append(h[0])
        found.slopes.append(_slope(network.activation, m.outputs))
    return found


_FAMILIES = sorted(f.__name__ for f in unroll.registry if f is not object)


# --- parts ---------------------------------------------------------------------------------------


def _law(rule: str | Initializer, shape: tuple[int, ...]) -> tuple[tuple[Any, int], ...]:
    return ((initializer(rule).resolve(shape, "out_in"), int(np.prod(shape[1:]))),)


def _layer(trace: Trace, path: str, layer: int) -> np.ndarray | None:
    """Return the parameter of a layer of a stack, if the network has it."""
    return trace.parameters[path][layer] if path in trace.parameters else None


def _map(
    trace: Trace,
    name: str,
    layer: int,
    key: Key,
    bias: np.ndarray | None,
    rows: Valued,
    laws: tuple[tuple[Any, int], ...],
    *,
    gates: int = 1,
    transposed: bool = False,
) -> LinearMap:
    """Return a map whose z is `layer` of the preactivations `name`; images get channels last."""
    weight, gradient = (
        key.of(a).T if transposed else key.of(a)
        for a in (trace.parameters, trace.parameter_gradients)
    )
    z, g = (
        (a[layer].transpose(0, 2, 3, 1) if a[layer].ndim == 4 else a[layer]).reshape(
            -1, len(weight)
        )
        for a in (trace.preactivations[name], trace.gradients[name])
    )
    r, errors = rows[0].reshape(-1, weight.shape[1]), rows[1].reshape(-1)
    bias = np.zeros(len(weight)) if bias is None else bias
    return LinearMap(key, weight, gradient, bias, r, errors, z, g, laws, gates, transposed)


def lengths(a: np.ndarray) -> np.ndarray:
    """Return the norms of vectors along the last axis; their squares need not be numbers."""
    peak = np.abs(a).max(axis=-1, keepdims=True)
    peak = np.where(peak > 0, peak, 1.0)
    return np.asarray(peak[..., 0] * np.linalg.norm(a / peak, axis=-1))


def _phi(name: Any, z: np.ndarray, trace: Trace) -> Valued:
    y = named(name).value(z)
    return y, 2 * TANH_ULP[trace.dtype] * FORMATS[trace.dtype].eps * lengths(y)


def _slope(name: Any, u: np.ndarray) -> np.ndarray:
    slope = named(name).slope
    return np.asarray(slope(u) / slope(np.linspace(-1, 1, 3)).max())


def _sum(a: Valued, b: Valued, trace: Trace) -> Valued:
    y = a[0] + b[0]
    return y, a[1] + b[1] + FORMATS[trace.dtype].eps * lengths(y)


def _normalized(kind: str, value: Valued, trace: Trace, *, relative: float = 0.0) -> Valued:
    """Return a normalization with scale 1 and shift 0.

    It may be off by the contract's bound, and by the error of what it is given: its Jacobian is a
    projection over ``sqrt(v + eps)``, v along the way being at least ``(sqrt(v) - ||e|| /
    sqrt(n))**2``. Of a batch, what it is given is off by at most `relative` in each entry.
    """
    z, error = value
    n = z.shape[-1]
    ones, zeros = np.ones(n), np.zeros(n)
    if kind == "batch":
        y = norms.batch_norm(z, ones, zeros, zeros, ones, training=True)[0]
        spread = np.sqrt(z.var(axis=0) + 1e-5)
        given = np.full(len(z), 2 * relative * np.linalg.norm(z / spread))
    else:
        rms = kind == "rms"
        y = norms.rms_norm(z, ones) if rms else norms.layer_norm(z, ones, zeros)
        spread = np.sqrt(np.mean(z * z, axis=-1)) if rms else z.std(axis=-1)
        least = np.maximum(spread - error / n**0.5, 0)
        given = error / np.sqrt(least**2 + (1e-6 if rms else 1e-5))
    bound = norms.normalization_bound(trace.dtype) * lengths(np.maximum(1, np.abs(y)))
    return y, bound + given


def _activated(network: FullyConnected, z: np.ndarray, trace: Trace) -> tuple[np.ndarray, Valued]:
    """Return what phi is given, and what the layer gives before its shortcut."""
    kind = network.normalization
    if kind is None:
        return z, _phi(network.activation, z, trace)
    if network.place == "activation":
        relative = 2 * TANH_ULP[trace.dtype] * FORMATS[trace.dtype].eps
        given = _phi(network.activation, z, trace)
        return z, _normalized(kind, given, trace, relative=relative)
    u, error = _normalized(kind, (z, np.zeros(len(z))), trace)
    y, own = _phi(network.activation, u, trace)
    return u, (y, own + error)


def _passed(network: FullyConnected, h: Valued, y: Valued, trace: Trace) -> Valued:
    if network.shortcut == "dense":
        return np.hstack([h[0], y[0]]), np.hypot(h[1], y[1])
    if network.shortcut == "residual" and h[0].shape == y[0].shape:
        return _sum(h, y, trace)
    return y


def _patches(network: Convolutional, h: Valued) -> Valued:
    """Return what each place of each image sees (images, rows, columns, channels k k)."""
    k, margin = network.kernel, network.kernel // 2
    mode: Any = "wrap" if network.padding == "circular" else "constant"

    def windows(a: np.ndarray) -> np.ndarray:
        """Return (images, rows, columns, ..., k, k) of (images, rows, columns, ...)."""
        edges = [(0, 0), (margin, margin), (margin, margin), *[(0, 0)] * (a.ndim - 3)]
        return np.lib.stride_tricks.sliding_window_view(np.pad(a, edges, mode), (k, k), (1, 2))

    seen = windows(h[0])
    errors = np.sqrt(np.square(windows(h[1])).sum(axis=(-1, -2)))
    return seen.reshape(*seen.shape[:3], -1), errors


def _lstm(z: np.ndarray, c: Valued, trace: Trace) -> tuple[Valued, Valued]:
    """Return h and c; each of their few operations adds its rounding, tanh stretches nothing."""
    sigmoid, tanh = ACTIVATIONS["sigmoid"].value, ACTIVATIONS["tanh"].value
    i, f, g, o = np.split(z, 4, axis=1)
    kept, added = sigmoid(f) * c[0], sigmoid(i) * tanh(g)
    rounding = 2 * (2 * TANH_ULP[trace.dtype] + 3) * FORMATS[trace.dtype].eps
    error = sigmoid(f).max(axis=-1) * c[1] + rounding * lengths(np.abs(kept) + np.abs(added))
    h = sigmoid(o) * tanh(kept + added)
    return (h, sigmoid(o).max(axis=-1) * error + rounding * lengths(h)), (kept + added, error)


def _mixed(z: np.ndarray, d: int, trace: Trace) -> tuple[np.ndarray, Valued]:
    """Return the weights of attention, and the values that they mix.

    A score is off by at most gamma_(2d+8) |q| |k| / sqrt(d), and the share of two weights of a row
    by the exponential of twice the largest such error; no mixture leaves the values' hull.
    """
    q, k, v = (z[..., part * d : (part + 1) * d] for part in range(3))
    scores = q @ k.swapaxes(1, 2) / d**0.5
    sizes = np.abs(q) @ np.abs(k).swapaxes(1, 2) / d**0.5
    off = gamma(2 * d + 8, trace.dtype) * sizes.max(axis=-1)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = e / e.sum(axis=-1, keepdims=True)
    roundings = gamma(4 * z.shape[1] + 8 * int(TANH_ULP[trace.dtype]), trace.dtype)
    share = np.expm1(np.minimum(2 * off, 50.0)) + roundings
    hull = 2 * lengths(v).max(axis=-1, keepdims=True)
    return weights, (weights @ v, np.minimum(share * lengths(weights @ np.abs(v)), hull))
