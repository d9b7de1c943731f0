"""Studies: questions asked of any backend.

A study is a function ``run(nx, tell, /, *, seed, ...)`` in a file of its own: its keyword-only
parameters, with their defaults, are the study's parameters, and it returns `Findings`. It computes
with the contract and ``nx.ops`` alone. `tell(done, total, what)` reports progress.
"""

from __future__ import annotations

import datetime
import importlib
import inspect
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument, unknown_name
from isometry.common.results import Check, Quantity, Result

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["GROUPS", "NAMES", "Findings", "Parameter", "Study", "find", "run"]

Tell = Callable[[int, int, str], None]

GROUPS: dict[str, tuple[str, ...]] = {
    "chapter": ("sigmoid-gradient", "matrix-chain", "xavier", "symmetry", "normalization"),
    "depth": (
        "signal-propagation",
        "default-layers",
        "edge-of-chaos",
        "dynamical-isometry",
        "ten-thousand-layers",
        "vanishing-curvature",
        "sample-variance",
        "gradient-variance",
        "hessian-spectrum",
        "matrix-products",
        "coordinate-check",
        "batch-norm",
        "input-scaling",
    ),
    "remedies": (
        "layer-by-layer",
        "divergence",
        "fix-after-the-fact",
        "large-batch",
        "momentum-paths",
        "saturation",
        "warm-up",
        "newton-and-saddles",
    ),
}
"""The chapter of Dive into Deep Learning, 5.4; what depth does to a signal, beyond it; remedies."""

NAMES = tuple(name for group in GROUPS.values() for name in group)


@dataclass(frozen=True)
class Findings:
    """What a study's function returns; `run` adds where it came from."""

    quantities: Mapping[str, Quantity]
    checks: tuple[Check, ...]
    finding: str


@dataclass(frozen=True)
class Parameter:
    """A parameter of a study: its default fixes its type (int, float, str or bool)."""

    name: str
    default: int | float | str | bool
    help: str

    def parse(self, value: Any) -> int | float | str | bool:
        """Return `value`, a string from the command line or a Python value, in the right type."""
        kind = type(self.default)
        try:
            if kind is bool and isinstance(value, str):
                return {"true": True, "false": False}[value.lower()]
            if kind is int and isinstance(value, float) and not value.is_integer():
                raise ValueError
            if isinstance(value, bool) is not (kind is bool):
                raise ValueError
            return kind(value)
        except (KeyError, ValueError, TypeError):
            raise InvalidArgument(
                f"parameter {self.name!r} must be {kind.__name__}; received {value!r}; "
                f"the default is {self.default!r}"
            ) from None


@dataclass(frozen=True)
class Study:
    """A study: name, question, and the function that answers it."""

    name: str
    question: str
    function: Callable[..., Findings]
    parameters: tuple[Parameter, ...]


def find(name: str) -> Study:
    """Return the study of a name; its file is ``common/studies/<name with _>.py``.

    The question is the first line of the module's docstring, a parameter's help the comment-like
    line of the function's numpydoc ``Parameters`` section.
    """
    if name not in NAMES:
        raise unknown_name("study", name, NAMES)
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    documented = inspect.getdoc(module.run) or ""
    parameters = tuple(
        Parameter(p.name, p.default, _help(documented, p.name))
        for p in inspect.signature(module.run).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name != "seed"
    )
    return Study(name, (module.__doc__ or "").split("\n")[0], module.run, parameters)


def _help(documented: str, name: str) -> str:
    lines = documented.split("\n")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith(f"{name} :"):
            return following.strip()
    return ""


def run(
    study: str,
    nx: Backend,
    *,
    seed: int = 0,
    parameters: Mapping[str, Any] | None = None,
    tell: Tell | None = None,
) -> Result:
    """Ask a study of a backend.

    Parameters
    ----------
    study : str
        One of `NAMES`.
    seed : int
        Of every stream the study uses.
    parameters : mapping, optional
        Values to set; strings are parsed to the type of the parameter's default.
    tell : callable, optional
        ``tell(done, total, what)``, called as the study goes on.

    Raises
    ------
    InvalidArgument
        If the study or a parameter is unknown, or a value is not allowed.
    """
    import isometry

    asked = find(study)
    checks.integer("seed", seed, low=0, high=2**63 - 1)
    values = {p.name: p.default for p in asked.parameters}
    for name, value in (parameters or {}).items():
        if name not in values:
            raise unknown_name(f"parameter of study {study!r}", name, values)
        values[name] = next(p for p in asked.parameters if p.name == name).parse(value)
    started = time.perf_counter()
    with nx.scope():
        findings = asked.function(nx, tell or (lambda *_: None), seed=seed, **values)
    return Result(
        study=study,
        backend=nx.name,
        parameters=values,
        seed=seed,
        quantities=dict(findings.quantities),
        checks=findings.checks,
        finding=findings.finding,
        versions={
            "isometry": isometry.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            nx.framework: nx.version,
        },
        platform=platform.platform(),
        device=nx.device,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=time.perf_counter() - started,
    )
