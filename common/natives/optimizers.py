"""What a library's optimizers do: the form of momentum, how weights decay, the default rate.

Each is run on one weight, with gradients and rates given step by step, and its path is compared
with those of the formulas in use. Everything here is deterministic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from isometry.common.natives import Library, Native
from isometry.common.natives.findings import Clause, Found, joined, measured

__all__ = ["CLAUSES"]

DECAY = 0.9  # of the velocity
L2 = 0.1  # the weight decay that the calls ask for
GRADIENTS = (1.0, 0.5, -0.25, 0.1)
RATES = (0.1, 0.1, 0.01, 0.01)
SECOND = 0.999  # Adam's second decay
CLOSE = 1e-5  # of float32 paths of four steps; the formulas in use are 1e-3 apart or more

Path = Sequence[float]


def _like(path: Path, formulas: Mapping[str, Path]) -> str:
    """Return the words of the formulas that give this path."""
    close = [w for w, other in formulas.items() if np.allclose(path, other, rtol=0, atol=CLOSE)]
    return joined(close, "none of the formulas in use")


# --- momentum -----------------------------------------------------------------------------------


def _heavy_ball(
    *, inside: bool, first: float = 1.0, l2: float = 0.0, nesterov: bool = False
) -> Path:
    """Return w after each step from 1; the rate is inside the velocity or outside.

    `first` multiplies the gradient in the velocity, `l2` w is added to it. A step of Nesterov's is
    that velocity one step further, without the next gradient.
    """
    w, v, path = 1.0, 0.0, []
    for g, rate in zip(GRADIENTS, RATES, strict=True):
        new = first * (g + l2 * w) * (rate if inside else 1.0)
        v = DECAY * v + new
        step = DECAY * v + new if nesterov else v
        w -= step if inside else rate * step
        path.append(w)
    return path


def _momentum(native: Native, library: Library) -> Found:
    path = native.run(1.0, GRADIENTS, RATES)
    formulas = {
        "v <- 0.9 v + g, w <- w - rate v: a new rate acts on the whole velocity": _heavy_ball(
            inside=False
        ),
        "v <- 0.9 v + rate g, w <- w - v: the velocity keeps its old rates": _heavy_ball(
            inside=True
        ),
        "v <- 0.9 v + 0.1 g, w <- w - rate v": _heavy_ball(inside=False, first=1 - DECAY),
    }
    return measured(_like(path, formulas), last=path[-1])


def _nesterov(native: Native, library: Library) -> Found:
    path = native.run(1.0, GRADIENTS, RATES)
    formulas = {
        "v <- 0.9 v + g, w <- w - rate (g + 0.9 v): a new rate acts on the whole velocity": (
            _heavy_ball(inside=False, nesterov=True)
        ),
        "v <- 0.9 v + rate g, w <- w - (rate g + 0.9 v): the velocity keeps its old rates": (
            _heavy_ball(inside=True, nesterov=True)
        ),
        "plain momentum: no step looks ahead": _heavy_ball(inside=False),
    }
    return measured(_like(path, formulas), last=path[-1])


def _default_momentum(native: Native, library: Library) -> Found:
    """Without a gradient a step is momentum times the last one, in Nesterov's form as well."""
    steps = -np.diff(native.run(0.0, (1.0, 0.0, 0.0), (1.0,) * 3))
    decay = float(f"{steps[1] / steps[0]:.2g}") if abs(steps[0]) > CLOSE else 0.0
    return measured(f"{decay:g}" if decay else "0: each step is rate g", momentum=decay)


# --- the rate -----------------------------------------------------------------------------------


def _default_rate(native: Native, library: Library) -> Found:
    """Each formula here is proportional to the rate in its first step."""
    free = native.run(0.0, (1.0,))
    if free is None:
        return measured("there is none: the call has to say it")
    rate = float(f"{free[0] / native.run(0.0, (1.0,), (1.0,))[0]:.2g}")
    return measured(f"{rate:g}", rate=rate)


# --- weight decay -------------------------------------------------------------------------------


def _adam(l2: float = 0.0) -> Path:
    w, m, v, path = 1.0, 0.0, 0.0, []
    for k, (g, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), start=1):
        g += l2 * w
        m, v = DECAY * m + (1 - DECAY) * g, SECOND * v + (1 - SECOND) * g * g
        w -= rate * m / (1 - DECAY**k) / math.sqrt(v / (1 - SECOND**k))
        path.append(w)
    return path


def _decoupled(steps: Path, *, by_rate: bool) -> Path:
    """Return the path of steps that do not depend on w, with the decay beside each of them."""
    w, before, path = 1.0, 1.0, []
    for moved, rate in zip(steps, RATES, strict=True):
        w = w * (1 - (rate if by_rate else 1.0) * L2) + moved - before
        before = moved
        path.append(w)
    return path


def _decay(path: Path, free: Path, coupled: Path) -> Found:
    """Tell which decay a path has from the same steps without it, and with it in the gradient."""
    formulas = {
        "coupled: decay w is added to the gradient": coupled,
        "decoupled: w loses rate decay w beside the step": _decoupled(free, by_rate=True),
        "decoupled: w loses decay w beside the step, whatever the rate": _decoupled(
            free, by_rate=False
        ),
    }
    return measured(_like(path, formulas), last=path[-1])


def _decay_of_momentum(native: Native, library: Library) -> Found:
    path = native.run(1.0, GRADIENTS, RATES)
    # the rate is inside the velocity or outside; that is another clause's question
    found = [
        _decay(path, _heavy_ball(inside=inside), _heavy_ball(inside=inside, l2=L2))
        for inside in (False, True)
    ]
    return next((f for f in found if not f.measured.startswith("none")), found[0])


def _decay_of_adam(native: Native, library: Library) -> Found:
    return _decay(native.run(1.0, GRADIENTS, RATES), _adam(), _adam(L2))


def _default_decay(native: Native, library: Library) -> Found:
    """Without a gradient a weight moves by its decay alone; at two rates."""
    path = [1.0, *native.run(1.0, (0.0, 0.0), (0.1, 0.01))]
    lost = [1 - after / before for before, after in itertools.pairwise(path)]
    if max(lost) <= CLOSE:
        return measured("0: weights do not decay unless it is asked for", decay=0.0)
    by_rate = abs(lost[0] / lost[1] - 10) < 1
    decay = float(f"{lost[0] / (0.1 if by_rate else 1.0):.2g}")
    return measured(
        f"{decay:g}, {'times the rate' if by_rate else 'whatever the rate'}", decay=decay
    )


CLAUSES: tuple[Clause, ...] = (
    Clause(
        "rate",
        "learning rate by default",
        ("momentum_default", "adam", "adamw", "rmsprop", "adagrad"),
        _default_rate,
    ),
    Clause("default", "momentum by default", ("momentum_default",), _default_momentum),
    Clause("form", "where momentum has the rate", ("momentum",), _momentum),
    Clause("nesterov", "where Nesterov's has it", ("momentum_nesterov",), _nesterov),
    Clause("decay", "how weight_decay acts with momentum", ("momentum_decay",), _decay_of_momentum),
    Clause("default-decay", "weight decay by default", ("adam", "adamw"), _default_decay),
    Clause("decay", "how weight_decay acts in Adam", ("adam_decay",), _decay_of_adam),
)
