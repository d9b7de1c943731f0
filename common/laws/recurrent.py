"""Recurrent layers: each gate a block of its own, and biases that say how long to remember."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import fans
from isometry.common.laws.identities import Fixed
from isometry.common.laws.rules import Initializer, check_rule

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["Chrono", "ForgetGateBias", "PerGate"]

Array = Any


@dataclass(frozen=True)
class PerGate(Initializer):
    """A weight of several gates side by side, each drawn by `rule` as a layer of its own.

    Law: with g gates, block k of out / g outputs has the law of `rule` for (out / g, in); blocks
    are independent. ``PerGate(Orthogonal())`` makes each W_k orthogonal, W_k W_k^T = I; drawn as
    one matrix, as Keras does, the four blocks share one: W^T W = I and each W_k shrinks by half.
    Use: the fused kernels of LSTM (4 gates) and GRU (3), with any rule: orthogonal, identity,
    variance scaling with the fans of one gate.
    Keeps: what `rule` keeps, gate by gate: fusing or splitting a kernel does not change its law.
    Source: Saxe et al. 2014 for orthogonal blocks; Flax's LSTMCell draws them so.

    Parameters
    ----------
    rule : initializer
    gates : int

    Raises
    ------
    InvalidArgument
        If `gates` does not divide the output axis, or the rule refuses the shape of a block.
    """

    rule: Initializer
    gates: int = 4
    layout: str = "out_in"

    def __post_init__(self) -> None:
        check_rule("rule", self.rule)
        checks.integer("gates", self.gates, low=1)

    def resolve(self, shape: tuple[int, ...], layout: str) -> PerGate:
        """Return the law for a layout; raises if the shape has no such blocks."""
        law = replace(self, layout=layout)
        self.rule.resolve(law.block(shape), layout)
        return law

    def block(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one gate's weight."""
        out, _, _ = fans.axes(shape, self.layout)
        size = fans.divided("gates", self.gates, out, shape)
        return (size, *shape[1:]) if self.layout == "out_in" else (*shape[:-1], size)

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        """Draw the gates one after the other."""
        block = self.block(shape)
        law = self.rule.resolve(block, self.layout)
        parts = [law.draw(nx, stream, block, dtype=dtype) for _ in range(self.gates)]
        return nx.ops.concat(parts, axis=0 if self.layout == "out_in" else len(shape) - 1)


def _hidden(shape: tuple[int, ...], order: str) -> int:
    """Return the number of hidden units of a bias of gates in this order."""
    sizes = checks.shape("shape", shape, low=1)
    if len(sizes) != 1 or sizes[0] % len(order):
        raise InvalidArgument(
            f"a bias of the gates {order!r} is a vector of {len(order)} equal blocks; "
            f"received shape {sizes}"
        )
    return sizes[0] // len(order)


def _check_order(order: object) -> None:
    if not isinstance(order, str) or sorted(order) != sorted("ifgo"):
        raise InvalidArgument(
            "order must be the letters i, f, g and o, of the input, forget, cell and output gate, "
            f"as the library stores them: 'ifgo' or 'igfo' or 'iofg'; received {order!r}"
        )


@dataclass(frozen=True)
class ForgetGateBias(Initializer):
    """The bias of an LSTM: `value` for the forget gate, 0 for the others.

    Law: b_f = value, b_i = b_g = b_o = 0.
    Use: every LSTM. PyTorch and MXNet add two biases: set one of them, or each to half.
    Keeps: the cell: c_t = sigmoid(1) c_{t-1} = 0.73 c_{t-1} instead of 0.5 c_{t-1} at the start,
    and its gradient as much.
    Source: Gers, Schmidhuber and Cummins 2000, Learning to forget; Jozefowicz, Zaremba and
    Sutskever 2015, An empirical exploration of recurrent network architectures, for the value 1.

    Parameters
    ----------
    value : float
    order : str
        How the library stores the gates: "ifgo" for PyTorch, Keras, Flax and MXNet, "igfo" for
        TensorFlow's BasicLSTMCell, "iofg" for ONNX.

    Raises
    ------
    InvalidArgument
        If the shape is no vector of four equal blocks, the value not finite, or the order unknown.
    """

    value: float = 1.0
    order: str = "ifgo"

    def __post_init__(self) -> None:
        checks.finite("value", self.value)
        _check_order(self.order)

    def resolve(self, shape: tuple[int, ...], layout: str) -> Fixed:
        """Return the vector; the same in both layouts."""
        of_gate = [self.value if gate == "f" else 0.0 for gate in self.order]
        return Fixed(np.repeat(of_gate, _hidden(shape, self.order)))


@dataclass(frozen=True)
class Chrono(Initializer):
    """The bias of an LSTM that shall remember up to `longest` steps.

    Law: b_f = ln u with u uniform on [1, longest - 1), independent for each unit; b_i = -b_f of
    the same unit; b_g = b_o = 0. P(b_f <= x) = (e^x - 1) / (longest - 2).
    Use: LSTMs on sequences whose dependencies span up to `longest` steps.
    Keeps: each unit's memory for 1 / (1 - sigmoid(b_f)) = 1 + u steps, so spread from 2 to
    `longest`, and the size of its cell, as sigmoid(b_i) = 1 - sigmoid(b_f).
    Source: Tallec and Ollivier 2018, Can recurrent neural networks warp time?, eq. 16.

    Parameters
    ----------
    longest : float
        Above 2.
    order : str
        As in `ForgetGateBias`.

    Raises
    ------
    InvalidArgument
        If `longest` is not finite or not above 2, the shape no vector of four equal blocks, or the
        order unknown.
    """

    longest: float
    order: str = "ifgo"

    def __post_init__(self) -> None:
        checks.finite("longest", self.longest, low=2.0, open_low=True)
        _check_order(self.order)

    def resolve(self, shape: tuple[int, ...], layout: str) -> Chrono:
        """Return the law itself; raises if the shape is not that of such a bias."""
        _hidden(shape, self.order)
        return self

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        """Draw one bias; half precisions are rounded from float32."""
        ops, hidden = nx.ops, (_hidden(shape, self.order),)
        working = "float64" if dtype == "float64" else "float32"
        forget = ops.log(stream.uniform(hidden, low=1.0, high=self.longest - 1, dtype=working))
        blocks = {"f": forget, "i": -forget, "g": ops.zeros_like(forget)}
        blocks["o"] = blocks["g"]
        return ops.astype(ops.concat([blocks[gate] for gate in self.order], axis=0), dtype)
