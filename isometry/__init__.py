"""Isometry: numerical stability and initialization, the same in five frameworks.

>>> import isometry as iso
>>> nx = iso.load("numpy")
>>> nx.sigmoid_gradient(nx.asarray([0.0, 20.0]))
array([2.5000000e-01, 2.0611537e-09], dtype=float32)

Names are imported on first use: ``import isometry`` loads no framework, not even NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

from isometry._version import __version__

if TYPE_CHECKING:
    from isometry.common.contract import ACTIVATIONS, CAPABILITIES, Backend
    from isometry.common.errors import (
        BackendNotInstalled,
        InvalidArgument,
        IsometryError,
        ResultFileError,
        Unsupported,
    )
    from isometry.common.laws.distributions import (
        Bernoulli,
        Constant,
        Normal,
        Sparse,
        TruncatedNormal,
        Uniform,
    )
    from isometry.common.laws.embeddings import Embedding, Tied
    from isometry.common.laws.fans import Fans, fans
    from isometry.common.laws.gains import exact_gain, pytorch_gain
    from isometry.common.laws.identities import Bilinear, Dirac, Identity
    from isometry.common.laws.initializers import INITIALIZERS, Orthogonal, VarianceScaling
    from isometry.common.laws.lsuv import lsuv
    from isometry.common.laws.mup import MuP
    from isometry.common.laws.normalization import conventions
    from isometry.common.laws.orthogonal import DeltaOrthogonal
    from isometry.common.laws.recurrent import Chrono, ForgetGateBias, PerGate
    from isometry.common.laws.residual import fixup
    from isometry.common.laws.rules import Initializer
    from isometry.common.laws.upsampling import ICNR
    from isometry.common.optimizers.clipping import (
        clip_adaptively,
        clip_by_global_norm,
        clip_by_norm,
        clip_by_value,
    )
    from isometry.common.optimizers.optimizer import NonFinite, Optimizer
    from isometry.common.optimizers.presets import optimizer_rule
    from isometry.common.optimizers.schedules import (
        Cosine,
        Cyclical,
        DivideWhenStuck,
        Polynomial,
        StepDecay,
        WarmRestarts,
        WarmUp,
    )
    from isometry.common.registry import load, names
    from isometry.common.results import Check, Quantity, Result
    from isometry.common.statistics.assertions import assert_law, required_samples
    from isometry.common.statistics.identify import identify
    from isometry.common.streams import Stream
    from isometry.common.weights.files import read_weights, save_weights
    from isometry.common.weights.loading import load_weights
    from isometry.common.weights.named import Weight, Weights, weights

_HOME = {
    "contract": ("ACTIVATIONS", "CAPABILITIES", "Backend"),
    "errors": (
        "BackendNotInstalled",
        "InvalidArgument",
        "IsometryError",
        "ResultFileError",
        "Unsupported",
    ),
    "laws.distributions": (
        "Bernoulli",
        "Constant",
        "Normal",
        "Sparse",
        "TruncatedNormal",
        "Uniform",
    ),
    "laws.fans": ("Fans", "fans"),
    "laws.initializers": ("INITIALIZERS", "Orthogonal", "VarianceScaling"),
    "laws.normalization": ("conventions",),
    "laws.orthogonal": ("DeltaOrthogonal",),
    "laws.embeddings": ("Embedding", "Tied"),
    "laws.gains": ("exact_gain", "pytorch_gain"),
    "laws.identities": ("Bilinear", "Dirac", "Identity"),
    "laws.lsuv": ("lsuv",),
    "laws.mup": ("MuP",),
    "laws.recurrent": ("Chrono", "ForgetGateBias", "PerGate"),
    "laws.residual": ("fixup",),
    "laws.rules": ("Initializer",),
    "laws.upsampling": ("ICNR",),
    "optimizers.clipping": (
        "clip_adaptively",
        "clip_by_global_norm",
        "clip_by_norm",
        "clip_by_value",
    ),
    "optimizers.optimizer": ("NonFinite", "Optimizer"),
    "optimizers.presets": ("optimizer_rule",),
    "optimizers.schedules": (
        "Cosine",
        "Cyclical",
        "DivideWhenStuck",
        "Polynomial",
        "StepDecay",
        "WarmRestarts",
        "WarmUp",
    ),
    "registry": ("load", "names"),
    "results": ("Check", "Quantity", "Result"),
    "statistics.assertions": ("assert_law", "required_samples"),
    "statistics.identify": ("identify",),
    "streams": ("Stream",),
    "weights.files": ("read_weights", "save_weights"),
    "weights.loading": ("load_weights",),
    "weights.named": ("Weight", "Weights", "weights"),
}

__all__ = [
    "ACTIVATIONS",
    "CAPABILITIES",
    "ICNR",
    "INITIALIZERS",
    "Backend",
    "BackendNotInstalled",
    "Bernoulli",
    "Bilinear",
    "Check",
    "Chrono",
    "Constant",
    "Cosine",
    "Cyclical",
    "DeltaOrthogonal",
    "Dirac",
    "DivideWhenStuck",
    "Embedding",
    "Fans",
    "ForgetGateBias",
    "Identity",
    "Initializer",
    "InvalidArgument",
    "IsometryError",
    "MuP",
    "NonFinite",
    "Normal",
    "Optimizer",
    "Orthogonal",
    "PerGate",
    "Polynomial",
    "Quantity",
    "Result",
    "ResultFileError",
    "Sparse",
    "StepDecay",
    "Stream",
    "Tied",
    "TruncatedNormal",
    "Uniform",
    "Unsupported",
    "VarianceScaling",
    "WarmRestarts",
    "WarmUp",
    "Weight",
    "Weights",
    "__version__",
    "assert_law",
    "clip_adaptively",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "conventions",
    "exact_gain",
    "fans",
    "fixup",
    "identify",
    "load",
    "load_weights",
    "lsuv",
    "names",
    "optimizer_rule",
    "pytorch_gain",
    "read_weights",
    "required_samples",
    "save_weights",
    "weights",
]


def __getattr__(name: str) -> Any:
    for home, owned in _HOME.items():
        if name in owned:
            value = getattr(importlib.import_module(f"isometry.common.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
