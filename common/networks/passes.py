"""Passes through a network of any family, layer by layer, in NumPy.

`Runner` runs nets of one description on a backend; what it compiles, it compiles once. What it
finds in a pass is unrolled by :mod:`isometry.common.networks.unrolled`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws import perceptron
from isometry.common.laws.formats import FORMATS
from isometry.common.networks.attention import Attention
from isometry.common.networks.unrolled import Trace, Unrolled, unroll
from isometry.common.optimizers.norms import global_norm
from isometry.common.optimizers.rules import SGD

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["Runner"]

Array = Any
Arrays = dict[str, Array]
PLACES = ("offset", "nudge")


class Runner:
    """Runs nets of one description on one batch.

    Parameters
    ----------
    nx : Backend
    network : object
        Of a family that `unroll` takes.
    x : array (examples, n_0), or tuple of arrays
        What `forward` of the network takes after the parameters.
    dtype : {"float32", "float64"}
        Of x and the parameters.
    criterion : callable
        What `train` descends: ``criterion(nx, output, targets)``; the cross-entropy by default.
    """

    def __init__(
        self,
        nx: Backend,
        network: Any,
        x: Array | tuple[Array, ...],
        dtype: str,
        criterion: Callable[[Backend, Array, Array], Array] = perceptron.cross_entropy,
    ) -> None:
        self.nx, self.network, self.dtype = nx, network, dtype
        self.inputs = x if isinstance(x, tuple) else (x,)
        self._shapes: tuple[tuple[int, ...], ...] = ()

        def forward(parameters: Arrays, *inputs: Array) -> tuple[Array, ...]:
            output, trace = network.forward(nx, parameters, *inputs)
            return output, *(trace[name] for name in network.traced)

        def functional(moved: Arrays, fixed: Arrays, v: Array, *inputs: Array) -> Array:
            parameters, extras = _split({**fixed, **moved})
            return nx.ops.sum(network.output(nx, parameters, *inputs, extras) * v)

        def loss(parameters: Arrays, targets: Array, *inputs: Array) -> Array:
            return criterion(nx, network.output(nx, parameters, *inputs), targets)

        self.forward = nx.compile(forward)
        self.functional = nx.value_and_gradient(nx.compile(functional))
        self.loss = nx.value_and_gradient(nx.compile(loss))

    def propagate(self, parameters: Arrays, stream: Stream) -> Unrolled:
        """Run forward, and backward from a functional of the output with entries v ~ N(0, 1).

        Raises
        ------
        InvalidArgument
            If a layer overflows: it says which, and the dtype.
        """
        preactivations = self._forward(parameters)
        found, offsets = _split(self._differentiated(parameters, {}, stream, "offset"))
        inputs = tuple(self.nx.to_numpy(a).astype(np.float64) for a in self.inputs)
        gradients = {name: offsets[f"{name}/offset"] for name in preactivations}
        trace = Trace(
            self.dtype, inputs, self._float64(parameters), found, preactivations, gradients
        )
        unrolled = unroll(self.network, trace)
        of_weights = [
            np.concatenate([m.weight_gradient.ravel() for m in layer]) for layer in unrolled.layers
        ]
        self._refuse_overflow(of_weights, "gradients in weights")
        return unrolled

    def preactivations(self, parameters: Arrays) -> list[np.ndarray]:
        """Return z_1 .. z_L (examples, n_l). Raises as `propagate`."""
        return _layers(self._forward(parameters))

    def gradients(self, parameters: Arrays, stream: Stream, place: str) -> list[np.ndarray]:
        """Return the gradients in z_1 .. z_L, "offset", or in h_1 .. h_{L-1}, "nudge".

        The latter of fully connected nets. They are those of the functional of `propagate`; the
        weights' are not computed.
        """
        return _layers(self._differentiated({}, parameters, stream, place))

    def _forward(self, parameters: Arrays) -> dict[str, np.ndarray]:
        output, *z = self.forward(parameters, *self.inputs)
        self._shapes = tuple(map(self.nx.shape_of, (output, *z)))
        found = self._float64(dict(zip(self.network.traced, z, strict=True)))
        self._refuse_overflow(self._numbered(found), "preactivations")
        return found

    def _differentiated(
        self, moved: Arrays, fixed: Arrays, stream: Stream, place: str
    ) -> dict[str, np.ndarray]:
        """Return the functional's gradient in `moved`, and in zeros at a place of each layer."""
        if not self._shapes:
            self._forward({**fixed, **moved})
        output, *z = self._shapes
        hidden = [s.name for s in self.network.stacks if s.hidden] if place == "nudge" else None
        extras = {
            f"{name}/{place}": self.nx.ops.zeros(shape, dtype=self.dtype)
            for name, shape in zip(self.network.traced, z, strict=True)
            if hidden is None or name in hidden
        }
        v = stream.normal(output, dtype=self.dtype)
        _, gradient = self.functional({**moved, **extras}, fixed, v, *self.inputs)
        found = self._float64({path: gradient[path] for path in (*moved, *extras)})
        self._refuse_overflow(self._numbered({path: found[path] for path in extras}), "gradients")
        return found

    def train(
        self, parameters: Arrays, start: Unrolled, targets: Array, steps: int, rate: float
    ) -> np.ndarray:
        """Return ``||W_l - W_l(0)|| / ||W_l(0)||`` after steps of normalized descent, by layer.

        Each step goes against the gradient of the criterion, by `rate` times the norm that all
        parameters have at the start; `start` is a pass of them. Where ||W_l(0)|| is 0, the distance
        is not divided. Raises as `propagate`, and where a gradient overflows.
        """

        def size(arrays: Arrays) -> float:
            return float(self.nx.to_numpy(global_norm(self.nx, arrays.values())))

        def by_layer(arrays: Arrays) -> list[np.ndarray]:
            found = self._float64(arrays)
            return [
                np.concatenate([m.key.of(found).ravel() for m in layer]) for layer in start.layers
            ]

        rule, before = SGD(rate=rate * size(parameters)), by_layer(parameters)
        for k in range(1, steps + 1):
            of = f"at step {k} of {steps}, each of {rate:g} of the parameters' norm,"
            _, gradient = self.loss(parameters, targets, *self.inputs)
            steep = size(gradient)
            if not math.isfinite(steep):
                self._refuse_overflow(by_layer(gradient), f"gradients in weights {of}")
                raise self._overflow(f"norms of gradients {of}", "")
            if steep > 0:
                direction = {path: g / steep for path, g in gradient.items()}
                parameters, _ = rule.advance(self.nx, parameters, direction, {})
        after = by_layer(parameters)
        self._refuse_overflow(after, f"weights after {steps} steps of {rate:g} of their norm")
        return np.array(
            [
                np.linalg.norm(b - a) / (np.linalg.norm(a) or 1.0)
                for a, b in zip(before, after, strict=True)
            ]
        )

    def _float64(self, arrays: Arrays) -> dict[str, np.ndarray]:
        return {path: self.nx.to_numpy(a).astype(np.float64) for path, a in arrays.items()}

    def _refuse_overflow(self, layers: Sequence[np.ndarray], what: str) -> None:
        bad = [layer for layer, a in enumerate(layers, 1) if not np.isfinite(a).all()]
        if bad:
            # gradients come from the last layer
            first = bad[-1] if what.startswith("gradients") else bad[0]
            raise self._overflow(what, f" at layer {first} of {len(layers)}")

    def _overflow(self, what: str, where: str) -> InvalidArgument:
        return InvalidArgument(
            f"{what} overflow {self.dtype}{where}, beyond {FORMATS[self.dtype].largest:.3g}; take "
            "weights or steps of smaller scale, fewer layers, a normalization, or float64"
        )

    def _numbered(self, stacks: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return what belongs to each layer; a block of attention has several."""
        if isinstance(self.network, Attention):
            every = zip(*stacks.values(), strict=True)
            return [np.concatenate([a.ravel() for a in parts]) for parts in every]
        return _layers(stacks)


def _split(arrays: Mapping[str, Array]) -> tuple[Arrays, Arrays]:
    """Return parameters, and extras."""
    extras = {path: a for path, a in arrays.items() if path.split("/")[-1] in PLACES}
    return {path: a for path, a in arrays.items() if path not in extras}, extras


def _layers(stacks: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [a for stack in stacks.values() for a in stack]
