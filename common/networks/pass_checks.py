"""What must hold, at any width, in passes through random nets of any family.

In every family weights meet rows r, ``z = W r + b``: inputs, patches of images, a step's input
beside the state, tokens, what nodes hear (:mod:`isometry.common.networks.unrolled`).

- z is W r + b, and the gradient in W the sum over rows of (gradient in z) r^T, within rounding.
- With Gaussian weights, whatever the activation, normalization and shortcut, ``||z||**2 ~ s**2
  ||(r, s_b / s)||**2 chi2_n``, b being one more column; and so has, independently, what each
  further row adds across those before it: of another input, the law of the cosine's step, of
  another place, of a later step (:func:`isometry.common.laws.propagation.innovations`).
- In a plain fully connected net the gradient in h_{l-1} across h_{l-1} has the same law; and for
  linear and ReLU nets without biases the log-norms of signal and gradient after all layers are sums
  of independent terms.
- Orthogonal weights of no fewer outputs than inputs, without biases, keep every length. (A
  recurrent layer's two matrices share an output, and say nothing of it.)

A claim is left out where no row of which it speaks stands out of rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws import propagation
from isometry.common.laws.distributions import Distribution, Normal
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.mean_field import ACTIVATIONS
from isometry.common.laws.orthogonal import DeltaOrthogonal, Orthogonal
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.unrolled import LinearMap, Unrolled, lengths
from isometry.common.results import Check
from isometry.common.statistics.rounding import factorization, gamma

__all__ = ["Measured", "judge", "measure", "variances"]

FALSE_ALARM = 1e-9
CHERNOFF = "Chernoff's bound (isometry.common.laws.propagation)"
Ratios = tuple[np.ndarray, int]
"""Ratios of squared lengths, NaN for none, and the degrees of their chi-square law."""


@dataclass(frozen=True)
class Measured:
    """What one pass says of each claim; None where it says nothing.

    Attributes
    ----------
    products, outer_products : float
        Largest shares of the bounds of z = W r + b, and of the gradients in weights.
    steps : list of (array (rows,), int), or None
        Of each map, what each row of two inputs adds to those before.
    back : list of (array (1,), int), or None
        Of each layer but the first, the gradient across the signal.
    totals : list of (float, list of LogChiSquare), or None
        Growth of the log-norms of signal and gradient, and the laws that it is a sum of.
    stretched : (float, float, int), or None
        Largest change of a length by orthogonal weights, largest error of a length before, and the
        size of the largest matrix.
    """

    products: float
    outer_products: float
    steps: list[Ratios] | None
    back: list[Ratios] | None
    totals: list[tuple[float, list[propagation.LogChiSquare]]] | None
    stretched: tuple[float, float, int] | None


def measure(network: Any, p: Unrolled, bias: float, dtype: str) -> Measured:
    """Return what a pass says of each claim.

    Parameters
    ----------
    bias : float
        Standard deviation of the biases, 0 for none.
    dtype : str
        In which the pass was made.
    """
    laws = [law for m in p.maps for law, _ in m.laws]
    gaussian = all(isinstance(law, Normal) and law.moments[0] == 0 < law.moments[1] for law in laws)
    orthogonal = all(isinstance(law, (Orthogonal, DeltaOrthogonal)) for law in laws)
    plain = isinstance(network, FullyConnected) and not network.normalization
    plain = plain and not network.shortcut and gaussian
    summed = plain and network.activation in ("linear", "relu") and bias == 0
    return Measured(
        max(_product(m, dtype) for m in p.maps),
        max(_outer_product(shared, dtype) for shared in p.uses.values()),
        [_steps(p, m, bias, dtype) for m in p.maps] if gaussian else None,
        _back(network, p, dtype) if plain and network.activation != "relu" else None,
        _totals(network, p, dtype) if summed else None,
        _stretched(network, p, dtype) if orthogonal and bias == 0 else None,
    )


def judge(seen: Sequence[Measured], dtype: str) -> tuple[Check, ...]:
    """Return the checks that passes of nets of one description allow."""
    found = [
        Check(
            "every layer is W r + b of the reference's signal: largest share of the bound",
            observed=max(m.products for m in seen),
            expected=0.0,
            bound=1.0,
            source="W r + b in float64; gamma_(2n+4) (|W| |r| + |b|), half of it the reference's "
            "(Higham 2002, section 3.5), and the contract's bounds of activation and "
            "normalization, times the norm of W's row",
            unit="bound",
        ),
        Check(
            "the gradient in every W is the sum of (gradient in z) r^T: largest share of the bound",
            observed=max(m.outer_products for m in seen),
            expected=0.0,
            bound=1.0,
            source="chain rule; twice gamma of the rows of all uses, |g|^T |r|, and the error of r "
            "times |g|",
            unit="bound",
        ),
    ]
    steps = [m.steps for m in seen if m.steps]
    if steps:
        given = "given what came before, at any width and for any activation"
        found += _law_check(
            "each layer's step of the signal's length follows its law",
            _gathered(steps, slice(1)),
            "ln(||z||**2 / ||r||**2) = ln(s**2 chi2), z and r less what earlier uses of the "
            f"weights told, {given}",
        )
        found += _law_check(
            "each layer's step of further rows across the first, the cosine's, follows its law",
            _gathered(steps, slice(1, None)),
            "ln(s**2 chi2) of the part of r' across the rows before it, independent of them "
            f"{given}",
        )
    back = [m.back for m in seen if m.back]
    if back:
        found += _law_check(
            "each layer's step of the gradient across the signal follows its law",
            _gathered(back, slice(None)),
            "ln(s**2 chi2_(n - 1)), given the forward pass (Bayati and Montanari 2011, lemma 10), "
            "for any activation",
        )
    totals = [m.totals for m in seen if m.totals]
    if totals:
        found += _total_checks(totals)
    stretched = [m.stretched for m in seen if m.stretched]
    if stretched:
        found.append(_isometry(stretched, dtype))
    return tuple(found)


def variances(p: Unrolled) -> list[float] | None:
    """Return s**2 of the entries of each map's blocks, or None if a rule's have no one variance."""
    found = []
    for m in p.maps:
        for law, n_in in m.laws:
            if isinstance(law, Distribution) and law.moments[0] == 0:
                found.append(law.moments[1])
            elif isinstance(law, Orthogonal):
                found.append(law.gain**2 / max(len(m.weight) // m.gates, n_in))
            elif isinstance(law, DeltaOrthogonal):  # of the one tap that is not 0
                found.append(law.gain**2 / len(m.weight))
            else:
                return None
    return found


# --- of one pass ---------------------------------------------------------------------------------


def _product(m: LinearMap, dtype: str) -> float:
    size, n = np.abs(m.weight).T, m.weight.shape[1]
    bound = gamma(2 * n + 4, dtype) * (np.abs(m.rows) @ size + np.abs(m.bias))
    bound += np.outer(m.errors, np.linalg.norm(m.weight, axis=1))
    tiny = n * FORMATS[dtype].smallest_normal
    return _share(m.outputs - (m.rows @ m.weight.T + m.bias), bound + tiny)


def _outer_product(shared: Sequence[LinearMap], dtype: str) -> float:
    rows = sum(len(m.rows) for m in shared)
    rounded = 2 * gamma(rows + len(shared) + 2, dtype)
    expected, bound = 0.0, rows * FORMATS[dtype].smallest_normal
    for m in shared:
        size = np.abs(m.gradients).T
        own, off = m.gradients.T @ m.rows, rounded * (size @ np.abs(m.rows))
        off += (size @ m.errors)[:, None]
        expected, bound = expected + _drawn(m, own), bound + _drawn(m, off)
    return _share(_drawn(shared[0], shared[0].weight_gradient) - expected, bound)


def _drawn(m: LinearMap, a: np.ndarray) -> Any:
    """Return what is arranged as a map's W as that was drawn."""
    return a.T if m.transposed else a


def _share(deviation: Any, bound: Any) -> float:
    """Return the largest |deviation| / bound, infinite for a NaN, which max() would overlook."""
    share = np.max(np.abs(deviation) / bound)
    return math.inf if math.isnan(share) else float(share)


def _steps(p: Unrolled, m: LinearMap, bias: float, dtype: str) -> Ratios:
    """Return what each row of two inputs adds to those that its weights met before.

    Whether a row counts depends on what came before its map, hence not on what it adds; the number
    that do is fixed given that.
    """
    uses = p.uses[m.key]
    before = uses[: uses.index(m)]
    alike = [other for other in before if other.transposed == m.transposed]
    transposed = [other for other in before if other.transposed != m.transposed]
    scales = np.repeat([math.sqrt(law.moments[1]) for law, _ in m.laws], [k for _, k in m.laws])
    rows, errors, outputs = (
        np.concatenate([_of_two(p, other, getattr(other, name)) for other in (*alike, m)])
        for name in ("rows", "errors", "outputs")
    )
    rows = np.column_stack([scales * rows, np.full(len(rows), bias)])
    own = len(_of_two(p, m, m.rows))
    degrees, seen = outputs.shape[1], None
    if transposed:
        seen, off = (
            np.concatenate([_of_two(p, other, getattr(other, name)) for other in transposed])
            for name in ("rows", "errors")
        )
        degrees -= len(seen)
        apart = np.abs(np.diag(np.linalg.qr(seen.T, mode="r")))
        if degrees < 1 or (apart <= _floor(seen, off, dtype)).any():
            return np.full(own, math.nan), max(1, degrees)
    ratios = propagation.innovations(
        rows,
        outputs,
        resolved=_floor(rows, scales.max() * errors, dtype),
        known=len(rows) - own,
        seen=seen,
    )
    return ratios, degrees


def _floor(rows: np.ndarray, errors: np.ndarray, dtype: str) -> np.ndarray:
    """Return how far rows must stand out of rounding, underflow and worst cases of errors."""
    size = lengths(rows)
    eps, tiny = FORMATS[dtype].eps, FORMATS[dtype].smallest_normal
    return np.asarray(1e4 * (eps * size + rows.shape[1] ** 0.5 * tiny) + 1e2 * errors)


def _of_two(p: Unrolled, m: LinearMap, rows: np.ndarray) -> np.ndarray:
    """Return the rows of the first two examples."""
    return rows[: 2 * len(m.rows) // len(p.signals[0])]


def _back(network: FullyConnected, p: Unrolled, dtype: str) -> list[Ratios]:
    """Return the gradient in h_{l-1} of one example across its signal, given its forward pass.

    In a plain net it owes nothing to other examples. A layer of which a slope times the gradient
    may be below the smallest number is left out.
    """
    largest = float(ACTIVATIONS[str(network.activation)].slope(np.linspace(-1, 1, 3)).max())
    found = []
    for before, slope, m in zip(p.maps, p.slopes, p.maps[1:], strict=False):
        width = m.rows.shape[1]
        d = math.sqrt(m.laws[0][0].moments[1]) * m.gradients[:1]
        floor = _floor(d, np.zeros(1), dtype)
        slopes = largest * slope[:1]
        least = float(slopes.min())
        tiny = 1e4 * width**0.5 * FORMATS[dtype].smallest_normal
        ratios = np.full(1, math.nan)
        if least > 0 and min(1.0, float(lengths(d)[0])) * least > tiny:
            g = before.gradients[:1] / slopes
            ratios = propagation.innovations(d, g, resolved=floor, seen=m.rows[:1])
        found.append((ratios, width - 1))
    return found


def _totals(
    network: FullyConnected, p: Unrolled, dtype: str
) -> list[tuple[float, list[propagation.LogChiSquare]]]:
    """Return the growth of both log-norms over all layers; the last has no activation."""
    activation, n, s = str(network.activation), network.widths, variances(p) or []
    hidden = propagation.forward_laws(activation, n[:-1], s[:-1])
    forward = [*hidden, propagation.growth("linear", s[-1], n[-1])]
    backward = [
        propagation.growth(activation, variance, width)
        for variance, width in zip(s[1:], n[1:-1], strict=True)
    ]
    ends = ((p.signals[-1], p.signals[0]), (p.maps[0].gradients, p.maps[-1].gradients))
    growth = []
    for what, (after, start) in zip(("signal", "gradient"), ends, strict=True):
        least = min(np.abs(after[0]).max(), np.abs(start[0]).max())
        if least < FORMATS[dtype].smallest_normal:
            raise InvalidArgument(
                f"the {what} of {network.depth} layers vanishes in {dtype}: it is {least:.3g} at "
                f"an end, dead or below {FORMATS[dtype].smallest_normal:.3g}; take weights of "
                "larger scale, fewer layers, more units, or a dtype of more range"
            )
        growth.append(2 * math.log(lengths(after[:1])[0]) - 2 * math.log(lengths(start[:1])[0]))
    return list(zip(growth, (forward, backward), strict=True))


def _stretched(network: Any, p: Unrolled, dtype: str) -> tuple[float, float, int] | None:
    """Return how far orthogonal maps change lengths; of a delta kernel, of what its tap sees."""
    worst, off, most = 0.0, 0.0, 0
    for m in (m for m in p.maps if len(m.laws) == 1):
        law, columns = m.laws[0]
        used = np.ones(columns, dtype=bool)
        if isinstance(law, DeltaOrthogonal):
            taps = network.kernel**2
            used = np.arange(columns) % taps == taps // 2
        length = lengths(m.rows[:, used])
        met = length > 1e4 * columns * FORMATS[dtype].smallest_normal / FORMATS[dtype].eps
        if len(m.weight) // m.gates >= used.sum() and met.any():
            gain = math.sqrt(m.gates) * law.gain
            ratio = lengths(m.outputs[met]) / (gain * length[met])
            worst, most = max(worst, _share(ratio - 1, 1.0)), max(most, len(m.weight))
            off = max(off, float(np.max(m.errors[met] / length[met])))
    return (worst, off, most) if most else None


# --- of all passes -------------------------------------------------------------------------------


def _gathered(passes: Sequence[Sequence[Ratios]], part: slice) -> list[Ratios]:
    """Return, for each map, this part of its ratios in all passes, but for those that are NaN."""
    found = []
    for of_one in zip(*passes, strict=True):
        values = np.concatenate([ratios[part] for ratios, _ in of_one])
        kept = values[~np.isnan(values)]
        if kept.size:
            found.append((kept, of_one[0][1]))
    return found


def _law_check(claim: str, ratios: Sequence[Ratios], source: str) -> list[Check]:
    """Check the mean of each map's log ratios against ``ln chi2_K``, if there are any."""
    if not ratios:
        return []
    level, worst = FALSE_ALARM / len(ratios), 0.0
    for values, degrees in ratios:
        law = propagation.growth("linear", 1.0, degrees)
        bound = propagation.mean_bound([law], values.size, level)
        worst = max(worst, _share(np.log(values).mean() - law.mean, bound))
    rows = sum(values.size for values, _ in ratios)
    return [
        Check(
            claim,
            observed=worst,
            expected=0.0,
            bound=1.0,
            source=f"{source}; {CHERNOFF}, shared by the {len(ratios)} maps of which rows stood "
            f"out of rounding, {rows} in all",
            unit="bound",
            false_alarm=FALSE_ALARM,
        )
    ]


def _total_checks(
    passes: Sequence[list[tuple[float, list[propagation.LogChiSquare]]]],
) -> list[Check]:
    claims = ("growth of ln ||h||**2", "growth of ln ||dL/dz||**2 from the last to the first")
    found = []
    for what, of_one in zip(claims, zip(*passes, strict=True), strict=True):
        laws = of_one[0][1]
        found.append(
            Check(
                f"{what} over all layers",
                observed=float(np.mean([growth for growth, _ in of_one])),
                expected=sum(law.mean for law in laws),
                bound=propagation.mean_bound(laws, len(passes), FALSE_ALARM),
                source=f"exact sum of independent log chi-squares; {CHERNOFF}",
                unit="nat",
                false_alarm=FALSE_ALARM,
            )
        )
    return found


def _isometry(stretched: Sequence[tuple[float, float, int]], dtype: str) -> Check:
    worst, off, most = np.max(stretched, axis=0)
    return Check(
        "every layer with orthogonal weights keeps every length: largest relative change",
        observed=float(worst),
        expected=0.0,
        bound=factorization(most, most, dtype)
        + math.sqrt(most) * gamma(2 * most + 4, dtype)
        + 2 * off,
        source="||W h|| = ||h|| for W^T W = I; qr is right to 30 n eps, the product to gamma |W| "
        "|h| (isometry.common.ops; Higham 2002, section 3.5), and h to its own error",
    )
