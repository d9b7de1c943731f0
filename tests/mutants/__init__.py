"""Deliberately wrong backends: each mutant is an adapter with one fault, named for it.

A mutant is a mixin that overrides what it breaks; ``mutants:FanSwapped_torch`` is that fault over
the torch adapter, made on request, so that the suite finds it as it finds anyone's backend.
"""

from __future__ import annotations

from typing import Any

from isometry.common import registry

from . import chains, functions, initializers, normalization, streams

FAULTS: dict[str, tuple[type, str]] = {
    fault.__name__: (fault, clause)
    for module in (functions, chains, initializers, normalization, streams)
    for fault, clause in module.FAULTS.items()
}
"""Name -> the fault, and the clause that must catch it."""


def __getattr__(name: str) -> Any:
    fault, _, adapter = name.partition("_")
    if fault not in FAULTS or not adapter:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return type(name, (FAULTS[fault][0], registry.find(adapter)), {})
