"""Batch, layer and RMS normalization: a bound for ordinary right code, and mistakes by name.

The bound: with u = 2**-53, n values in a mean, X the largest |x| and s the divisor, sums in any
order put the mean off by at most ``(n + 1) u X`` and the variance by ``(n + 3) u`` of itself and
the square of the former, so that ``|y - exact| <= 2 (n + 10) u |scale| (X/s + |z|) + 4 u |shift|``
for the two-pass formula (Higham 2002, section 1.9 and problem 1.10), twice what the first order
gives. The one-pass variance ``E[x**2] - E[x]**2`` is off by about ``u (X/s)**2`` of itself: with
X/s = 1e6 far outside.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from isometry.common.grading.questions import Answer, Finding, Judgement, Question, Request
from isometry.common.laws import normalization as laws

__all__ = ["FUNCTIONS", "ask", "judge"]

FUNCTIONS = ("batch_norm", "layer_norm", "rms_norm")
UNIT = 2.0**-53
FAR = 1e6  # mean over standard deviation
LARGE, USUAL = 0.5, 1e-5  # eps: one as large as the variance shows where it is added

WRONG = "mean and variance are over the wrong axis"
WHOLE = "mean and variance are over all values at once"

Divisor = Callable[[np.ndarray, float], np.ndarray]

# what the right code does comes first, in words ""
CENTRES: Mapping[str, Mapping[str, bool]] = {
    "batch_norm": {"": True, "the mean is not subtracted": False},
    "layer_norm": {"": True, "the mean is not subtracted": False},
    "rms_norm": {"": False, "the mean is subtracted, as layer norm does": True},
}
DDOFS = {"": 0, "the variance is the unbiased one, over n - 1; it must be over n": 1}
DIVISORS: Mapping[str, Divisor] = {
    "": lambda v, eps: np.sqrt(v + eps),
    "eps is added outside the root; it must be sqrt(variance + eps)": (
        lambda v, eps: np.sqrt(v) + eps
    ),
    "eps is not used": lambda v, eps: np.sqrt(v),
    "it divides by the variance, not by its root": lambda v, eps: v + eps,
}
AXES: Mapping[str, Mapping[str, int | None]] = {
    "batch_norm": {"": 0, WRONG: 1, WHOLE: None},
    "layer_norm": {"": 1, WRONG: 0, WHOLE: None},
    "rms_norm": {"": 1, WRONG: 0, WHOLE: None},
}
AFFINE = {
    "": (True, True),
    "scale and shift are not used": (False, False),
    "the shift is not used": (True, False),
    "the scale is not used": (False, True),
}


def ask(name: str, request: Request) -> list[Question]:
    """Return batches: an ordinary one, one far from zero, one without variance, and images."""
    batches = [
        (
            "ordinary x, (7, 5), eps as large as the variance",
            _wave((7, 5), 1) + _wave((5,), 2),
            LARGE,
        ),
        ("x whose mean is 1e6 of its standard deviations", _far(name), USUAL),
        ("x without variance", _equal(name), USUAL),
    ]
    if request.convolution and name == "batch_norm":
        batches.append(("images, (3, 5, 4, 6)", _wave((3, 5, 4, 6), 1) + 2, LARGE))
    return [Question((x, *_channels(name, x), eps), what, x.shape) for what, x, eps in batches]


def _wave(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return values without structure, of mean near 0 and variance near 1."""
    steps = np.arange(np.prod(shape)) ** 2 * 0.7 + seed
    return np.asarray(np.sqrt(2) * np.sin(steps).reshape(shape))


def _far(name: str) -> np.ndarray:
    x, means = _wave((256, 8), 1), FAR * np.linspace(0.75, 1, 8)
    return np.asarray(x + means if name == "batch_norm" else x.T + means[:, None])


def _equal(name: str) -> np.ndarray:
    """Return what is 0 once it is centred, or without that for RMS norm, which does not centre."""
    if name == "rms_norm":
        return np.zeros((7, 5))
    return np.resize(_wave((5,), 3), (7, 5)) if name == "batch_norm" else np.full((7, 5), 3.7)


def _channels(name: str, x: np.ndarray) -> tuple[np.ndarray, ...]:
    count = x.shape[1]  # features of a matrix, channels of images
    scale, shift = 1.5 + 0.2 * _wave((count,), 4), 3 + _wave((count,), 5)
    return (scale,) if name == "rms_norm" else (scale, shift)


def judge(name: str, answers: Sequence[Answer], _request: Request) -> Judgement:
    """Return whether each batch keeps the bound, and which mistakes explain it if not."""
    findings = [_compared(name, answer) for answer in answers]
    ordinary, far, *_ = (finding.passed for finding in findings)
    failed = next((finding for finding in findings if not finding.passed), None)
    if failed is None:
        return Judgement(f"this is {name}, right to rounding", tuple(findings))
    mistakes = _mistakes(name, answers[0])
    if mistakes:
        said = mistakes
    elif ordinary and not far:
        said = (
            "digits are lost where the mean is large: as E[x**2] - E[x]**2 cancels; take the mean "
            f"of (x - mean)**2. {failed.said}"
        )
    else:
        said = f"for {failed.claim.replace('right', 'not right')}: {failed.said}"
    if answers[0].dtype in ("float16", "float32"):
        said += f"; it returns {answers[0].dtype} for float64: digits are lost"
    return Judgement(said, tuple(findings))


def _compared(name: str, answer: Answer) -> Finding:
    """Compare one batch with the reference."""
    claim = f"{answer.question.words}: right to rounding"
    exact, bound = _exact(name, answer.question.arguments)
    error = np.abs(answer.value - exact)
    if np.all(error <= bound):  # a NaN is not
        return Finding(claim, True, f"at most {error.max():.2g} off")
    k = int(np.argmax(np.where(np.isnan(error), np.inf, error / bound)))
    y, right, allowed = (a.flat[k] for a in (answer.value, exact, bound))
    said = f"it gives {y:.10g}, exact is {right:.10g}, {allowed:.2g} may be lost to rounding"
    return Finding(claim, False, said)


def _exact(name: str, arguments: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the reference's values and the bound of the module's docstring."""
    x, *channels, eps = arguments
    if name == "batch_norm":
        start = np.zeros(x.shape[1]), np.ones(x.shape[1])  # of the running statistics
        exact = laws.batch_norm(x, channels[0], channels[1], *start, training=True, eps=eps)[0]
    elif name == "layer_norm":
        exact = laws.layer_norm(x, channels[0], channels[1], eps=eps)
    else:
        exact = laws.rms_norm(x, channels[0], eps=eps)
    axes = tuple(k for k in range(x.ndim) if k != 1) if name == "batch_norm" else (1,)
    wide = [c.reshape(-1, *(1,) * (x.ndim - 2)) for c in channels]
    scale, shift = wide if len(wide) == 2 else (wide[0], np.zeros(1))
    spread = x.var(axis=axes, keepdims=True) if len(wide) == 2 else (x**2).mean(1, keepdims=True)
    count = x.size // spread.size
    size = np.abs(x).max(axis=axes, keepdims=True) / np.sqrt(spread + eps)
    z = np.abs((exact - shift) / scale)
    return exact, UNIT * (2 * (count + 10) * np.abs(scale) * (size + z) + 4 * np.abs(shift))


def _mistakes(name: str, answer: Answer) -> str:
    """Return the fewest mistakes that together give the numbers of the ordinary batch."""
    x, *channels, eps = answer.question.arguments
    scale, shift = channels if len(channels) == 2 else (channels[0], np.zeros(1))
    tables = (CENTRES[name], DDOFS, DIVISORS, AXES[name], AFFINE)
    choices = itertools.product(*(table.items() for table in tables))
    for chosen in sorted(choices, key=lambda chosen: sum(bool(words) for words, _ in chosen)):
        words, (centred, ddof, divisor, axis, (scaled, shifted)) = zip(*chosen, strict=True)
        centre = x.mean(axis=axis, keepdims=True)
        about = centre if centred or name != "rms_norm" else 0.0
        spread = ((x - about) ** 2).mean(axis=axis, keepdims=True)
        count = x.size // spread.size
        z = (x - centre if centred else x) / divisor(spread * count / (count - ddof), eps)
        y = z * (scale if scaled else 1) + (shift if shifted else 0)
        if np.allclose(answer.value, y, rtol=1e-9, atol=1e-9):
            return "; ".join(filter(None, words))
    return ""
