"""How `assert_law` judges laws whose entries depend on each other: orthogonal and sparse ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Sparse
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.orthogonal import DeltaOrthogonal
from isometry.common.statistics import bounds, rounding, verdicts
from isometry.common.statistics.plans import (
    Checked,
    Effect,
    Entries,
    Part,
    Plan,
    fraction_part,
    law_part,
    pairs,
)
from isometry.common.statistics.verdicts import MISS, Verdict

__all__ = ["DeltaKernels", "Matrices", "SparseEntries", "haar_entry"]


def haar_entry(size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the distribution function of an entry q of a Haar-distributed matrix.

    q is symmetric about 0 and ``q**2 ~ Beta(1/2, (n - 1)/2)``, n the larger size: the first
    coordinate of a uniformly distributed unit vector (Mezzadri 2007).
    """
    from scipy.special import betainc

    def cdf(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=np.float64)
        if size == 1:  # a fair sign
            return np.asarray(((x >= -1).astype(float) + (x >= 1)) / 2)
        within = betainc(0.5, (size - 1) / 2, np.minimum(x * x, 1.0))
        return np.asarray(0.5 + np.sign(x) * within / 2)

    return cdf


class Matrices(Plan):
    """Haar-distributed orthogonal or semi-orthogonal matrices (count, m, n).

    The statistics take the first and the last diagonal entry of each matrix, since the entries of
    one matrix are dependent; orthogonality is judged of all. An entry may be off by the error of
    a factorization, which is more than a unit in its last place.
    """

    def __init__(self, gain: float, shape: tuple[int, int], dtype: str) -> None:
        if gain == 0:
            raise InvalidArgument("an orthogonal law needs a gain above 0; received 0")
        self.gain, self.shape, self.dtype = gain, shape, dtype
        self.off = rounding.orthogonality(*shape, dtype)

    @property
    def statistics(self) -> Mapping[str, Effect]:
        square = ("determinant",) if self.shape[0] == self.shape[1] else ()
        return dict.fromkeys(("distribution", "independence", *square), ("absolute", 0.25))

    def view(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float64) / self.gain

    def parts(self, name: str, effect: Checked, rate: float) -> list[Part]:
        _, size, miss = effect
        if name == "determinant":
            claim = "fraction of positive determinants"
            return [fraction_part(_positive, claim, 0.5, self.off, size, miss, rate)]
        cdf = haar_entry(max(self.shape))
        parts = []
        for corner in (0, min(self.shape) - 1):
            if name == "independence":
                off = self.off if max(self.shape) == 1 else float(cdf(np.array(self.off))) - 0.5
                entry = pairs(0.0, 0.5, off, size, miss, rate / 2)
            else:
                entry = [law_part(cdf, size, miss, rate / 2, self.dtype, slack=self.off)]
            parts += [Part(part.needed, _of_corner(part.judge, corner)) for part in entry]
        return parts

    def support(
        self, values: np.ndarray, view: np.ndarray, miss: float, rate: float
    ) -> list[Verdict]:
        m, n = self.shape
        gram = view @ view.transpose(0, 2, 1) if m <= n else view.transpose(0, 2, 1) @ view
        # many matrices: LAPACK's ratio, since the largest error grows with their number
        working = "float64" if self.dtype == "float64" else "float32"
        limit = self.off + rounding.factorization(m, n, working)
        if math.frexp(self.gain)[0] != 0.5:  # the gain and its products are rounded
            limit += 2 * FORMATS[self.dtype].eps
        verdict = Verdict(
            f"largest entry of |W W^T / {self.gain:g}**2 - I|",
            float(np.max(np.abs(gram - np.eye(min(m, n))))),
            0.0,
            limit,
            len(view),
            0.0,
            f"an entry off by {2 * limit:g}",
            smallest=f"an entry off by {limit:g}",
        )
        return [verdict]


def _positive(q: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.det(q) > 0)


def _of_corner(judge: Callable[[np.ndarray], Verdict], corner: int) -> Callable[..., Verdict]:
    return lambda q: judge(q[:, corner, corner])


class DeltaKernels(Matrices):
    """Kernels that are zero but at the centre tap, which is a semi-orthogonal matrix."""

    def __init__(self, law: DeltaOrthogonal, shape: tuple[int, ...], dtype: str) -> None:
        out, in_, _ = law.sizes(shape)
        matrix = (out, in_) if law.layout == "out_in" else (in_, out)
        super().__init__(law.gain, matrix, dtype)
        self.centre = law.centre(shape)

    def view(self, values: np.ndarray) -> np.ndarray:
        return super().view(values[self.centre])

    def support(
        self, values: np.ndarray, view: np.ndarray, miss: float, rate: float
    ) -> list[Verdict]:
        others = np.count_nonzero(values) - np.count_nonzero(values[self.centre])
        zero = Verdict(
            "values that are not zero beside the centre tap",
            int(others),
            0,
            0,
            values.size,
            0.0,
            "one value",
        )
        return [zero, *super().support(values, view, miss, rate)]


class SparseEntries(Entries):
    """One weight (rows, columns) with so many zeros in each column, at random rows.

    Always judged beside the support: the number of zeros, that each row has its share of them,
    and that neighbouring columns do not have them at the same rows.
    """

    always = 3

    def __init__(self, law: Sparse, dtype: str) -> None:
        super().__init__(law.law, dtype)
        self.law = law

    def view(self, values: np.ndarray) -> np.ndarray:
        """Return what is left of each column without its first structural zeros."""
        if values.ndim != 2:
            raise InvalidArgument(
                f"samples of {self.law} must be (rows, columns); received shape {values.shape}"
            )
        values = self._by_column(values)
        zero = values == 0
        structural = zero & (np.cumsum(zero, axis=0) <= self.law.zeros(len(values)))
        return np.asarray(values[~structural])

    def _by_column(self, values: np.ndarray) -> np.ndarray:
        """Return the weight as (out, in), whose columns have the zeros."""
        return values if self.law.layout == "out_in" else values.T

    def support(
        self, values: np.ndarray, view: np.ndarray, miss: float, rate: float
    ) -> list[Verdict]:
        values = self._by_column(values)
        zero, wanted = values == 0, self.law.zeros(len(values))
        tiny = FORMATS[self.dtype].ulp(np.array(0.0))
        rounded = float(self.entry.cdf(tiny) - self.entry.cdf(-tiny)) + verdicts.grid(self.dtype)
        short = int(np.count_nonzero(np.count_nonzero(zero, axis=0) < wanted))
        columns = zero.shape[1]
        claim = f"columns with fewer than {wanted} zeros"
        share = wanted / len(zero), min(1.0, wanted / len(zero) + rounded)
        return [
            *super().support(values, view, miss, rate),
            Verdict(claim, short, 0, 0, columns, 0.0, "one column"),
            _share(
                view == 0, f"fraction of zeros beyond {wanted} in each column", (0.0, rounded), rate
            ),
            _rows(zero, share, rate),
            *([_neighbours(zero, share, rate)] if columns > 1 else []),
        ]


def _share(
    hits: np.ndarray, claim: str, probability: bounds.Limits, rate: float, tests: int = 1
) -> Verdict:
    """Judge the fraction of hits; one of `tests` that share the rate."""
    low, high = bounds.proportion(probability, hits.size, rate / tests)
    most = verdicts.above(high, hits.size, MISS)
    p = bounds.proportion_p(probability, hits.size, int(np.count_nonzero(hits)))
    effect = f"a probability of {most:g}"
    return Verdict(
        claim,
        float(np.mean(hits)) if hits.size else 0.0,
        low,
        high,
        hits.size,
        rate,
        effect,
        smallest=effect,
        p_value=min(1.0, tests * p),
    )


def _rows(zero: np.ndarray, share: bounds.Limits, rate: float) -> Verdict:
    """Judge that every row has its share: the columns are independent, the rows are not.

    Each row's number of zeros is exactly binomial; the rate is divided among the rows.
    """
    counts = zero.sum(axis=1)
    found = (
        _share(zero[k], f"fraction of zeros in row {k}, the most unlikely", share, rate, len(zero))
        for k in (np.argmin(counts), np.argmax(counts))
    )
    return min(found, key=lambda verdict: verdict.p_value or 0.0)


def _neighbours(zero: np.ndarray, share: bounds.Limits, rate: float) -> Verdict:
    """Judge that columns are independent: how often one has a zero where the last began its own.

    Given the first column of a pair, the second has a zero there with exactly a row's share.
    """
    half = zero.shape[1] // 2
    first, second = zero[:, 0 : 2 * half : 2], zero[:, 1 : 2 * half : 2]
    shared = second[np.argmax(first, axis=0), np.arange(half)]
    return _share(
        shared, "fraction of columns with a zero at the row of their neighbour's", share, rate
    )
