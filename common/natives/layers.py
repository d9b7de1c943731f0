"""Clauses on the weights of fresh layers, at the library's own defaults.

A layer's name promises no law. Weights are held to the variance that keeps the second moment of
a linear layer, 1 / fan_in (LeCun et al. 1998, eq. 16), biases to 0, and the forget gate's to 1
(Gers et al. 2000; Jozefowicz et al. 2015); of an embedding there is nothing to hold it to.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np

from isometry.common.laws.distributions import Normal
from isometry.common.laws.fans import fans
from isometry.common.natives import Library, Native
from isometry.common.natives.findings import (
    Clause,
    Found,
    agrees,
    differs,
    joined,
    measured,
)
from isometry.common.natives.initializers import WORDS, families
from isometry.common.statistics import rounding, verdicts
from isometry.common.statistics.bounds import dkw, moment
from isometry.common.statistics.verdicts import FALSE_ALARM

__all__ = ["CLAUSES", "describe"]

WEIGHTED = ("dense", "conv2d")


def _role(native: Native, role: str) -> dict[str, np.ndarray]:
    """Return the arrays of a role by their own names."""
    return {
        path.partition("/")[2]: np.asarray(w, np.float64)
        for path, w in native.run(0).items()
        if path.partition("/")[0] == role
    }


# --- what an array is ---------------------------------------------------------------------------


def _family(w: np.ndarray) -> str:
    """Return the families that are within Kolmogorov's distance of the values."""
    x = np.sort(w.ravel())
    mean, std = float(x.mean()), float(x.std())
    if abs(mean) < 0.05 * std:
        mean = 0.0
    rank = np.arange(x.size + 1) / x.size
    close = []
    for name, law in families(mean, std).items():
        cdf = law.cdf(x)
        distance = max(np.max(rank[1:] - cdf), np.max(cdf - rank[:-1]))
        if distance <= dkw(x.size, FALSE_ALARM):
            close.append(WORDS[name])
    return joined(close)


def _orthonormal(w: np.ndarray) -> bool:
    short = w if w.shape[0] <= w.shape[1] else w.T
    gram = short @ short.T
    limit = rounding.orthogonality(w.shape[0], w.shape[1], "float32")
    return bool(np.abs(gram - np.eye(len(gram))).max() <= limit)


def describe(w: np.ndarray) -> str:
    """Return in words what the values of one array are."""
    if np.ptp(w) == 0:
        return f"all {w.flat[0]:g}"
    if w.ndim == 2 and _orthonormal(w):
        return "orthogonal"
    if w.ndim == 1 and w.size % 4 == 0:
        blocks = w.reshape(4, -1)
        if np.all(np.ptp(blocks, axis=1) == 0):
            return "by gate " + ", ".join(f"{b:g}" for b in blocks[:, 0])
    if w.ndim == 1:  # too few values to tell families apart
        return f"values between {w.min():.4g} and {w.max():.4g}"
    return f"{_family(w)}, standard deviation {w.std():.4g}"


def _summary(arrays: Iterable[np.ndarray]) -> str:
    counted = Counter(f"{describe(w)} {w.shape}" for w in arrays)
    return "; ".join(f"{n} x {words}" if n > 1 else words for words, n in counted.items())


# --- weights ------------------------------------------------------------------------------------


def _weight(native: Native, library: Library, role: str = "weight") -> Found:
    arrays = list(_role(native, role).values())
    if not arrays:
        raise LookupError(f"the layer has no array of the role {role!r}")
    text = _summary(arrays)
    gains = [_gain(w, library.layout) for w in arrays]
    gain = float(np.mean(gains))
    w = arrays[0]
    # a normal law has the widest limits of the families in use
    low, high = moment(Normal(), 2, sum(a.size for a in arrays), FALSE_ALARM)
    verdict = verdicts.Verdict(
        "variance times fan_in",
        gain,
        low,
        high,
        sum(a.size for a in arrays),
        FALSE_ALARM,
        f"a variance {max(high - 1, 1 - low):.2%} off",
    )
    rule = joined(_rules(w, library.layout, math.sqrt(low), math.sqrt(high)))
    text = f"{text}; variance times fan_in is {gain:.4g}; the variance is that of {rule}"
    if verdict.passed:
        return agrees(text, [verdict], variance_times_fan_in=gain)
    return differs(
        text,
        f"10 such linear layers multiply the second moment of their input by {gain**10:.3g}",
        [verdict],
        variance_times_fan_in=gain,
    )


def _gain(w: np.ndarray, layout: str) -> float:
    return float(np.mean(np.square(w))) * fans(w.shape, layout).fan_in


def _rules(w: np.ndarray, layout: str, low: float, high: float) -> list[str]:
    """Return the rules in use that give a standard deviation like that of the values."""
    std = math.sqrt(float(np.mean(np.square(w))))
    size = fans(w.shape, layout)
    known = {
        f"{number}/{mode}": math.sqrt(value / size.by(mode))
        for number, value in (("1", 1.0), ("2", 2.0), ("(1/3)", 1 / 3))
        for mode in ("fan_in", "fan_out", "fan_avg")
    }
    known |= {f"U(+-{bound:g}), whatever the shape": bound / math.sqrt(3) for bound in (0.05, 0.07)}
    known |= {"1, whatever the shape": 1.0}
    return [words for words, value in known.items() if low <= std / value <= high]


def _input(native: Native, library: Library) -> Found:
    return _weight(native, library, "input")


def _recurrent(native: Native, library: Library) -> Found:
    arrays = list(_role(native, "recurrent").values())
    units = min(min(w.shape) for w in arrays)
    # gates beside each other or one by one: as (units, gates * units)
    blocks = [
        block
        for w in arrays
        for block in np.split(w if w.shape[1] > w.shape[0] else w.T, max(w.shape) // units, axis=1)
    ]
    each = float(np.mean([np.mean(np.square(b)) * units for b in blocks]))
    text = f"{_summary(arrays)}; each gate's matrix multiplies the second moment by {each:.4g}"
    if all(_orthonormal(b) for b in blocks):
        return agrees(f"{text}; each is orthogonal", per_gate=each)
    return differs(
        f"{text}; not each is orthogonal",
        f"through 20 steps of one gate's matrix a state keeps {each**10:.3g} of its norm, where an "
        "orthogonal matrix keeps it",
        per_gate=each,
    )


def _embedding(native: Native, library: Library) -> Found:
    (w,) = _role(native, "weight").values()
    std = float(w.std())
    norm = std * math.sqrt(w.shape[1])
    return measured(_summary([w]), f"an embedded token has a norm of about {norm:.4g}", std=std)


# --- biases -------------------------------------------------------------------------------------


def _bias(native: Native, library: Library) -> Found:
    arrays = list(_role(native, "bias").values())
    text = f"the bias is {_summary(arrays)}"
    largest = max((float(np.abs(b).max()) for b in arrays), default=0.0)
    if largest == 0:
        return agrees(text if arrays else "there is no bias")
    return differs(
        f"{text}; not 0",
        f"a fresh layer maps 0 to values up to {largest:.4g}",
        largest=largest,
    )


def _forget(native: Native, library: Library) -> Found:
    """Add up the biases of the forget gate: the second of four, or the arrays named for f."""
    arrays = _role(native, "bias")
    fused = [b.reshape(4, -1)[1] for name, b in arrays.items() if not _gate(name)]
    own = [b for name, b in arrays.items() if _gate(name) == "f"]
    total = np.sum([*fused, *own], axis=0)
    low, high = float(total.min()), float(total.max())
    value = f"{low:g}" if low == high else f"between {low:.4g} and {high:.4g}"
    text = f"the forget gate's biases add up to {value}; all biases: {_summary(arrays.values())}"
    if low == high == 1:
        return agrees(text)
    kept = 1 / (1 + math.exp(-float(total.mean())))
    return differs(
        f"{text}; not 1",
        f"a cell keeps about {kept:.3g} of its content per step at first, {kept**10:.2g} after 10; "
        f"with a bias of 1 {1 / (1 + math.exp(-1)):.3g} and {(1 / (1 + math.exp(-1))) ** 10:.2g}",
        smallest=low,
        largest=high,
    )


def _gate(name: str) -> str:
    """Return the gate of an array's own name, ``cell/hf/bias`` -> ``f``; none if it is fused."""
    parts = name.split("/")
    owner = parts[-2] if len(parts) > 1 else ""
    return owner[-1] if len(owner) == 2 and owner[0] in "ih" else ""


CLAUSES = (
    Clause("weight", "the variance of a weight is 1 / fan_in", WEIGHTED, _weight),
    Clause("bias", "biases are 0", WEIGHTED, _bias),
    Clause("weight", "no law is promised", ("embedding",), _embedding),
    Clause("input", "the variance of each input weight is 1 / fan_in", ("lstm",), _input),
    Clause("recurrent", "each gate's recurrent matrix is orthogonal", ("lstm",), _recurrent),
    Clause("forget-bias", "the forget gate's bias is 1", ("lstm",), _forget),
)
