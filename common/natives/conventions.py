"""What a library's norms and clipping do by default: the conventions, without a verdict.

The numbers are those that the scoreboard judges: `isometry.common.natives.normalization` and
`clipping`.
"""

from __future__ import annotations

from isometry.common.natives import Library, Native, clipping
from isometry.common.natives.findings import Clause, Found, measured
from isometry.common.natives.normalization import CLOSE, fit_eps, running

__all__ = ["CLAUSES"]

NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
ROWS = 8  # of the batch that `running` takes


def _eps(native: Native, library: Library) -> Found:
    eps, place = fit_eps(native)
    return measured(f"{eps:g}, {place} the square root", eps=eps)


def _momentum(native: Native, library: Library) -> Found:
    weight, _, step = running(native)
    text = f"the old value keeps the weight {weight:.4g}"
    if step.momentum is not None:
        of = "old" if abs(step.momentum - weight) <= CLOSE else "new"
        text += f"; momentum={step.momentum:g} is the weight of the {of} value"
    return measured(text, old_weight=weight)


def _running_variance(native: Native, library: Library) -> Found:
    _, kept, _ = running(native)
    known = {"biased, sum/n": 1.0, "unbiased, sum/(n - 1)": ROWS / (ROWS - 1)}
    close = [words for words, ratio in known.items() if abs(kept / ratio - 1) <= 1e-3]
    words = close[0] if close else "neither sum/n nor sum/(n - 1)"
    return measured(f"{words}: {kept:.5g} times the biased one of {ROWS} rows", ratio=kept)


def _updated_in(native: Native, library: Library) -> Found:
    return measured(f"in the {running(native)[2].updated_in} pass")


def _without_verdict(clause: Clause) -> Clause:
    def ask(native: Native, library: Library) -> Found | None:
        found = clause.measure(native, library)
        return found and Found("measured", found.measured, numbers=found.numbers)

    return Clause(clause.aspect, clause.promise, clause.claims, ask)


CLAUSES: tuple[Clause, ...] = (
    Clause("eps", "eps, and where it is added", NORMS, _eps),
    Clause("momentum", "which value momentum weighs", ("batch_norm",), _momentum),
    Clause("running-variance", "which variance is averaged", ("batch_norm",), _running_variance),
    Clause("updated-in", "when the running statistics move", ("batch_norm",), _updated_in),
    *(_without_verdict(c) for c in clipping.CLAUSES if c.aspect in ("formula", "infinite")),
)
