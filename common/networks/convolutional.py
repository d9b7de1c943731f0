"""The plain convolutional network: any depth and channels, odd kernels, stride 1, dense readout."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.initializers import Initializer
from isometry.common.networks.activations import Activation, activation
from isometry.common.networks.stacks import Family, Layer, Stack, draw, grouped, run_all

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["Convolutional"]

Array = Any
PADDINGS = ("circular", "zero")


@dataclass(frozen=True)
class Convolutional(Family):
    """``z_l = K_l * h_{l-1} + b_l``, ``h_l = phi(z_l)``; the output ``W h_L + b`` of all places.

    K * h is the cross-correlation of `Backend.ops.conv` with stride 1, over an image padded so
    that it keeps its size: ``z[i, s] = sum_{j, t} K[i, j, t] h[j, s + t - (k - 1)/2]``.

    Parameters
    ----------
    channels : tuple of int (L + 1,)
        c_0 .. c_L: of the image and of the convolutional layers.
    size : int
        Height and width of the image.
    outputs : int
        Outputs of the dense layer that reads h_L, flattened as (channel, row, column).
    kernel : int
        Height and width k of each kernel: odd, at most `size`.
    padding : {"circular", "zero"}
        Circular: the image goes on at its opposite edge, so that every place is alike.
    activation : str or callable
        A name of :mod:`isometry.common.networks.activations`, or ``phi(nx, z)``.
    initializer : str or Initializer
        Of each K_l, of shape (c_l, c_{l-1}, k, k).
    readout : str or Initializer
        Of the dense W, of shape (outputs, c_L size size).
    bias : str or Initializer, optional
        Of each b_l, one per channel or output; without it there are none.

    Raises
    ------
    InvalidArgument
        If there is no layer, a size below 1, an even kernel, or a name unknown.
    """

    channels: tuple[int, ...]
    size: int
    outputs: int
    kernel: int = 3
    padding: str = "circular"
    activation: str | Activation = "tanh"
    initializer: str | Initializer = "delta_orthogonal"
    readout: str | Initializer = "orthogonal"
    bias: str | Initializer | None = None

    def __post_init__(self) -> None:
        if len(self.channels) < 2:
            raise InvalidArgument(
                "channels must name those of the image and of at least one layer; received "
                f"{self.channels}"
            )
        for count in self.channels:
            checks.integer("a number of channels", count, low=1)
        checks.integer("size", self.size, low=1)
        checks.integer("outputs", self.outputs, low=1)
        checks.integer("kernel", self.kernel, low=1, high=self.size)
        if self.kernel % 2 == 0:
            raise InvalidArgument(
                f"kernel must be odd, so that it has a centre; received {self.kernel}"
            )
        checks.choice("padding", self.padding, PADDINGS)
        activation(self.activation)

    @property
    def depth(self) -> int:
        """L + 1: the convolutional layers and the readout."""
        return len(self.channels)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The convolutional layers, those of one shape that follow each other together.

        Their `n_in` and `n_out` count channels.
        """
        return grouped([(*pair, True) for pair in itertools.pairwise(self.channels)])

    @property
    def traced(self) -> tuple[str, ...]:
        """Names of the preactivations that `forward` returns."""
        return (*(stack.name for stack in self.stacks), "readout")

    def initialize(
        self, nx: Backend, stream: Stream, /, *, dtype: str = "float32"
    ) -> dict[str, Array]:
        """Draw the parameters.

        Returns
        -------
        dict of str to array
            For each stack ``stackK/weight`` (count, c_out, c_in, k, k) and, if the network has
            biases, ``stackK/bias`` (count, c_out); ``readout/weight`` (outputs, c_L size size) and
            ``readout/bias`` (outputs,).
        """
        taps = (self.kernel, self.kernel)
        inputs = self.channels[-1] * self.size**2
        parameters = {}
        with nx.scope():
            for stack in self.stacks:
                shape = (stack.n_out, stack.n_in, *taps)
                path = f"{stack.name}/weight"
                parameters[path] = draw(nx, self.initializer, stack.count, shape, stream, dtype)
                if self.bias is not None:
                    path = f"{stack.name}/bias"
                    parameters[path] = draw(nx, self.bias, stack.count, shape[:1], stream, dtype)
            parameters["readout/weight"] = nx.initialize(
                self.readout, (self.outputs, inputs), stream, dtype=dtype
            )
            if self.bias is not None:
                parameters["readout/bias"] = nx.initialize(
                    self.bias, (self.outputs,), stream, dtype=dtype
                )
        return parameters

    def forward(
        self,
        nx: Backend,
        parameters: Mapping[str, Array],
        x: Array,
        /,
        extras: Mapping[str, Array] | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Run the network on a batch.

        Parameters
        ----------
        parameters : mapping of str to array
            As `initialize` returns them.
        x : array (batch, c_0, size, size)
        extras : mapping of str to array, optional
            ``stackK/offset`` (count, batch, c_out, size, size), added to the preactivations, and
            ``readout/offset`` (1, batch, outputs), added to the output.

        Returns
        -------
        output : array (batch, outputs)
        preactivations : dict of str to array
            For each stack ``stackK`` -> z (count, batch, c_out, size, size), and ``readout`` -> the
            output, as (1, batch, outputs).
        """
        return self._run(nx, parameters, x, extras, keep=True)

    def _run(
        self,
        nx: Backend,
        parameters: Mapping[str, Array],
        x: Array,
        extras: Mapping[str, Array] | None = None,
        *,
        keep: bool,
    ) -> tuple[Array, dict[str, Array]]:
        every = {**parameters, **(extras or {})}
        ops = nx.ops
        with nx.scope():
            h, trace = run_all(nx, self.stacks, lambda _: self._layer(nx), x, every, keep=keep)
            flat = ops.reshape(h, (-1, self.channels[-1] * self.size**2))
            y = ops.linear(flat, every["readout/weight"])
            if "readout/bias" in every:
                y = y + every["readout/bias"]
            if "readout/offset" in every:
                y = y + ops.squeeze(every["readout/offset"], axis=0)
            if keep:
                trace["readout"] = ops.expand_dims(y, axis=0)
        return y, trace

    def _layer(self, nx: Backend) -> Layer:
        phi = activation(self.activation)
        margin = self.kernel // 2

        def layer(h: Array, own: Mapping[str, Array]) -> tuple[Array, Array]:
            if self.padding == "circular" and margin:
                z = nx.ops.conv(self._wrapped(nx, h, margin), own["weight"])
            else:
                z = nx.ops.conv(h, own["weight"], padding=margin)
            if "bias" in own:
                z = z + nx.ops.reshape(own["bias"], (1, -1, 1, 1))
            if "offset" in own:
                z = z + own["offset"]
            return phi(nx, z), z

        return layer

    def _wrapped(self, nx: Backend, h: Array, margin: int) -> Array:
        """Return the image with `margin` rows and columns of its opposite edges around it."""
        last = self.size - margin
        h = nx.ops.concat([h[:, :, last:, :], h, h[:, :, :margin, :]], axis=2)
        return nx.ops.concat([h[:, :, :, last:], h, h[:, :, :, :margin]], axis=3)
