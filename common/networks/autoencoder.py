"""The autoencoder with tied weights: what encodes also decodes, transposed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common.laws.embeddings import Tied
from isometry.common.laws.initializers import Initializer, VarianceScaling, initializer
from isometry.common.networks.activations import Activation, activation
from isometry.common.networks.stacks import Family, Layer, Stack, check_widths, draw, grouped, run

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["TiedAutoencoder"]

Array = Any


@dataclass(frozen=True)
class TiedAutoencoder(Family):
    """``h_l = phi(W_l h_{l-1} + b_l)`` for l = 1 .. L, and back ``y_{l-1} = phi(W_l^T y_l + c_l)``.

    The way back begins with the code, y_L = h_L, and ends with the reconstruction y_0, which has
    no activation: Vincent et al. 2010, Stacked denoising autoencoders, sections 2.2 and 2.3, for
    the tying and for real numbers to reconstruct.

    Parameters
    ----------
    widths : tuple of int (L + 1,)
        n_0 .. n_L: of the input, which is that of the reconstruction, to the code.
    activation : str or callable
        A name of :mod:`isometry.common.networks.activations`, or ``phi(nx, z)``.
    initializer : str or Initializer
        Of each W_l (n_l, n_{l-1}), drawn once. Its fan_in is n_{l-1} on the way there and n_l on
        the way back: by default their geometric mean counts, which makes both variances wrong by
        the same factor, one up and one down.
    bias : str or Initializer, optional
        Of each b_l and c_l, which are not tied; without it there are none.

    Raises
    ------
    InvalidArgument
        If there is no layer, a width is below 1, or a name unknown.
    """

    widths: tuple[int, ...]
    activation: str | Activation = "tanh"
    initializer: str | Initializer = Tied(VarianceScaling())  # noqa: RUF009 - frozen
    bias: str | Initializer | None = None

    def __post_init__(self) -> None:
        check_widths(self.widths)
        activation(self.activation)
        initializer(self.initializer)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The layers of the encoder, those of one shape that follow each other together.

        The first by itself: there is no activation after it on the way back (`hidden`).
        """
        return grouped([(*pair, k > 0) for k, pair in enumerate(itertools.pairwise(self.widths))])

    @property
    def traced(self) -> tuple[str, ...]:
        """Names of the preactivations that `forward` returns, as the signal meets them."""
        return (
            *(f"{stack.name}/encoder" for stack in self.stacks),
            *(f"{stack.name}/decoder" for stack in self.stacks[::-1]),
        )

    def initialize(
        self, nx: Backend, stream: Stream, /, *, dtype: str = "float32"
    ) -> dict[str, Array]:
        """Draw the parameters.

        Returns
        -------
        dict of str to array
            For each stack ``stackK/weight`` (count, n_out, n_in) and, if the network has biases,
            ``stackK/encoder_bias`` (count, n_out) and ``stackK/decoder_bias`` (count, n_in).
        """
        parameters = {}
        with nx.scope():
            for s in self.stacks:
                rules: dict[str, tuple[str | Initializer, tuple[int, ...]]] = {
                    "weight": (self.initializer, (s.n_out, s.n_in))
                }
                if self.bias is not None:
                    rules["encoder_bias"] = (self.bias, (s.n_out,))
                    rules["decoder_bias"] = (self.bias, (s.n_in,))
                for name, (rule, shape) in rules.items():
                    parameters[f"{s.name}/{name}"] = draw(nx, rule, s.count, shape, stream, dtype)
        return parameters

    def forward(
        self,
        nx: Backend,
        parameters: Mapping[str, Array],
        x: Array,
        /,
        extras: Mapping[str, Array] | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Encode a batch, and decode the codes.

        Parameters
        ----------
        parameters : mapping of str to array
            As `initialize` returns them.
        x : array (batch, n_0)
        extras : mapping of str to array, optional
            ``stackK/encoder/offset`` and ``stackK/decoder/offset``, of the shapes below, added to
            the preactivations.

        Returns
        -------
        output : array (batch, n_0)
            The reconstructions.
        preactivations : dict of str to array
            For each stack ``stackK/encoder`` (count, batch, n_out) and ``stackK/decoder`` (count,
            batch, n_in), both from the first layer to the last that the signal meets.
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
        h, trace, added = x, {}, extras or {}
        with nx.scope():
            for way, stacks in (("encoder", self.stacks), ("decoder", self.stacks[::-1])):
                for stack in stacks:
                    name = f"{stack.name}/{way}"
                    own = _own(nx, parameters, stack, way)
                    if f"{name}/offset" in added:
                        own["offset"] = added[f"{name}/offset"]
                    layer = self._layer(nx, stack, way)
                    h, trace[name] = run(nx, layer, h, own, keep=keep)
        return h, trace

    def _layer(self, nx: Backend, stack: Stack, way: str) -> Layer:
        ops, phi = nx.ops, activation(self.activation)
        encodes = way == "encoder"

        def layer(h: Array, own: Mapping[str, Array]) -> tuple[Array, Array]:
            weight = own["weight"]
            z = (ops.linear if encodes else ops.matmul)(h, weight)
            for term in ("bias", "offset"):
                z = z + own[term] if term in own else z
            return phi(nx, z) if encodes or stack.hidden else z, z

        return layer


def _own(nx: Backend, parameters: Mapping[str, Array], stack: Stack, way: str) -> dict[str, Array]:
    """Return a stack's weights, and its biases of this way if it has them, as they are met."""
    paths = {"weight": f"{stack.name}/weight", "bias": f"{stack.name}/{way}_bias"}
    own = {name: parameters[path] for name, path in paths.items() if path in parameters}
    if way == "encoder" or stack.count == 1:
        return own
    last_first = nx.asarray(np.arange(stack.count)[::-1].copy())
    return {name: nx.ops.take(a, last_first, axis=0) for name, a in own.items()}
