"""Each family as a net for the 8x8 digits: what it is given, and what it is trained for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.digits import digits
from isometry.common.errors import InvalidArgument
from isometry.common.laws import perceptron
from isometry.common.laws.distributions import Normal
from isometry.common.laws.initializers import INITIALIZERS
from isometry.common.networks.activations import ACTIVATIONS
from isometry.common.networks.attention import Attention
from isometry.common.networks.autoencoder import TiedAutoencoder
from isometry.common.networks.convolutional import Convolutional
from isometry.common.networks.fully_connected import NORMS, PLACES, FullyConnected
from isometry.common.networks.message_passing import MessagePassing, symmetric_adjacency
from isometry.common.networks.recurrent import Recurrent

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["FAMILIES", "LAYER", "SHORTCUTS", "Options", "Subject", "subject"]

Array = Any
CLASSES = 10
SIDE = 8
NEIGHBOURS = 3
NORMALIZATIONS = ("none", *NORMS)
SHORTCUTS = ("none", "residual", "dense")
ALLOWED = {
    "fully_connected": (NORMALIZATIONS, SHORTCUTS),
    "attention": (("none", "layer"), ("none", "residual")),
}
UNBIASED = ("attention", "message_passing")


@dataclass(frozen=True)
class Options:
    """What a net is made of.

    Attributes
    ----------
    family : str
        Of `FAMILIES`.
    depth, width : int
        At least 1 and 8, of message passing 64.
    activation, initializer, normalization, place, shortcut : str
        As `FullyConnected` names them, "none" for none.
    bias : float
        Standard deviation of the biases; 0 for none.

    Raises
    ------
    InvalidArgument
        If a name is unknown, or the family has no such normalization, shortcut or biases, or not
        this depth.
    """

    family: str
    depth: int
    width: int
    activation: str
    initializer: str
    normalization: str = "none"
    place: str = "preactivation"
    shortcut: str = "none"
    bias: float = 0.0

    def __post_init__(self) -> None:
        family = checks.choice("family", self.family, tuple(FAMILIES))
        checks.choice("activation", self.activation, tuple(ACTIVATIONS))
        checks.choice("initializer", self.initializer, tuple(INITIALIZERS))
        checks.integer("depth", self.depth, low=1)
        smallest = SIDE**2 if family == "message_passing" else SIDE
        checks.integer("width", self.width, low=smallest)
        checks.finite("bias", self.bias, low=0.0)
        checks.choice("place", self.place, PLACES)
        checks.choice("normalization", self.normalization, NORMALIZATIONS)
        checks.choice("shortcut", self.shortcut, SHORTCUTS)
        allowed = ALLOWED.get(family, (("none",), ("none",)))
        for name, choices in zip(("normalization", "shortcut"), allowed, strict=True):
            if getattr(self, name) not in choices:
                raise InvalidArgument(
                    f"{name} of the family {family} must be {' or '.join(choices)}; received "
                    f"{getattr(self, name)!r}"
                )
        if self.bias and family in UNBIASED:
            raise InvalidArgument(
                f"nets of the family {family} have no biases: bias must be 0; received "
                f"{self.bias:g}"
            )
        if family == "autoencoder" and self.depth % 2:
            raise InvalidArgument(
                "an autoencoder decodes through as many layers as it encodes: depth must be even; "
                f"received {self.depth}"
            )

    @property
    def biases(self) -> Normal | None:
        """The law of the biases, if there are any."""
        return Normal(0.0, self.bias) if self.bias else None


@dataclass(frozen=True)
class Subject:
    """A net, what it is given, and what it is trained for.

    Attributes
    ----------
    network : object
        Of a family of isometry.common.networks.
    inputs : tuple of array
        What its `forward` takes after the parameters, in float64.
    targets : array
    criterion : callable
        ``criterion(nx, output, targets)``.
    """

    network: Any
    inputs: tuple[np.ndarray, ...]
    targets: np.ndarray
    criterion: Callable[[Backend, Array, Array], Array] = perceptron.cross_entropy


def subject(options: Options, examples: int) -> Subject:
    """Return a net of a family for the first digits, each scaled to squares of mean 1.

    =============== ============================================================================
    fully_connected (64, width, .., width, 10); each digit is 64 numbers; cross-entropy
    convolutional   as many channels as `width`, 3x3 kernels, circular padding, and the readout as
                    the last layer; each digit is an image; cross-entropy
    recurrent, lstm `depth` steps; each digit's rows of 8 pixels, over and over; cross-entropy of
                    the first ten units after the last step
    attention       `depth` blocks; each digit's rows are 8 tokens, with zeros up to `width`
                    features; cross-entropy of the first ten features, averaged over tokens
    autoencoder     (64, width, .., width) with `depth` / 2 layers, and back; mean squared error
    message_passing `depth` layers; the digits are nodes, each joined with its 3 nearest, their
                    features followed by zeros up to `width`; cross-entropy of the first ten
    =============== ============================================================================
    """
    images, labels = digits()
    checks.integer("examples", examples, low=1, high=len(images))
    x = images[:examples].astype(np.float64)
    x *= SIDE / np.linalg.norm(x, axis=1, keepdims=True)
    return FAMILIES[options.family](options, x, np.eye(CLASSES)[labels[:examples]])


def _fully_connected(given: Options, x: np.ndarray, targets: np.ndarray) -> Subject:
    network = FullyConnected(
        (SIDE**2, *[given.width] * (given.depth - 1), CLASSES),
        given.activation,
        given.initializer,
        given.biases,
        None if given.normalization == "none" else given.normalization,
        given.place,
        None if given.shortcut == "none" else given.shortcut,
    )
    return Subject(network, (x,), targets)


def _convolutional(given: Options, x: np.ndarray, targets: np.ndarray) -> Subject:
    rule = given.initializer
    network = Convolutional(
        (1, *[given.width] * (given.depth - 1)),
        SIDE,
        CLASSES,
        activation=given.activation,
        initializer=rule,
        readout="orthogonal" if rule == "delta_orthogonal" else rule,
        bias=given.biases,
    )
    return Subject(network, (x.reshape(-1, 1, SIDE, SIDE),), targets)


def _recurrent(given: Options, x: np.ndarray, targets: np.ndarray) -> Subject:
    rule, cell = given.initializer, "lstm" if given.family == "lstm" else "plain"
    network = Recurrent(SIDE, given.width, cell, given.activation, rule, rule, given.biases)
    rows = x.reshape(-1, SIDE, SIDE)[:, np.arange(given.depth) % SIDE]
    return Subject(network, (rows.swapaxes(0, 1),), targets, _last_step)


def _attention(given: Options, x: np.ndarray, targets: np.ndarray) -> Subject:
    before = given.place == "preactivation"
    network = Attention(
        given.depth,
        given.width,
        initializer=given.initializer,
        residual=given.shortcut == "residual",
        layer_norm=None if given.normalization == "none" else "before" if before else "after",
    )
    tokens = _widened(x.reshape(-1, SIDE, SIDE), given.width)
    return Subject(network, (tokens,), targets, _mean_token)


def _autoencoder(given: Options, x: np.ndarray, _: np.ndarray) -> Subject:
    widths = (SIDE**2, *[given.width] * (given.depth // 2))
    network = TiedAutoencoder(widths, given.activation, given.initializer, given.biases)
    return Subject(network, (x,), x, _squared_error)


def _message_passing(given: Options, x: np.ndarray, targets: np.ndarray) -> Subject:
    network = MessagePassing(given.depth, given.width, given.activation, given.initializer)
    return Subject(network, (_widened(x, given.width), _graph(x)), targets, _first)


LAYER = {"attention": "block", "recurrent": "step", "lstm": "step"}
"""What a layer is called in families where it is none."""

FAMILIES: dict[str, Callable[[Options, np.ndarray, np.ndarray], Subject]] = {
    "fully_connected": _fully_connected,
    "convolutional": _convolutional,
    "recurrent": _recurrent,
    "lstm": _recurrent,
    "attention": _attention,
    "autoencoder": _autoencoder,
    "message_passing": _message_passing,
}
"""Name -> net for images (examples, 64) of classes (examples, 10)."""


def _widened(x: np.ndarray, width: int) -> np.ndarray:
    """Return features followed by zeros, scaled so that the mean of squares stays."""
    size = x.shape[-1]
    wide = np.zeros((*x.shape[:-1], width))
    wide[..., :size] = x * (width / size) ** 0.5
    return wide


def _graph(x: np.ndarray) -> np.ndarray:
    """Return the mixing of a graph in which each example is joined with its nearest."""
    cosines = x @ x.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(x) - 1)]
    edges = [(i, j) for i, row in enumerate(nearest) for j in row]
    return symmetric_adjacency(len(x), np.array(edges))


def _first(nx: Backend, output: Array, targets: Array) -> Array:
    return perceptron.cross_entropy(nx, output[:, :CLASSES], targets)


def _last_step(nx: Backend, output: Array, targets: Array) -> Array:
    steps, batch, units = nx.shape_of(output)
    return _first(nx, nx.ops.reshape(output[steps - 1 :], (batch, units)), targets)


def _mean_token(nx: Backend, output: Array, targets: Array) -> Array:
    return _first(nx, nx.ops.mean(output, axis=1), targets)


def _squared_error(nx: Backend, output: Array, targets: Array) -> Array:
    return nx.ops.mean(nx.ops.square(output - targets))
