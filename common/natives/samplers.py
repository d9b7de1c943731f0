"""Clauses on the elementary samplers: seeds, global generators, and values in half precision."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np

from isometry.common.laws.distributions import Distribution, Uniform
from isometry.common.laws.formats import FORMATS
from isometry.common.natives import Library, Native
from isometry.common.natives.findings import Clause, Found, agrees, diverges, not_run
from isometry.common.natives.initializers import ELEMENTARY, entries, named_law
from isometry.common.statistics import bounds, verdicts
from isometry.common.statistics.distinct import expected_distinct
from isometry.common.statistics.verdicts import FALSE_ALARM, MISS, Verdict

__all__ = ["CLAUSES"]

REPEATABLE = (*ELEMENTARY, "orthogonal", "sparse")
SHAPE = (320, 320)  # many enough for generators that share their states between large draws
WRAPS = {"2**31 - 2": 2**31 - 2, "2**31 - 1": 2**31 - 1, "2**31": 2**31, "2**32": 2**32}


# --- seeds --------------------------------------------------------------------------------------


def _seed(native: Native, library: Library) -> Found:
    first = entries(native, library, SHAPE, 3)
    entries(native, library, SHAPE, 4)
    again = entries(native, library, SHAPE, 3, afresh=True)
    differ = int(np.count_nonzero(first != again))
    if not differ:
        return agrees("the same seed gave the same values, with another draw between the two")
    return diverges(
        f"{differ} of {first.size} values differ when the seed is given again",
        "a run cannot be repeated from its seed",
        differing=float(differ),
    )


def _shared(x: np.ndarray, y: np.ndarray) -> Verdict:
    """Judge how many of y's values are in x, too: by chance each is with probability n grid.

    A value has at most twice the probability of a cell of the generator's grid, 2**-23.
    """
    chance = 2 * x.size * verdicts.grid("float32")
    _, high = bounds.proportion((0.0, chance), y.size, FALSE_ALARM)
    effect = f"a probability of {verdicts.above(high, y.size, MISS):.3g}"
    claim = "fraction of values that two seeds share"
    shared = float(np.mean(np.isin(y, x)))
    return Verdict(claim, shared, 0.0, high, y.size, FALSE_ALARM, effect)


def _neighbours(native: Native, library: Library) -> Found:
    verdict = _shared(entries(native, library, SHAPE, 1), entries(native, library, SHAPE, 2))
    share = verdict.observed
    text = f"seeds 1 and 2 share {share:.3%} of the {verdict.count} values of a weight"
    if verdict.passed:
        return agrees(text, [verdict], shared=share)
    apart = next(
        (
            gap
            for gap in (2, 4, 8, 16, 32, 64)
            if _shared(
                entries(native, library, SHAPE, 1), entries(native, library, SHAPE, 1 + gap)
            ).passed
        ),
        None,
    )
    return diverges(
        text,
        "runs with consecutive seeds are not independent replicas"
        + (f"; seeds {apart} apart share no more than chance" if apart else ""),
        [verdict],
        shared=share,
    )


def _wrap(native: Native, library: Library) -> Found:
    first = entries(native, library, SHAPE, 5)
    same, refused = [], []
    for words, period in WRAPS.items():
        try:
            other = entries(native, library, SHAPE, 5 + period)
        except (ValueError, OverflowError, TypeError):
            refused.append(words)
            continue
        if np.array_equal(first, other):
            same.append(words)
    if same:
        return diverges(
            f"seed 5 and seed 5 + {' and 5 + '.join(same)} give the same values",
            "of a large seed not every bit counts: seeds drawn from 64 bits can collide",
        )
    note = f"; refused: 5 + {' and 5 + '.join(refused)}" if refused else ""
    return agrees(f"no seed gives another one's values modulo {', '.join(WRAPS)}{note}")


def _state() -> tuple[object, ...]:
    words = np.random.get_state(legacy=True)
    return (*random.getstate()[1], words[1].tobytes(), words[2])  # type: ignore[index]


def _globals(native: Native, library: Library) -> Found:
    """Judge that neither Python's nor NumPy's global generator is read or moved."""
    saved = random.getstate(), np.random.get_state()
    draws, moved = [], False
    try:
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)
            before = _state()
            draws.append(entries(native, library, SHAPE, 6, afresh=True))
            moved = moved or _state() != before
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
    read = not np.array_equal(draws[0], draws[1])
    if read or moved:
        return diverges(
            f"Python's or NumPy's global generator was {'read' if read else 'moved'}",
            "weights depend on everything else that uses that generator, or the other way round",
        )
    return agrees("neither Python's nor NumPy's global generator was read or moved")


# --- half precision -----------------------------------------------------------------------------


def _round(x: np.ndarray, dtype: str) -> np.ndarray:
    """Return the nearest values of a half precision; none here is subnormal in bfloat16."""
    ulp = FORMATS[dtype].ulp(x)
    return np.asarray(np.round(x / ulp) * ulp)


def _grain(distinct: int, law: Distribution, dtype: str, count: int) -> str:
    """Return how a sampler comes to so few values: drawn in `dtype`, or rounded, then scaled."""
    bits = math.log2(distinct)
    if bits <= FORMATS[dtype].precision:
        whole = f" = 2**{bits:.0f}" if bits == round(bits) else ""
        return f"{distinct}{whole} are as many as a draw in {dtype} itself has"
    std, rng = math.sqrt(law.moments[1]), np.random.default_rng(0)
    # a plain normal stands for a truncated one: all but the few values of its tails are the same
    z = (
        rng.uniform(-math.sqrt(3), math.sqrt(3), count)
        if isinstance(law, Uniform)
        else (rng.normal(size=count))
    )
    scaled = _round(_round(z, dtype) * float(_round(np.array(std), dtype)), dtype)
    if abs(np.unique(scaled).size / distinct - 1) <= 0.1:
        return "as if it were rounded before it is scaled by the standard deviation"
    return "none of the candidates explains the number"


def _half(dtype: str) -> Callable[[Native, Library], Found | None]:
    def values(native: Native, library: Library) -> Found | None:
        if dtype not in library.dtypes:
            return not_run(f"{library.name} does not draw in {dtype}")
        law = named_law(native)
        # no library claims values that the format itself would give: 2**7 or 2**10 of them
        drawn = 2 ** (FORMATS[dtype].precision - 1)
        x = np.asarray(native.run(SHAPE, 0, dtype)).ravel()
        verdict = verdicts.distinct(x, law, detects=drawn, dtype=dtype)
        distinct, (expected, _) = int(verdict.observed), expected_distinct(law, x.size, dtype)
        numbers = {"distinct": float(distinct), "expected": expected}
        text = f"{x.size} draws have {distinct} different values; rounded from the exact law they "
        text += f"would have {expected:.0f}"
        if verdict.passed:
            return agrees(text, [verdict], **numbers)
        # of another law than the named one, which is for other clauses, there may be fewer
        own = np.unique(_round(entries(native, library, SHAPE).astype(np.float64), dtype)).size
        if distinct >= own - 2 * (expected - verdict.low):
            return agrees(f"{text}, and its own draws in float32 {own}", (), **numbers)
        return diverges(
            f"{text}: {_grain(distinct, law, dtype, x.size)}",
            f"the weights have {distinct / expected:.3g} times as many different values as they "
            "could; draw in float32 and round",
            [verdict],
            **numbers,
        )

    return values


CLAUSES = (
    Clause("seed", "the same seed gives the same values", REPEATABLE, _seed),
    Clause(
        "neighbouring-seeds",
        "neighbouring seeds share no values but by chance",
        ELEMENTARY,
        _neighbours,
    ),
    Clause(
        "seed-wrap", "seeds that agree modulo 2**31 or 2**32 are different seeds", ELEMENTARY, _wrap
    ),
    Clause(
        "global-generators",
        "Python's and NumPy's global generators are left alone",
        ELEMENTARY,
        _globals,
    ),
    *(
        Clause(
            dtype, f"in {dtype} the values are those of the law, rounded", ELEMENTARY, _half(dtype)
        )
        for dtype in ("bfloat16", "float16")
    ),
)
