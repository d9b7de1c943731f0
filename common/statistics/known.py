"""The laws that `identify` knows: by name, by library, and the documented mistakes, as data.

==================================== ==============================================================
what                                 laws
==================================== ==============================================================
by name                              `isometry.common.laws.initializers.INITIALIZERS`
by library                           what PyTorch, Keras, JAX, Flax and MXNet start a layer with, or
                                     draw by an initializer, when they are given no number
mistakes                             the other fan; the bound of a uniform law taken for its
                                     standard deviation, and the reverse (off by sqrt(3)); a
                                     truncation that is not corrected (off by 0.8796); no gain
==================================== ==============================================================

What is made of them, such as sparse weights, is in `isometry.common.statistics.structures`.

Each is a law once the fans are given. Those that are then one and the same, as LeCun's and Xavier's
are for equal fans, are one class with all their names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from isometry.common.laws.distributions import (
    TRUNCATED_STD,
    Distribution,
    Normal,
    TruncatedNormal,
    Uniform,
)
from isometry.common.laws.embeddings import Embedding
from isometry.common.laws.fans import Fans
from isometry.common.laws.initializers import INITIALIZERS, Orthogonal, VarianceScaling

__all__ = [
    "FAMILIES",
    "KNOWN",
    "MISTAKES",
    "Known",
    "KnownClass",
    "Law",
    "Scaled",
    "classes",
    "fixed",
    "of_family",
]

Law = Distribution | Orthogonal

WORDS = {"normal": "normal", "truncated": "truncated normal", "uniform": "uniform"}
FAMILIES = {"normal": Normal, "truncated": TruncatedNormal, "uniform": Uniform}
IN, OUT, AVERAGE = (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)
SAME = 1e-9  # relative difference of the parameters of laws that are the same


def of_family(family: str, std: float, mean: float = 0.0) -> Distribution:
    """Return the law of a family with this mean and its own standard deviation `std`."""
    if family == "normal":
        return Normal(mean, std)
    if family == "truncated":
        return TruncatedNormal.of_std(std, mean)
    return Uniform(mean - math.sqrt(3) * std, mean + math.sqrt(3) * std)


@dataclass(frozen=True)
class Scaled:
    """Mean 0 and variance ``number / fan``, ``fan = weights[0] fan_in + weights[1] fan_out``."""

    family: str
    number: float
    weights: tuple[float, float] = IN

    def law(self, fan: Fans) -> Distribution:
        """Return the exact law for given fans."""
        size = self.weights[0] * fan.fan_in + self.weights[1] * fan.fan_out
        return of_family(self.family, math.sqrt(self.number / size))


@dataclass(frozen=True)
class Known:
    """A law by its name; `rule` gives it for given fans."""

    name: str
    rule: Law | VarianceScaling | Scaled

    @property
    def needs(self) -> tuple[str, ...]:
        """The fans that the law depends on."""
        if isinstance(self.rule, Scaled):
            of = zip(Fans._fields, self.rule.weights, strict=True)
            return tuple(name for name, weight in of if weight)
        if isinstance(self.rule, VarianceScaling):
            return (self.rule.mode,) if self.rule.mode in Fans._fields else Fans._fields
        return ()

    def law(self, fan: Fans) -> Law:
        """Return the exact law for given fans."""
        return self.rule.law(fan) if isinstance(self.rule, (Scaled, VarianceScaling)) else self.rule

    @property
    def formula(self) -> str:
        """The law in words and fans: ``uniform, variance 1/(3 fan_in)``."""
        if isinstance(self.rule, Scaled):
            variance = _ratio(self.rule.number, self.rule.weights)
            return f"{WORDS[self.rule.family]}, variance {variance}"
        if isinstance(self.rule, VarianceScaling):
            number, mode = self.rule.gain**2, self.rule.mode
            weights = {"fan_in": IN, "fan_out": OUT, "fan_avg": AVERAGE}.get(mode)
            geometric = f"{number:.4g}/sqrt(fan_in fan_out)"
            variance = _ratio(number, weights) if weights else geometric
            return f"{WORDS[self.rule.distribution]}, variance {variance}"
        return fixed(self.rule)


def _ratio(number: float, weights: tuple[float, float]) -> str:
    """Return ``number / fan`` as people write it: ``2/(fan_in + fan_out)``."""
    whole = Fraction(number).limit_denominator(9)
    if not math.isclose(whole, number, rel_tol=SAME):
        whole = Fraction(1)  # the number is written as a factor
    factor = "" if math.isclose(whole, number, rel_tol=SAME) else f"{number:.4g} x "
    if all(weights):  # a mean: twice both
        whole *= 2
        of = [f"{2 * w:g} {name}" for w, name in zip(weights, Fans._fields, strict=True)]
        mean = f"({' + '.join(text.removeprefix('1 ') for text in of)})"
        below = mean if whole.denominator == 1 else f"({whole.denominator} {mean})"
        return f"{factor}{whole.numerator}/{below}"
    (fan,) = (name for w, name in zip(weights, Fans._fields, strict=True) if w)
    if whole.denominator == 1:
        return f"{factor}{whole.numerator}/{fan}"
    return f"{factor}{whole.numerator}/({whole.denominator} {fan})"


def fixed(law: Law) -> str:
    """Return a law without fans in words: ``uniform, from -0.07 to 0.07``."""
    if isinstance(law, Orthogonal):
        return "orthogonal" if law.gain == 1 else f"orthogonal, gain {law.gain:.5g}"
    if law.atoms:
        return f"constant {law.atoms[0]:g}"
    (family,) = (name for name, kind in FAMILIES.items() if isinstance(law, kind))
    low, high = law.support
    if family == "uniform":
        return f"uniform, from {low:.5g} to {high:.5g}"
    cut = "" if family == "normal" else f", cut at {low:.5g} and {high:.5g}"
    return f"{WORDS[family]}, std {math.sqrt(law.moments[1]):.5g}{cut}"


@dataclass(frozen=True)
class KnownClass:
    """A law, and all the names it has at the fans given, each with its formula."""

    law: Law
    names: tuple[str, ...]
    formulas: tuple[str, ...]


# --- mistakes -----------------------------------------------------------------------------------

_RULES = (
    # name, squared gain, fan
    ("lecun", 1.0, IN),
    ("xavier", 1.0, AVERAGE),
    ("he", 2.0, IN),
)


def _mistakes() -> Iterator[Known]:
    for rule, number, fan in _RULES:
        yield Known(
            f"{rule}_uniform, its bound taken for the std of a normal law: off by sqrt(3)",
            Scaled("normal", 3 * number, fan),
        )
        yield Known(
            f"{rule}_uniform, its bound taken for its std: off by sqrt(3)",
            Scaled("uniform", 3 * number, fan),
        )
        yield Known(
            f"{rule}_uniform, its std taken for its bound: off by 1/sqrt(3)",
            Scaled("uniform", number / 3, fan),
        )
        yield Known(
            f"{rule}_truncated, not corrected for the cut: off by 0.8796",
            Scaled("truncated", TRUNCATED_STD**2 * number, fan),
        )
    for family in FAMILIES:
        yield Known(f"lecun_{family}, fan_out for fan_in", Scaled(family, 1.0, OUT))
        yield Known(f"he_{family}, fan_out for fan_in", Scaled(family, 2.0, OUT))
        yield Known(f"he_{family}, the average fan", Scaled(family, 2.0, AVERAGE))
        yield Known(f"he_{family}, its gain forgotten", Scaled(family, 1.0, IN))


# --- by library ---------------------------------------------------------------------------------

_LIBRARIES = (
    ("torch.nn: Linear, Conv, weights and biases", Scaled("uniform", 1 / 3, IN)),
    ("torch.nn: RNN, LSTM, GRU (fan_out: units); ConvTranspose", Scaled("uniform", 1 / 3, OUT)),
    ("torch.nn: MultiheadAttention, packed q, k, v", Scaled("uniform", 1.0, (0.5, 1.5))),
    ("torch.nn: Embedding; torch.nn.init.normal_()", Normal(0.0, 1.0)),
    ("torch.nn.init.uniform_()", Uniform(0.0, 1.0)),
    ("torch.nn.init.trunc_normal_(), cut at -2 and 2", TruncatedNormal(0.0, 1.0)),
    ("torch.nn.init.xavier_normal_(gain=5/3), for tanh", Scaled("normal", 25 / 9, AVERAGE)),
    ("torch.nn.init.xavier_uniform_(gain=5/3), for tanh", Scaled("uniform", 25 / 9, AVERAGE)),
    (
        "BERT, GPT: std 0.02; torch.nn.init.trunc_normal_(std=0.02), cut at -2 and 2, not at 2 std",
        Normal(0.0, 0.02),
    ),
    ("TruncatedNormal(0.02) of Keras and JAX, not corrected", TruncatedNormal(0.0, 0.02)),
    ("keras: RandomUniform(), Embedding", Uniform(-0.05, 0.05)),
    ("keras: RandomNormal()", Normal(0.0, 0.05)),
    ("keras: TruncatedNormal(), not corrected", TruncatedNormal(0.0, 0.05)),
    ("keras: GRU kernel, one xavier_uniform of 3 gates", Scaled("uniform", 1.0, (0.5, 1.5))),
    ("keras: LSTM kernel, one xavier_uniform of 4 gates", Scaled("uniform", 1.0, (0.5, 2.0))),
    ("jax: normal(); mxnet: Normal()", Normal(0.0, 0.01)),
    ("jax: uniform()", Uniform(0.0, 0.01)),
    ("jax: truncated_normal(), not corrected", TruncatedNormal(0.0, 0.01)),
    ("flax: Embed (fan_out: features)", Scaled("normal", 1.0, OUT)),
    ("mxnet: Uniform(), every Gluon layer", Uniform(-0.07, 0.07)),
    ("mxnet: Xavier(rnd_type='gaussian'), magnitude 3", Scaled("normal", 3.0, AVERAGE)),
    ("mxnet: MSRAPrelu(), slope 0.25", Scaled("normal", 2 / (1 + 0.25**2), AVERAGE)),
    ("mxnet: Orthogonal(), gain 1.414", Orthogonal(1.414)),
    ("orthogonal, gain sqrt(2)", Orthogonal(math.sqrt(2))),
)

MISTAKES: tuple[Known, ...] = tuple(_mistakes())
KNOWN: tuple[Known, ...] = (
    *(
        Known(name, rule)
        for name, rule in INITIALIZERS.items()
        if isinstance(rule, (Distribution, Orthogonal, VarianceScaling))
    ),
    Known("embedding", Embedding().law),
    *(Known(name, rule) for name, rule in _LIBRARIES),
    *MISTAKES,
)


def classes(
    fan_in: int | None, fan_out: int | None
) -> tuple[tuple[KnownClass, ...], tuple[Known, ...]]:
    """Return the known laws at these fans, each once with all its names, and those left out.

    Left out are the laws that need a fan which is None.
    """
    given = {"fan_in": fan_in, "fan_out": fan_out}
    fan = Fans(fan_in or 1, fan_out or 1)
    found: list[tuple[Law, list[Known]]] = []
    left_out = []
    for known in KNOWN:
        if any(given[name] is None for name in known.needs):
            left_out.append(known)
            continue
        law = known.law(fan)
        same = next((of for other, of in found if _same(law, other)), None)
        if same is None:
            found.append((law, [known]))
        else:
            same.append(known)
    return tuple(
        KnownClass(law, tuple(one.name for one in of), tuple(one.formula for one in of))
        for law, of in found
    ), tuple(left_out)


def _same(law: Law, other: Law) -> bool:
    if type(law) is not type(other):
        return False
    if isinstance(law, Orthogonal) and isinstance(other, Orthogonal):
        return math.isclose(law.gain, other.gain, rel_tol=SAME)
    parameters = zip(vars(law).values(), vars(other).values(), strict=True)
    return all(math.isclose(a, b, rel_tol=SAME) for a, b in parameters)
