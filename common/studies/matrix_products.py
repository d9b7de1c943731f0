"""What do two matrices tell of their product, and what of a gradient that passes many?

Every bound of :mod:`isometry.common.laws.matrix_bounds` is put to random pairs, where it must hold
and may be loose, and to pairs made to reach it, where it must be an equality. Products and singular
values are the backend's own, in float64; a bound counts as broken only beyond the rounding of those
(`isometry.common.statistics.rounding`).

Through depth the bounds are multiplied layer by layer, and so is what they give away. A gradient is
such a product: chapter 5.4.2 of Dive into Deep Learning writes it as the layers' Jacobians times a
last vector, and automatic differentiation must give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.laws import jacobians
from isometry.common.laws import matrix_bounds as laws
from isometry.common.laws.chains import LogChiSum
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.jacobians import gradients_by_autodiff, gradients_by_product
from isometry.common.results import Check, Quantity
from isometry.common.statistics import rounding
from isometry.common.statistics.bounds import dkw
from isometry.common.statistics.running_error import bound
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

Array = Any
Part = tuple[dict[str, Quantity], list[Check]]

FALSE_ALARM = 1e-9
CONDITION = 1e3  # of the factors of graded pairs
RATIO = 4.0  # between the two singular values of pairs that reach a bound
SQUARES = 4000  # 2 x 2 matrices whose condition number is held to its law
NETS = ("gaussian", "orthogonal", "gaussian tanh", "orthogonal tanh")
LAWS = "isometry.common.laws.matrix_bounds"


def run(
    nx: Backend, tell: Tell, /, *, seed: int, size: int = 8, pairs: int = 200, depth: int = 10
) -> Findings:
    """Hold the products of matrices to every bound, and a gradient to the product that it is.

    Parameters
    ----------
    size : int
        Rows and columns of each matrix, between 2 and 64.
    pairs : int
        Random pairs of each kind, and random nets.
    depth : int
        Layers of each net, at least 2.
    """
    checks.integer("size", size, low=2, high=64)
    checks.integer("pairs", pairs, low=1, high=10**5)
    checks.integer("depth", depth, low=2, high=1000)
    streams = nx.stream(seed).split(7)
    quantities: dict[str, Quantity] = {}
    found: list[Check] = []
    parts = (
        ("random pairs", partial(_random, nx, streams[0], size, pairs)),
        ("pairs that reach a bound", partial(_reached, nx, streams[1], size)),
        ("ranks", partial(_ranks, nx, streams[2], size)),
        ("congruence", partial(_congruence, nx, streams[3], size, pairs)),
        ("condition numbers", partial(_condition, nx, streams[4])),
        ("depth", partial(_depth, nx, streams[5], size, pairs, depth)),
        ("gradients", partial(_gradients, nx, streams[6], size, depth)),
    )
    for done, (what, part) in enumerate(parts):
        tell(done, len(parts), what)
        named, claims = part()
        quantities |= named
        found += claims
    tell(len(parts), len(parts), "done")
    return Findings(quantities, tuple(found), _finding(quantities, size, depth))


# --- the backend's part --------------------------------------------------------------------------


def _singular(nx: Backend, *matrices: Array) -> list[np.ndarray]:
    return [nx.to_numpy(nx.ops.svd(matrix)[1]) for matrix in matrices]


def _haar(nx: Backend, stream: Stream, count: int, size: int) -> Array:
    """Return Haar-distributed matrices (count, n, n): Q diag(sign R_ii) of Gaussian ones."""
    q, r = nx.ops.qr(stream.normal((count, size, size), dtype="float64"))
    eye = nx.ops.eye(size, size, dtype="float64")
    return q * nx.ops.sign(nx.ops.sum(r * eye, axis=1, keepdims=True))


def _transposed(nx: Backend, x: Array) -> Array:
    return nx.ops.permute_dims(x, (0, 2, 1))


def _pair(nx: Backend, stream: Stream, s: np.ndarray, t: np.ndarray) -> tuple[Array, Array]:
    """Return ``U diag(s) V^T`` and ``V diag(t) W^T``, Haar U, V, W: the values meet in order."""
    U, V, W = (_haar(nx, stream, len(s), s.shape[-1]) for _ in range(3))
    a = nx.ops.matmul(U * nx.asarray(s[:, None, :]), _transposed(nx, V))
    b = nx.ops.matmul(V * nx.asarray(t[:, None, :]), _transposed(nx, W))
    return a, b


def _error(size: int, largest: np.ndarray) -> np.ndarray:
    """Return the error of singular values of products, of norm at most `largest`, and of bounds.

    Those of three decompositions, ``n eps`` for each product with Frobenius norms at most n times
    the largest singular value, and orthogonal factors right to `rounding.orthogonality` an entry.
    """
    unit = (4 + size) * rounding.factorization(size, size, "float64")
    return (unit + 4 * size * rounding.product(1, size, "float64")) * largest


def _log_error(size: int, *spectra: np.ndarray) -> np.ndarray:
    """Return the error of ``ln(sigma_1 ... sigma_k)`` summed over matrices, k = 1 .. n.

    ``|ln(1 + x)| <= 2 |x|`` for |x| <= 1/2, x being the error over the singular value.
    """
    shares = [_error(size, values[..., :1]) / values for values in spectra]
    return np.asarray(sum(np.cumsum(np.where(x <= 0.5, 2 * x, np.inf), axis=-1) for x in shares))


def _holds(claim: str, excess: np.ndarray, error: np.ndarray, source: str) -> Check:
    """Return the check that nothing exceeds its bound by more than its rounding error."""
    worst = np.max(np.where(np.isnan(excess), np.inf, excess) / error)
    return Check(
        claim,
        observed=float(max(worst, 0.0)),
        expected=0.0,
        bound=1.0,
        source=f"{source} ({LAWS}); the unit is the error of the singular values and products",
        unit="rounding error",
    )


# --- pairs ---------------------------------------------------------------------------------------


def _random(nx: Backend, stream: Stream, size: int, pairs: int) -> Part:
    shape = (pairs, size, size)
    values = np.broadcast_to(np.geomspace(1, 1 / CONDITION, size), (pairs, size))
    graded = [_pair(nx, stream, values, values)[0] for _ in range(2)]
    kinds = {
        "gaussian": (stream.normal(shape, dtype="float64"), stream.normal(shape, dtype="float64")),
        "graded": (graded[0], graded[1]),
    }
    quantities: dict[str, Quantity] = {"index": Quantity(np.arange(1, size + 1))}
    found: list[Check] = []
    for kind, (a, b) in kinds.items():
        product = nx.ops.matmul(a, b)
        s, t, p = _singular(nx, a, b, product)
        low, high = laws.singular_intervals(s, t)
        error = _error(size, s[:, :1] * t[:, :1])
        logs, horn = laws.log_products(p), laws.horn_logs(s, t)
        log_error = _log_error(size, s, t, p)
        eigenvalues = np.sort(np.abs(np.linalg.eigvals(nx.to_numpy(product))), axis=1)[:, ::-1]
        weyl = laws.log_products(eigenvalues)
        quantities |= {
            f"{kind}/singular": Quantity(_middle(p)),
            f"{kind}/low": Quantity(_middle(low)),
            f"{kind}/high": Quantity(_middle(high)),
            f"{kind}/horn": Quantity(_middle(np.exp((logs - horn) / (1 + np.arange(size))))),
            f"{kind}/weyl": Quantity(_middle(np.exp((weyl - logs) / (1 + np.arange(size))))),
            f"{kind}/norm": Quantity(p[:, 0] / (s[:, 0] * t[:, 0])),
            f"{kind}/condition": Quantity(_condition_of(p) / (_condition_of(s) * _condition_of(t))),
        }
        found += [
            _holds(f"{kind} pairs: sigma_(i+j-1)(AB) <= s_i t_j", p - high, error, "Horn 1950"),
            _holds(f"{kind} pairs: sigma_(i+j-n)(AB) >= s_i t_j", low - p, error, "Horn 1950"),
            _holds(f"{kind} pairs: products of the largest", logs - horn, log_error, "Horn 1950"),
            _holds(
                f"{kind} pairs: |det AB| = |det A| |det B|",
                np.abs(logs - horn)[:, -1:],
                log_error[:, -1:],
                "Horn's equality at k = n",
            ),
            _holds(f"{kind} pairs: eigenvalues", weyl - logs, log_error, "Weyl 1949"),
            _holds(
                f"{kind} pairs: c(AB) between its bounds",
                _outside(np.log(_condition_of(p)), _condition_of(s), _condition_of(t)),
                2 * log_error[:, -1],
                "condition numbers of product and inverse",
            ),
        ]
    return quantities, found


def _middle(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.median(values, axis=0))


def _condition_of(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[:, 0] / values[:, -1])


def _outside(observed: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how far the logarithm of a condition number is outside its interval."""
    low, high = (np.log(end) for end in laws.condition_interval(a, b))
    return np.asarray(np.maximum(observed - high, low - observed))


def _reached(nx: Backend, stream: Stream, size: int) -> Part:
    """Pairs for which each bound is an equality."""
    found = []
    for high in (True, False):
        ends = [laws.reaching(k, size, ratio=RATIO, high=high) for k in range(1, size + 1)]
        s, t = (np.array(values) for values in zip(*ends, strict=True))
        p = _singular(nx, nx.ops.matmul(*_pair(nx, stream, s, t)))[0]
        sorted_ends = laws.singular_intervals(np.sort(s)[:, ::-1], np.sort(t)[:, ::-1])[high]
        gap = np.abs(np.diagonal(p) - np.diagonal(sorted_ends))
        found.append(
            _holds(
                f"each sigma_k(AB) reaches its {'upper' if high else 'lower'} bound",
                gap,
                _error(size, np.full(size, RATIO**2)),
                "large or small singular values at places of their own",
            )
        )
    s, t = np.geomspace(1, 1 / CONDITION, size)[None], np.linspace(2, 1, size)[None]
    a, b = _pair(nx, stream, s, t)
    p = _singular(nx, nx.ops.matmul(a, b))[0]
    log_error = _log_error(size, s, t, p)
    found += [
        _holds(
            "singular vectors that meet in order reach Horn's bounds for every k",
            np.abs(laws.log_products(p) - laws.horn_logs(s, t)),
            log_error,
            "A = U S V^T, B = V T W^T",
        ),
        _holds(
            "and the bound of the condition number",
            np.abs(np.log(_condition_of(p) / (_condition_of(s) * _condition_of(t)))),
            2 * log_error[:, -1],
            "A = U S V^T, B = V T W^T",
        ),
    ]
    U, V = (_haar(nx, stream, 1, size) for _ in range(2))
    a = nx.ops.matmul(U * nx.asarray(s[:, None, :]), _transposed(nx, V))
    inverse = nx.ops.matmul(V * nx.asarray(1 / s[:, None, :]), _transposed(nx, U))
    symmetric = nx.ops.matmul(a, _transposed(nx, a))
    values, square = _singular(nx, nx.ops.matmul(a, inverse), symmetric)
    eigenvalues = np.sort(np.abs(np.linalg.eigvals(nx.to_numpy(symmetric))))[:, ::-1]
    found += [
        _holds(
            "a matrix and its inverse reach the lower bound of the condition number, 1",
            values[:, 0] - values[:, -1],
            2 * _error(size, np.array([CONDITION])),
            "c(A)/c(B) = 1",
        ),
        _holds(
            "A A^T reaches Weyl's bounds for every k",
            np.abs(laws.log_products(eigenvalues) - laws.log_products(square)),
            _log_error(size, square, s, s),
            "the singular values of a symmetric matrix are its |eigenvalues|",
        ),
        _nilpotent(nx),
    ]
    return {}, found


def _nilpotent(nx: Backend) -> Check:
    shift = nx.asarray(np.array([[0.0, 1.0], [0.0, 0.0]]))
    product = nx.ops.matmul(shift, nx.ops.permute_dims(shift, (1, 0)))
    radii = [np.abs(np.linalg.eigvals(nx.to_numpy(m))).max() for m in (shift, product)]
    return Check(
        "the largest |eigenvalue| of a product has no bound by those of its factors",
        observed=float(radii[1] - radii[0] ** 2),
        expected=1.0,
        bound=0.0,
        source="[[0, 1], [0, 0]] and its transpose: 0, 0 and of the product 1, exactly",
    )


def _ranks(nx: Backend, stream: Stream, size: int) -> Part:
    """Projections of every pair of ranks, in three positions."""
    ranks = np.array([(a, b) for a in range(size + 1) for b in range(size + 1)])
    places = np.arange(size)
    s = (places < ranks[:, :1]).astype(float)
    last = (places >= size - ranks[:, 1:]).astype(float)
    first = (places < ranks[:, 1:]).astype(float)
    low, high = np.array([laws.rank_interval(int(a), int(b), size) for a, b in ranks]).T

    def rank(a: Array, b: Array) -> np.ndarray:
        values = _singular(nx, nx.ops.matmul(a, b))[0]
        return np.asarray((values > _error(size, np.array(1.0))).sum(axis=1))

    anyhow = rank(_pair(nx, stream, s, s)[0], _pair(nx, stream, first, first)[0])
    least = rank(*_pair(nx, stream, s, last))
    most = rank(*_pair(nx, stream, s, first))
    wrong = {
        "ranks of products in random position break Sylvester's bounds": (anyhow < low)
        | (anyhow > high),
        "ranks with as little overlap as can be miss rank A + rank B - n, or 0": least != low,
        "ranks of nested projections miss the smaller rank": most != high,
    }
    return {}, [
        Check(
            f"number of pairs whose {claim}",
            observed=float(np.sum(pairs)),
            expected=0.0,
            bound=0.0,
            source=f"Sylvester 1884 ({LAWS}); singular values of projections are 0 or 1, so that "
            "rounding decides nothing",
            unit="pair",
        )
        for claim, pairs in wrong.items()
    ]


# --- congruence ----------------------------------------------------------------------------------


def _eigenvalues(nx: Backend, symmetric: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues, descending, and their error: singular values of ``H + ||H||_F I``."""
    size = nx.shape_of(symmetric)[-1]
    shift = np.sqrt(np.square(nx.to_numpy(symmetric)).sum(axis=(1, 2)))[:, None]
    eye = nx.ops.eye(size, size, dtype="float64")
    shifted = symmetric + nx.asarray(shift[:, :, None]) * eye
    return _singular(nx, shifted)[0] - shift, _error(size, 2 * shift)


def _congruence(nx: Backend, stream: Stream, size: int, pairs: int) -> Part:
    ops, shape = nx.ops, (pairs, size, size)
    gaussian = stream.normal(shape, dtype="float64")
    H = gaussian + _transposed(nx, gaussian)
    scale = np.concatenate([[2.0], np.ones(size - 2), [0.5]])
    cases = {
        "a Gaussian S": (H, stream.normal(shape, dtype="float64")),
        "twice an orthogonal S": (H, 2 * _haar(nx, stream, pairs, size)),
        "a diagonal S": (np.arange(size, 0, -1.0), scale),
    }
    found, theta = [], np.ones(1)
    for name, (h, s) in cases.items():
        if isinstance(h, np.ndarray) and h.ndim == 1:
            h, s = (nx.asarray(np.diag(values)[None]) for values in (h, s))
        before, error = _eigenvalues(nx, h)
        spread = _singular(nx, s)[0]
        after, further = _eigenvalues(nx, ops.matmul(ops.matmul(s, h), _transposed(nx, s)))
        low, high = laws.ostrowski_interval(before, spread)
        slack = error * 2 * np.square(spread[:, :1]) + further
        excess = np.maximum(low - after, after - high)
        if name == "a diagonal S":  # the first reaches sigma_1**2, the last sigma_n**2
            excess = np.stack([np.abs(after - high)[:, 0], np.abs(after - low)[:, -1]], axis=1)
        found.append(_holds(f"{name}: eigenvalues of S H S^T", excess, slack, "Ostrowski 1959"))
        if name == "a Gaussian S":
            place = (after / before - spread[:, -1:] ** 2) / np.ptp(spread**2, axis=1)[:, None]
            theta = np.sort(place, axis=None)
    return {"ostrowski/place": Quantity(theta)}, found


# --- condition numbers and depth -----------------------------------------------------------------


def _condition(nx: Backend, stream: Stream) -> Part:
    drawn = stream.normal((SQUARES, 2, 2), dtype="float64")
    values = np.sort(_condition_of(_singular(nx, drawn)[0]))
    exact, steps = laws.gaussian_condition_cdf(values), np.arange(SQUARES + 1) / SQUARES
    return {}, [
        Check(
            "the condition number of a 2 x 2 Gaussian matrix has its exact distribution",
            observed=float(max((exact - steps[:-1]).max(), (steps[1:] - exact).max())),
            expected=0.0,
            bound=dkw(SQUARES, FALSE_ALARM),
            source=f"P(c > x) = 2 x / (x**2 + 1) ({LAWS}); bound: Massart 1990",
            false_alarm=FALSE_ALARM,
        )
    ]


def _depth(nx: Backend, stream: Stream, size: int, pairs: int, depth: int) -> Part:
    """Follow the condition number of input-output Jacobians, layer by layer, and its bound."""
    quantities: dict[str, Quantity] = {"layer": Quantity(np.arange(depth + 1), "layer")}
    found: list[Check] = []
    for net in NETS:
        largest, smallest, determinant = (np.zeros((1, pairs)) for _ in range(3))
        ends = [np.ones((2, pairs))]
        h = stream.normal((pairs, size, 1), dtype="float64") * 0.1
        J = nx.ops.broadcast_to(nx.ops.eye(size, size, dtype="float64"), (pairs, size, size))
        for _ in range(depth):
            if net.startswith("orthogonal"):
                M = _haar(nx, stream, pairs, size)
            else:
                M = stream.normal((pairs, size, size), std=size**-0.5, dtype="float64")
            if net.endswith("tanh"):
                z = nx.ops.matmul(M, h)
                h, M = nx.tanh(z), nx.tanh_gradient(z) * M
            J = nx.ops.matmul(M, J)
            values, product = _singular(nx, M, J)
            ends.append(product[:, [0, -1]].T)
            logs = np.log(values)
            largest = np.vstack([largest, largest[-1] + logs[:, 0]])
            smallest = np.vstack([smallest, smallest[-1] + logs[:, -1]])
            determinant = determinant + logs.sum(axis=1)
        s1, sn = np.array(ends).transpose(1, 0, 2)
        error = (1 + np.arange(depth + 1))[:, None] * _error(size, np.exp(largest))
        name = f"depth/{net}"
        quantities |= {
            f"{name}/condition": Quantity(np.median(np.log10(s1 / sn), axis=1), "decade"),
            f"{name}/bound": Quantity(
                np.median(largest - smallest, axis=1) / math.log(10), "decade"
            ),
        }
        excess = np.maximum(s1 - np.exp(largest), np.exp(smallest) - sn)
        found.append(_holds(f"{net} nets: the Jacobian at every depth", excess, error, "Horn 1950"))
        if net == "gaussian":
            found.append(_determinant(determinant / size, size, pairs, depth))
        if net == "orthogonal":
            found.append(
                _holds(f"{net} nets: all singular values are 1", s1 - sn, 2 * error, "isometry")
            )
    law = LogChiSum(((size, 1),)).mean - LogChiSum(((1, 1),)).mean
    quantities["lyapunov"] = Quantity(np.array(law / math.log(10)), "decade")
    return quantities, found


def _determinant(logs: np.ndarray, size: int, pairs: int, depth: int) -> Check:
    law = LogChiSum(tuple((n, depth) for n in range(1, size + 1)), std=size**-0.5).times(pairs)
    low, high = (end / (size * pairs * depth) for end in law.limits(FALSE_ALARM))
    return Check(
        "the mean log singular value of a Gaussian net, which no rotation changes",
        observed=float(logs.mean()) / depth,
        expected=(low + high) / 2,
        bound=(high - low) / 2,
        source="Horn's equality at k = n; ln |det| is a sum of ln chi_1 .. ln chi_n a layer; "
        "Chernoff's bound (isometry.common.laws.chains)",
        unit="nat",
        false_alarm=FALSE_ALARM,
    )


# --- gradients -----------------------------------------------------------------------------------


def _gradients(nx: Backend, stream: Stream, size: int, depth: int) -> Part:
    """Compare automatic differentiation with the product of the layers' Jacobians."""
    found = []
    for activation in jacobians.ACTIVATIONS:
        net = FullyConnected((size,) * depth + (1,), activation, "lecun_normal")
        for dtype in ("float32", "float64"):
            parameters = net.initialize(nx, stream, dtype=dtype)
            x = stream.normal((1, size), dtype=dtype)
            pairs = zip(
                gradients_by_autodiff(nx, net, parameters, x),
                gradients_by_product(nx, net, parameters, x),
                _reference(nx, activation, parameters, x, dtype),
                strict=True,
            )
            share = max(
                float(np.max(np.abs(auto.astype(float) - product) / np.maximum(2 * error, 1e-300)))
                for auto, product, error in pairs
            )
            found.append(
                Check(
                    f"{activation} net in {dtype}: autodiff's gradient is the product of the "
                    "layers' Jacobians and the last vector",
                    observed=share,
                    expected=0.0,
                    bound=1.0,
                    source="Dive into Deep Learning, eq. 5.4.2; twice the running error of the "
                    "formula (isometry.common.laws.jacobians)",
                    unit="rounding error",
                )
            )
    return {}, found


def _reference(
    nx: Backend, activation: str, parameters: Mapping[str, Array], x: Array, dtype: str
) -> list[np.ndarray]:
    """Return the rounding error of each gradient."""
    hidden, last = (nx.to_numpy(parameters[f"stack{k}/weight"]).astype(float) for k in (0, 1))
    v, to_weights = jacobians.gradients(activation, [*hidden, last[0]], nx.to_numpy(x)[0], dtype)
    return [bound(v, dtype), np.array([bound(g, dtype) for g in to_weights])]


def _finding(quantities: dict[str, Quantity], size: int, depth: int) -> str:
    def middle(name: str) -> float:
        return float(np.median(quantities[name].values))

    def end(name: str) -> float:
        return float(quantities[name].values[-1])

    slope = float(quantities["lyapunov"].values)
    return (
        "Every bound held for every pair, and pairs made to reach it reached it. Gaussian pairs "
        f"of size {size} stay below: the norm of the product is {middle('gaussian/norm'):.2f} of "
        f"its bound, its condition number {middle('gaussian/condition'):.2g} of its own (graded "
        f"pairs: {middle('graded/norm'):.2f} and {middle('graded/condition'):.2g}). What is given "
        f"away is multiplied through depth: after {depth} Gaussian layers the Jacobian's condition "
        f"number is 10**{end('depth/gaussian/condition'):.1f}, where the layers' bound says "
        f"10**{end('depth/gaussian/bound'):.1f}; the exact exponents say {slope:.2f} decades a "
        "layer, and for 2 x 2 matrices ln 2 where the bound grows by pi/2. With tanh it is "
        f"10**{end('depth/gaussian tanh/condition'):.1f}. Orthogonal weights reach the bounds: 1 "
        f"in a linear net, 10**{end('depth/orthogonal tanh/condition'):.2f} of at most "
        f"10**{end('depth/orthogonal tanh/bound'):.2f} under tanh. So the bounds decide little "
        "about a Gaussian net, and everything about an orthogonal one. Automatic differentiation "
        "gave the product of the layers' Jacobians and the last vector."
    )
