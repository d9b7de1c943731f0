"""Passes through a network, every layer of them in NumPy, beside what a float64 reference says.

`Runner` runs nets of one description on a backend; what it compiles, it compiles once. Of a pass it
keeps the preactivations z_l, the gradients in them and in the weights, and the signals h_l, which
the reference computes from the backend's z_l, with how far the backend's own may be off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws import normalization as norms
from isometry.common.laws import perceptron
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.mean_field import ACTIVATIONS
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.stacks import Stack
from isometry.common.optimizers.rules import SGD
from isometry.common.statistics.tolerances import TANH_ULP

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["Pass", "Runner"]

Array = Any


@dataclass(frozen=True)
class Pass:
    """One net's arrays, layer by layer, as float64."""

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    signals: list[np.ndarray]  # h_0 .. h_L (examples, width); h_L is the output z_L
    inner: list[np.ndarray]  # what each hidden activation was given
    errors: list[np.ndarray]  # how far signals may be off those of the backend
    preactivations: list[np.ndarray]
    gradients: list[np.ndarray]  # in z_1 .. z_L
    moved: list[np.ndarray]  # gradients in W_1 .. W_L


class Runner:
    """Runs nets of one description on one batch.

    Parameters
    ----------
    nx : Backend
    network : FullyConnected
    x : array (examples, n_0)
    dtype : {"float32", "float64"}
        Of x and the parameters.
    """

    def __init__(self, nx: Backend, network: FullyConnected, x: Array, dtype: str) -> None:
        self.nx, self.network, self.x, self.dtype = nx, network, x, dtype
        self.offsets = self._zeros("offset", network.stacks)
        self.nudges = self._zeros("nudge", [s for s in network.stacks if s.hidden])

        def forward(parameters: Any, x: Array) -> tuple[Array, ...]:
            _, trace = network.forward(nx, parameters, x)
            return tuple(trace[s.name] for s in network.stacks)

        def functional(moved: Any, fixed: Any, x: Array, v: Array) -> Array:
            return nx.ops.sum(network.output(nx, {**fixed, **moved}, x) * v)

        def loss(parameters: Any, x: Array, targets: Array) -> Array:
            return perceptron.cross_entropy(nx, network.output(nx, parameters, x), targets)

        self.forward = nx.compile(forward)
        self.functional = nx.value_and_gradient(nx.compile(functional))
        self.loss = nx.value_and_gradient(nx.compile(loss))

    def _zeros(self, name: str, stacks: Sequence[Stack]) -> dict[str, Array]:
        examples = self.nx.shape_of(self.x)[0]
        return {
            f"{s.name}/{name}": self.nx.ops.zeros((s.count, examples, s.n_out), dtype=self.dtype)
            for s in stacks
        }

    def propagate(self, parameters: dict[str, Array], stream: Stream) -> Pass:
        """Run forward, and backward from a functional of the output with entries v ~ N(0, 1).

        Raises
        ------
        InvalidArgument
            If a layer overflows: it says which, and the dtype.
        """
        preactivations = self.preactivations(parameters)
        v = self._functional(stream)
        _, gradient = self.functional({**parameters, **self.offsets}, {}, self.x, v)
        gradients, moved, weights = (
            self._layers([source[f"{s.name}/{name}"] for s in self.network.stacks])
            for source, name in (
                (gradient, "offset"),
                (gradient, "weight"),
                (parameters, "weight"),
            )
        )
        self._refuse_overflow(gradients, "gradients")
        h, inner, errors = _replay(
            self.network, self.nx.to_numpy(self.x), preactivations, self.dtype
        )
        biases = [np.zeros(len(W)) for W in weights]
        if self.network.bias is not None:
            biases = self._layers([parameters[f"{s.name}/bias"] for s in self.network.stacks])
        return Pass(weights, biases, h, inner, errors, preactivations, gradients, moved)

    def preactivations(self, parameters: dict[str, Array]) -> list[np.ndarray]:
        """Return z_1 .. z_L (examples, n_l). Raises as `propagate`."""
        found = self._layers(self.forward(parameters, self.x))
        self._refuse_overflow(found, "preactivations")
        return found

    def gradients(
        self, parameters: dict[str, Array], stream: Stream, extras: dict[str, Array]
    ) -> list[np.ndarray]:
        """Return the gradients in `offsets`, z_1 .. z_L, or in `nudges`, h_1 .. h_{L-1}.

        They are those of the functional of `propagate`; the weights' are not computed.
        """
        _, gradient = self.functional(extras, parameters, self.x, self._functional(stream))
        found = self._layers([gradient[path] for path in extras])
        self._refuse_overflow(found, "gradients")
        return found

    def _functional(self, stream: Stream) -> Array:
        shape = (self.nx.shape_of(self.x)[0], self.network.widths[-1])
        return stream.normal(shape, dtype=self.dtype)

    def train(
        self, parameters: dict[str, Array], targets: Array, steps: int, rate: float
    ) -> np.ndarray:
        """Return ``||W_l - W_l(0)|| / ||W_l(0)||`` after steps of gradient descent, by layer.

        The loss is the cross-entropy with the targets (examples, n_L). Where ||W_l(0)|| is 0, the
        distance is not divided. Raises as `propagate`.
        """
        start = self._weights(parameters)
        for _ in range(steps):
            _, gradient = self.loss(parameters, self.x, targets)
            parameters, _ = SGD(rate=rate).advance(self.nx, parameters, gradient, {})
        end = self._weights(parameters)
        self._refuse_overflow(end, f"weights after {steps} steps at rate {rate:g}")
        return np.array(
            [
                np.linalg.norm(b - a) / (np.linalg.norm(a) or 1.0)
                for a, b in zip(start, end, strict=True)
            ]
        )

    def _weights(self, parameters: dict[str, Array]) -> list[np.ndarray]:
        return self._layers([parameters[f"{s.name}/weight"] for s in self.network.stacks])

    def _layers(self, stacks: Sequence[Array]) -> list[np.ndarray]:
        return [a.astype(np.float64) for stack in stacks for a in self.nx.to_numpy(stack)]

    def _refuse_overflow(self, layers: Sequence[np.ndarray], what: str) -> None:
        bad = [layer for layer, a in enumerate(layers, 1) if not np.isfinite(a).all()]
        if bad:
            first = bad[-1] if what == "gradients" else bad[0]  # gradients come from the last layer
            raise InvalidArgument(
                f"{what} overflow {self.dtype} at layer {first} of {len(layers)}, beyond "
                f"{FORMATS[self.dtype].largest:.3g}; take weights or steps of smaller scale, fewer "
                "layers, a normalization, or float64"
            )


# --- the reference's signals ---------------------------------------------------------------------


def _replay(
    network: FullyConnected, x: np.ndarray, preactivations: Sequence[np.ndarray], dtype: str
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return h_0 .. h_L by the float64 reference from a backend's z_l, phi's inputs, and errors.

    The backend's own h_l may differ by its activation's ULP and by the contract's bound of a
    normalization, which divides errors by at least the root of its eps, 1e-6.
    """
    eps = float(FORMATS[dtype].ulp(np.array(1.0)))
    phi = ACTIVATIONS[str(network.activation)].value
    h = [x.astype(np.float64)]
    inner, errors = [], [np.zeros_like(h[0])]
    for z in preactivations[:-1]:
        before = network.normalization is not None and network.place == "preactivation"
        u = _normalized(network.normalization, z) if before else z
        y = phi(u)
        error = TANH_ULP[dtype] * eps * np.abs(y)
        if before:
            error = error + norms.normalization_bound(dtype) * np.maximum(1, np.abs(u))
        elif network.normalization:
            amplified = 2e3 * error.max()
            y = _normalized(network.normalization, y)
            error = norms.normalization_bound(dtype) * np.maximum(1, np.abs(y)) + amplified
        if network.shortcut == "dense":
            y, error = np.hstack([h[-1], y]), np.hstack([errors[-1], error])
        elif network.shortcut == "residual" and h[-1].shape == y.shape:
            y = h[-1] + y
            error = errors[-1] + error + eps * np.abs(y)
        inner.append(u)
        h.append(y)
        errors.append(error)
    return [*h, preactivations[-1]], inner, errors


def _normalized(kind: str | None, z: np.ndarray) -> np.ndarray:
    ones, zeros = np.ones(z.shape[1]), np.zeros(z.shape[1])
    if kind == "rms":
        return norms.rms_norm(z, ones)
    if kind == "layer":
        return norms.layer_norm(z, ones, zeros)
    return norms.batch_norm(z, ones, zeros, zeros, ones, training=True)[0]
