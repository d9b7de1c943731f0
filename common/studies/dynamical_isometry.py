"""Which random nets keep the length of a gradient in every direction, and which cannot?

The singular values of the Jacobian of output by input, of whole random nets with Gaussian and with
orthogonal weights, at criticality: linear, ReLU, tanh at two lengths q of its critical line, the
logistic sigmoid on its own, and the sigmoid less 1/2. They are held to laws of
:mod:`isometry.common.laws.isometry`: exact at the width that was run for linear and ReLU nets, and
for the others in the limit of wide layers, to which two widths are extrapolated.

The Jacobian is the product of the layers' own, ``diag(phi'(z)) W``, and that product is held to
the vector-Jacobian product of the whole net. At last, convolutions with delta-orthogonal kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student

from isometry.common import checks
from isometry.common.laws import isometry, propagation
from isometry.common.laws.mean_field import (
    ACTIVATIONS,
    Activation,
    critical_at,
    critical_weight,
)
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.stacks import draw
from isometry.common.results import Check, Quantity
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

Array = Any
Squared = dict[tuple[str, str, int], np.ndarray]  # (case, weights, width): (networks, width)
FALSE_ALARM = 1e-9
EPS = 2.0**-53
LAWS = "isometry.common.laws.isometry"
RULES = {"gaussian": "lecun_normal", "orthogonal": "orthogonal"}  # both of variance 1 / n
CHANNELS, IMAGE = 8, 8  # of the convolutional net
DIFFERENTIATED = ("linear", "relu", "tanh, q = 1", "sigmoid")  # one net of each activation
SHOWN = 400  # singular values of each kind that the result keeps


@dataclass(frozen=True)
class Case:
    """A net: its activation for the backend and for theory, and where it is critical."""

    phi: Callable[[Any, Array], Array]
    slope: Callable[[Any, Array], Array]
    law: Activation
    q: float
    weight: float
    bias: float


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    depth: int = 8,
    width: int = 128,
    networks: int = 64,
    convolutions: int = 50,
) -> Findings:
    """Measure the singular values of Jacobians, Gaussian against orthogonal.

    Parameters
    ----------
    depth : int
        Number of layers, at least 2.
    width : int
        Units per layer, even and at least 64; nets of half the width are run beside.
    networks : int
        Independent random nets of each kind, at least 8.
    convolutions : int
        Layers of the convolutional net, at least 1.
    """
    checks.integer("depth", depth, low=2, high=1000)
    half = checks.integer("width", width, low=64, high=10**4) // 2
    checks.integer("networks", networks, low=8, high=10**4)
    checks.integer("convolutions", convolutions, low=1, high=10**4)
    cases = _cases(depth)
    streams = iter(nx.stream(seed).split(2 * len(isometry.WEIGHTS) + 1))
    squared: Squared = {}
    given: Squared = {}
    worst = 0.0
    layers = range(depth)
    done, total = 0, 2 * len(cases) * len(isometry.WEIGHTS) + 1
    for weights in isometry.WEIGHTS:
        for n in (half, 2 * half):
            stream = next(streams)
            drawn = [draw(nx, RULES[weights], networks, (n, n), stream, "float64") for _ in layers]
            for name, case in cases.items():
                tell(done, total, f"{name}, {weights}, width {n}")
                J, slopes, biases = _jacobians(nx, stream, case, drawn)
                squared[name, weights, n] = np.square(nx.to_numpy(nx.ops.svd(J)[1]))
                known = np.stack([nx.to_numpy(slope)[:, :, 0] for slope in slopes])
                given[name, weights, n] = isometry.given_slopes(known, weights)
                if (weights, n) == ("gaussian", half) and name in DIFFERENTIATED:
                    worst = max(worst, _deviation(nx, stream, case, drawn, slopes, biases, J))
                if (name, weights) == ("linear", "gaussian"):
                    volumes = _log_volumes(nx, J)
                if (name, weights) == ("relu", "gaussian"):
                    lengths = np.log(np.square(nx.to_numpy(J)[:, :, 0]).sum(axis=1))
                done += 1
    tell(done, total, "convolutions")
    found = [
        Check(
            "the product of the layers' Jacobians is the Jacobian of the net",
            observed=worst,
            expected=0.0,
            bound=1.0,
            source="vector-Jacobian product of the whole net; largest deviation in units of the "
            "rounding error of either, sqrt(n) gamma_n ||J_1|| ... ||J_L|| a layer (Higham 2002, "
            "section 3.5)",
            unit="bound",
        ),
        *_exact(squared, volumes, lengths, depth),
        *_extrapolated(squared, given, cases, depth, half),
    ]
    quantities = _quantities(squared, cases, depth, 2 * half)
    named, claims = _convolutions(nx, next(streams), convolutions)
    quantities |= named
    found += claims
    tell(total, total, "done")
    return Findings(quantities, tuple(found), _finding(quantities, cases, depth, convolutions))


def _cases(depth: int) -> dict[str, Case]:
    centred = Activation(lambda u: np.tanh(u / 2) / 2, ACTIVATIONS["sigmoid"].slope)
    q, weight = critical_weight("sigmoid", 0.0)
    tanh, sigmoid = ACTIVATIONS["tanh"], ACTIVATIONS["sigmoid"]
    slope = lambda nx, z: nx.sigmoid_gradient(z)  # noqa: E731
    return {
        "linear": Case(
            lambda nx, z: z, lambda nx, z: nx.ops.ones_like(z), ACTIVATIONS["linear"], 1.0, 1.0, 0.0
        ),
        "relu": Case(
            lambda nx, z: nx.relu(z),
            lambda nx, z: nx.relu_gradient(z),
            ACTIVATIONS["relu"],
            1.0,
            2.0,
            0.0,
        ),
        **{
            f"tanh, q = {words}": Case(
                lambda nx, z: nx.tanh(z),
                lambda nx, z: nx.tanh_gradient(z),
                tanh,
                at,
                *critical_at(tanh, at),
            )
            for words, at in (("1/depth", 1 / depth), ("1", 1.0))
        },
        "sigmoid": Case(lambda nx, z: nx.sigmoid(z), slope, sigmoid, q, weight, 0.0),
        "sigmoid - 1/2": Case(
            lambda nx, z: nx.sigmoid(z) - 0.5,
            slope,
            centred,
            4 / depth,
            *critical_at(centred, 4 / depth),
        ),
    }


# --- nets ---------------------------------------------------------------------------------------


def _jacobians(
    nx: Backend, stream: Stream, case: Case, drawn: list[Array]
) -> tuple[Array, list[Array], list[Array]]:
    """Return J (networks, n, n), and the slopes and biases (networks, n, 1) of each layer."""
    networks, n, _ = nx.shape_of(drawn[0])
    h, J, slopes, biases = _start(nx, case, networks, n), None, [], []
    scale = math.sqrt(case.weight)
    for W in drawn:
        b = stream.normal((networks, n, 1), std=math.sqrt(case.bias), dtype="float64")
        z = scale * nx.ops.matmul(W, h) + b
        slopes.append(scale * case.slope(nx, z))
        biases.append(b)
        J = slopes[-1] * (W if J is None else nx.ops.matmul(W, J))
        h = case.phi(nx, z)
    return J, slopes, biases


def _start(nx: Backend, case: Case, networks: int, n: int) -> Array:
    """Return inputs (networks, n, 1) for which the first layer has variance q."""
    value = math.sqrt((case.q - case.bias) / case.weight)
    return nx.ops.full((networks, n, 1), value, dtype="float64")


def _log_volumes(nx: Backend, J: Array) -> np.ndarray:
    """Return ``ln det(J J^T)``; by QR, since an SVD may round small singular values to 0."""
    diagonal = np.einsum("kii->ki", nx.to_numpy(nx.ops.qr(J)[1]))
    return np.asarray(2 * np.log(np.abs(diagonal)).sum(axis=1))


def _deviation(
    nx: Backend,
    stream: Stream,
    case: Case,
    drawn: list[Array],
    slopes: list[Array],
    biases: list[Array],
    J: Array,
) -> float:
    """Return how far v^T J of the first net is off the net's own, in units of rounding error."""
    _, n, _ = nx.shape_of(J)
    v = stream.normal((1, n), dtype="float64")
    apart = nx.to_numpy(nx.ops.matmul(v, J[0])) - _pullback(nx, case, drawn, biases, v)
    norms = [
        np.linalg.norm(nx.to_numpy(slope[0] * W[0]), ord=2)
        for slope, W in zip(slopes, drawn, strict=True)
    ]
    bound = 4 * len(drawn) * (n + 8) * math.sqrt(n) * EPS * math.prod(norms)
    return float(np.linalg.norm(apart) / (bound * np.linalg.norm(nx.to_numpy(v))))


def _pullback(
    nx: Backend, case: Case, drawn: list[Array], biases: list[Array], v: Array
) -> np.ndarray:
    """Return v^T J of the first net by automatic differentiation of `FullyConnected`.

    An identity for its last layer, which has no activation.
    """
    ops, n = nx.ops, nx.shape_of(v)[1]
    net = FullyConnected((n,) * (len(drawn) + 2), activation=case.phi, bias="zeros")
    parameters = {
        "stack0/weight": math.sqrt(case.weight) * ops.stack([W[0] for W in drawn]),
        "stack0/bias": ops.stack([b[0, :, 0] for b in biases]),
        "stack1/weight": ops.expand_dims(ops.eye(n, n, dtype="float64"), axis=0),
        "stack1/bias": ops.zeros((1, n), dtype="float64"),
    }
    x = ops.permute_dims(_start(nx, case, 1, n)[0], (1, 0))
    _, pullback = nx.vjp(lambda x: net.output(nx, parameters, x), x)
    return nx.to_numpy(pullback(v))


# --- checks -------------------------------------------------------------------------------------


def _exact(squared: Squared, volumes: np.ndarray, lengths: np.ndarray, depth: int) -> list[Check]:
    """Check linear and ReLU nets, whose laws are exact at the greater width."""
    n = max(width for _, _, width in squared)
    ones, networks = squared["linear", "orthogonal", n], len(volumes)
    volume = [propagation.growth("linear", 1 / n, i) for i in range(1, n + 1)] * depth
    length = [propagation.growth("relu", 2 / n, n)] * depth
    logs = "isometry.common.laws.propagation"
    found = [
        Check(
            "linear, orthogonal: largest deviation of a squared singular value from 1",
            observed=float(np.abs(ones - 1).max()),
            expected=0.0,
            bound=200 * depth * n * EPS,
            source="a product of orthogonal matrices is orthogonal (Saxe et al. 2014, section 4); "
            "QR and SVD right to 30 n eps each (isometry.common.ops), products to gamma_n a layer",
        ),
        Check(
            "linear, gaussian: logarithm of the squared determinant",
            observed=float(volumes.mean()),
            expected=float(sum(law.mean for law in volume)),
            bound=propagation.mean_bound(volume, networks, FALSE_ALARM),
            source=f"a sum of ln(chi2_i / n), i = 1 .. n, of each layer (Goodman 1963); Chernoff's "
            f"bound ({logs})",
            unit="nat",
            false_alarm=FALSE_ALARM,
        ),
        Check(
            "relu, gaussian: log squared length of the image of one direction",
            observed=float(lengths.mean()),
            expected=float(sum(law.mean for law in length)),
            bound=propagation.mean_bound(length, networks, FALSE_ALARM),
            source=f"a sum of ln(2 chi2_K / n), K ~ Binomial(n, 1/2), one of each layer (Hanin and "
            f"Nica 2020); Chernoff's bound ({logs})",
            unit="nat",
            false_alarm=FALSE_ALARM,
        ),
    ]
    for name, weights, keep in (
        ("linear", "gaussian", 1.0),
        ("relu", "gaussian", 0.5),
        ("relu", "orthogonal", 0.5),
    ):
        values = squared[name, weights, n]
        first, second = isometry.trace_moments(n, depth, weights, keep=keep)
        # the nets' own lengths cancel, and the mean stays what it was
        fourth = np.square(values).mean(axis=1)
        fourth -= second / first * (np.square(values.mean(axis=1)) - first)
        found.append(
            Check(
                f"{name}, {weights}: mean of the fourth powers of singular values",
                observed=float(fourth.mean()),
                expected=float(second),
                bound=_errors(networks) * _error(fourth),
                source="exact at this width, less the exact share of the squared mean of squares "
                f"({LAWS}.trace_moments); bound: {_errors(networks):.1f} standard errors over "
                "nets, Student's law",
                false_alarm=FALSE_ALARM,
            )
        )
    return found


def _spread(s: np.ndarray) -> np.ndarray:
    """Return the variance of each net's squared singular values over their squared mean."""
    return np.asarray(np.square(s).mean(axis=1) / np.square(s.mean(axis=1)) - 1)


def _error(x: np.ndarray) -> float:
    return float(x.std(ddof=1)) / math.sqrt(len(x))


def _errors(networks: int) -> float:
    """Return how many standard errors a mean of normal numbers stays within."""
    return float(student.isf(FALSE_ALARM / 2, networks - 1))


def _limit(narrow: np.ndarray, wide: np.ndarray) -> tuple[float, float]:
    """Return the mean at infinite width and its standard error, from nets of widths n and 2 n.

    ``2 v(2 n) - v(n)``, in which a deviation of order 1 / n cancels.
    """
    return float(2 * wide.mean() - narrow.mean()), math.hypot(2 * _error(wide), _error(narrow))


def _extrapolated(
    squared: Squared, given: Squared, cases: dict[str, Case], depth: int, half: int
) -> list[Check]:
    """Check nets without an exact law, by two widths: against their own slopes, and mean field."""
    found = []
    errors = _errors(len(squared["linear", "gaussian", half]))
    bound = f"bound: {errors:.1f} standard errors over nets, Student's law"
    for name in [name for name in cases if name not in ("linear", "relu")]:
        for weights in isometry.WEIGHTS:
            keys = [(name, weights, n) for n in (half, 2 * half)]
            share, error = _limit(*(_share(squared[key], given[key]) for key in keys))
            found.append(
                Check(
                    f"{name}, {weights}: mean of the fourth powers over what the slopes make of it",
                    observed=share,
                    expected=1.0,
                    bound=errors * error,
                    source=f"exact for slopes that are known ({LAWS}.given_slopes), but for terms "
                    f"in 1 / n, which cancel in 2 v(2 n) - v(n); {bound}",
                    false_alarm=FALSE_ALARM,
                )
            )
            if name == "sigmoid":  # few of its units are active: terms in 1 / n^2 are seen
                continue
            variance, error = _limit(*(_spread(squared[key]) for key in keys))
            case = cases[name]
            found.append(
                Check(
                    f"{name}, {weights}: variance of squared singular values, widths extrapolated",
                    observed=variance,
                    expected=isometry.spectrum_variance(case.law, case.q, depth, weights),
                    bound=errors * error,
                    source="L (mu_2 / mu_1^2 - 1 - s_1) (Pennington et al. 2018, eq. 14) as the "
                    f"width grows, to which 2 v(2 n) - v(n) leads; {bound}",
                    false_alarm=FALSE_ALARM,
                )
            )
    return found


def _share(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return each net's mean of s^2 over its expectation, less the same of mean(s)^2, plus 1."""
    first, second = given
    lengths = np.square(values.mean(axis=1)) / first
    return np.asarray(np.square(values).mean(axis=1) / second - lengths + 1)


def _quantities(
    squared: Squared, cases: dict[str, Case], depth: int, n: int
) -> dict[str, Quantity]:
    s, density = isometry.fuss_catalan_density(depth)
    quantities = {
        "density/squared": Quantity(s),
        "density/value": Quantity(density),
        "largest": Quantity(
            np.array(
                [
                    float(squared["linear", "gaussian", n].max(axis=1).mean()),
                    isometry.largest_linear(depth),
                ]
            )
        ),
        "lost": Quantity(np.array(float((squared["relu", "orthogonal", n] < 1e-12).mean()))),
    }
    for name, case in cases.items():
        quantities[f"{name}/critical"] = Quantity(np.array([case.q, case.weight, case.bias]))
        for weights in isometry.WEIGHTS:
            values = np.sort(np.sqrt(squared[name, weights, n]), axis=None)
            shown = np.linspace(0, values.size - 1, min(SHOWN, values.size)).astype(int)
            quantities[f"{name}/{weights}/singular"] = Quantity(values[shown])
            exact = isometry.spectrum_variance(case.law, case.q, depth, weights)
            spreads = [_spread(squared[name, weights, width]) for width in (n // 2, n)]
            measured = [_limit(*spreads)[0], exact, *(spread.mean() for spread in spreads)]
            quantities[f"{name}/{weights}/variance"] = Quantity(np.array(measured))
    return quantities


# --- convolutions -------------------------------------------------------------------------------


def _convolutions(
    nx: Backend, stream: Stream, depth: int
) -> tuple[dict[str, Quantity], list[Check]]:
    """Run a linear convolutional net with circular padding forward, and a gradient back."""
    ops = nx.ops
    net = nx.compile(lambda x, kernels: ops.scan(lambda h, k: _circular(nx, h, k), x, kernels))
    x, g = (stream.normal((1, CHANNELS, IMAGE, IMAGE), dtype="float64") for _ in range(2))
    quantities, kernels = {}, {}
    for rule in ("delta_orthogonal", "lecun_normal"):
        shape = (CHANNELS, CHANNELS, 3, 3)
        kernels[rule] = draw(nx, rule, depth, shape, stream, "float64")
        norms = np.sqrt(nx.to_numpy(net(x, kernels[rule])[1]))
        quantities[f"convolution/{rule}"] = Quantity(np.append(1.0, norms / _norm(nx, x)))
    quantities["convolution/layer"] = Quantity(np.arange(depth + 1), "layer")
    _, pullback = nx.vjp(lambda x: net(x, kernels["delta_orthogonal"])[0], x)
    changes = {
        "image, largest change at a layer": quantities["convolution/delta_orthogonal"].values - 1,
        "gradient, change at the input": np.array(_norm(nx, pullback(g)) / _norm(nx, g) - 1),
    }
    return quantities, [
        Check(
            f"convolutions, delta-orthogonal: norm of the {what}",
            observed=float(np.abs(change).max()),
            expected=0.0,
            bound=depth * 60 * 9 * CHANNELS * EPS,
            source="one orthogonal matrix at every place (Xiao et al. 2018, section 2.3); a QR "
            "right to 30 n eps (isometry.common.ops) and sums of 9 n terms a layer",
        )
        for what, change in changes.items()
    ]


def _norm(nx: Backend, x: Array) -> float:
    return float(np.linalg.norm(nx.to_numpy(x)))


def _circular(nx: Backend, x: Array, kernel: Array) -> tuple[Array, Array]:
    """Return the convolution of an image that goes on at its other side, and its squared norm."""
    ops = nx.ops
    x = ops.concat([x[:, :, -1:], x, x[:, :, :1]], axis=2)
    x = ops.concat([x[:, :, :, -1:], x, x[:, :, :, :1]], axis=3)
    y = ops.conv(x, kernel)
    return y, ops.sum(ops.square(y))


def _finding(
    quantities: dict[str, Quantity], cases: dict[str, Case], depth: int, convolutions: int
) -> str:
    def variance(name: str, weights: str) -> str:
        measured, exact = quantities[f"{name}/{weights}/variance"].values[:2]
        return f"{measured:.3g} ({exact:.3g})"

    rows = [
        f"{name}: {variance(name, 'gaussian')} and {variance(name, 'orthogonal')}" for name in cases
    ]
    measured, edge = quantities["largest"].values
    q, weight, _ = quantities["sigmoid/critical"].values
    plain = quantities["convolution/lecun_normal"].values
    delta = np.abs(quantities["convolution/delta_orthogonal"].values - 1).max()
    return (
        f"Variance of the squared singular values of a {depth}-layer Jacobian at criticality, mean "
        "1, measured and extrapolated to infinite width (theory), with Gaussian and with "
        f"orthogonal weights: {'; '.join(rows)}. Few units of the sigmoid are active, so that its "
        "own keep a term in 1 / n^2. "
        f"Orthogonal weights make the linear net an isometry and the tanh net nearly one if q is "
        f"1 / depth or less. ReLU cannot have it: mu_2 / mu_1^2 is 2 at every q, and "
        f"{float(quantities['lost'].values):.0%} of its singular values are 0, whatever the "
        f"weights. Nor can the logistic sigmoid, against the claim: chi_1 = 1 needs sigma_w^2 >= "
        f"{weight:.4g}, with q* = {q:.3g}, where units are saturated, so orthogonal weights change "
        "little; the claim holds for the sigmoid less 1/2, which is a tanh. The largest squared "
        f"singular value of the linear Gaussian net was {measured:.3g}, at infinite width "
        f"{edge:.4g}. Through {convolutions} convolutions delta-orthogonal kernels changed the "
        f"image's norm by no more than {delta:.1e}, Gaussian ones to {plain[-1]:.2g} of it."
    )
