"""`my_initializer(shape, rng)`: which law it draws, and that it draws from `rng` alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.grading.questions import Answer, Finding, Judgement, Question, Request
from isometry.common.laws.distributions import Constant, Distribution
from isometry.common.laws.fans import fans
from isometry.common.laws.identities import Fixed
from isometry.common.laws.initializers import INITIALIZERS, Orthogonal
from isometry.common.statistics import hints
from isometry.common.statistics.assertions import assert_law
from isometry.common.statistics.identify import Identification, identify
from isometry.common.statistics.known import KNOWN, MISTAKES
from isometry.common.statistics.verdicts import MISS

__all__ = ["FALSE_ALARM", "ask", "judge"]

FALSE_ALARM = 1e-9  # of one grading: a right initializer is called wrong
# neither square nor in simple proportion: laws that are one law there are one law everywhere
DENSE = ((210, 340), (430, 170))
KERNEL = {"out_in": (64, 40, 3, 5), "in_out": (3, 5, 40, 64)}
SMALL, MANY = (3, 3), 1000  # matrices, to see how orthogonal ones are distributed

AUTHORS = {"lecun": "LeCun", "xavier": "Xavier", "he": "He"}
_MISTAKES = {known.name for known in MISTAKES}


def ask(request: Request) -> list[Question]:
    """Return the draws: four of the first shape, one of each other, small ones if orthogonal.

    Raises
    ------
    InvalidArgument
        If the law asked for is unknown, or has no meaning for any of the shapes.
    """
    seed = request.seed
    first, *others = _shapes(request)
    drawn = [
        _draw(first, ("one", seed)),
        _draw(first, ("one", seed), "with the same generator, further on"),
        _draw(first, ("its twin", seed), "with a generator in the state of the first"),
        _draw(first, ("another", seed + 1), "with another generator"),
        *(_draw(shape, (str(shape), seed + 2 + k)) for k, shape in enumerate(others)),
    ]
    if _orthogonal(request):
        drawn.append(
            Question((SMALL,), f"{SMALL}, rng", SMALL, ("small", seed + 9), count=MANY),
        )
    return drawn


def _draw(shape: tuple[int, ...], generator: tuple[str, int], how: str = "") -> Question:
    return Question((shape,), f"{shape}, rng{', ' * bool(how)}{how}", shape, generator)


def _orthogonal(request: Request) -> bool:
    return request.law is not None and isinstance(INITIALIZERS[request.law], Orthogonal)


def _shapes(request: Request) -> list[tuple[int, ...]]:
    """Return the shapes for which the law that is wanted has a meaning."""
    shapes = [*DENSE, *([KERNEL[request.layout]] if request.convolution else [])]
    if request.law is None:
        return shapes
    checks.choice("law", request.law, tuple(INITIALIZERS))
    known = []
    for shape in shapes:
        try:
            INITIALIZERS[request.law].resolve(shape, request.layout)
        except InvalidArgument as error:
            reason = error
        else:
            known.append(shape)
    if not known:
        raise InvalidArgument(
            f"{request.law} has no meaning for the weights asked for: {reason}; a law of kernels "
            "alone needs --convolution, one of biases cannot be graded"
        )
    return known


def judge(answers: Sequence[Answer], request: Request) -> Judgement:
    """Return whether the weights follow the law, and in words which one they follow instead.

    The false alarm is shared by all tests; a wrong law is one that leaves the set of
    `isometry.identify` at one shape at least.
    """
    wrong = next((a for a in answers if not np.isfinite(a.value).all()), None)
    if wrong is not None:
        count = np.count_nonzero(~np.isfinite(wrong.value))
        said = f"{count} of {wrong.value.size} values are NaN or infinite, at shape {_shape(wrong)}"
        return Judgement(said, (Finding("finite values", False, said),))
    one, again, twin, another, *rest = answers
    weights = [one, *(a for a in rest if a.question.count == 1)]
    share = FALSE_ALARM / (len(weights) + _orthogonal(request))
    try:
        found = [_identified(answer, request, share) for answer in weights]
    except InvalidArgument as error:  # beyond what can be squared
        return Judgement(str(error), (Finding("weights that can be squared", False, str(error)),))
    law = _law(weights, found, request, share)
    findings = [_generator(one, again, twin, another, chance=_chance(found, request)), law]
    if _orthogonal(request) and law.passed:
        findings.append(_haar(rest[-1], share))
    said = ". ".join(f.said.rstrip(".") for f in findings if not f.passed) or law.said
    detects = max(one.detects for one in found)
    missed = (
        f"; a law whose standard deviation is {detects:.2%} off or more is passed with probability "
        f"at most {MISS:g}"
    )
    rates = f"a right one is called wrong with probability at most {FALSE_ALARM:g}"
    return Judgement(said, tuple(findings), rates + missed * bool(detects))


# --- the generator ------------------------------------------------------------------------------


def _chance(found: Sequence[Identification], request: Request) -> bool:
    """Whether the weights ought to be random, or are: neither constant nor fixed by their shape."""
    if request.law is not None:
        laws = [INITIALIZERS[request.law]]
    else:
        laws = [candidate.law for candidate in found[0].candidates]
    shape = _shapes(request)[0]
    fixed = [isinstance(law.resolve(shape, request.layout), (Constant, Fixed)) for law in laws]
    return not fixed or not all(fixed)


def _generator(one: Answer, again: Answer, twin: Answer, another: Answer, chance: bool) -> Finding:
    """Judge exactly that the numbers are those of `rng`: no false alarm but by equal draws."""
    claim = "draws from rng, and from nothing else"
    from_ = f" They come from {' and '.join(one.elsewhere)}." if one.elsewhere else ""
    remedy = "; draw with rng.normal, rng.uniform and the like"
    if not _same(one, twin):
        said = "two generators in the same state gave different numbers: it does not draw from rng"
    elif chance and _same(one, another):
        said = "every generator gives the same numbers: it ignores rng, or sets a seed of its own"
    elif chance and _same(one, again):
        said = "each call with one generator gives the same numbers: it does not move rng on"
    elif one.elsewhere:
        said = "it touches a generator that everything in the process shares"
    else:
        return Finding(claim, True)
    return Finding(claim, False, f"{said}{remedy}.{from_}")


def _same(a: Answer, b: Answer) -> bool:
    return np.array_equal(a.value, b.value)


# --- the law ------------------------------------------------------------------------------------


def _identified(answer: Answer, request: Request, false_alarm: float) -> Identification:
    fan = fans(answer.question.shape, request.layout)
    return identify(
        answer.value.astype(answer.dtype),
        fan_in=fan.fan_in,
        fan_out=fan.fan_out,
        false_alarm=false_alarm,
    )


def _law(
    weights: Sequence[Answer], found: Sequence[Identification], request: Request, rate: float
) -> Finding:
    """Judge the laws that are left at every shape."""
    law = request.law
    if law is None:
        names = _common(found)
        known = any(name not in _MISTAKES for name in names)
        plain = [name for name in names if name in INITIALIZERS]
        said = f"this is {' = '.join(plain or names)}" if known else _instead(names, weights, found)
        return Finding("follows a known law", known, said)
    claim = f"follows {law}{_formula(law)}"
    wrong = [k for k, one in enumerate(found) if law not in one.names]
    if not wrong:
        return Finding(claim, True, f"this is {law}")
    off, of = [weights[k] for k in wrong], [found[k] for k in wrong]
    names, reasons = _common(of), _reasons(off, request, rate)
    if any(name in INITIALIZERS or name in _MISTAKES for name in names) or not reasons:
        said = _instead(names, off, of, law)
    else:
        said = f"this looks like {law} with {', or '.join(reasons)}"
    if len(off) < len(weights):
        said += f"; so at {', '.join(map(_shape, off))}, and right at the other shapes"
    return Finding(claim, False, f"{said}. {_measured(weights, request)}")


def _common(found: Sequence[Identification]) -> list[str]:
    """Return the names that are left at each shape."""
    return [name for name in found[0].names if all(name in one.names for one in found)]


def _formula(name: str) -> str:
    return next((f": {known.formula}" for known in KNOWN if known.name == name), "")


def _instead(
    names: Sequence[str],
    weights: Sequence[Answer],
    found: Sequence[Identification],
    law: str | None = None,
) -> str:
    """Return in words which law the weights follow, which is not the one asked for."""
    if names:
        return _called(names, law)
    places = [
        f"{'closest to ' + str(one.closest) if one.closest else one} at {_shape(answer)}"
        for answer, one in zip(weights, found, strict=True)
    ]
    one_rule = "no one rule for all shapes" if all(one.known for one in found) else "no known law"
    return f"this is {one_rule}: {'; '.join(places)}"


def _called(names: Sequence[str], law: str | None) -> str:
    """Return a law with its author: ``this is LeCun's law, not Xavier's: lecun_normal``.

    By the name of a law, by that of a mistake in the law asked for, or else by the first.
    """
    by = f"{law.split('_')[0]}_" if law else ""
    plain = [name for name in names if name in INITIALIZERS][:1]
    mistaken = [name for name in names if name in _MISTAKES]
    mistaken.sort(key=lambda name: not name.startswith(by))
    called = plain + [name for name in mistaken if not plain or (by and name.startswith(by))][:1]
    said = " = ".join(called or names[:1])
    if "fan_out for fan_in" in said:
        said += " (or the weight is of the other layout: see --layout)"
    own, asked = (AUTHORS.get((of or "").split("_")[0]) for of in (said, law))
    if own and asked and own != asked:
        return f"this is {own}'s law, not {asked}'s: {said}"
    return f"this is {said}" + (f", not {law}" if plain and law else "")


def _reasons(weights: Sequence[Answer], request: Request, rate: float) -> list[str]:
    """Return the common mistakes that explain the weights of every shape."""
    assert request.law is not None
    each = []
    for answer in weights:
        law = INITIALIZERS[request.law].resolve(answer.question.shape, request.layout)
        if not isinstance(law, Distribution) or law.atoms:
            return []
        sample = answer.value.ravel()
        told = hints.explain(sample, law, answer.question.shape, rate, answer.dtype)
        # a hint names its mistake last: "..., as with MISTAKE"
        each.append([hint.rpartition("as with ")[2] for hint in told if "as with " in hint])
    return [reason for reason in each[0] if all(reason in other for other in each)]


def _measured(weights: Sequence[Answer], request: Request) -> str:
    """Return the standard deviation at each shape beside that of the law."""
    assert request.law is not None
    parts = []
    for answer in weights:
        law = INITIALIZERS[request.law].resolve(answer.question.shape, request.layout)
        std = float(answer.value.std())
        if isinstance(law, Distribution) and law.moments[1]:
            own = float(np.sqrt(law.moments[1]))
            parts.append(f"{std:.4g}, {std / own:.4g} times the {own:.4g} of {request.law}")
        else:
            parts.append(f"{std:.4g}")
        parts[-1] += f", at {_shape(answer)}"
    return f"Standard deviation: {'; '.join(parts)}"


def _shape(answer: Answer) -> str:
    return str(answer.question.shape)


def _haar(answer: Answer, false_alarm: float) -> Finding:
    """Judge that orthogonal matrices are uniformly distributed."""
    claim = "is uniform (Haar) among orthogonal matrices"
    try:
        assert_law(answer.value.astype(answer.dtype), Orthogonal(), false_alarm=false_alarm)
    except AssertionError as error:
        _, _, detail = str(error).partition("\n  ")
        said = (
            f"the matrices are orthogonal, but {MANY} of shape {SMALL} are not uniform (Haar): "
            "multiply the columns of Q by the signs of R's diagonal (Mezzadri 2007)"
        )
        return Finding(claim, False, f"{said}. {detail}")
    return Finding(claim, True)
