"""A residual net of ReLU branches with two layers: plain, with Fixup, or batch normalized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Constant
from isometry.common.laws.initializers import Initializer
from isometry.common.laws.residual import fixup
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.networks.stacks import Family, check_widths, draw, run

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["REMEDIES", "Residual"]

Array = Any
Rules = dict[str, tuple[int, tuple[int, ...], str | Initializer]]
REMEDIES = ("none", "fixup", "batch")
HE = VarianceScaling(2.0**0.5)


@dataclass(frozen=True)
class Residual(Family):
    """``h_0 = W x``, ``h_l = h_{l-1} + F_l(h_{l-1})`` for l = 1 .. B, output ``C h_B + c``.

    All weights are N(0, 2 / fan-in) and c is 0 (He et al. 2015), but for those of Fixup (Zhang,
    Dauphin and Ma 2019, section 3; :func:`isometry.common.laws.residual.fixup`):

    - "none": ``F(h) = W_2 relu(W_1 h)``;
    - "fixup": ``F(h) = m W_2 (relu(W_1 (h + b_1) + b_2) + b_3)`` with scalars m = 1 and b = 0 to
      begin with, W_2 = C = 0, and W_1 times ``B**(-1/2)``;
    - "batch": ``F(h) = norm(W_2 relu(norm(W_1 h)))`` by the batch's statistics, scales 1, shifts 0.

    Parameters
    ----------
    widths : tuple of int (3,)
        n_in, n, n_out: of the input, of every h, of the output.
    blocks : int
        B, at least 1.
    remedy : {"none", "fixup", "batch"}

    Raises
    ------
    InvalidArgument
        If there are not three widths, a width or `blocks` is below 1, or the remedy is unknown.
    """

    widths: tuple[int, int, int]
    blocks: int
    remedy: str = "none"

    def __post_init__(self) -> None:
        check_widths(self.widths)
        if len(self.widths) != 3:
            raise InvalidArgument(
                f"widths must be those of input, blocks and output; received {self.widths}"
            )
        checks.integer("blocks", self.blocks, low=1)
        checks.choice("remedy", self.remedy, REMEDIES)

    def initialize(
        self, nx: Backend, stream: Stream, /, *, dtype: str = "float32"
    ) -> dict[str, Array]:
        """Draw the parameters.

        Returns
        -------
        dict of str to array
            ``input/weight`` (1, n, n_in); ``blocks/weight1``, ``blocks/weight2`` (B, n, n);
            ``output/weight`` (1, n_out, n), ``output/bias`` (1, n_out); with Fixup
            ``blocks/bias1`` .. ``bias3`` and ``blocks/factor`` (B, 1); with batch normalization
            ``blocks/scale1``, ``shift1``, ``scale2``, ``shift2`` (B, n).
        """
        with nx.scope():
            return {
                path: draw(nx, rule, count, shape, stream, dtype)
                for path, (count, shape, rule) in self._rules().items()
            }

    def _rules(self) -> Rules:
        n_in, n, n_out = self.widths
        zero, one = Constant(0.0), Constant(1.0)
        first, second = fixup(self.blocks, 2, HE) if self.remedy == "fixup" else (HE, HE)
        rules: Rules = {
            "input/weight": (1, (n, n_in), HE),
            "blocks/weight1": (self.blocks, (n, n), first),
            "blocks/weight2": (self.blocks, (n, n), second),
            "output/weight": (1, (n_out, n), zero if self.remedy == "fixup" else HE),
            "output/bias": (1, (n_out,), zero),
        }
        if self.remedy == "fixup":
            scalars = {"bias1": zero, "bias2": zero, "bias3": zero, "factor": one}
            rules |= {f"blocks/{name}": (self.blocks, (1,), rule) for name, rule in scalars.items()}
        if self.remedy == "batch":
            units = {"scale1": one, "shift1": zero, "scale2": one, "shift2": zero}
            rules |= {f"blocks/{name}": (self.blocks, (n,), rule) for name, rule in units.items()}
        return rules

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
        x : array (batch, n_in)
        extras : mapping of str to array, optional
            Empty: this net has no dropout, and nothing is added to its layers.

        Returns
        -------
        output : array (batch, n_out)
        trace : dict of str to array
            ``signal`` (B, batch, n), the h_0 .. h_{B-1} that enter the blocks; ``hidden``
            (B, batch, n), what each W_2 multiplies.

        Raises
        ------
        InvalidArgument
            If there are extras.
        """
        output, kept = self._run(nx, parameters, x, extras, keep=True)
        n = self.widths[1]
        return output, {"signal": kept[:, :, :n], "hidden": kept[:, :, n:]}

    def _run(
        self,
        nx: Backend,
        parameters: Mapping[str, Array],
        x: Array,
        extras: Mapping[str, Array] | None = None,
        *,
        keep: bool,
    ) -> tuple[Array, Array]:
        if extras:
            raise InvalidArgument(
                f"a residual net takes no extras; received {sorted(extras)}; pass none, or use "
                'FullyConnected(shortcut="residual"), which takes masks, offsets and nudges'
            )
        ops = nx.ops
        with nx.scope():
            own = {
                path.removeprefix("blocks/"): a
                for path, a in parameters.items()
                if path.startswith("blocks/")
            }
            h = ops.linear(x, parameters["input/weight"][0])

            def block(h: Array, own: Mapping[str, Array]) -> tuple[Array, Array | None]:
                change, hidden = self._branch(nx, h, own)
                return h + change, ops.concat([h, hidden], axis=1) if keep else None

            h, kept = run(nx, block, h, own, keep=keep)
            return ops.linear(h, parameters["output/weight"][0]) + parameters["output/bias"], kept

    def _branch(self, nx: Backend, h: Array, own: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return F(h), and what W_2 multiplies."""
        ops = nx.ops
        if self.remedy == "fixup":
            z = ops.linear(h + own["bias1"], own["weight1"]) + own["bias2"]
            hidden = nx.relu(z) + own["bias3"]
            return own["factor"] * ops.linear(hidden, own["weight2"]), hidden
        if self.remedy == "none":
            hidden = nx.relu(ops.linear(h, own["weight1"]))
            return ops.linear(hidden, own["weight2"]), hidden
        z = _normalized(nx, ops.linear(h, own["weight1"]), own["scale1"], own["shift1"])
        hidden = nx.relu(z)
        y = ops.linear(hidden, own["weight2"])
        return _normalized(nx, y, own["scale2"], own["shift2"]), hidden


def _normalized(nx: Backend, z: Array, scale: Array, shift: Array) -> Array:
    unused = nx.ops.zeros_like(shift)
    return nx.batch_norm(z, scale, shift, unused, unused, training=True)[0]
