"""Clauses on initializers: fan rule, gain, mean, family of the law, and where it ends.

Each is judged on one weight of 800,000 entries, against the law of that name. What does not
follow it is compared with the other fan rules, gains and families that are in use.
"""

from __future__ import annotations

import math

import numpy as np

from isometry.common.laws.distributions import (
    CUT,
    TRUNCATED_STD,
    Distribution,
    Normal,
    TruncatedNormal,
    Uniform,
)
from isometry.common.laws.fans import MODES, Fans, fans
from isometry.common.laws.initializers import INITIALIZERS, VarianceScaling
from isometry.common.natives import Library, Native
from isometry.common.natives.findings import Clause, Found, agrees, differs, diverges, joined
from isometry.common.statistics import bounds, verdicts
from isometry.common.statistics.verdicts import FALSE_ALARM

__all__ = ["CLAUSES", "ELEMENTARY", "entries", "families", "gains", "in_layout", "named_law"]

DENSE = (1600, 500)  # (out, in)
CONVOLUTION = (640, 48, 5, 5)
STD = 0.01  # relative change of std that is sure to be seen
SHIFT = 0.02  # of the mean, in standard deviations
HALF = 400_000  # of the values: enough for the next
DISTANCE = 0.0105  # Kolmogorov's; truncated and plain normal are 0.0167 apart

SCALED = tuple(name for name, rule in INITIALIZERS.items() if isinstance(rule, VarianceScaling))
ELEMENTARY = ("normal", "uniform", "truncated_normal")


def entries(
    native: Native,
    library: Library,
    shape: tuple[int, ...],
    seed: int = 0,
    *,
    afresh: bool = False,
) -> np.ndarray:
    """Return the entries, in float32, of a weight given as (out, in, *kernel).

    `afresh`: drawn now, where `run` may remember (`isometry.common.natives.measure`).
    """
    run = getattr(native.run, "__wrapped__", native.run) if afresh else native.run
    return np.asarray(run(in_layout(shape, library.layout), seed, "float32")).ravel()


def in_layout(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Return the shape (out, in, *kernel) as the library stores it."""
    out, in_, *kernel = shape
    return shape if layout == "out_in" else (*kernel, in_, out)


def named_law(native: Native, shape: tuple[int, ...] = DENSE) -> Distribution:
    """Return the exact law that the native's name and settings promise.

    A truncated normal of standard deviation s has s after the cut; see `_cut` for where that is.
    """
    if native.claims in SCALED:
        rule = INITIALIZERS[native.claims]
        assert isinstance(rule, VarianceScaling)
        return rule.resolve(shape, "out_in")
    asked = native.settings
    if native.claims == "uniform":
        low, high = (
            (asked["low"], asked["high"]) if "low" in asked else (-asked["scale"], asked["scale"])
        )
        return Uniform(low, high)
    std = asked["std"]
    return Normal(0.0, std) if native.claims == "normal" else TruncatedNormal.of_std(std)


def _second(x: np.ndarray, law: Distribution) -> verdicts.Verdict:
    return verdicts.spread(x, law, detects=STD, dtype="float32")


# --- fan rule and gain --------------------------------------------------------------------------


def _rules(shape: tuple[int, ...]) -> dict[str, float]:
    """Return the fan rules in use: words, and what the variance of a shape is divided by."""
    out, in_, *_ = shape
    return {
        **{mode: fans(shape).by(mode) for mode in MODES},
        **{f"{mode} without the receptive field": Fans(in_, out).by(mode) for mode in MODES},
        "no fan at all": 1.0,
    }


def _rule(native: Native, library: Library) -> tuple[str | None, float, verdicts.Verdict | None]:
    """Return the rule that explains a dense and a convolution weight, its words and its fan."""
    dense = entries(native, library, DENSE)
    convolution = entries(native, library, CONVOLUTION)
    std = float(np.sqrt(np.mean(np.square(dense, dtype=np.float64))))
    law = named_law(native)
    of_dense, of_convolution = _rules(DENSE), _rules(CONVOLUTION)
    for words, fan in of_dense.items():
        predicted = std * math.sqrt(fan / of_convolution[words])
        factor = predicted / math.sqrt(law.moments[1])
        # both weights are known to within STD, and the rules are 10 % apart
        verdict = verdicts.spread(
            convolution / np.float32(factor), law, detects=3 * STD, dtype="float32"
        )
        if abs(math.sqrt(verdict.observed) - 1) <= 2 * STD:
            return words, fan, verdict
    return None, 1.0, None


def _fan(native: Native, library: Library) -> Found:
    rule = INITIALIZERS[native.claims]
    assert isinstance(rule, VarianceScaling)
    words, fan, verdict = _rule(native, library)
    if words is None or verdict is None:
        return diverges(
            "no rule of one fan explains the standard deviations of a dense and a convolution "
            "weight",
            "the variance of a layer cannot be predicted from its shape by a rule in use",
        )
    if words == rule.mode:
        return agrees(f"the variance is divided by {words}", [verdict])
    ratio = fans(DENSE).by(rule.mode) / fan
    return diverges(
        f"the variance is divided by {words}, where the name says {rule.mode}",
        f"in a layer of {DENSE[1]} inputs and {DENSE[0]} units the variance is {ratio:.4g} times "
        "what the name promises; the factor depends on the shape",
        [verdict],
        variance_ratio=ratio,
    )


def gains(value: float, slack: float) -> list[str]:
    """Return the squared gains in use that are within `slack` (relative) of a value."""
    known = {
        "1": 1.0,
        "2 (ReLU)": 2.0,
        "3 (the squared bound of a uniform law, given to a normal one)": 3.0,
        "6 (the squared bound of He's uniform law, given to a normal one)": 6.0,
        "1/3 (a uniform law on +- 1/sqrt(fan))": 1 / 3,
        "2/3 (the bound of a uniform law, given as its standard deviation)": 2 / 3,
        "2/(1 + 0.25**2) (leaky ReLU of slope 0.25)": 2 / (1 + 0.25**2),
        "2/(1 + 0.2**2) (leaky ReLU of slope 0.2)": 2 / (1 + 0.2**2),
        "(5/3)**2 (tanh)": 25 / 9,
        "0.774 (truncated, uncorrected)": TRUNCATED_STD**2,
        "1.548 = 2 x 0.774 (ReLU; truncated, uncorrected)": 2 * TRUNCATED_STD**2,
        "1.3 (TF-slim's correction)": 1.3 * TRUNCATED_STD**2,
    }
    return [words for words, number in known.items() if abs(value / number - 1) <= slack]


def _gain(native: Native, library: Library) -> Found | None:
    rule = INITIALIZERS[native.claims]
    assert isinstance(rule, VarianceScaling)
    words, fan, _ = _rule(native, library)
    if words is None:
        return None
    # the named gain, with the fan that the native divides by: the fan has its own clause
    std = rule.gain / math.sqrt(fan)
    law = {
        "normal": Normal(0.0, std),
        "truncated": TruncatedNormal.of_std(std),
        "uniform": Uniform(-math.sqrt(3) * std, math.sqrt(3) * std),
    }[rule.distribution]
    verdict = _second(entries(native, library, DENSE), law)
    squared = verdict.observed * rule.gain**2
    text = f"variance times {words} is {squared:.5g}"
    if verdict.passed:
        return agrees(text, [verdict], gain_squared=squared)
    close = gains(squared, 2 * STD)
    return diverges(
        f"{text}, where the name says {rule.gain**2:.5g}; it is that of {joined(close)}",
        f"a ReLU layer of equal fans changes the second moment of its input by "
        f"{squared / 2:.4g}, {(squared / 2) ** 50:.2g} after 50 layers, instead of "
        f"{rule.gain**2 / 2:.4g} and {(rule.gain**2 / 2) ** 50:.2g}",
        [verdict],
        gain_squared=squared,
        variance_ratio=verdict.observed,
    )


def _scale(native: Native, library: Library) -> Found:
    """Judge the standard deviation of a law that is asked for by its numbers."""
    law = named_law(native)
    verdict = _second(entries(native, library, DENSE), law)
    ratio = math.sqrt(verdict.observed)
    text = f"the standard deviation is {ratio:.5g} times the one asked for"
    if verdict.passed:
        return agrees(text, [verdict], std_ratio=ratio)
    slack = 2 * STD
    known = {
        "a truncation at two standard deviations, uncorrected": TRUNCATED_STD,
        "a correction although nothing is cut": 1 / TRUNCATED_STD,
        "the bound given as the standard deviation": math.sqrt(3),
        "the standard deviation given as the bound": 1 / math.sqrt(3),
        "half of the range": 0.5,
    }
    close = [words for words, factor in known.items() if abs(ratio / factor - 1) <= slack]
    close += [w for w, factor in _cut_factors(native) if abs(ratio / factor - 1) <= slack]
    # whether the number is meant before or after the cut is a convention
    verdict_on = differs if close[:1] == list(known)[:1] else diverges
    return verdict_on(
        f"{text}, as with {joined(close)}",
        f"weights have {ratio**2:.4g} times the variance that their number says: to port them, "
        f"ask the other library for {ratio:.4g} times the standard deviation",
        [verdict],
        std_ratio=ratio,
    )


def _cut_factors(native: Native) -> list[tuple[str, float]]:
    """Return the factor of std of a normal cut at absolute bounds, for the bounds in use."""
    from scipy.stats import truncnorm

    std = native.settings.get("std")
    if native.claims != "truncated_normal" or std is None:
        return []
    return [
        (f"a truncation at the absolute bounds +-{c:g}", float(truncnorm.std(-c / std, c / std)))
        for c in (1.0, 2.0, 3.0)
        if c < 4 * std
    ]


# --- mean and family ----------------------------------------------------------------------------


def _mean(native: Native, library: Library) -> Found:
    x = entries(native, library, DENSE)
    law = named_law(native)
    verdict = verdicts.mean(x, law, detects=SHIFT, dtype="float32")
    low, high = float(x.min()), float(x.max())
    text = f"the mean is {verdict.observed:.3g} standard deviations from the law's"
    if verdict.passed:
        return agrees(text, [verdict], shift=verdict.observed)
    one_sided = low >= 0 or high <= 0
    return diverges(
        f"{text}; the values lie between {low:.4g} and {high:.4g}"
        + (", on one side of 0" if one_sided else ""),
        f"the sum of 1000 such weights is {1000 * float(np.mean(x, dtype=np.float64)):.4g} on "
        f"average, where the name says {1000 * law.moments[0]:.4g}: units are correlated",
        [verdict],
        shift=verdict.observed,
        smallest=low,
        largest=high,
    )


def families(mean: float, std: float) -> dict[str, Distribution]:
    """Return the families in use, with this mean and standard deviation."""
    half = math.sqrt(3) * std
    return {
        "normal": Normal(mean, std),
        "truncated": TruncatedNormal.of_std(std, mean),
        "uniform": Uniform(mean - half, mean + half),
    }


WORDS = {
    "normal": "a normal that is not truncated",
    "truncated": "a normal truncated at two standard deviations of its parent",
    "uniform": "uniform",
}


def _family(native: Native) -> str:
    if native.claims in SCALED:
        rule = INITIALIZERS[native.claims]
        assert isinstance(rule, VarianceScaling)
        return rule.distribution
    return {"truncated_normal": "truncated"}.get(native.claims, native.claims)


def _distribution(native: Native, library: Library) -> Found:
    x = entries(native, library, DENSE)[:HALF]
    wide = x.astype(np.float64)
    mean, std = float(wide.mean()), float(wide.std())
    named_mean, variance, _ = named_law(native).moments
    if abs(mean - named_mean) < SHIFT * std and abs(std / math.sqrt(variance) - 1) < STD:
        # as of every native that is as named: the law that is tested is not fitted to the values
        mean, std = named_mean, math.sqrt(variance)
    found = {
        name: verdicts.distribution(x, law.cdf, detects=DISTANCE, dtype="float32")
        for name, law in families(mean, std).items()
    }
    promised = _family(native)
    distances = {f"distance_{name}": verdict.observed for name, verdict in found.items()}
    largest = float(np.abs(wide - mean).max()) / std
    where = f"the largest of {x.size} values is {largest:.4g} standard deviations out"
    if found[promised].passed:
        return agrees(
            f"it is {WORDS[promised]}; {where}",
            [found[promised]],
            largest=largest,
            **distances,
        )
    close = [WORDS[name] for name, verdict in found.items() if verdict.passed]
    # a little further out than a truncated normal ends: std is measured, too
    end = CUT / TRUNCATED_STD * (1 + STD)
    beyond = float(np.mean(np.abs(wide - mean) > end * std))
    of_law = math.erfc(end / math.sqrt(2)) if promised == "normal" else 0.0
    return diverges(
        f"given its mean and standard deviation it is {joined(close)}, not {WORDS[promised]}; "
        f"{where}",
        f"{beyond:.3%} of the weights lie more than {end:.3f} of their standard deviations out, "
        f"under the law of that name {of_law:.3%}; the variance is not affected",
        [found[promised]],
        largest=largest,
        beyond=beyond,
        **distances,
    )


def _support(native: Native, library: Library) -> Found | None:
    """Judge the ends of a uniform law, to one unit in the last place."""
    law = named_law(native)
    if not isinstance(law, Uniform):
        return None
    x = entries(native, library, DENSE)
    detects = verdicts.support_resolution(x.size, verdicts.MISS) * 1.01
    verdict = verdicts.support(x, law, detects=detects, dtype="float32")
    low, high = float(x.min()), float(x.max())
    text = f"the values lie between {low:.6g} and {high:.6g}; the law's ends are "
    text += f"{law.low:.6g} and {law.high:.6g}"
    edge = (law.high - law.low) * 1e-4
    missed = (1 - 1e-4) ** x.size <= FALSE_ALARM
    reached = low <= law.low + edge and high >= law.high - edge
    if verdict.passed and reached and missed:
        return agrees(text, [verdict], smallest=low, largest=high)
    return diverges(
        text,
        f"the range is {(high - low) / (law.high - law.low):.4g} times as wide as the name says",
        [verdict],
        smallest=low,
        largest=high,
        outside=verdict.observed,
    )


# --- the cut of a truncated normal --------------------------------------------------------------

TAIL = (1650, 2000)
"""As many draws as show a probability of 4.2e-6 beyond the cut, but for one run in a million."""


def _cut(native: Native, library: Library) -> Found:
    std = native.settings["std"]
    x = np.abs(entries(native, library, TAIL).astype(np.float64)) / std
    end = CUT * (1 + 2.0**-22)
    hits = int(np.count_nonzero(x > end))
    largest = float(x.max())
    verdict = verdicts.support(
        x.astype(np.float32),
        TruncatedNormal(0.0, 1.0),
        detects=verdicts.support_resolution(x.size, verdicts.MISS) * 1.01,
        dtype="float32",
    )
    numbers = {"largest": largest, "beyond": hits / x.size, "draws": float(x.size)}
    text = f"{hits} of {x.size} values lie beyond two standard deviations; the largest is "
    text += f"{largest:.6g} of them, {largest * std:.6g} in absolute terms"
    if hits == 0 and largest >= CUT * (1 - 1e-4):
        return agrees(text, [verdict], **numbers)
    corrected = CUT / TRUNCATED_STD
    if 1 - 1e-4 <= largest / corrected <= 1 + 2.0**-22:
        return agrees(
            f"{text}: two of its parent's, which is larger, so that its own is the one asked for",
            (),
            **numbers,
        )
    if hits == 0:
        return diverges(
            f"{text}: it is cut there, not at two",
            f"asked for a standard deviation of {std:g}, it is cut at {largest:.4g} of them: its "
            "bounds do not move with its standard deviation",
            [verdict],
            **numbers,
        )
    return diverges(
        f"{text}; the probability beyond is {hits / x.size:.3g}, that of {_leak(hits, x.size)}",
        f"of a layer of 10 million weights about {hits / x.size * 1e7:.3g} lie where the law of "
        "that name has none",
        [verdict],
        **numbers,
    )


def _leak(hits: int, count: int) -> str:
    """Return which mistakes let values through with the probability observed."""
    beyond = math.erfc(CUT / math.sqrt(2))

    def near(p: float) -> bool:
        low, high = bounds.proportion((p, p), count, 1e-6)
        return low <= hits / count <= high

    close = ["a normal that is not cut, or cut far out"] if near(beyond) else []
    close += [
        f"{k} attempts, and the first one kept if none is inside ({beyond:.4g}**{k})"
        for k in range(2, 9)
        if near(beyond**k)
    ]
    return joined(close)


CLAUSES = (
    Clause("fan", "the variance is divided by the fan of that name", SCALED, _fan),
    Clause("gain", "variance times fan is the squared gain of that name", SCALED, _gain),
    Clause("std", "the standard deviation is the one asked for", ELEMENTARY, _scale),
    Clause("mean", "the mean is that of the law", SCALED + ELEMENTARY, _mean),
    Clause("distribution", "the family is that of the name", SCALED + ELEMENTARY, _distribution),
    Clause(
        "support",
        "the values fill the law's range and do not leave it",
        SCALED + ELEMENTARY,
        _support,
    ),
    Clause("cut", "no value lies beyond two standard deviations", ("truncated_normal",), _cut),
)
