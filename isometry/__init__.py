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
    from isometry.common.laws.fans import Fans, fans
    from isometry.common.laws.initializers import INITIALIZERS, Orthogonal, VarianceScaling
    from isometry.common.laws.orthogonal import DeltaOrthogonal
    from isometry.common.registry import load, names
    from isometry.common.results import Check, Quantity, Result
    from isometry.common.statistics.assertions import assert_law, required_samples
    from isometry.common.streams import Stream

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
    "laws.orthogonal": ("DeltaOrthogonal",),
    "registry": ("load", "names"),
    "results": ("Check", "Quantity", "Result"),
    "statistics.assertions": ("assert_law", "required_samples"),
    "streams": ("Stream",),
}

__all__ = [
    "ACTIVATIONS",
    "CAPABILITIES",
    "INITIALIZERS",
    "Backend",
    "BackendNotInstalled",
    "Bernoulli",
    "Check",
    "Constant",
    "DeltaOrthogonal",
    "Fans",
    "InvalidArgument",
    "IsometryError",
    "Normal",
    "Orthogonal",
    "Quantity",
    "Result",
    "ResultFileError",
    "Sparse",
    "Stream",
    "TruncatedNormal",
    "Uniform",
    "Unsupported",
    "VarianceScaling",
    "__version__",
    "assert_law",
    "fans",
    "load",
    "names",
    "required_samples",
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
