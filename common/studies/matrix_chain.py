"""How fast does a product of many random matrices grow, and when does it overflow?

The chapter multiplies one 4 x 4 Gaussian matrix by 100 more and prints entries near 1e23. Here that
product stands beside many chains kept in log scale, whose log-norms and Lyapunov exponents have an
exactly known law at every length (`isometry.common.laws.chains`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from isometry.common import checks
from isometry.common.laws import chains as laws
from isometry.common.laws.distributions import Normal
from isometry.common.laws.formats import FORMATS
from isometry.common.results import Check, Quantity
from isometry.common.statistics.bounds import bernstein, dkw
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

FALSE_ALARM = 1e-9  # of each check that depends on chance
CUT = 3.0  # where the measure of spread is clipped, in standard deviations
CHERNOFF = "Chernoff's bound with the exact E chi_n**t = 2**(t/2) Gamma((n+t)/2) / Gamma(n/2)"
PLAIN = ("float32", "float64")  # dtypes of Backend.matrix_chain

Part = tuple[dict[str, Quantity], list[Check]]


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    length: int = 100,
    size: int = 4,
    chains: int = 1000,
    paths: int = 20,
    points: int = 60,
) -> Findings:
    """Multiply random Gaussian matrices, plain and in log scale, and hold them to the exact law.

    Parameters
    ----------
    nx : Backend
    tell : callable
    seed : int
        Of the streams: portable for the chapter's chain, native for all others.
    length : int
        Number of matrices that the first one is multiplied by.
    size : int
        Rows and columns of each matrix.
    chains : int
        Number of chains held to the law.
    paths : int
        Number of chains followed as sample paths.
    points : int
        Number of points on each sample path.
    """
    for name, value in (("length", length), ("size", size), ("chains", chains)):
        checks.integer(name, value, low=1, high=10**6)
    checks.integer("paths", paths, low=1, high=10**6)
    checks.integer("points", points, low=1, high=10**6)
    factors = length + 1
    streams = nx.stream(seed).split(4)
    quantities: dict[str, Quantity] = {}
    found: list[Check] = []
    parts = (
        ("the chapter's chain", partial(_chapter, nx, seed, factors, size)),
        ("chains in log scale", partial(_log_norms, nx, streams[0], factors, size, chains)),
        ("Lyapunov spectrum", partial(_spectrum, nx, streams[1], factors, size, chains)),
        ("plain chains until they overflow", partial(_overflow, nx, streams[2], size, chains)),
        ("sample paths", partial(_paths, nx, streams[3], factors, size, paths, points)),
    )
    for done, (what, part) in enumerate(parts):
        tell(done, len(parts), what)
        named, claims = part()
        quantities |= named
        found += claims
    tell(len(parts), len(parts), "done")
    return Findings(quantities, tuple(found), _finding(quantities, found, factors, chains))


def _chapter(nx: Backend, seed: int, factors: int, size: int) -> Part:
    """Return one chain as the chapter computes it, and its log-norm, equal on every backend."""
    first = nx.matrix_chain(nx.portable_stream(seed), length=1, size=size)
    plain = nx.matrix_chain(nx.portable_stream(seed), length=factors, size=size)
    scaled = nx.matrix_chain(
        nx.portable_stream(seed), length=factors, size=size, dtype="float64", rescale=True
    )
    return {
        "chapter_matrix": Quantity(nx.to_numpy(first.product)[0], ulp=0),
        "chapter_product": Quantity(nx.to_numpy(plain.product)[0]),
        "chapter_overflow": Quantity(plain.overflow[0], "step"),
        # rounded to float32: float64 rounding errors of a kernel's own order of summation vanish
        "chapter_log_norm": Quantity(scaled.log_norm.astype(np.float32), "nat", ulp=1),
    }, []


def _log_norms(nx: Backend, stream: Stream, factors: int, size: int, chains: int) -> Part:
    """Hold ``ln ||P e_1||`` of many chains to its exact law: mean, spread, distribution."""
    chain = nx.matrix_chain(
        stream, length=factors, size=size, batch=chains, dtype="float64", rescale=True
    )
    values = np.sort(_log_column(nx.to_numpy(chain.product), chain.log_scale))
    law = laws.log_norm_law(size, factors)
    square, variance = law.clipped_square(CUT)
    z = (values - law.mean) / math.sqrt(law.variance)
    exact = law.cdf(values)
    steps = np.arange(chains + 1) / chains
    found = [
        Check(
            claim="the mean log-norm per factor is the Lyapunov exponent",
            observed=float(values.mean()) / factors,
            expected=law.mean / factors,
            bound=law.times(chains).deviation(FALSE_ALARM) / (chains * factors),
            source=f"(ln 2 + psi(n/2)) / 2 (Cohen and Newman 1984); {CHERNOFF}",
            unit="nat",
            false_alarm=FALSE_ALARM,
        ),
        Check(
            claim="the spread of the log-norm is the law's: mean of min(z**2, 9)",
            observed=float(np.minimum(z**2, CUT**2).mean()),
            expected=square,
            bound=bernstein(variance, CUT**2, chains, FALSE_ALARM),
            source="z in exact standard deviations sqrt(T psi'(n/2)) / 2; expectation by "
            "quadrature of the exact law; bound: Bernstein's inequality",
            false_alarm=FALSE_ALARM,
        ),
        Check(
            claim="the log-norm has the exact distribution function",
            observed=float(max((exact - steps[:-1]).max(), (steps[1:] - exact).max())),
            expected=0.0,
            bound=dkw(chains, FALSE_ALARM),
            source="characteristic function of a sum of ln chi_n inverted; bound: Dvoretzky, "
            "Kiefer and Wolfowitz with Massart's constant (1990)",
            false_alarm=FALSE_ALARM,
        ),
    ]
    return {
        "log_norm": Quantity(values, "nat"),
        "log_norm_cdf": Quantity(exact),
        "log_norm_mean": Quantity(np.array([values.mean(), law.mean]), "nat"),
        "log_norm_std": Quantity(np.array([z.std(), 1.0]) * math.sqrt(law.variance), "nat"),
    }, found


def _log_column(product: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Return ``ln ||P e_1||`` (batch,): unlike the Frobenius norm it has a known law."""
    column = product[:, :, 0].astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(log_scale + np.log(np.sqrt(np.square(column).sum(axis=1))))


def _spectrum(nx: Backend, stream: Stream, factors: int, size: int, chains: int) -> Part:
    spectrum = nx.lyapunov_spectrum(stream, length=factors, size=size, batch=chains).mean(axis=0)
    exact = [laws.exponent_law(size, i + 1, factors) for i in range(size)]
    found = [
        Check(
            claim=f"Lyapunov exponent {i + 1} is the exact one",
            observed=float(spectrum[i]),
            expected=law.mean / factors,
            bound=law.times(chains).deviation(FALSE_ALARM) / (chains * factors),
            source=f"(ln 2 + psi((n - i + 1)/2)) / 2 (Newman 1986); {CHERNOFF}",
            unit="nat",
            false_alarm=FALSE_ALARM,
        )
        for i, law in enumerate(exact)
    ]
    return {
        "lyapunov": Quantity(spectrum, "nat"),
        "lyapunov_exact": Quantity(np.array([law.mean / factors for law in exact]), "nat"),
    }, found


def _overflow(nx: Backend, stream: Stream, size: int, chains: int) -> Part:
    """Run plain chains past the step by which all must have overflowed, in each dtype."""
    quantities = {
        f"overflow_expected_{dtype}": Quantity(np.array(laws.overflow_step(dtype, size)), "step")
        for dtype in FORMATS
    }
    found = []
    for dtype, branch in zip(PLAIN, stream.split(len(PLAIN)), strict=True):
        if math.isinf(laws.overflow_step(dtype, size)):
            continue  # such products shrink
        first, last = laws.overflow_interval(dtype, size, chains=chains, false_alarm=FALSE_ALARM)
        chain = nx.matrix_chain(branch, length=last, size=size, batch=chains, dtype=dtype)
        steps = np.where(chain.overflow == 0, last + 1, chain.overflow)
        middle = (first + last) / 2
        quantities[f"overflow_{dtype}"] = Quantity(chain.overflow, "step")
        found.append(
            Check(
                claim=f"every chain overflows {dtype} between factor {first} and {last}",
                observed=float(steps[np.argmax(np.abs(steps - middle))]),
                expected=middle,
                bound=middle - first,
                source=f"ln(largest) reached by a sum of ln chi_n; {CHERNOFF}",
                unit="step",
                false_alarm=FALSE_ALARM,
            )
        )
    return quantities, found


def _paths(nx: Backend, stream: Stream, factors: int, size: int, paths: int, points: int) -> Part:
    """Follow ``log10 ||P e_1||`` step by step, past the typical overflow of float64."""
    last = laws.overflow_step("float64", size)
    block = max(1, math.ceil((factors if math.isinf(last) else 1.1 * last) / points))
    product = nx.ops.broadcast_to(nx.ops.eye(size, size, dtype="float64"), (paths, size, size))
    log_scale = np.zeros(paths)
    rows = []
    for _ in range(points):
        drawn = Normal().draw(nx, stream, (block, paths, size, size), dtype="float64")
        product, log_step = nx.chain_product(product, drawn, rescale=True)
        log_scale = log_scale + nx.to_numpy(log_step)
        rows.append(_log_column(nx.to_numpy(product), log_scale) / math.log(10))
    steps = block * np.arange(1, points + 1)
    exact = steps * laws.log_norm_law(size, 1).mean / math.log(10)
    return {
        "path_step": Quantity(steps, "step", ulp=0),
        "path_log10_norm": Quantity(np.array(rows), "decade"),
        "path_log10_exact": Quantity(exact, "decade"),
    }, []


def _finding(quantities: dict[str, Quantity], found: list[Check], factors: int, chains: int) -> str:
    mean, exact = quantities["log_norm_mean"].values / math.log(10)
    std, exact_std = quantities["log_norm_std"].values / math.log(10)
    spectrum = quantities["lyapunov"].values - quantities["lyapunov_exact"].values
    overflow = [
        f"{name} after {np.median(quantities[f'overflow_{name}'].values):.0f} (typical "
        f"{quantities[f'overflow_expected_{name}'].values:.0f})"
        for name in PLAIN
        if f"overflow_{name}" in quantities
    ]
    return (
        f"After {factors} factors the norm of {chains} chains is 10**({mean:.2f} +- {std:.2f}); "
        f"the exact law says 10**({exact:.2f} +- {exact_std:.2f}). The Lyapunov exponents are "
        f"within {np.abs(spectrum).max():.1e} of theirs. "
        + (
            f"Plain products overflow {' and '.join(overflow)} factors. "
            if overflow
            else "Such products shrink and do not overflow. "
        )
        + f"{sum(check.passed for check in found)} of {len(found)} checks hold."
    )
