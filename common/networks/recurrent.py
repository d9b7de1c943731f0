"""Recurrent networks, plain and LSTM: one cell, scanned over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.laws.initializers import Initializer, initializer
from isometry.common.laws.recurrent import PerGate
from isometry.common.networks.activations import Activation, activation
from isometry.common.networks.stacks import Family

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["CELLS", "Recurrent"]

Array = Any
CELLS = {"plain": 1, "lstm": 4}
"""Cell -> number of its gates."""


@dataclass(frozen=True)
class Recurrent(Family):
    """A layer whose state goes from step to step; the state before the first is 0.

    Plain (Elman 1990): ``h_t = phi(W x_t + U h_{t-1} + b)``. LSTM (Hochreiter and Schmidhuber 1997;
    Gers, Schmidhuber and Cummins 2000), with gates in the order i, f, g, o:
    ``c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)``, ``h_t = sigmoid(o) tanh(c_t)``.

    Parameters
    ----------
    inputs, units : int
    cell : {"plain", "lstm"}
    activation : str or callable
        phi of the plain cell; an LSTM has its own.
    input_initializer, recurrent_initializer : str or Initializer
        Of W and U, drawn for each gate by itself.
    bias : str or Initializer, optional
        Of b, all gates together, as ``ForgetGateBias()``; without it there is none.

    Raises
    ------
    InvalidArgument
        If a size is below 1 or a name unknown.
    """

    inputs: int
    units: int
    cell: str = "plain"
    activation: str | Activation = "tanh"
    input_initializer: str | Initializer = "xavier_normal"
    recurrent_initializer: str | Initializer = "orthogonal"
    bias: str | Initializer | None = None

    def __post_init__(self) -> None:
        checks.integer("inputs", self.inputs, low=1)
        checks.integer("units", self.units, low=1)
        checks.choice("cell", self.cell, tuple(CELLS))
        activation(self.activation)
        initializer(self.input_initializer)
        initializer(self.recurrent_initializer)

    @property
    def traced(self) -> tuple[str, ...]:
        """Names of the preactivations that `forward` returns."""
        return ("steps",)

    def initialize(
        self, nx: Backend, stream: Stream, /, *, dtype: str = "float32"
    ) -> dict[str, Array]:
        """Draw the parameters.

        Returns
        -------
        dict of str to array
            ``input`` (gates units, inputs), ``recurrent`` (gates units, units) and, if the layer
            has it, ``bias`` (gates units,).
        """
        gates = CELLS[self.cell]
        rows = gates * self.units
        rules: dict[str, tuple[Initializer, tuple[int, ...]]] = {
            "input": (PerGate(initializer(self.input_initializer), gates), (rows, self.inputs)),
            "recurrent": (
                PerGate(initializer(self.recurrent_initializer), gates),
                (rows, self.units),
            ),
        }
        if self.bias is not None:
            rules["bias"] = (initializer(self.bias), (rows,))
        return {
            name: nx.initialize(rule, shape, stream, dtype=dtype)
            for name, (rule, shape) in rules.items()
        }

    def forward(
        self,
        nx: Backend,
        parameters: Mapping[str, Array],
        x: Array,
        /,
        extras: Mapping[str, Array] | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Run the layer over a batch of sequences.

        Parameters
        ----------
        parameters : mapping of str to array
            As `initialize` returns them.
        x : array (time, batch, inputs)
        extras : mapping of str to array, optional
            ``steps/offset`` (time, batch, gates units), added to the preactivations.

        Returns
        -------
        output : array (time, batch, units)
            h after each step.
        preactivations : dict of str to array
            ``steps`` -> W x_t + U h_{t-1} + b of each step (time, batch, gates units).
        """
        output, z = self._run(nx, parameters, x, extras, keep=True)
        return output, {"steps": z}

    def _run(
        self,
        nx: Backend,
        parameters: Mapping[str, Array],
        x: Array,
        extras: Mapping[str, Array] | None = None,
        *,
        keep: bool,
    ) -> tuple[Array, Array | None]:
        ops, units = nx.ops, self.units
        phi = activation(self.activation)

        def cell(state: tuple[Array, ...], z: Array) -> tuple[Array, ...]:
            if self.cell == "plain":
                return (phi(nx, z),)
            i, f, g, o = ops.split(z, (units,) * 4, axis=1)
            c = nx.sigmoid(f) * state[1] + nx.sigmoid(i) * nx.tanh(g)
            return nx.sigmoid(o) * nx.tanh(c), c

        with nx.scope():
            weight, recurrent = parameters["input"], parameters["recurrent"]

            def step(
                state: tuple[Array, ...], given: tuple[Array, ...]
            ) -> tuple[tuple[Array, ...], Array]:
                x, *offset = given
                z = ops.linear(x, weight) + ops.linear(state[0], recurrent)
                for term in (*bias, *offset):
                    z = z + term
                state = cell(state, z)
                return state, ops.concat([state[0], z], axis=1) if keep else state[0]

            bias = [parameters["bias"]] if "bias" in parameters else []
            offsets = [extras["steps/offset"]] if extras else []
            start = ops.zeros((nx.shape_of(x)[1], units), dtype=nx.dtype_of(x))
            state = (start,) if self.cell == "plain" else (start, start)
            _, steps = ops.scan(step, state, (x, *offsets))
            return (steps[:, :, :units], steps[:, :, units:]) if keep else (steps, None)
