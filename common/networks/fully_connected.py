"""The fully connected network: any depth, widths, activation, normalization and shortcuts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Constant
from isometry.common.laws.initializers import Initializer
from isometry.common.networks.activations import Activation, activation
from isometry.common.networks.stacks import (
    Family,
    Layer,
    Stack,
    check_widths,
    draw,
    grouped,
    run_all,
)

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["FullyConnected"]

Array = Any
NORMS = ("batch", "layer", "rms")
PLACES = ("preactivation", "activation")
SHORTCUTS = ("residual", "dense", "highway", "skipinit")
GATE = -2.0  # bias of a highway's gates at first: open to 0.12


@dataclass(frozen=True)
class FullyConnected(Family):
    """``z_l = W_l h_{l-1} + b_l``, ``h_l = phi(z_l)`` for l = 1 .. L, and z_L the output.

    Parameters
    ----------
    widths : tuple of int (L + 1,)
        n_0 .. n_L: of the input, the hidden layers, the output.
    activation : str or callable
        A name of :mod:`isometry.common.networks.activations`, or ``phi(nx, z)``.
    initializer : str or Initializer
        Of each W_l, of shape (n_l, n_{l-1}).
    bias : str or Initializer, optional
        Of each b_l; without it there are none.
    normalization : {"batch", "layer", "rms"}, optional
        With scale 1 and shift 0 to begin with, by the statistics of the batch given.
    place : {"preactivation", "activation"}
        Where it stands: ``phi(norm(z))`` or ``norm(phi(z))``. Never after the last layer.
    shortcut : {"residual", "dense", "highway", "skipinit"}, optional
        Past each hidden layer, of the table below. All but "dense" only where the width stays.
    dropout : float
        Probability that a hidden unit's output is 0; the others are divided by 1 - dropout. Takes
        effect where `forward` is given masks.

    Raises
    ------
    InvalidArgument
        If there is no layer, a width is below 1, a name unknown, or dropout not in [0, 1).

    Notes
    -----
    ========== =================================================================================
    residual   ``h_l = h_{l-1} + phi(z_l)`` (He et al. 2016)
    dense      ``h_l = [h_{l-1}, phi(z_l)]``, of n_0 + ... + n_l units (Huang et al. 2017)
    highway    ``h_l = t phi(z_l) + (1 - t) h_{l-1}``, ``t = sigmoid(G_l h_{l-1} + c_l)``: gates,
               G_l drawn as W_l and c_l begun at -2 (Srivastava, Greff and Schmidhuber 2015, eq. 3)
    skipinit   ``h_l = h_{l-1} + alpha_l phi(z_l)``, alpha_l a trained number begun at 0 (De and
               Smith 2020; ReZero, Bachlechner et al. 2021, eq. 1)
    ========== =================================================================================
    """

    widths: tuple[int, ...]
    activation: str | Activation = "tanh"
    initializer: str | Initializer = "xavier_normal"
    bias: str | Initializer | None = None
    normalization: str | None = None
    place: str = "preactivation"
    shortcut: str | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_widths(self.widths)
        activation(self.activation)
        if self.normalization is not None:
            checks.choice("normalization", self.normalization, NORMS)
        checks.choice("place", self.place, PLACES)
        if self.shortcut is not None:
            checks.choice("shortcut", self.shortcut, SHORTCUTS)
        if not 0 <= self.dropout < 1:
            raise InvalidArgument(f"dropout must be in [0, 1); received {self.dropout!r}")

    @property
    def depth(self) -> int:
        """L, the number of layers."""
        return len(self.widths) - 1

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The layers, those of one shape that follow each other together; the last by itself."""
        inputs = list(self.widths[:-1])
        if self.shortcut == "dense":
            inputs = list(itertools.accumulate(inputs))
        shapes = [
            (n_in, n_out, layer < self.depth)
            for layer, (n_in, n_out) in enumerate(zip(inputs, self.widths[1:], strict=True), 1)
        ]
        return grouped(shapes)

    @property
    def traced(self) -> tuple[str, ...]:
        """Names of the preactivations that `forward` returns."""
        return tuple(stack.name for stack in self.stacks)

    def initialize(
        self, nx: Backend, stream: Stream, /, *, dtype: str = "float32"
    ) -> dict[str, Array]:
        """Draw the parameters.

        Returns
        -------
        dict of str to array
            For each stack ``stackK/weight`` (count, n_out, n_in), and, if the network has them,
            ``stackK/bias``, ``stackK/scale`` and ``stackK/shift`` (count, n_out), of highways
            ``stackK/gate`` (count, n_out, n_in) and ``stackK/gate_bias`` (count, n_out), of
            SkipInit ``stackK/alpha`` (count, 1).
        """
        parameters = {}
        with nx.scope():
            for stack in self.stacks:
                shapes = {"weight": (stack.n_out, stack.n_in), "alpha": (1,)}
                shapes["gate"] = shapes["weight"]
                for name, rule in self._rules(stack).items():
                    shape = shapes.get(name, (stack.n_out,))
                    path = f"{stack.name}/{name}"
                    parameters[path] = draw(nx, rule, stack.count, shape, stream, dtype)
        return parameters

    def _rules(self, stack: Stack) -> dict[str, str | Initializer]:
        rules = {"weight": self.initializer}
        if self.bias is not None:
            rules["bias"] = self.bias
        if self.normalization and stack.hidden:
            rules["scale"] = Constant(1.0)
            if self.normalization != "rms":
                rules["shift"] = Constant(0.0)
        if self.shortcut == "highway" and stack.keeps_width:
            rules |= {"gate": self.initializer, "gate_bias": Constant(GATE)}
        if self.shortcut == "skipinit" and stack.keeps_width:
            rules["alpha"] = Constant(0.0)
        return rules

    def masks(
        self, nx: Backend, stream: Stream, batch: int, /, *, dtype: str = "float32"
    ) -> dict[str, Array]:
        """Draw dropout masks of the hidden layers: ``stackK/mask`` (count, batch, n_out)."""
        keep = 1 - self.dropout
        found = {}
        with nx.scope():
            for stack in self.stacks:
                if stack.hidden:
                    shape = (stack.count, batch, stack.n_out)
                    kept = stream.uniform(shape, dtype=dtype) < keep
                    found[f"{stack.name}/mask"] = nx.ops.astype(kept, dtype) / keep
        return found

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
        x : array (batch, n_0)
        extras : mapping of str to array, optional
            Further arrays of each layer: the ``stackK/mask`` of `masks`, and, of the same shape,
            ``stackK/offset``, which is added to the preactivations, and ``stackK/nudge``, which is
            added to h_l, or to the phi(z_l) in a dense one. The gradient with respect to zeros
            there is that with respect to the preactivations, or to h_l.

        Returns
        -------
        output : array (batch, n_L)
        preactivations : dict of str to array
            For each stack ``stackK`` -> z (count, batch, n_out).
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
        with nx.scope():
            every = {**parameters, **(extras or {})}
            return run_all(
                nx, self.stacks, lambda stack: self._layer(nx, stack), x, every, keep=keep
            )

    def _layer(self, nx: Backend, stack: Stack) -> Layer:
        ops, phi = nx.ops, activation(self.activation)

        def layer(h: Array, own: Mapping[str, Array]) -> tuple[Array, Array]:
            z = ops.linear(h, own["weight"])
            for term in ("bias", "offset"):
                if term in own:
                    z = z + own[term]
            if not stack.hidden:
                return z, z
            before = self.normalization and self.place == "preactivation"
            y = phi(nx, self._normalized(nx, z, own) if before else z)
            if self.normalization and not before:
                y = self._normalized(nx, y, own)
            if "mask" in own:
                y = y * own["mask"]
            if stack.keeps_width:
                y = self._passed(nx, h, y, own)
            if "nudge" in own:
                y = y + own["nudge"]
            if self.shortcut == "dense":
                y = ops.concat([h, y], axis=1)
            return y, z

        return layer

    def _passed(self, nx: Backend, h: Array, y: Array, own: Mapping[str, Array]) -> Array:
        """Return what a layer of the width of its input gives out, of h and its own y."""
        if self.shortcut == "residual":
            return h + y
        if self.shortcut == "skipinit":
            return h + own["alpha"] * y
        if self.shortcut == "highway":
            gates = nx.sigmoid(nx.ops.linear(h, own["gate"]) + own["gate_bias"])
            return h + gates * (y - h)
        return y

    def _normalized(self, nx: Backend, z: Array, own: Mapping[str, Array]) -> Array:
        if self.normalization == "rms":
            return nx.rms_norm(z, own["scale"])
        if self.normalization == "layer":
            return nx.layer_norm(z, own["scale"], own["shift"])
        unused = nx.ops.zeros_like(own["shift"])
        return nx.batch_norm(z, own["scale"], own["shift"], unused, unused, training=True)[0]
