"""What a clause found in a native: a verdict, the measured numbers, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from isometry.common.natives import Library, Native
from isometry.common.statistics.verdicts import Verdict

__all__ = [
    "DEVIATING",
    "VERDICTS",
    "Clause",
    "Finding",
    "Found",
    "agrees",
    "differs",
    "diverges",
    "joined",
    "measured",
    "not_run",
]

VERDICTS = ("as named", "divergence", "difference", "measured", "not run", "crashed")
"""Of a finding. "divergence": not the law or rule of that name; "difference": another convention,
where none is right; "measured": there is nothing to hold it to."""

DEVIATING = ("divergence", "difference")


@dataclass(frozen=True)
class Found:
    """What a clause returns; the parts that the native itself knows are added to it.

    Attributes
    ----------
    verdict : str
        One of `VERDICTS`.
    measured : str
        One or two sentences with the measured numbers.
    consequence : str
        What follows for who ports to or from this native; empty if nothing does.
    numbers : mapping
        Name -> measured number.
    statistics : sequence of Verdict
        The tests it rests on, with both error rates; none if it is deterministic.
    """

    verdict: str
    measured: str
    consequence: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    statistics: Sequence[Verdict] = ()


@dataclass(frozen=True)
class Finding:
    """A finding as the scoreboard shows and records it."""

    clause: str
    promise: str
    call: str
    source: str
    verdict: str
    measured: str
    consequence: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    statistics: Sequence[Mapping[str, Any]] = ()
    false_alarm: float = 0.0
    """Upper bound of the probability that a native that is as named reads otherwise."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Clause:
    """One question, asked of every native that `claims` one of these names.

    Attributes
    ----------
    aspect : str
        The clause's identifier is ``claim.aspect``: ``he_normal.fan``.
    promise : str
        What a native of that name does, in one sentence.
    claims : sequence of str
    measure : callable
        Native, library -> `Found`, or None where the question has no meaning.
    """

    aspect: str
    promise: str
    claims: Sequence[str]
    measure: Callable[[Native, Library], Found | None]

    def ask(self, native: Native, library: Library) -> Finding | None:
        """Return the finding; an error of the native's own is one, too."""
        try:
            found = self.measure(native, library)
        except Exception as error:  # whatever a library raises
            text = " ".join(str(error).split())[:300]
            found = Found("crashed", f"it raised {type(error).__name__}: {text}")
        if found is None:
            return None
        return Finding(
            clause=f"{native.claims}.{self.aspect}",
            promise=self.promise,
            call=native.call,
            source=native.source,
            verdict=found.verdict,
            measured=found.measured,
            consequence=found.consequence,
            numbers=dict(found.numbers),
            statistics=tuple({**asdict(v), "passed": v.passed} for v in found.statistics),
            false_alarm=sum(v.false_alarm for v in found.statistics),
        )


def agrees(text: str, statistics: Iterable[Verdict] = (), **numbers: float) -> Found:
    """Return that the native is as named."""
    return Found("as named", text, numbers=numbers, statistics=tuple(statistics))


def diverges(
    text: str, consequence: str, statistics: Iterable[Verdict] = (), **numbers: float
) -> Found:
    """Return that it is not the law or rule of that name."""
    return Found("divergence", text, consequence, numbers, tuple(statistics))


def differs(
    text: str, consequence: str, statistics: Iterable[Verdict] = (), **numbers: float
) -> Found:
    """Return that it follows another convention than the contract's default."""
    return Found("difference", text, consequence, numbers, tuple(statistics))


def measured(text: str, consequence: str = "", **numbers: float) -> Found:
    """Return a number that nothing says how large it should be."""
    return Found("measured", text, consequence, numbers)


def not_run(why: str) -> Found:
    """Return that the question could not be asked."""
    return Found("not run", why)


def joined(candidates: Sequence[str], otherwise: str = "none of the candidates") -> str:
    """Return the candidates that explain a number, as words."""
    return " or ".join(candidates) if candidates else otherwise
