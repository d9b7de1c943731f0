"""Laws of weights that are made of something smaller: copies, zeros, gates, or units of a bias.

No law of independent entries gives the same kernel twice, or a zero in every column. So a weight
that has them is taken apart, and `identify` finds the law of what is left:

============== ========================================= =======================================
law            how it is told                            what is left
============== ========================================= =======================================
ICNR           kernels repeat scale**d times             one of each, of fan_out / scale**d
Sparse         m zeros or more in each column            the values but m zeros of each column
============== ========================================= =======================================

Two others are judged whole: gates that are orthogonal each by itself, and the bias of chrono
initialization, whose units are uniform once they are exponentiated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws import fans
from isometry.common.laws.distributions import Distribution, Normal, Sparse
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.orthogonal import Orthogonal
from isometry.common.laws.recurrent import Chrono, PerGate
from isometry.common.laws.rules import Initializer
from isometry.common.laws.upsampling import ICNR, MODES
from isometry.common.statistics import verdicts
from isometry.common.statistics.candidates import Candidate, Sample
from isometry.common.statistics.known import KnownClass
from isometry.common.statistics.matrices import SparseEntries
from isometry.common.statistics.verdicts import MISS, Verdict

__all__ = ["Made", "made_of", "of_gates"]

GATES = (4, 3)  # of an LSTM, and of a GRU
ORDERS = ("ifgo", "igfo", "iofg", *map("".join, itertools.permutations("ifgo")))
HALF = 0.5  # Kolmogorov's distance that is sure to be told of a chrono bias, at the least


@dataclass(frozen=True)
class Made:
    """A weight that is made of a smaller one.

    Attributes
    ----------
    words : str
        How: ``"ICNR, scale 2, CRD"``.
    core : array
        The smaller weight, or the values that are left.
    copies : int
        How many outputs of the weight are one of the smaller: so much less is its fan_out.
    tests : int
        How many tests of its own share the false alarm with those of the core.
    law : callable
        Law of the core -> law of the weight.
    judge : callable
        Law of the core, false alarm of each test -> the tests of its own.
    """

    words: str
    core: np.ndarray
    copies: int
    tests: int
    law: Callable[[Any], Initializer]
    judge: Callable[[Any, float], Sequence[Verdict]]

    def whole(self, candidates: Sequence[Candidate], rate: float) -> list[Candidate]:
        """Return what is left of the candidates for the core, as laws of the weight."""
        found = []
        for one in candidates:
            tests = self.judge(one.law, rate)
            if all(test.passed for test in tests):
                found.append(
                    Candidate(
                        self.law(one.law),
                        tuple(f"{self.words}, of {name}" for name in one.names),
                        tuple(f"{self.words}, of {formula}" for formula in one.formulas),
                        (*tests, *one.verdicts),
                    )
                )
        return found


def made_of(weights: np.ndarray, dtype: str) -> Made | None:
    """Return what a weight is made of; None if its entries may be independent."""
    return next(_copied(weights), None) or _thinned(weights, dtype)


# --- copies -------------------------------------------------------------------------------------


def _copied(w: np.ndarray) -> Iterator[Made]:
    """Yield the kernel that is repeated, by the largest scale first."""
    dimensions = w.ndim - 2
    if dimensions < 1:
        return
    for layout in fans.LAYOUTS:
        rows = w if layout == "out_in" else np.moveaxis(w, -1, 0)
        largest = math.floor(len(rows) ** (1 / dimensions) + 1e-9)
        for scale in range(largest, 1, -1):
            copies = scale**dimensions
            if len(rows) % copies:
                continue
            for mode in MODES:
                apart = 1 if mode == "CRD" else len(rows) // copies
                if not np.array_equal(rows[0], rows[apart]):  # quick, and fails most
                    continue
                first = rows[::copies] if mode == "CRD" else rows[:apart]
                repeat = np.repeat if mode == "CRD" else _side_by_side
                if not np.array_equal(rows, repeat(first, copies, axis=0)):
                    continue
                core = first if layout == "out_in" else np.moveaxis(first, 0, -1)
                yield _icnr(core, w.size, scale, copies, mode, layout)


def _side_by_side(first: np.ndarray, copies: int, *, axis: int) -> np.ndarray:
    return np.concatenate([first] * copies, axis=axis)


def _icnr(core: np.ndarray, size: int, scale: int, copies: int, mode: str, layout: str) -> Made:
    same = Verdict("values that are not those of their copies", 0, 0, 0, size, 0.0, "one value")
    return Made(
        f"ICNR, scale {scale}, {mode}",
        core,
        copies,
        0,
        lambda law: ICNR(law, scale, mode, layout),
        lambda law, rate: [same],
    )


# --- zeros --------------------------------------------------------------------------------------


def _thinned(w: np.ndarray, dtype: str) -> Made | None:
    """Return the values without as many zeros as every column has; None if one has none.

    Of both layouts the one is meant that leaves fewer zeros. One value in each column is no sparse
    weight but a permutation or the like.
    """
    if w.ndim != 2:
        return None
    zero = w == 0
    total, counts = int(zero.sum()), {"out_in": zero.sum(axis=0), "in_out": zero.sum(axis=1)}
    beyond = {layout: total - int(of.min()) * of.size for layout, of in counts.items()}
    layout = min(beyond, key=beyond.__getitem__)
    few, rows = int(counts[layout].min()), w.size // counts[layout].size
    if not 0 < few < rows - 1:
        return None
    # a little less than the quotient, of which the product with the rows may be rounded up
    fraction = math.nextafter(few / rows, 0)

    def plan(entry: Distribution) -> SparseEntries:
        return SparseEntries(Sparse(fraction, entry, layout), dtype)

    def judge(entry: Distribution, rate: float) -> list[Verdict]:
        return plan(entry).support(w, plan(entry).view(w), MISS, rate)

    core = plan(Normal()).view(w)
    if core.size < 2 or np.ptp(core) == 0:
        return None
    words = f"sparse, {few} of {rows} zeros ({few / rows:.3g}) in each column, {layout}"
    return Made(words, core, 1, SparseEntries.always, lambda entry: plan(entry).law, judge)


# --- gates --------------------------------------------------------------------------------------


def of_gates(sample: Sample, known: Sequence[KnownClass]) -> list[Candidate]:
    """Return the laws of the gates of a recurrent layer that give this weight or bias.

    Raises
    ------
    InvalidArgument
        If it is a bias of chrono initialization of too few units.
    """
    if sample.weights.ndim == 1:
        return _chrono(sample)
    return [
        found
        for gates in GATES
        for axis in (0, -1)
        if sample.weights.shape[axis] % gates == 0
        for found in _orthogonal(sample, gates, axis, known)
    ]


def _orthogonal(
    sample: Sample, gates: int, axis: int, known: Sequence[KnownClass]
) -> Iterator[Candidate]:
    """Yield the orthogonal laws that each gate has, if no two gates are one and the same."""
    blocks = np.split(sample.weights, gates, axis=axis)
    first = Sample(blocks[0], sample.dtype, sample.rate / gates)
    plausible = [
        (one, one.law)
        for one in known
        if isinstance(one.law, Orthogonal) and first.orthogonal(one.law.gain)
    ]
    if not plausible:
        return
    samples = [first, *(Sample(b, sample.dtype, sample.rate / gates) for b in blocks[1:])]
    same = sum(np.array_equal(a, b) for a, b in itertools.combinations(blocks, 2))
    apart = Verdict("pairs of gates with one block", same, 0, 0, gates, 0.0, "one pair")
    layout = "out_in" if axis == 0 else "in_out"
    for one, law in plausible:
        tests = [block.orthogonal(law.gain) for block in samples]
        if all(tests) and apart.passed:
            yield Candidate(
                PerGate(law, gates, layout),
                tuple(f"{name}, in each of {gates} gates" for name in one.names),
                tuple(f"{formula}, in each of {gates} gates" for formula in one.formulas),
                (apart, *itertools.chain(*tests)),
            )


def _chrono(sample: Sample) -> list[Candidate]:
    """Return the law of a bias of which one block is the negative of another, and two are 0.

    Given the largest of n units, ``u = exp(b_f)`` of the others is uniform from 1 to the largest,
    whatever `longest` is: so that is no part of the test. It lies between what the largest unit
    needs and ``2 + (u_max - 1) / rate**(1/n)``, since ``P(u_max - 1 <= t (longest - 2)) = t**n``.
    The law of b_f is tested, to two units in the last place of the largest: one for its own
    rounding.
    """
    bias = sample.weights
    blocks = bias.reshape(4, -1) if bias.size % 4 == 0 else np.zeros((4, 0))
    order = _order(blocks)
    if not order:
        return []
    forget = np.sort(blocks[order.index("f")])
    needed = 1 + verdicts.distribution_size(
        HALF, dtype=sample.dtype, false_alarm=sample.rate, miss=MISS
    )
    if forget.size < needed:
        raise InvalidArgument(
            f"a bias of chrono initialization needs {needed} units to be told; received "
            f"{forget.size}, in each of 4 blocks"
        )
    span = math.expm1(forget[-1])
    test = verdicts.distribution(
        forget[:-1],
        lambda x: np.clip(np.expm1(x) / span, 0.0, 1.0),
        detects=HALF,
        dtype=sample.dtype,
        slack=2 * float(FORMATS[sample.dtype].ulp(forget[-1:])[0]),
        false_alarm=sample.rate,
    )
    if not test.passed:
        return []
    low, high = 2 + span, 2 + span * sample.rate ** (-1 / forget.size)
    law = Chrono(2 + span * (1 + 1 / forget.size), order)
    name = f"chrono, longest from {low:.4g} to {high:.4g}"
    return [Candidate(law, (name,), ("b_f = ln u, u uniform from 1 to longest - 1",), (test,))]


def _order(blocks: np.ndarray) -> str:
    """Return an order of the gates that gives such blocks; none if they are of another kind."""
    for order in ORDERS:
        i, f, g, o = (blocks[order.index(letter)] for letter in "ifgo")
        if not (g.any() or o.any()) and f.any() and (f >= 0).all() and np.array_equal(i, -f):
            return order
    return ""
