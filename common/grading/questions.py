"""What a student's function is asked, what it answered, and what is found: data alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Answer", "Finding", "Judgement", "Question", "Request", "Subject"]


@dataclass(frozen=True)
class Request:
    """What the teacher asked for.

    Attributes
    ----------
    law : str or None
        Name of the initializer that is wanted; None: any that is known.
    layout : {"out_in", "in_out"}
        Of weights: see :mod:`isometry.common.laws.fans`.
    convolution : bool
        Whether kernels of convolutions and batches of images are asked for too.
    seed : int
        Of all draws.
    """

    law: str | None = None
    layout: str = "out_in"
    convolution: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Question:
    """One call, or several that are stacked.

    Attributes
    ----------
    arguments : tuple
        Arrays, numbers, or the shape of a weight.
    words : str
        The arguments as a person writes them.
    shape : tuple of int
        Of the array that one call must return.
    generator : tuple of (str, int) or None
        Name and seed of the generator that is the last argument: of one name it is one generator,
        further on at each call.
    count : int
        Calls, stacked along a new first axis.
    """

    arguments: tuple[Any, ...]
    words: str
    shape: tuple[int, ...]
    generator: tuple[str, int] | None = None
    count: int = 1


@dataclass(frozen=True)
class Answer:
    """What a question was answered, as float64, the dtype that it had, and what else it did.

    Attributes
    ----------
    elsewhere : tuple of str
        Generators beside `rng` that the call drew from or seeded.
    warned : tuple of str
        Warnings, each once.
    """

    question: Question
    value: np.ndarray
    dtype: str
    elsewhere: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One claim about a function, whether it holds, and in words what was seen."""

    claim: str
    passed: bool
    said: str = ""


@dataclass(frozen=True)
class Judgement:
    """The findings on one function, the answer in a sentence, and the error rates.

    Attributes
    ----------
    said : str
        What the function is, or what is wrong with it.
    rates : str
        Bounds of both error rates, in words; empty where nothing is left to chance.
    """

    said: str
    findings: tuple[Finding, ...]
    rates: str = ""

    @property
    def passed(self) -> bool:
        """Whether every claim holds."""
        return all(finding.passed for finding in self.findings)


@dataclass(frozen=True)
class Subject:
    """A function that can be graded: how it is called, what it is asked, who judges."""

    signature: str
    ask: Callable[[Request], Sequence[Question]]
    judge: Callable[[Sequence[Answer], Request], Judgement]
