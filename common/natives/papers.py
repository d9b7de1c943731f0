"""Whether a library's optimizer goes the way of its paper, and what is different if it does not.

Each is run on one weight with given gradients and rates, large ones and some so small that eps
shows, and its path is compared with those of the paper's rule (`isometry.common.optimizers`) and of
that rule with the other choices in use. Everything here is deterministic.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isometry.common import registry
from isometry.common.natives import Library, Native
from isometry.common.natives.findings import Clause, Found, agrees, differs, diverges
from isometry.common.optimizers.rules import Adagrad, Adam, Momentum, RMSprop, Rule

__all__ = ["CLAUSES"]

GRADIENTS = np.array([1.0, 0.5, -0.25, 0.1, 0.75, -1.0])
SIZES = (1.0, 1e-6)
RATES = (0.1, 0.1, 0.1, 0.01, 0.01, 0.01)
CLOSE = 2e-4
"""Of the way gone, at most: libraries take ``1 - decay`` in float32, 6e-5 of 0.001 off."""


Choices = Mapping[Any, str]


@dataclass(frozen=True)
class _Paper:
    """A rule as its paper has it, and other values in use of its constants, with their words."""

    source: str
    rule: Rule
    others: Mapping[str, Choices]

    def variants(self) -> Iterator[tuple[str, Rule]]:
        """Yield what is different, and the rule; the paper's own, without a difference, first."""
        options = [
            [({}, ""), *(({name: value}, words) for value, words in choices.items())]
            for name, choices in self.others.items()
        ]
        for chosen in itertools.product(*options):
            constants = {name: value for one, _ in chosen for name, value in one.items()}
            yield ", ".join(words for _, words in chosen if words), replace(self.rule, **constants)


_FORMS: Choices = {
    "outside": "the rate outside the velocity",
    "average": "a running mean of gradients for the velocity",
}
_EPS: Choices = {eps: f"eps {eps:g}" for eps in (1e-10, 1e-8, 1e-7, 1e-6, 1e-5)}
_INSIDE = "eps inside the root"
PAPERS: Mapping[str, _Paper] = {
    "momentum": _Paper(
        "Polyak 1964, equation 9", Momentum(rate=1.0, form="inside"), {"form": _FORMS}
    ),
    "momentum_nesterov": _Paper(
        "Sutskever et al. 2013, equations 3 and 4",
        Momentum(rate=1.0, form="inside", nesterov=True),
        {"form": _FORMS, "nesterov": {False: "no look-ahead"}},
    ),
    "adam": _Paper(
        "Kingma and Ba 2015, algorithm 1",
        Adam(),
        {
            "place": {"hat": "eps added before the bias is corrected", "inside": _INSIDE},
            "eps": _EPS,
        },
    ),
    "rmsprop": _Paper(
        "Tieleman and Hinton 2012, lecture 6.5",
        RMSprop(),
        {"decay_second": {0.99: "decay 0.99"}, "place": {"inside": _INSIDE}, "eps": _EPS},
    ),
    "adagrad": _Paper(
        "Duchi, Hazan and Singer 2011, figure 1",
        Adagrad(),
        {"initial": {0.1: "the sum from 0.1 on"}, "place": {"inside": _INSIDE}, "eps": _EPS},
    ),
}


@functools.cache
def _steps(rule: Rule) -> np.ndarray[Any, Any]:
    """Return how far the rule moves a weight from 0 at each step, for each size: (sizes, steps)."""
    nx = registry.load("numpy")
    paths = []
    for size in SIZES:
        w, path = {"w": np.zeros(1)}, [0.0]
        state: Mapping[str, Any] = {}
        for step, (g, rate) in enumerate(zip(GRADIENTS * size, RATES, strict=True), start=1):
            w, state = rule.advance(nx, w, {"w": np.array([g])}, state, step=step, rate=rate)
            path.append(float(w["w"][0]))
        paths.append(np.diff(path))
    return np.array(paths)


def _off(observed: np.ndarray[Any, Any], rule: Rule) -> float:
    """Return the largest difference of a step, as a part of the longest one of its size."""
    exact = _steps(rule)
    return float((np.abs(observed - exact).max(axis=1) / np.abs(exact).max(axis=1)).max())


def _paper(native: Native, library: Library) -> Found:
    paper = PAPERS[native.claims]
    given = [tuple(map(float, GRADIENTS * size)) for size in SIZES]
    observed = np.array([np.diff([0.0, *native.run(0.0, g, RATES)]) for g in given])
    found = [words for words, rule in paper.variants() if _off(observed, rule) <= CLOSE]
    ratio = observed.sum(axis=1) / _steps(paper.rule).sum(axis=1)
    gone = (
        f"six steps of gradients of size 1, the rate dropped tenfold at the fourth, go "
        f"{ratio[0]:.4g} of the paper's way; of size 1e-6 {ratio[1]:.4g} of it"
    )
    if not found:
        return diverges(f"its steps are not those of {paper.source}, nor of a known variant", gone)
    if not found[0]:
        return agrees(f"its steps are those of {paper.source}, to {CLOSE:g} of the longest")
    return differs(
        f"its steps are those of {paper.source}, but with {found[0]}",
        gone,
        ratio=float(ratio[0]),
        ratio_small=float(ratio[1]),
    )


CLAUSES = (Clause("paper", "its steps are those of its paper", tuple(PAPERS), _paper),)
