"""Who agrees with what: the claims of a study side by side, and its arrays against a reference.

Made from results alone. Two questions are asked per study. Does each backend keep each claim (a
`Check`: observed, expected, bound)? And does each backend give the same array as the reference,
within the quantity's budget of units in the last place (ULP)?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isometry.common.results import Check, Quantity, Result
from isometry.common.statistics.tolerances import ulp_distance

__all__ = ["Agreement", "Claim", "Difference", "Shared", "agree", "distinct"]

REFERENCE = "numpy"


@dataclass(frozen=True)
class Claim:
    """One row of the table of claims.

    Attributes
    ----------
    claim : str
        The sentence that names the row.
    checks : dict of str to Check
        Backend -> its check, in the order of the columns. A backend that did not make the claim
        is absent: it reads "not run", never "passed".
    """

    claim: str
    checks: dict[str, Check]

    @property
    def passed(self) -> bool:
        """Whether the claim holds on every backend that made it."""
        return all(check.passed for check in self.checks.values())


@dataclass(frozen=True)
class Difference:
    """How far one backend's array is from the reference's.

    Attributes
    ----------
    verdict : {"reference", "agrees", "differs", "not comparable", "not run"}
        "not comparable" if seed or parameters are not those of the reference; "not run" if the
        backend's result does not hold the quantity.
    ulp : float or None
        Largest distance in units in the last place; inf where only one of the two is NaN; None if
        there is none (another dtype or shape, not comparable, not run).
    detail : str
        What makes it differ, or why it cannot be compared; empty otherwise.
    """

    verdict: str
    ulp: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Shared:
    """One row of the table of shared quantities: arrays that ought to be the same everywhere.

    Attributes
    ----------
    quantity, unit : str
    budget : int
        Largest distance from the reference that is still agreement, in ULP.
    differences : dict of str to Difference
        Backend -> its distance, in the order of the columns.
    """

    quantity: str
    unit: str
    budget: int
    differences: dict[str, Difference]

    @property
    def passed(self) -> bool:
        """Whether no backend differs."""
        return all(d.verdict != "differs" for d in self.differences.values())


@dataclass(frozen=True)
class Agreement:
    """The verdicts on one study over all backends that ran it.

    Attributes
    ----------
    study : str
    backends : tuple of str
        The columns.
    reference : str
        The backend that the others are measured against: numpy if it ran, else the first.
    claims : tuple of Claim
    shared : tuple of Shared
    """

    study: str
    backends: tuple[str, ...]
    reference: str
    claims: tuple[Claim, ...]
    shared: tuple[Shared, ...]

    @property
    def passed(self) -> bool:
        """Whether every claim holds and no array differs."""
        return all(c.passed for c in self.claims) and all(s.passed for s in self.shared)


def distinct(results: Sequence[Result]) -> tuple[str, ...]:
    """Return a different name for each result of one study: the column's heading.

    The backend's name; with the framework's version where a backend comes twice, and a number
    where the version does too.
    """
    backends = [result.backend for result in results]
    # the framework is the last of a result's versions
    versioned = [f"{r.backend} {list(r.versions.values())[-1]}" for r in results]
    names = []
    for k, (backend, name) in enumerate(zip(backends, versioned, strict=True)):
        if backends.count(backend) == 1:
            names.append(backend)
        elif versioned.count(name) == 1:
            names.append(name)
        else:
            names.append(f"{name} ({versioned[: k + 1].count(name)})")
    return tuple(names)


def agree(results: Sequence[Result]) -> Agreement:
    """Return the verdicts on the results of one study, one result per backend.

    Parameters
    ----------
    results : sequence of Result
        At least one, all of the same study. Backends may repeat: see `distinct`.
    """
    by_name = dict(zip(distinct(results), results, strict=True))
    backends = tuple(by_name)
    reference = next((n for n in backends if by_name[n].backend == REFERENCE), backends[0])
    return Agreement(
        study=results[0].study,
        backends=backends,
        reference=reference,
        claims=_claims(by_name),
        shared=_shared(by_name, reference),
    )


def _claims(results: dict[str, Result]) -> tuple[Claim, ...]:
    rows: dict[str, dict[str, Check]] = {}
    for name, result in results.items():
        for check in result.checks:
            rows.setdefault(check.claim, {})[name] = check
    return tuple(Claim(claim, checks) for claim, checks in rows.items())


def _shared(results: dict[str, Result], reference: str) -> tuple[Shared, ...]:
    """Compare what the reference shares; alone, it has nothing to be compared with."""
    if len(results) == 1:
        return ()
    truth = results[reference]
    return tuple(
        Shared(
            quantity=key,
            unit=quantity.unit,
            budget=quantity.ulp,
            differences={
                name: Difference("reference", 0.0)
                if name == reference
                else _difference(result, truth, key)
                for name, result in results.items()
            },
        )
        for key, quantity in truth.quantities.items()
        if quantity.ulp is not None
    )


def _difference(result: Result, truth: Result, key: str) -> Difference:
    reason = _incomparable(result, truth)
    if reason:
        return Difference("not comparable", detail=reason)
    if key not in result.quantities:
        return Difference("not run", detail=f"the result holds no {key!r}")
    return _distance(result.quantities[key], truth.quantities[key])


def _incomparable(result: Result, truth: Result) -> str:
    """Return which seed or parameter the two results were not asked with alike."""
    ours, theirs = ({"seed": r.seed, **r.parameters} for r in (result, truth))
    return ", ".join(
        f"{name} is {ours.get(name)!r} here and {theirs.get(name)!r} in {truth.backend}"
        for name in {**theirs, **ours}
        if ours.get(name) != theirs.get(name)
    )


def _distance(quantity: Quantity, truth: Quantity) -> Difference:
    ours, theirs = quantity.values, truth.values
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return Difference(
            "differs",
            detail=f"{ours.dtype} {ours.shape} here, "
            f"{theirs.dtype} {theirs.shape} in the reference",
        )
    if ours.dtype.kind == "f":
        distances = ulp_distance(ours, theirs, str(ours.dtype))
    else:  # whole numbers and truth values: one unit is 1
        distances = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    largest = float(distances.max(initial=0.0))
    if truth.ulp is not None and largest <= truth.ulp:
        return Difference("agrees", largest)
    worst = np.unravel_index(int(distances.argmax()), distances.shape)
    return Difference(
        "differs",
        largest,
        f"at {[int(k) for k in worst]}: {ours[worst]!s} here, {theirs[worst]!s} in the reference",
    )
