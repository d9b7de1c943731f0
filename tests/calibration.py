"""Do right samples fail as rarely as the statistical core says? Measured, for every statistic.

``python tests/calibration.py docs/calibration.md`` measures all of it, ten minutes on two idle
cores, and writes the page. `statistics` replicates each statistic, or draws its sufficient
statistic from its exact law; `suite` runs the statistical clauses on NumPy with fresh seeds.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import scipy
from scipy.stats import binom, kstwo

import isometry
from isometry.common.laws.chains import exponent_law
from isometry.common.laws.distributions import Distribution, Normal, TruncatedNormal, Uniform
from isometry.common.statistics import bounds, verdicts
from isometry.common.statistics.matrices import haar_entry
from isometry.conformance import specification

RATES = (1e-2, 1e-3, 1e-4)
ALARM = 1e-9
"""Upper bound of the probability that a right core fails `statistics`, and `suite`, in all."""
CHUNK = 1000  # replications with one generator: the draws do not depend on the number of cores


@dataclass(frozen=True)
class Statistic:
    """A statistic at a sample size, and the limits of its test at a rate."""

    name: str
    count: int
    limits: Callable[[float], bounds.Limits]
    attained: Callable[[float], float] | None = None
    """The probability of leaving the limits, if their law is exact; else it is at most the rate."""


@dataclass(frozen=True)
class Draws:
    """What `replications` right samples give, one row each, and the statistics in its columns."""

    draw: Callable[[np.random.Generator, int], np.ndarray]
    statistics: tuple[Statistic, ...]


# --- the statistics, at the suite's sample sizes ------------------------------------------------


def _each(
    one: Callable[[np.random.Generator], object],
) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda g, replications: np.array([one(g) for _ in range(replications)])


def _moments(law: Distribution, count: int) -> Callable[[np.random.Generator], list[float]]:
    """Draw n values of a bounded law in 1,024 cells; return their first two moments, standardized.

    How many fall in each cell is multinomial. Values in the middle of their cells have a variance
    that is right to 2e-6 of itself: nothing beside the factors that the inequality leaves.
    """
    low, high = law.support
    center, variance, _ = law.moments
    ends = np.linspace(low, high, 1025)
    z = ((ends[1:] + ends[:-1]) / 2 - center) / math.sqrt(variance)
    powers, probabilities = np.stack([z, z * z]), np.diff(law.cdf(ends))
    return lambda g: (powers @ g.multinomial(count, probabilities) / count).tolist()


def _moment(law: Distribution, power: int, count: int) -> Statistic:
    return Statistic(
        f"{'mean' if power == 1 else 'second moment'} of {law}",
        count,
        lambda rate: bounds.moment(law, power, count, rate),
        (lambda rate: rate) if isinstance(law, Normal) else None,
    )


def _distance(values: np.ndarray) -> np.ndarray:
    """Return Kolmogorov's distance of each row of F(x), uniform for a right sample."""
    u, n = np.sort(values, axis=1), values.shape[1]
    rank = np.arange(n) / n
    return np.maximum((rank + 1 / n - u).max(axis=1), (u - rank).max(axis=1))


def _haar(size: int, count: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Draw the first entry of Haar matrices: of a normal vector over its length."""
    cdf = haar_entry(size)

    def one(g: np.random.Generator) -> float:
        v = g.standard_normal((count, size))
        return float(_distance(cdf(v[:, 0] / np.linalg.norm(v, axis=1))[None])[0])

    return _each(one)


def _binomial(count: int, p: float) -> Draws:
    def limits(rate: float) -> bounds.Limits:
        return bounds.proportion((p, p), count, rate)

    def attained(rate: float) -> float:
        low, high = (round(x * count) for x in limits(rate))
        return float(binom.cdf(low - 1, count, p) + binom.sf(high, count, p))

    statistic = Statistic(f"fraction, p = {p:g}", count, limits, attained)
    return Draws(lambda g, r: g.binomial(count, p, r) / count, (statistic,))


def _distinct(law: Normal, count: int) -> Draws:
    def one(g: np.random.Generator) -> int:
        drawn = g.standard_normal(count, dtype=np.float32).astype(ml_dtypes.bfloat16)
        return int(np.unique(drawn.view(np.uint16)).size)

    def limits(rate: float) -> bounds.Limits:
        return verdicts.distinct_limit(law, count, "bfloat16", rate), math.inf

    statistic = Statistic(f"different values of {law} in bfloat16", count, limits)
    return Draws(_each(one), (statistic,))


def _exponent(size: int, index: int, length: int, count: int) -> Draws:
    law = exponent_law(size, index, length)
    ((degrees, terms),) = law.times(count).terms

    def one(g: np.random.Generator) -> float:
        halves = g.standard_gamma(degrees / 2, terms, dtype=np.float32)  # of chi squared
        return float(np.log(2 * halves).sum(dtype=np.float64)) / 2 / count

    def limits(rate: float) -> bounds.Limits:
        low, high = law.times(count).limits(rate)
        return low / count, high / count

    name = f"log norm, a sum of {length} ln chi_{degrees}: mean"
    return Draws(_each(one), (Statistic(name, count, limits),))


def draws() -> Iterator[Draws]:
    """Return every statistic; Kolmogorov's distance with fewer values than the suite's 260,000."""
    n = 260_000  # streams.law; initializers.law has 256,000 and 258,048
    normal = Normal()
    yield Draws(lambda g, r: g.standard_normal(r) / math.sqrt(n), (_moment(normal, 1, n),))
    yield Draws(lambda g, r: g.chisquare(n, r) / n, (_moment(normal, 2, n),))
    for law in (Uniform(), TruncatedNormal()):
        yield Draws(_each(_moments(law, n)), (_moment(law, 1, n), _moment(law, 2, n)))
    inequality = Statistic("Kolmogorov distance", 1000, lambda r: (0.0, bounds.dkw(1000, r)))
    exact = Statistic(
        "Kolmogorov distance, its p-value",
        1000,
        lambda rate: (0.0, float(kstwo.isf(rate, 1000))),
        lambda rate: rate,
    )
    yield Draws(lambda g, r: _distance(g.random((r, 1000))), (inequality, exact))
    haar = Statistic("Haar entry, 3 x 3", 700, lambda rate: (0.0, bounds.dkw(700, rate)))
    yield Draws(_haar(3, 700), (haar,))
    yield _binomial(60_000, 0.5)
    yield _binomial(10_000, 0.02)
    yield _distinct(normal, 1000)
    yield _exponent(3, 1, 40, 400)


# --- replications -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """How often right samples failed at one rate, and how often they may."""

    statistic: Statistic
    rate: float
    rejected: int
    least: int
    most: int

    @property
    def kept(self) -> bool:
        return self.least <= self.rejected <= self.most


def statistics(replications: int) -> list[Measured]:
    """Replicate each statistic and count those outside the limits of each rate.

    The number of rejections is binomial: within its exact interval where the limits are exact, and
    not above it where they are an inequality's.
    """
    groups = list(draws())
    alarm = ALARM / (len(RATES) * sum(len(group.statistics) for group in groups))
    found = []
    for number, group in enumerate(groups):
        values = _replicate(group, replications, number)
        for statistic, column in zip(group.statistics, values.T, strict=True):
            found += [_measure(statistic, rate, column, alarm) for rate in RATES]
    return found


def _replicate(group: Draws, replications: int, number: int) -> np.ndarray:
    """Return (replications, statistics)."""
    seeds = np.random.SeedSequence([2026, number]).spawn(math.ceil(replications / CHUNK))

    def chunk(seed: np.random.SeedSequence) -> np.ndarray:
        return group.draw(np.random.default_rng(seed), CHUNK).reshape(CHUNK, -1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        values = np.concatenate(list(pool.map(chunk, seeds)))[:replications]
    return np.broadcast_to(values, (replications, len(group.statistics)))


def _measure(statistic: Statistic, rate: float, values: np.ndarray, alarm: float) -> Measured:
    low, high = statistic.limits(rate)
    rejected = int(np.count_nonzero((values < low) | (values > high)))
    if statistic.attained is None:
        least, most = 0, int(binom.isf(alarm, len(values), rate))
    else:
        p = statistic.attained(rate)
        assert p <= rate * (1 + 1e-9)
        least, most = (int(q(alarm / 2, len(values), p)) for q in (binom.ppf, binom.isf))
    return Measured(statistic, rate, rejected, least, most)


# --- the suite ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clause:
    """The p-values of a clause's statistics over the seeds, and what failed."""

    name: str
    p_values: dict[tuple[str, int], list[float]]
    """By test and number of the statistic in it: over the seeds they are independent."""
    uniform: frozenset[tuple[str, int]]
    """Those whose law is exact and continuous."""
    failed: int

    @property
    def excess(self) -> float:
        """Largest excess of small p-values: of their distribution function over the uniform."""
        return max((_excess(p) for p in self.p_values.values()), default=0.0)

    @property
    def lack(self) -> float:
        """Largest lack of small p-values, where they are uniform but for the slack of rounding."""
        return max((_excess(1 - np.array(self.p_values[key])) for key in self.uniform), default=0.0)


def _excess(p: Iterable[float]) -> float:
    u = np.sort(np.asarray(p))
    return float(np.max(np.arange(1, len(u) + 1) / len(u) - u))


def suite(seeds: Iterable[int]) -> list[Clause]:
    """Run the statistical clauses on the NumPy backend once for each seed, in other processes."""
    names = [c.id for c in specification.clauses().values() if c.false_alarm > 0]
    with ThreadPoolExecutor(os.cpu_count()) as pool, tempfile.TemporaryDirectory() as folder:
        reports = list(pool.map(lambda seed: _report(names, seed, Path(folder)), seeds))
    return [_clause(name, reports) for name in names]


def _report(clauses: list[str], seed: int, folder: Path) -> list[dict[str, Any]]:
    path = folder / f"{seed}.json"
    command = [
        *(sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-p", "isometry.conformance.plugin", "--pyargs", "isometry.conformance"),
        *("--backend", "numpy", "--seed", str(seed), "--clause", ",".join(clauses)),
        *("--report", str(path)),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if not path.exists():
        raise RuntimeError(done.stdout + done.stderr)
    return json.loads(path.read_text(encoding="utf-8"))["judgements"]


def _clause(name: str, reports: list[list[dict[str, Any]]]) -> Clause:
    p_values, uniform, failed = defaultdict(list), set(), 0
    for judgement in (j for report in reports for j in report if j["clause"] == name):
        failed += judgement["verdict"] != "pass"
        for number, found in enumerate(judgement["statistics"]):
            if found["p_value"] is None:
                continue
            key = judgement["test"], number
            p_values[key].append(found["p_value"])
            half = "float16" in judgement["test"]
            exact = " of Normal(" in found["claim"] or "Kolmogorov" in found["claim"]
            if exact and not half:
                uniform.add(key)
    return Clause(name, dict(p_values), frozenset(uniform), failed)


# --- the page -----------------------------------------------------------------------------------

PAGE = """\
# Calibration: how often right samples fail

Every statistical test of this project states a false alarm, an upper bound of the probability that
a right sample fails. Here it is measured: recorded on {date} with Isometry {isometry}, Python
{python}, NumPy {numpy} and SciPy {scipy} by `python tests/calibration.py docs/calibration.md`. The
release tier (`tox -m release`) measures it again with the same seeds, the push tier measures less.
The seeds were not chosen: they count up.

## {replications:,} replications of each statistic

A statistic is replicated at n, the number of values in one test of the suite: drawn from its exact
law where there is one (normal, chi-squared, binomial; multinomial in 1,024 cells for the uniform
and the truncated normal), else n values are drawn and averaged. The distances of whole laws have
fewer values than most of the suite's, and so has the number of different values, to keep this
within minutes; their limits hold at every n.

A right sample is *rejected* if it leaves the limits of a rate. The number of rejections is itself
binomial, and below it stands where it must lie: in an interval where the limits are exact, and not
above its upper end (≤) where they are an inequality's, which reject far fewer than they may. The
{comparisons} comparisons fail a right core with probability at most {alarm:g} in all.

| statistic | n | {rates} |
|---|--:|{rules}|
{statistics}

## The suite on {seeds} fresh seeds

The statistical clauses run on the NumPy backend with `--seed 1` to `--seed {seeds}`. Each statistic
of each test gives a p-value, and those of different seeds are independent. A right backend has
P(p ≤ a) ≤ a for every a: the *excess*, the most by which the share of p ≤ a exceeds a in any test
of a clause, must stay below {excess:.3f}. Where the statistic's law is exact and continuous, p is
uniform, and the *lack*, the most by which that share falls short of a, must stay below {lack:.3f}.
The band is that of Dvoretzky, Kiefer and Wolfowitz at a false alarm of {alarm:g}, divided among all
p-values; {slack:g} of the lack is what the slack for rounding in float32 may take off.

| clause | statistics | p-values | smallest | excess | lack | failures |
|---|--:|--:|--:|--:|--:|--:|
{suite}
"""
SLACK = 0.05
"""How far the slack for rounding lowers the share of small p-values: by at most 0.8 times its size
in standard deviations, which is 0.03 for the mean of 3,300,000 values in float32."""


def bands(clauses: list[Clause]) -> tuple[float, float]:
    """Return the most excess and lack that right p-values have, with probability 1 - `ALARM`."""
    sizes = [len(p) for clause in clauses for p in clause.p_values.values()]
    band = math.sqrt(math.log(2 * len(sizes) / ALARM) / (2 * min(sizes)))
    return band, band + SLACK


def outside(clauses: list[Clause]) -> list[Clause]:
    """Return the clauses of which a test failed or whose p-values leave a band."""
    excess, lack = bands(clauses)
    return [
        c
        for c in clauses
        if c.failed or not (c.excess <= excess and c.lack <= lack)  # a NaN is in no band
    ]


def page(measured: list[Measured], clauses: list[Clause], *, replications: int, seeds: int) -> str:
    """Return the page in Markdown."""
    excess, lack = bands(clauses)
    rows = []
    for start in range(0, len(measured), len(RATES)):
        found = measured[start : start + len(RATES)]
        statistic = found[0].statistic
        exact = statistic.attained is not None
        cells = (
            f"{m.rejected}<br>{f'{m.least} to {m.most}' if exact else f'≤ {m.most}'}"
            + ("" if m.kept else " **not kept**")
            for m in found
        )
        rows.append(f"| {statistic.name} | {statistic.count:,} | {' | '.join(cells)} |")
    suite_rows = [
        f"| `{c.name}` | {len(c.p_values)} | {sum(map(len, c.p_values.values())):,} | "
        f"{min(min(p) for p in c.p_values.values()):.2g} | {c.excess:.3f} | "
        f"{f'{c.lack:.3f}' if c.uniform else 'bound'} | {c.failed} |"
        if c.p_values
        else f"| `{c.name}` | no p-values | | | | | {c.failed} |"
        for c in clauses
    ]
    return PAGE.format(
        date=date.today().isoformat(),
        isometry=isometry.__version__,
        python=platform.python_version(),
        numpy=np.__version__,
        scipy=scipy.__version__,
        replications=replications,
        comparisons=len(measured),
        alarm=ALARM,
        rates=" | ".join(f"rate {rate:g}" for rate in RATES),
        rules="|".join("--:" for _ in RATES),
        statistics="\n".join(rows),
        seeds=seeds,
        excess=excess,
        lack=lack,
        slack=SLACK,
        suite="\n".join(suite_rows),
    )


REPLICATIONS, SEEDS = 100_000, 200


def main(path: Path) -> None:
    """Measure everything and write the page."""
    text = page(
        statistics(REPLICATIONS),
        suite(range(1, SEEDS + 1)),
        replications=REPLICATIONS,
        seeds=SEEDS,
    )
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
