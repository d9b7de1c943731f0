"""What a library's layers start with when nothing is written: the law of each parameter.

Every array of a fresh layer is identified among all known laws, at the fans of the layer as they
are defined (`isometry.common.laws.fans`), else at those that the stored shape alone suggests, which
is what a library that looks at nothing else divides by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from isometry.common.laws.fans import Fans, fans
from isometry.common.laws.initializers import INITIALIZERS
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.natives import Library, Native
from isometry.common.natives.findings import Clause, Found, measured
from isometry.common.statistics.identify import FALSE_ALARM, Candidate, Identification, identify
from isometry.common.statistics.known import MISTAKES

__all__ = ["CLAUSES", "FANS"]

FANS: Mapping[str, Fans] = {
    "dense": Fans(512, 256),
    "conv2d": Fans(64 * 9, 128 * 9),
    "conv2d_grouped": Fans(64 * 9 // 4, 128 * 9 // 4),
    "conv2d_depthwise": Fans(9, 9),
    "conv2d_transposed": Fans(64 * 9, 128 * 9),
    "embedding": Fans(1000, 512),
    "rnn": Fans(128, 256),
    "lstm": Fans(256, 256),
    "gru": Fans(128, 256),
    "attention": Fans(512, 512),
}
RECURRENT_FANS = Fans(256, 256)
"""Layer -> fans of one unit, of the sizes that `isometry.common.natives` gives."""

WRONG = {one.name for one in MISTAKES}
PAPERS = tuple(name for name, rule in INITIALIZERS.items() if isinstance(rule, VarianceScaling))
NORMS = ("batch_norm_layer", "layer_norm_layer", "group_norm_layer", "instance_norm_layer")
RECURRENT = ("rnn", "lstm", "gru")
GATES = {"lstm": 4, "gru": 3}
DRAWS, APART = 16, 1009  # of a small array; seeds far apart, since one generator overlaps near ones
MANY = 65_536  # values, which are enough in one draw


@dataclass(frozen=True)
class _Parameter:
    """One array of a layer, and all that was drawn of it."""

    name: str
    shape: tuple[int, ...]
    values: np.ndarray  # (draws, *shape), or one large draw of the shape


def _parameters(native: Native, role: str) -> list[_Parameter]:
    def drawn(k: int) -> dict[str, np.ndarray]:
        arrays = native.run(APART * k).items()
        return {path: w for path, w in arrays if path.partition("/")[0] == role}

    first = drawn(0)
    small = any(w.size < MANY and np.ptp(w) for w in first.values())
    draws = [first, *(drawn(k) for k in range(1, DRAWS if small else 1))]
    return [
        _Parameter(
            path.partition("/")[2],
            w.shape,
            w if w.size >= MANY else np.stack([draw[path] for draw in draws]),
        )
        for path, w in first.items()
    ]


# --- one parameter ------------------------------------------------------------------------------


def _identified(
    p: _Parameter, native: Native, library: Library, role: str
) -> tuple[str, Identification]:
    """Return the law in words, and what it rests on."""
    own = RECURRENT_FANS if role == "recurrent" else FANS.get(native.claims, Fans(1, 1))
    found = identify(p.values, fan_in=own.fan_in, fan_out=own.fan_out)
    if found.known or len(p.shape) < 2:
        return _words(found), found
    stored = fans(p.shape, library.layout)
    by_shape = identify(p.values, fan_in=stored.fan_in, fan_out=stored.fan_out)
    if not by_shape.known:
        return _words(found), found
    return (
        f"{_words(by_shape)}, where fan_in is {stored.fan_in} and fan_out {stored.fan_out}, as "
        f"counted from the stored shape, not {own.fan_in} and {own.fan_out}"
    ), by_shape


def _words(found: Identification) -> str:
    """Return the formulas of the laws, with the names that the literature has for them."""
    if not found.known:
        return str(found)
    return ", or ".join(map(_one, found.candidates))


def _one(candidate: Candidate) -> str:
    named = dict(zip(candidate.names, candidate.formulas, strict=True))
    papers = [f"{formula} ({name})" for name, formula in named.items() if name in PAPERS]
    no_mistakes = [formula for name, formula in named.items() if name not in WRONG]
    return " = ".join(papers or dict.fromkeys(no_mistakes or named.values()))


def _by_gate(p: _Parameter, gates: int) -> str:
    """Return the constants of the gates of a bias, if it is made of them; else nothing."""
    if p.shape[-1] % gates or not np.ptp(p.values):
        return ""
    split = p.values.reshape(-1, gates, p.shape[-1] // gates)
    blocks = np.moveaxis(split, 1, 0).reshape(gates, -1)
    if np.any(np.ptp(blocks, axis=1)):
        return ""
    return "by gate " + ", ".join(f"{value:g}" for value in blocks[:, 0])


@dataclass(frozen=True)
class _Described:
    """Parameters of one shape that are alike, in words and numbers."""

    names: str
    words: str
    second: float  # moment, about 0
    detects: float

    @property
    def text(self) -> str:
        return f"{self.names}: {self.words}"


def _described(native: Native, library: Library, role: str) -> Iterator[_Described]:
    """Yield the different parameters of a role."""
    alike: dict[tuple[str, tuple[int, ...]], list[_Described]] = {}
    for p in _parameters(native, role):
        words, detects = _by_gate(p, GATES.get(native.claims, 1)), 0.0
        if not words:
            words, found = _identified(p, native, library, role)
            detects = found.detects
        second = float(np.mean(np.square(p.values, dtype=np.float64)))
        alike.setdefault((words, p.shape), []).append(_Described(p.name, words, second, detects))
    for (words, shape), of in alike.items():
        names = ", ".join(one.names for one in of)
        mean = float(np.mean([one.second for one in of]))
        yield _Described(f"{names} {shape}", words, mean, of[0].detects)


def _law(native: Native, library: Library, role: str) -> Found:
    rows = list(_described(native, library, role))
    if not rows:
        return measured("there is none")
    own = RECURRENT_FANS if role == "recurrent" else FANS.get(native.claims)
    numbers: dict[str, float] = {}
    for row in rows:
        of = "" if len(rows) == 1 else f" of {row.names}"
        numbers[f"std{of}"] = math.sqrt(row.second)
        if own and row.detects:  # a law, not constants
            numbers[f"variance_times_fan_in{of}"] = row.second * own.fan_in
    if any(row.detects for row in rows):
        numbers["detects"] = max(row.detects for row in rows)
        numbers["false_alarm"] = 2 * FALSE_ALARM * len(rows)
    return Found("measured", "; ".join(row.text for row in rows), numbers=numbers)


def _clause(role: str, what: str, claims: tuple[str, ...]) -> Clause:
    return Clause(role, what, claims, lambda native, library: _law(native, library, role))


PLAIN = tuple(claim for claim in FANS if claim not in RECURRENT)

CLAUSES: tuple[Clause, ...] = (
    _clause("weight", "law of the weight", PLAIN),
    _clause("input", "law of the weights of the input", RECURRENT),
    _clause("recurrent", "law of the weights of the state", RECURRENT),
    _clause("bias", "law of the bias", (*(c for c in FANS if c != "embedding"),)),
    _clause("scale", "what the scale starts with", NORMS),
    _clause("shift", "what the shift starts with", NORMS),
    _clause("mean", "what the running mean starts with", ("batch_norm_layer",)),
    _clause("variance", "what the running variance starts with", ("batch_norm_layer",)),
)
