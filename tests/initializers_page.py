"""Writes docs/initializers.md: ``python -m initializers_page > ../docs/initializers.md`` in tests.

The catalogue is read from the docstrings, whose paragraphs Law, Use, Keeps and Source are its
columns; everything else is computed.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from isometry.common.laws import gains
from isometry.common.laws.distributions import (
    Bernoulli,
    Constant,
    Normal,
    Sparse,
    TruncatedNormal,
    Uniform,
)
from isometry.common.laws.embeddings import Embedding, Tied
from isometry.common.laws.fans import LAYOUTS, Fans, fans
from isometry.common.laws.identities import Bilinear, Dirac, Identity
from isometry.common.laws.initializers import INITIALIZERS
from isometry.common.laws.lsuv import lsuv
from isometry.common.laws.mup import LEARNING_RATES, MuP
from isometry.common.laws.orthogonal import DeltaOrthogonal, Orthogonal
from isometry.common.laws.recurrent import Chrono, ForgetGateBias, PerGate
from isometry.common.laws.residual import fixup
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.laws.upsampling import ICNR
from isometry.conformance import connections

CATALOGUE: tuple[Callable[..., Any], ...] = (
    VarianceScaling,
    Orthogonal,
    DeltaOrthogonal,
    Sparse,
    Identity,
    Dirac,
    Bilinear,
    ICNR,
    PerGate,
    ForgetGateBias,
    Chrono,
    Embedding,
    Tied,
    fixup,
    MuP,
    lsuv,
)
ELEMENTARY = (Constant, Uniform, Normal, TruncatedNormal, Bernoulli)
COLUMNS = ("Law", "Use", "Keeps", "Source")
EXAMPLE = (64, 32, 3, 3)

HEAD = """\
# Initializers

`nx.initialize(rule, shape, stream, layout=..., dtype=...)` takes a name or a rule, draws natively
on every backend, and refuses what has no meaning before anything is drawn. This page is written
from the code: the docstrings, which have the parameters and errors as well, and the laws
themselves.
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _plain(text: str) -> str:
    """Return a docstring's words on one line, formulas out of the reach of Markdown."""
    text = re.sub(r"(?::mod:)?`+([^`]+)`+", r"`\1`", " ".join(text.split()))
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_])", r"\\\1", p) for p in parts)


def sections(documented: Callable[..., Any]) -> dict[str, str]:
    """Return the labelled paragraphs of a docstring: Law, Use, Keeps, Source."""
    text = inspect.cleandoc(documented.__doc__ or "").partition("\nParameters\n")[0]
    text = text.partition("\nRaises\n")[0]
    found = re.split(rf"^({'|'.join(COLUMNS)}): ", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def _catalogue() -> list[str]:
    lines = []
    for documented in CATALOGUE:
        signature = inspect.signature(documented)
        shown = ", ".join(p for p in signature.parameters if p not in ("layout", "nx"))
        found = sections(documented)
        lines += [
            f"### `{documented.__name__}({shown})`",
            "",
            _plain(inspect.cleandoc(documented.__doc__ or "").partition("\n\n")[0]),
            "",
            *(f"- {column}: {_plain(found[column])}" for column in COLUMNS),
            "",
        ]
    return lines


def _short(rule: object) -> str:
    """Return how a rule is built, to six digits; the layout is set by `resolve`."""
    text = str(rule).replace(", layout='out_in'", "")
    return re.sub(r"\d+\.\d{6,}", lambda found: f"{float(found[0]):.6g}", text)


def _named() -> list[str]:
    rows = []
    for name, rule in INITIALIZERS.items():
        law = rule.resolve(EXAMPLE, "out_in") if isinstance(rule, VarianceScaling) else ""
        rows.append([f"`{name}`", *(f"`{_short(x)}`" if x else "" for x in (rule, law))])
    return _table(("name", "rule", f"law of a weight {EXAMPLE}, `out_in`"), rows)


def _fans() -> list[str]:
    rows = []
    for kind, layer in connections.LAYERS.items():
        stored = [layer.stored(layout) for layout in LAYOUTS]
        told = "".join(f", {name}={value}" for name, value in layer.arguments.items())
        (found,) = {
            fans(shape, layout, **layer.arguments)
            for shape, layout in zip(stored, LAYOUTS, strict=True)
        }
        rows.append((kind, *stored, f"`fans(shape, layout{told})`", found.fan_in, found.fan_out))
    return _table(("layer", *(f"`{x}`" for x in LAYOUTS), "call", "fan_in", "fan_out"), rows)


def _gains() -> list[str]:
    rows = [
        (name, f"{gains.PYTORCH[name]:.6f}" if name in gains.PYTORCH else "", f"{exact:.6f}")
        for name, exact in gains.EXACT.items()
    ]
    leaky = gains.pytorch_gain("leaky_relu"), gains.exact_gain("leaky_relu")
    rows.append(("leaky_relu, slope 0.01", *(f"{gain:.6f}" for gain in leaky)))
    return _table(("activation", "`pytorch_gain`", "`exact_gain`"), rows)


def _power(exponents: tuple[int, int]) -> str:
    of = zip(("fan_in", "fan_out"), exponents, strict=True)
    return " ".join(f"{fan}^{power}" for fan, power in of if power) or "1"


def _mup() -> list[str]:
    rows = []
    for role, rates in LEARNING_RATES.items():
        law = MuP(role, Fans(1, 1)).law(Fans(2, 2))
        rows.append(
            (role, _power((round(math.log2(law.moments[1])), 0)), *map(_power, rates.values()))
        )
    return _table(("role", "variance", *LEARNING_RATES["input"]), rows)


def write() -> str:
    """Return the page."""
    elementary = (
        (f"`{c.__name__}`", _plain((c.__doc__ or "").partition("\n\n")[0])) for c in ELEMENTARY
    )
    lines = [
        HEAD,
        "## By name",
        "",
        *_named(),
        "",
        "## Rules",
        "",
        *_catalogue(),
        "## Elementary laws",
        "",
        "Independent entries, whatever the shape; each is a rule as well.",
        "",
        *_table(("law", "what it is"), elementary),
        "",
        "## Fans",
        "",
        "Of every kind of layer, in both layouts, as counted connection by connection in the",
        "conformance suite. What a shape does not tell is an argument.",
        "",
        *_fans(),
        "",
        "## Gains",
        "",
        "PyTorch's are a convention; the exact ones keep a second moment of 1, by the condition",
        "`gain^2 E f(Z)^2 = 1`. The two agree where the activation is linear on each side of 0.",
        "",
        *_gains(),
        "",
        "## muP",
        "",
        "Factors of an entry's variance and of the learning rates of SGD and Adam, by the ratio of",
        "the fans to those of the base model. Biases are of the role input, with fan_in 1.",
        "",
        *_mup(),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(write())
