"""What a layer of each library does when nothing is said: as data, in words common to all.

Nothing here is taken on trust: the tests run every default and hold it to what is written here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from isometry.common import checks
from isometry.common.laws.distributions import (
    Constant,
    Distribution,
    Normal,
    TruncatedNormal,
    Uniform,
)

__all__ = [
    "BEHAVIOURS",
    "DEFAULTS",
    "LIBRARIES",
    "Adam",
    "BatchNorm",
    "Convolution",
    "Dense",
    "Embedding",
    "Law",
    "LayerNorm",
    "Library",
]

KINDS = {"uniform": "bound", "normal": "std", "truncated normal": "std", "zeros": ""}


@dataclass(frozen=True)
class Law:
    """An exact law: its kind, and its scale as an expression of the sizes that a recipe names.

    The scale is the bound of a uniform law on both sides of 0, and the standard deviation of a
    normal one, which of a truncated normal is its own: after the cut.
    """

    kind: str
    scale: str = ""

    def __post_init__(self) -> None:
        checks.choice("kind of law", self.kind, tuple(KINDS))

    @property
    def parameter(self) -> str:
        """What the scale is: bound, std, or nothing."""
        return KINDS[self.kind]

    def exact(self, sizes: Mapping[str, float]) -> Distribution:
        """Return the law for these sizes: fan_in and fan_out, or features."""
        if self.kind == "zeros":
            return Constant(0.0)
        scale = eval(self.scale, {"sqrt": math.sqrt, **sizes})  # the text that recipes print
        if self.kind == "uniform":
            return Uniform(-scale, scale)
        return Normal(0.0, scale) if self.kind == "normal" else TruncatedNormal.of_std(scale)

    def __str__(self) -> str:
        if self.kind == "zeros":
            return "0"
        if self.kind == "uniform":
            return f"U(-b, b), b = {self.scale}"
        cut = " after its cut" if self.kind == "truncated normal" else ""
        return f"{self.kind}, std {self.scale}{cut}"


@dataclass(frozen=True)
class Dense:
    """How a dense layer starts; `axes` of its kernel as stored; whether it flattens its input."""

    kernel: Law
    bias: Law
    axes: str
    flattens: bool = False

    def words(self) -> dict[str, str]:
        """Return question -> answer."""
        applies = "the whole example, flattened" if self.flattens else "the last axis alone"
        return {
            "kernel": str(self.kernel),
            "bias": str(self.bias),
            "kernel's axes": self.axes,
            "works on": applies,
        }


@dataclass(frozen=True)
class Convolution:
    """How a two-dimensional convolution starts, what it adds around the image, and its layouts.

    Padding "same" is that of TensorFlow: ``max(size - (side % stride or stride), 0)`` zeros along
    each side, so that ``ceil(side / stride)`` outputs come out; an odd zero more after than before.
    """

    kernel: Law
    bias: Law
    axes: str
    images: str
    padding: str

    def words(self) -> dict[str, str]:
        """Return question -> answer."""
        return {
            "kernel": str(self.kernel),
            "bias": str(self.bias),
            "padding": {
                "valid": "none",
                "same": "to the size of the image, over the stride if there is one",
            }[self.padding],
            "kernel's axes": self.axes,
            "image's axes": self.images,
        }


@dataclass(frozen=True)
class Embedding:
    """How a table of rows of `features` numbers starts."""

    table: Law

    def words(self) -> dict[str, str]:
        """Return question -> answer."""
        return {"table": str(self.table)}


@dataclass(frozen=True)
class BatchNorm:
    """Eps, inside the root; the weight of the old running value; which variance is averaged, when.

    Scale 1, shift 0, running mean 0 and running variance 1 at the start, in every library.
    """

    eps: float
    old_weight: float
    unbiased: bool
    moves: str
    channels: str

    def words(self) -> dict[str, str]:
        """Return question -> answer."""
        of = "unbiased, n / (n - 1) times the batch's own" if self.unbiased else "biased"
        return {
            "eps": f"{self.eps:g}",
            "weight of the old running value": f"{self.old_weight:g}",
            "running variance": of,
            "statistics move in the": f"{self.moves} pass",
            "channels": self.channels,
        }


@dataclass(frozen=True)
class LayerNorm:
    """Eps, inside the root, over the last axis; scale 1 and shift 0 at the start."""

    eps: float

    def words(self) -> dict[str, str]:
        """Return question -> answer."""
        return {"eps": f"{self.eps:g}"}


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2015, algorithm 1, or with its eps before the correction (above section 2.1).

    eps added "after" the bias correction: ``m^ / (sqrt(v^) + eps)``; "before" it:
    ``m^ sqrt(1 - beta2**t) / (sqrt(v) + eps)``, which is ``m^ / (sqrt(v^) + eps')`` with
    ``eps' = eps / sqrt(1 - beta2**t)``.
    """

    rate: float | None
    beta1: float
    beta2: float
    eps: float
    eps_place: str
    decay: str

    def words(self) -> dict[str, str]:
        """Return question -> answer."""
        return {
            "learning rate": f"{self.rate:g}" if self.rate else "none, it must be given",
            "beta1, beta2": f"{self.beta1:g}, {self.beta2:g}",
            "eps": f"{self.eps:g}, added {self.eps_place} the bias correction",
            "weight decay": f"off; once asked for, {self.decay}",
        }


@dataclass(frozen=True)
class Library:
    """A library, and the versions of the distributions that its behaviour was measured with."""

    name: str
    title: str
    versions: Mapping[str, str]

    def __str__(self) -> str:
        found = " and ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.title} ({found})"


LIBRARIES = {
    library.name: library
    for library in (
        Library("torch", "PyTorch", {"torch": "2.13.0"}),
        Library("keras", "Keras", {"keras": "3.15.1"}),
        Library("flax", "Flax nnx", {"flax": "0.12.8", "optax": "0.2.8"}),
        Library("gluon", "Gluon", {"mxnet": "1.9.1"}),
    )
}

ZEROS = Law("zeros")
THIRD = Law("uniform", "1 / sqrt(fan_in)")  # variance 1 / (3 fan_in)
XAVIER = Law("uniform", "sqrt(6 / (fan_in + fan_out))")
OF_ALL_OUTPUTS = Law("uniform", "sqrt(6 / (fan_in + groups * fan_out))")  # not of one group's
LECUN = Law("truncated normal", "1 / sqrt(fan_in)")
ANY_SHAPE = Law("uniform", "0.07")
ADDED, APART = "added to the gradient", "decoupled"
AXIS_1, LAST = "axis 1", "the last axis"
OIHW, HWIO = "out, in, height, width", "height, width, in, out"
NCHW, NHWC = "batch, channels, height, width", "batch, height, width, channels"

CONVOLUTIONS = {
    "torch": Convolution(THIRD, THIRD, OIHW, NCHW, "valid"),
    "keras": Convolution(XAVIER, ZEROS, HWIO, NHWC, "valid"),
    "flax": Convolution(LECUN, ZEROS, HWIO, NHWC, "same"),
    "gluon": Convolution(ANY_SHAPE, ZEROS, OIHW, NCHW, "valid"),
}

# subject -> library -> what it does
BEHAVIOURS: dict[str, dict[str, Any]] = {
    "dense": {
        "torch": Dense(THIRD, THIRD, "out, in"),
        "keras": Dense(XAVIER, ZEROS, "in, out"),
        "flax": Dense(LECUN, ZEROS, "in, out"),
        "gluon": Dense(ANY_SHAPE, ZEROS, "out, in", flattens=True),
    },
    "convolution": CONVOLUTIONS,
    "strided_convolution": CONVOLUTIONS,
    "grouped_convolution": {
        **CONVOLUTIONS,
        "keras": replace(CONVOLUTIONS["keras"], kernel=OF_ALL_OUTPUTS),
    },
    "embedding": {
        "torch": Embedding(Law("normal", "1.0")),
        "keras": Embedding(Law("uniform", "0.05")),
        "flax": Embedding(Law("normal", "1 / sqrt(features)")),
        "gluon": Embedding(ANY_SHAPE),
    },
    "batch_norm": {
        "torch": BatchNorm(1e-5, 0.9, True, "forward", AXIS_1),
        "keras": BatchNorm(1e-3, 0.99, False, "forward", LAST),
        "flax": BatchNorm(1e-5, 0.99, False, "forward", LAST),
        "gluon": BatchNorm(1e-5, 0.9, False, "backward", AXIS_1),
    },
    "layer_norm": {
        "torch": LayerNorm(1e-5),
        "keras": LayerNorm(1e-3),
        "flax": LayerNorm(1e-6),
        "gluon": LayerNorm(1e-5),
    },
    "adam": {
        "torch": Adam(1e-3, 0.9, 0.999, 1e-8, "after", ADDED),
        "keras": Adam(1e-3, 0.9, 0.999, 1e-7, "before", APART),
        "flax": Adam(None, 0.9, 0.999, 1e-8, "after", APART + ", by optax.adamw"),
        "gluon": Adam(1e-3, 0.9, 0.999, 1e-8, "before", ADDED),
    },
}

# library -> subject -> how its user calls it who says nothing; a recipe's sizes are its names
DEFAULTS = {
    "torch": {
        "dense": "torch.nn.Linear(inputs, outputs)",
        "convolution": "torch.nn.Conv2d(inputs, outputs, size)",
        "strided_convolution": "torch.nn.Conv2d(inputs, outputs, size, stride=stride)",
        "grouped_convolution": "torch.nn.Conv2d(inputs, outputs, size, groups=groups)",
        "embedding": "torch.nn.Embedding(rows, features)",
        "batch_norm": "torch.nn.BatchNorm1d(features)",
        "layer_norm": "torch.nn.LayerNorm(features)",
        "adam": "torch.optim.Adam(parameters)",
    },
    "keras": {
        "dense": "keras.layers.Dense(outputs)",
        "convolution": "keras.layers.Conv2D(outputs, size)",
        "strided_convolution": "keras.layers.Conv2D(outputs, size, strides=stride)",
        "grouped_convolution": "keras.layers.Conv2D(outputs, size, groups=groups)",
        "embedding": "keras.layers.Embedding(rows, features)",
        "batch_norm": "keras.layers.BatchNormalization()",
        "layer_norm": "keras.layers.LayerNormalization()",
        "adam": "keras.optimizers.Adam()",
    },
    "flax": {
        "dense": "nnx.Linear(inputs, outputs, rngs=rngs)",
        "convolution": "nnx.Conv(inputs, outputs, (size, size), rngs=rngs)",
        "strided_convolution": "nnx.Conv(inputs, outputs, (size, size), strides=stride, rngs=rngs)",
        "grouped_convolution": (
            "nnx.Conv(inputs, outputs, (size, size), feature_group_count=groups, rngs=rngs)"
        ),
        "embedding": "nnx.Embed(rows, features, rngs=rngs)",
        "batch_norm": "nnx.BatchNorm(features, rngs=rngs)",
        "layer_norm": "nnx.LayerNorm(features, rngs=rngs)",
        "adam": "optax.adam(learning_rate)",
    },
    "gluon": {
        "dense": "mx.gluon.nn.Dense(outputs, in_units=inputs)",
        "convolution": "mx.gluon.nn.Conv2D(outputs, size, in_channels=inputs)",
        "strided_convolution": (
            "mx.gluon.nn.Conv2D(outputs, size, strides=stride, in_channels=inputs)"
        ),
        "grouped_convolution": (
            "mx.gluon.nn.Conv2D(outputs, size, groups=groups, in_channels=inputs)"
        ),
        "embedding": "mx.gluon.nn.Embedding(rows, features)",
        "batch_norm": "mx.gluon.nn.BatchNorm(in_channels=features)",
        "layer_norm": "mx.gluon.nn.LayerNorm(in_channels=features)",
        "adam": "mx.optimizer.Adam()",
    },
}
