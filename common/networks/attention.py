"""Blocks of single-head self-attention: every token hears all others, by how well they match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.laws.distributions import Constant
from isometry.common.laws.initializers import Initializer, initializer
from isometry.common.networks.stacks import Family, draw, run

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["Attention", "softmax"]

Array = Any
PLACES = ("before", "after")
PATHS = ("projection", "output", "scale", "shift")


def softmax(nx: Backend, scores: Array) -> Array:
    """Return ``exp(s) / sum exp(s)`` over the last axis.

    The largest score is subtracted first, so that nothing overflows; the result does not depend
    on it, so no gradient flows through it.
    """
    ops = nx.ops
    e = ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True)))
    return e / ops.sum(e, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Attention(Family):
    """``H_l = H_{l-1} + softmax(Q K^T / sqrt(d)) V W_O^T`` for l = 1 .. L.

    Rows are tokens, ``Q = H W_Q^T``, ``K = H W_K^T`` and ``V = H W_V^T`` with H of the layer
    before: Vaswani et al. 2017, Attention is all you need, eq. 1. There is no mask, so that to
    reorder the tokens reorders the output.

    Parameters
    ----------
    depth, features : int
        L blocks of tokens with `features` numbers each.
    head : int, optional
        d, the size of a query, key and value; `features` by default.
    initializer : str or Initializer
        Of each W_Q, W_K and W_V (head, features) and each W_O (features, head).
    fused : bool
        Draw W_Q, W_K and W_V as one weight (3 head, features), with its fans, as PyTorch's
        MultiheadAttention does: where fan_out counts, the scores have less variance, with Xavier's
        rule and head = features a quarter of it. Without, each has its own fans.
    residual : bool
        Whether H_{l-1} is added.
    layer_norm : {"before", "after"}, optional
        Where it stands: the branch is that of ``norm(H_{l-1})``, or ``H_l = norm(...)`` of the
        above (Xiong et al. 2020, On layer normalization in the transformer architecture, fig. 1).
        With scale 1 and shift 0 to begin with.

    Raises
    ------
    InvalidArgument
        If a size is below 1 or a name unknown.
    """

    depth: int
    features: int
    head: int | None = None
    initializer: str | Initializer = "xavier_normal"
    fused: bool = False
    residual: bool = True
    layer_norm: str | None = None

    def __post_init__(self) -> None:
        checks.integer("depth", self.depth, low=1)
        checks.integer("features", self.features, low=1)
        checks.integer("head", self.size, low=1)
        initializer(self.initializer)
        if self.layer_norm is not None:
            checks.choice("layer_norm", self.layer_norm, PLACES)

    @property
    def size(self) -> int:
        """d, of a query, key and value."""
        return self.features if self.head is None else self.head

    @property
    def traced(self) -> tuple[str, ...]:
        """Names of the preactivations that `forward` returns."""
        return ("projection", "output")

    def initialize(
        self, nx: Backend, stream: Stream, /, *, dtype: str = "float32"
    ) -> dict[str, Array]:
        """Draw the parameters.

        Returns
        -------
        dict of str to array
            ``projection`` (depth, 3 head, features), the rows of W_Q, W_K and W_V; ``output``
            (depth, features, head); with a normalization ``scale`` and ``shift`` (depth, features).
        """
        rows, columns = 3 * self.size, self.features
        count, part = (self.depth, rows) if self.fused else (3 * self.depth, self.size)
        with nx.scope():
            drawn = draw(nx, self.initializer, count, (part, columns), stream, dtype)
            parameters = {"projection": nx.ops.reshape(drawn, (self.depth, rows, columns))}
            rest: dict[str, tuple[str | Initializer, tuple[int, ...]]] = {
                "output": (self.initializer, (columns, self.size))
            }
            if self.layer_norm is not None:
                rest |= {"scale": (Constant(1.0), (columns,)), "shift": (Constant(0.0), (columns,))}
            for name, (rule, shape) in rest.items():
                parameters[name] = draw(nx, rule, self.depth, shape, stream, dtype)
        return parameters

    def forward(
        self,
        nx: Backend,
        parameters: Mapping[str, Array],
        x: Array,
        /,
        extras: Mapping[str, Array] | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Run the blocks on a batch of sequences.

        Parameters
        ----------
        parameters : mapping of str to array
            As `initialize` returns them.
        x : array (batch, tokens, features)
        extras : mapping of str to array, optional
            ``projection/offset`` and ``output/offset``, of the shapes below, added to them.

        Returns
        -------
        output : array (batch, tokens, features)
        preactivations : dict of str to array
            ``projection`` -> Q, K and V side by side (depth, batch, tokens, 3 head), whose `scores`
            the softmax is of, and ``output`` -> what W_O gives (depth, batch, tokens, features).
        """
        h, z = self._run(nx, parameters, x, extras, keep=True)
        assert z is not None
        cut = 3 * self.size
        return h, {"projection": z[:, :, :, :cut], "output": z[:, :, :, cut:]}

    def scores(self, nx: Backend, projection: Array, /) -> Array:
        """Return ``Q K^T / sqrt(d)`` (batch, tokens, tokens) of a block's projection."""
        q, k, _ = self._parts(nx, projection)
        return nx.ops.matmul(q, nx.ops.permute_dims(k, (0, 2, 1))) / self.size**0.5

    def _parts(self, nx: Backend, projection: Array) -> tuple[Array, ...]:
        """Return Q, K and V."""
        parts: tuple[Array, ...] = nx.ops.split(projection, (self.size,) * 3, axis=2)
        return parts

    def _run(
        self,
        nx: Backend,
        parameters: Mapping[str, Array],
        x: Array,
        extras: Mapping[str, Array] | None = None,
        *,
        keep: bool,
    ) -> tuple[Array, Array | None]:
        ops = nx.ops

        def linear(name: str, h: Array, own: Mapping[str, Array]) -> Array:
            z = ops.linear(h, own[name])
            return z + own[f"{name}/offset"] if f"{name}/offset" in own else z

        def normalized(h: Array, own: Mapping[str, Array]) -> Array:
            return nx.layer_norm(h, own["scale"], own["shift"])

        def block(h: Array, own: Mapping[str, Array]) -> tuple[Array, Array]:
            heard = normalized(h, own) if self.layer_norm == "before" else h
            z = linear("projection", heard, own)
            mixed = ops.matmul(softmax(nx, self.scores(nx, z)), self._parts(nx, z)[2])
            y = linear("output", mixed, own)
            kept = ops.concat([z, y], axis=2) if keep else y
            y = h + y if self.residual else y
            return normalized(y, own) if self.layer_norm == "after" else y, kept

        with nx.scope():
            stacked = {k: parameters[k] for k in PATHS if k in parameters}
            return run(nx, block, x, {**stacked, **(extras or {})}, keep=keep)
