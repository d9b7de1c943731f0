"""Deliberately wrong backends: each mutant is an adapter with one fault, named for it.

A mutant is a mixin that overrides what it breaks; ``mutants:FanSwapped_torch`` is that fault over
the torch adapter, made on request, so that the suite finds it as it finds anyone's backend.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from isometry.common import registry

from . import (
    arrays,
    chains,
    differentiation,
    errors,
    functions,
    initializers,
    normalization,
    normalization_weights,
    operations,
    optimizers,
    streams,
    structured,
)
from .mixing import mixed

__all__ = ["ADAPTERS", "FAULTS", "Fault", "applies"]

ADAPTERS = ("numpy", "torch", "tensorflow", "jax", "mxnet")
MODULES = (
    functions,
    operations,
    arrays,
    errors,
    differentiation,
    chains,
    initializers,
    structured,
    streams,
    normalization,
    normalization_weights,
    optimizers,
)


class Fault(NamedTuple):
    """A fault, the clause that must catch it, and the case to which running it is narrowed."""

    mixin: type
    clause: str
    case: str

    @property
    def sentence(self) -> str:
        """What is wrong, in words."""
        return " ".join((self.mixin.__doc__ or "").split())


def _fault(mixin: type, where: str) -> Fault:
    clause, _, case = where.removesuffix("]").partition("[")
    return Fault(mixin, clause, case)


FAULTS: dict[str, Fault] = {
    mixin.__name__: _fault(mixin, where)
    for module in MODULES
    for mixin, where in module.FAULTS.items()
}
"""By name. In a module's FAULTS a fault stands with its clause: ``"ops.meaning[sum]"`` means that
the case `sum` of it is enough to catch it."""


def applies(name: str, adapter: str) -> bool:
    """Return whether an adapter can have the fault.

    Not if it declares that it fails the clause anyway, if it lacks the capability that the fault
    `needs`, or if the fault cannot happen there (`only`, `not_on`).
    """
    fault, right = FAULTS[name], registry.find(adapter)
    return (
        fault.clause not in right.expected_failures
        and getattr(fault.mixin, "needs", frozenset()) <= right.capabilities
        and adapter in getattr(fault.mixin, "only", ADAPTERS)
        and adapter not in getattr(fault.mixin, "not_on", ())
    )


def __getattr__(name: str) -> Any:
    fault, _, adapter = name.partition("_")
    if fault not in FAULTS or not adapter:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return mixed(FAULTS[fault].mixin, registry.find(adapter))
