"""Message passing on a graph: every node hears the mean of its neighbours, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.initializers import Initializer, initializer
from isometry.common.networks.activations import Activation, activation
from isometry.common.networks.stacks import Family, draw, run

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["MessagePassing", "symmetric_adjacency"]

Array = Any


def symmetric_adjacency(nodes: int, edges: np.ndarray) -> np.ndarray:
    """Return ``D**-1/2 (A + I) D**-1/2``, D being the degrees of A + I.

    Kipf and Welling 2017, Semi-supervised classification with graph convolutional networks, eq. 2.
    Its largest eigenvalue is 1, with the eigenvector ``sqrt(degree)``.

    Parameters
    ----------
    nodes : int
    edges : array (count, 2)
        Pairs of nodes from 0, in either order, once or more often.

    Raises
    ------
    InvalidArgument
        If there is no node, or an edge leads out of the graph.
    """
    checks.integer("nodes", nodes, low=1)
    pairs = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= nodes):
        raise InvalidArgument(
            f"edges must join nodes from 0 to {nodes - 1}; received nodes from {pairs.min()} to "
            f"{pairs.max()}"
        )
    adjacency = np.eye(nodes)
    adjacency[pairs[:, 0], pairs[:, 1]] = adjacency[pairs[:, 1], pairs[:, 0]] = 1
    root = np.sqrt(adjacency.sum(axis=1))
    return np.asarray(adjacency / np.outer(root, root))


@dataclass(frozen=True)
class MessagePassing(Family):
    """``H_l = phi(S H_{l-1} W_l^T)`` for l = 1 .. L: graph convolution, of one width throughout.

    S mixes nodes and W_l features: Kipf and Welling 2017, eq. 2. Without edges it is a fully
    connected net for each node.

    Parameters
    ----------
    depth, features : int
    activation : str or callable
        After every layer.
    initializer : str or Initializer
        Of each W_l (features, features).

    Raises
    ------
    InvalidArgument
        If a size is below 1 or a name unknown.
    """

    depth: int
    features: int
    activation: str | Activation = "relu"
    initializer: str | Initializer = "xavier_normal"

    def __post_init__(self) -> None:
        checks.integer("depth", self.depth, low=1)
        checks.integer("features", self.features, low=1)
        activation(self.activation)
        initializer(self.initializer)

    @property
    def traced(self) -> tuple[str, ...]:
        """Names of the preactivations that `forward` returns."""
        return ("layers",)

    def initialize(
        self, nx: Backend, stream: Stream, /, *, dtype: str = "float32"
    ) -> dict[str, Array]:
        """Return ``weight`` (depth, features, features)."""
        shape = (self.features, self.features)
        with nx.scope():
            return {"weight": draw(nx, self.initializer, self.depth, shape, stream, dtype)}

    def forward(
        self,
        nx: Backend,
        parameters: Mapping[str, Array],
        x: Array,
        adjacency: Array,
        /,
        extras: Mapping[str, Array] | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Run the network on a graph.

        Parameters
        ----------
        x : array (nodes, features)
        adjacency : array (nodes, nodes)
            S, as of `symmetric_adjacency`.
        extras : mapping of str to array, optional
            ``layers/offset`` (depth, nodes, features), added to the preactivations.

        Returns
        -------
        output : array (nodes, features)
        preactivations : dict of str to array
            ``layers`` -> S H_{l-1} W_l^T of each layer (depth, nodes, features).
        """
        output, z = self._run(nx, parameters, x, adjacency, extras, keep=True)
        return output, {"layers": z}

    def _run(
        self,
        nx: Backend,
        parameters: Mapping[str, Array],
        x: Array,
        adjacency: Array,
        extras: Mapping[str, Array] | None = None,
        *,
        keep: bool,
    ) -> tuple[Array, Array | None]:
        ops, phi = nx.ops, activation(self.activation)

        def layer(h: Array, own: Mapping[str, Array]) -> tuple[Array, Array]:
            mixed = ops.matmul(adjacency, h)
            z = ops.linear(mixed, own["weight"])
            z = z + own["layers/offset"] if "layers/offset" in own else z
            return phi(nx, z), z

        with nx.scope():
            stacked = {"weight": parameters["weight"], **(extras or {})}
            return run(nx, layer, x, stacked, keep=keep)
