"""How deep does a random net still tell two inputs apart, and where do the defaults stand?

Mean-field theory (:mod:`isometry.common.laws.mean_field`) says at which variances of weights and
biases two inputs converge (order), part (chaos), or neither (the critical line), and over how many
layers, xi_c. Here tanh nets of finite width are run at three points, and held to the theory layer
by layer by laws that are exact at any width (:mod:`isometry.common.laws.two_inputs`); three inputs
go through each net: a, b at a finite angle to it, and c next to a.

Where a framework's dense layer stands when nothing is said follows from its exact law
(`isometry.common.recipes.behaviours`, which the tests hold to what the libraries draw; measured in
docs/atlas.md). In the limit of wide layers only the variances count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws import two_inputs
from isometry.common.laws.distributions import Normal
from isometry.common.laws.mean_field import (
    MeanField,
    critical_bias,
    critical_weight,
    mean_field,
    second_moments,
)
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.recipes.behaviours import BEHAVIOURS
from isometry.common.results import Check, Quantity
from isometry.common.statistics.bounds import moment
from isometry.common.studies import Findings, Tell

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["run"]

FALSE_ALARM = 1e-9
NEAR = 1e-5  # distance of input c from a, relative to its norm
NEXT_ORDER = 1e-5  # what a small difference adds beyond first order, times its size; see `_ratios`
MAPPED = 16  # layers whose map of the covariance is judged: there the correlation moves
LINES = {"tanh": (1.0, 4.0), "erf": (math.pi / 4, 3.0)}  # sigma_w^2 from and to


def run(
    nx: Backend,
    tell: Tell,
    /,
    *,
    seed: int,
    weights: str = "1.2,critical,3",
    bias: float = 0.05,
    depth: int = 40,
    width: int = 300,
    networks: int = 6,
    cosine: float = 0.9,
    default_width: int = 512,
    grid: int = 30,
) -> Findings:
    """Send near and far inputs through random tanh nets, and draw the phase diagram.

    Parameters
    ----------
    weights : str
        Comma-separated values of sigma_w^2, or critical for the one on the critical line.
    bias : float
        sigma_b^2 of all of them, greater than 0.
    depth : int
        Number of layers, at least 16.
    width : int
        Units per layer, at least 64.
    networks : int
        Independent random nets at each point.
    cosine : float
        Between inputs a and b, from 0 to below 1.
    default_width : int
        Inputs and outputs of the dense layers whose defaults are placed in the diagram.
    grid : int
        Values of either variance in the phase diagram, at least 2.
    """
    checks.finite("bias", bias, low=0.0, open_low=True)
    checks.integer("depth", depth, low=16, high=10**4)
    checks.integer("width", width, low=64, high=10**4)
    checks.integer("networks", networks, low=1, high=10**4)
    checks.integer("default_width", default_width, low=1, high=10**6)
    checks.integer("grid", grid, low=2, high=1000)
    if not 0 <= checks.finite("cosine", cosine) < 1:
        raise InvalidArgument(f"cosine must be in [0, 1); received {cosine:g}")
    points = [_point(name.strip(), bias, depth) for name in weights.split(",")]
    quantities = _diagram(grid) | _defaults(default_width)
    quantities["layer"] = Quantity(np.arange(1, depth + 1), "layer")
    found: list[Check] = []
    stream = nx.stream(seed)
    for k, (name, theory) in enumerate(points):
        tell(k, len(points), f"sigma_w^2 = {theory.weight:.4g}")
        x = _inputs(theory, width, cosine)
        z = _preactivations(nx, stream, theory, x, depth, networks)
        measured, claims = _measure(name, theory, x, z)
        quantities |= measured
        found += claims
    tell(len(points), len(points), "done")
    return Findings(quantities, tuple(found), _finding(quantities, points, default_width, networks))


# --- theory -------------------------------------------------------------------------------------


def _point(name: str, bias: float, depth: int) -> tuple[str, MeanField]:
    if name == "critical":
        weight = critical_weight("tanh", bias)[1]
    else:
        try:
            weight = float(name)
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise InvalidArgument(
                f"weights must be numbers above 0 or 'critical', with commas between; received "
                f"{name!r}"
            )
    theory = mean_field("tanh", weight, bias)
    # a difference of NEAR, squared, must neither leave first order nor drown in rounding
    decades = 2 * math.log10(NEAR) + depth * math.log10(theory.chi_1)
    if not -20 < decades < -6:
        raise InvalidArgument(
            f"at sigma_w^2 = {weight:g} a small difference changes by {theory.chi_1:.3g} a layer, "
            f"too much for depth {depth}; choose fewer layers, or a weight nearer to the critical "
            f"{critical_weight('tanh', bias)[1]:.4g}"
        )
    return name, theory


def _diagram(grid: int) -> dict[str, Quantity]:
    """Return the plane of tanh: xi of order and chaos at every point, and critical lines."""
    weights, biases = np.linspace(0.05, 4, grid), np.linspace(0, 1, grid)
    fields = [[mean_field("tanh", float(w), float(b)) for w in weights] for b in biases]
    quantities = {
        "diagram/weight": Quantity(weights),
        "diagram/bias": Quantity(biases),
        "diagram/q": Quantity(np.array([[f.q for f in row] for row in fields])),
        "diagram/chi_1": Quantity(np.array([[f.chi_1 for f in row] for row in fields])),
    }
    for activation, (low, high) in LINES.items():
        line = np.linspace(low, high, 4 * grid)
        exact = [critical_bias(activation, float(w)) for w in line]
        quantities[f"line/{activation}/weight"] = Quantity(line)
        quantities[f"line/{activation}/bias"] = Quantity(np.array([b for _, b in exact]))
        quantities[f"line/{activation}/q"] = Quantity(np.array([q for q, _ in exact]))
    quantities["line/relu"] = Quantity(np.array([critical_weight("relu", 0.0)[1], 0.0]))
    return quantities


def _defaults(width: int) -> dict[str, Quantity]:
    """Return (sigma_w^2, sigma_b^2) of each library's dense layer, and xi_c with tanh and ReLU."""
    quantities = {}
    for library, dense in BEHAVIOURS["dense"].items():
        sizes = {"fan_in": width, "fan_out": width}
        weight = width * dense.kernel.exact(sizes).moments[1]
        bias = dense.bias.exact(sizes).moments[1]
        scales = [mean_field(activation, weight, bias).xi_c for activation in ("tanh", "relu")]
        quantities[f"default/{library}"] = Quantity(np.array([weight, bias]))
        quantities[f"default/{library}/xi_c"] = Quantity(np.array(scales), "layer")
    return quantities


# --- nets ---------------------------------------------------------------------------------------


def _inputs(theory: MeanField, width: int, cosine: float) -> np.ndarray:
    """Return inputs a, b, c (3, width) for which the first layer has variance q*.

    Any three of these angles have the same law, Gaussian weights being isotropic.
    """
    x = np.zeros((3, width))
    x[:, 0] = 1.0, cosine, math.sqrt(1 - NEAR**2)
    x[1, 1], x[2, 2] = math.sqrt(1 - cosine**2), NEAR
    return x * math.sqrt(width * (theory.q - theory.bias) / theory.weight)


def _preactivations(
    nx: Backend,
    stream: Stream,
    theory: MeanField,
    x: np.ndarray,
    depth: int,
    networks: int,
) -> np.ndarray:
    """Return z (networks, depth, 3, width), each net drawn on its own."""
    width = x.shape[1]
    net = FullyConnected(
        (width,) * (depth + 1),
        activation="tanh",
        initializer=Normal(0.0, math.sqrt(theory.weight / width)),
        bias=Normal(0.0, math.sqrt(theory.bias)),
    )

    def layers(parameters: Any, inputs: Any) -> tuple[Any, Any]:
        z = net.forward(nx, parameters, inputs)[1]
        return z["stack0"], z["stack1"]

    compiled = nx.compile(layers)
    inputs = nx.asarray(x, dtype="float64")
    found = []
    for _ in range(networks):
        parts = compiled(net.initialize(nx, stream, dtype="float64"), inputs)
        found.append(np.concatenate([nx.to_numpy(part) for part in parts]))
    return np.array(found)


# --- what they did ------------------------------------------------------------------------------


def _measure(
    name: str, theory: MeanField, x: np.ndarray, z: np.ndarray
) -> tuple[dict[str, Quantity], list[Check]]:
    networks, depth, _, width = z.shape
    first = np.broadcast_to(x, (networks, 1, *x.shape))
    h = np.concatenate([first, np.tanh(z[:, :-1])], axis=1)
    S = two_inputs.covariance(h[:, :, :2], theory.weight, theory.bias)
    c = S[..., 0, 1] / np.sqrt(S[..., 0, 0] * S[..., 1, 1])
    expected = [c[0, 0]]
    while len(expected) < depth:
        expected.append(theory.correlation(min(1.0, float(expected[-1]))))
    # variance of the difference of c and a, given the layer before; the bias cancels
    apart = theory.weight / width * np.square(h[:, :, 2] - h[:, :, 0]).sum(axis=2)
    ratio = _ratios(apart, S[..., 0, 0], theory)
    factor = theory.chi_1 * float(ratio.mean())
    level = two_inputs.ratio_bound(
        "tanh", S[:, :-1, 0, 0].ravel().tolist(), theory.q, width, FALSE_ALARM
    )
    quantities = {
        f"{name}/correlation": Quantity(c),
        f"{name}/correlation/theory": Quantity(np.array(expected)),
        f"{name}/apart": Quantity(apart),
        f"{name}/mean_field": Quantity(np.array([theory.weight, theory.q, theory.chi_1, theory.c])),
        f"{name}/xi": Quantity(np.array([theory.xi_q, theory.xi_c]), "layer"),
        f"{name}/factor": Quantity(np.array([factor, theory.chi_1])),
    }
    label = name if name == "critical" else f"sigma_w^2 = {name}"
    found = [
        *_whitened(label, z[:, :, :2], S),
        _mapped(label, theory, S, width),
        Check(
            f"{label}: a small difference changes by chi_1 from layer to layer",
            observed=factor,
            expected=theory.chi_1,
            bound=theory.chi_1 * (level + NEXT_ORDER),
            source="D' / D times chi_1(q*) / chi_1(q), q of the layer before: its mean is chi_1 = "
            "sigma_w^2 E phi'^2 at any width (Schoenholz et al. 2017; Chernoff's "
            "bound, isometry.common.laws.two_inputs)",
            false_alarm=FALSE_ALARM,
        ),
    ]
    return quantities, found


def _ratios(apart: np.ndarray, q: np.ndarray, theory: MeanField) -> np.ndarray:
    """Return ``D' / (chi_1(q) D)`` of every layer; its mean is 1 but for a term 3 D / E phi'^2."""
    slopes = np.reshape([second_moments("tanh", v)[1] for v in q[:, :-1].ravel()], q[:, :-1].shape)
    return np.asarray(apart[:, 1:] / (apart[:, :-1] * theory.weight * slopes))


def _whitened(name: str, z: np.ndarray, S: np.ndarray) -> list[Check]:
    """Check that preactivations, whitened by their covariance, are independent N(0, 1) numbers."""
    w = two_inputs.whiten(z, S)
    squares = np.square(w).sum(axis=-1)
    # given w_a, the scalar product with w_b over |w_a| is N(0, 1)
    cross = (w[..., 0, :] * w[..., 1, :]).sum(axis=-1) / np.sqrt(squares[..., 0])
    power = float(np.square(w).mean())
    limits = moment(Normal(), 2, w.size, FALSE_ALARM)
    return [
        Check(
            f"{name}: lengths of two inputs, layer by layer",
            observed=power,
            expected=1.0,
            bound=max(abs(limit - 1) for limit in limits),
            source="mean square of preactivations whitened by sigma_w^2/n h h^T + sigma_b^2: "
            "chi2_N / N, exactly, at any width (isometry.common.laws.two_inputs)",
            false_alarm=FALSE_ALARM,
        ),
        Check(
            f"{name}: angle between two inputs, layer by layer",
            observed=float(cross.mean()),
            expected=0.0,
            bound=moment(Normal(), 1, cross.size, FALSE_ALARM)[1],
            source="their scalar product, whitened: mean of N(0, 1) numbers, one of each layer and "
            "net, exactly (isometry.common.laws.two_inputs)",
            false_alarm=FALSE_ALARM,
        ),
    ]


def _mapped(name: str, theory: MeanField, S: np.ndarray, width: int) -> Check:
    """Check the correlation map where the correlation moves, at the lengths and angles measured."""
    before, after = S[:, :MAPPED].reshape(-1, 2, 2), S[:, 1 : MAPPED + 1, 0, 1].ravel()
    means, bound = two_inputs.map_bound("tanh", list(before), (theory.q, 0.5), width, FALSE_ALARM)
    scale = theory.weight / theory.q
    return Check(
        f"{name}: the map of correlations over the first layers",
        observed=float(np.mean(after - theory.bias) / theory.q - scale * means.mean()),
        expected=0.0,
        bound=scale * bound,
        source="sigma_w^2 E phi(u_1) phi(u_2) + sigma_b^2 (Poole et al. 2016, eq. 5) at the "
        "covariance given the layer before, exact in expectation at any width; martingale bound "
        "(isometry.common.laws.two_inputs)",
        false_alarm=FALSE_ALARM,
    )


def _finding(
    quantities: dict[str, Quantity],
    points: Sequence[tuple[str, MeanField]],
    default_width: int,
    networks: int,
) -> str:
    parts = []
    for name, theory in points:
        factor = float(quantities[f"{name}/factor"].values[0])
        where = (
            f"at sigma_w^2 = {theory.weight:.5g} and sigma_b^2 = {theory.bias:g} (q* = "
            f"{theory.q:.4g}, chi_1 = {theory.chi_1:.5g}) a small difference changes by "
            f"{factor:.4f} a layer"
        )
        if theory.c < 1:
            where += (
                f": chaos, inputs part, c* = {theory.c:.4f} and xi_c = {theory.xi_c:.4g} layers"
            )
        elif math.isfinite(theory.xi_c):
            measured = -1 / math.log(factor) if 0 < factor < 1 else math.inf
            where += (
                f": order, inputs become one with xi_c = {theory.xi_c:.4g} layers (measured: "
                f"{measured:.4g})"
            )
        else:
            where += ": the critical line, xi_c is infinite and 1 - c falls as 1 / depth"
        c, expected = (quantities[f"{name}/correlation{end}"].values for end in ("", "/theory"))
        parts.append(
            f"{where}; the far pair's correlation went from {c[0, 0]:.3f} to {c[:, -1].mean():.4f} "
            f"(infinite width: {expected[-1]:.4f})"
        )
    stand = []
    for library in BEHAVIOURS["dense"]:
        weight, bias = quantities[f"default/{library}"].values
        tanh, relu = quantities[f"default/{library}/xi_c"].values
        stand.append(
            f"{library} ({weight:.4g}, {bias:.2g}): xi_c = {tanh:.3g} with tanh, {relu:.3g} with "
            "ReLU"
        )
    return (
        f"{networks} tanh nets at each point: {'; '.join(parts)}. Dense layers of {default_width} "
        f"inputs and outputs as they come (sigma_w^2, sigma_b^2): {'; '.join(stand)}. Keras and "
        "Flax stand at tanh's critical point (1, 0), where the signal still shrinks as 1 / depth; "
        "ReLU is critical at (2, 0) alone, and there half of the gradient's variance is lost in "
        "each of their layers."
    )
