"""Clauses on clipping by norm: of all or of each tensor, the formula, and what is not finite."""

from __future__ import annotations

import numpy as np

from isometry.common.natives import Library, Native
from isometry.common.natives.findings import Clause, Found, agrees, differs, diverges
from isometry.common.statistics.rounding import gamma

__all__ = ["CLAUSES"]

GLOBAL, TENSOR = "global_norm", "tensor_norm"
CLAIMS = (GLOBAL, TENSOR)


def _gradients(scale: float = 1.0) -> list[np.ndarray]:
    """Return two gradients of norms 3 and 4 times `scale`, of norm 5 together."""
    return [np.array([3 * scale, 0], np.float32), np.array([0, 0, 4 * scale], np.float32)]


def _norms(arrays: list[np.ndarray]) -> list[float]:
    return [float(np.linalg.norm(np.asarray(a, np.float64))) for a in arrays]


def _scope(native: Native, library: Library) -> Found:
    norms = _norms(native.run(_gradients(), 2.5))
    text = (
        f"gradients of norms 3 and 4, clipped to 2.5, have norms {norms[0]:.5g} and {norms[1]:.5g}"
    )
    expected = {GLOBAL: (1.5, 2.0), TENSOR: (2.5, 2.5)}
    found = [c for c, pair in expected.items() if np.allclose(norms, pair, rtol=1e-3, atol=0)]
    words = {GLOBAL: "one norm of all", TENSOR: "a norm of each tensor"}
    if found == [native.claims]:
        return agrees(f"{text}: {words[native.claims]}")
    return diverges(
        f"{text}: {' or '.join(words[c] for c in found) or 'none of the candidates'}",
        f"the clipped gradient points elsewhere: its parts were 0.75 apart and are "
        f"{norms[0] / max(norms[1], 1e-30):.3g}",
    )


def _eps(native: Native, library: Library) -> Found:
    """Find e in ``limit / (norm + e)`` from gradients that are small beside it."""
    scale = 1e-5
    norm = {GLOBAL: 5 * scale, TENSOR: 3 * scale}[native.claims]
    limit = norm / 2
    clipped = native.run(_gradients(scale), limit)[0]
    factor = float(clipped[0]) / float(_gradients(scale)[0][0])
    eps = limit / factor - norm if factor else float("inf")
    slack = norm * gamma(32)
    text = "a gradient above the limit is multiplied by limit / norm"
    if abs(eps) <= slack:
        return agrees(f"{text}, to rounding", eps=eps)
    return differs(
        f"a gradient above the limit is multiplied by limit / (norm + {eps:.3g})",
        f"a gradient of norm {norm:g} is clipped to {factor * norm / limit:.4g} of its limit; one "
        f"of norm 1 to {1 - eps:.8g}",
        eps=eps,
    )


def _below(native: Native, library: Library) -> Found:
    kept = native.run(_gradients(), 10.0)
    zero = native.run([np.zeros(2, np.float32), np.zeros(3, np.float32)], 1.0)
    same = all(np.array_equal(a, b) for a, b in zip(kept, _gradients(), strict=True))
    if same and all(np.array_equal(a, np.zeros_like(a)) for a in zero):
        return agrees("gradients below the limit, and those that are 0, are returned bit for bit")
    return diverges(
        f"gradients of norms 3 and 4 at a limit of 10 become norms {_norms(kept)}, zeros {zero}",
        "clipping changes steps that need none",
    )


def _infinite(native: Native, library: Library) -> Found:
    gradients = [np.array([np.inf, 1], np.float32), np.array([0, 0, 4], np.float32)]
    clipped = [np.asarray(g) for g in native.run(gradients, 1.0)]
    bad, other = clipped[0][0], clipped[1][2]
    text = f"with one infinite entry it becomes {bad:g}, and a 4 in the other tensor {other:g}"
    if native.claims == TENSOR:
        whole = float(np.linalg.norm(clipped[1]))
        return agrees(text) if abs(whole - 1) <= 1e-3 else diverges(text, "tensors mix")
    if not np.isfinite(other):
        return agrees(f"{text}: the failure is loud")
    return differs(
        f"{text}: the other gradients become {other:g} silently",
        "the step of every other weight is lost, and their values stay finite",
        other=float(other),
    )


CLAUSES = (
    Clause("scope", "the norm is that of the name: of all tensors, or of each", CLAIMS, _scope),
    Clause("formula", "above the limit the factor is limit / norm", CLAIMS, _eps),
    Clause("below", "below the limit nothing changes", CLAIMS, _below),
    Clause(
        "infinite",
        "an infinite gradient is not turned into finite ones silently",
        CLAIMS,
        _infinite,
    ),
)
