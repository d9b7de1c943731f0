"""`grade`: a student's file is run in a process of its own, asked, and judged."""

from __future__ import annotations

import functools
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isometry.common import checks, isolation, processes
from isometry.common.errors import InvalidArgument
from isometry.common.grading import activations, initializers, normalization
from isometry.common.grading.questions import Answer, Finding, Question, Request, Subject
from isometry.common.laws.fans import LAYOUTS

__all__ = ["MEMORY", "SUBJECTS", "Grade", "Grading", "grade"]

MEMORY = 2048
"""MiB of address space that a student's process may have."""

_CHANNELS = {"rms_norm": "x, scale, eps"}


def _subject(module: Any, name: str, arguments: str) -> tuple[str, Subject]:
    ask, judge = functools.partial(module.ask, name), functools.partial(module.judge, name)
    return f"my_{name}", Subject(f"my_{name}({arguments})", ask, judge)


SUBJECTS: Mapping[str, Subject] = dict(
    [
        (
            "my_initializer",
            Subject("my_initializer(shape, rng)", initializers.ask, initializers.judge),
        ),
        *(
            _subject(activations, name, "x, slope" if "leaky" in name else "x")
            for name in activations.FUNCTIONS
        ),
        *(
            _subject(normalization, name, _CHANNELS.get(name, "x, scale, shift, eps"))
            for name in normalization.FUNCTIONS
        ),
    ]
)
"""Name of a function -> how it is called, asked and judged."""


@dataclass(frozen=True)
class Grade:
    """What became of one function.

    Attributes
    ----------
    function : str
        As it is called: ``my_initializer(shape, rng)``.
    outcome : {"right", "wrong", "not graded"}
        "not graded": it raised an error, came to no end, or brought its process down.
    said : str
        The answer in a sentence or two.
    findings : tuple of Finding
        Each claim that was judged.
    rates : str
        Bounds of both error rates in words, where chance has a part.
    """

    function: str
    outcome: str
    said: str
    findings: tuple[Finding, ...] = ()
    rates: str = ""


@dataclass(frozen=True)
class Grading:
    """The grades of a file, or why there are none.

    Attributes
    ----------
    outcome : {"right", "wrong", "not graded"}
        "not graded" if that is so of any function; else "wrong" if any is.
    said : str
        Why the file could not be graded at all, or which of its functions were not looked at.
    """

    file: str
    grades: tuple[Grade, ...] = ()
    said: str = ""

    @property
    def outcome(self) -> str:
        """The worst of the outcomes."""
        outcomes = {grade.outcome for grade in self.grades} or {"not graded"}
        return next(one for one in ("not graded", "wrong", "right") if one in outcomes)


def grade(
    file: Path,
    *,
    law: str | None = None,
    layout: str = "out_in",
    convolution: bool = False,
    seed: int = 0,
    timeout: float = 30.0,
) -> Grading:
    """Run a student's file and grade each function in it that has a name of `SUBJECTS`.

    Parameters
    ----------
    file : Path
        Python code, on its own. It runs in another process, of at most `timeout` seconds and,
        where the platform can limit it, `MEMORY` MiB: a guard against accidents, not attacks.
    law : str, optional
        Initializer that was asked for; without it any known law is right, and named.
    layout : {"out_in", "in_out"}
        Of the weights.
    convolution : bool
        Ask for a kernel of a convolution too, and give batch norm images.
    seed : int
        Of the generators that `my_initializer` is given.

    Raises
    ------
    InvalidArgument
        If the file cannot be read, or the law or layout is unknown or has no meaning.
    """
    checks.choice("layout", layout, LAYOUTS)
    if not Path(file).is_file():
        raise InvalidArgument(f"FILE must be a file of Python code; received {file}")
    request = Request(law, layout, convolution, checks.integer("seed", seed, low=0))
    questions = {name: list(subject.ask(request)) for name, subject in SUBJECTS.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "questions.pickle").write_bytes(pickle.dumps(questions))
        run = _Run(questions, folder)
        arguments = (str(Path(file).resolve()), name, str(MEMORY))
        ended = isolation.follow(
            {"student": isolation.Program("isometry.common.grading.child", arguments)},
            timeout=timeout,
            jobs=processes.cores(),  # one thread: each has a stack in the address space
            tell=run.tell,
        )
        return run.grading(str(file), *ended["student"], request)


@dataclass
class _Run:
    """What the child has told, and its answers."""

    questions: Mapping[str, list[Question]]
    folder: Path
    functions: list[str] | None = None
    asked: dict[str, str] = field(default_factory=dict)
    """Function -> the last call."""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    raised: dict[str, str] = field(default_factory=dict)
    """Function -> the error of its last call."""
    wrong: dict[str, str] = field(default_factory=dict)
    """Function -> what its last call did instead of returning an array."""
    failed: str = ""
    """The error of the file itself."""

    def tell(self, _program: str, event: Mapping[str, Any]) -> None:
        """Take an event."""
        match event:
            case {"isometry": "functions", "names": names}:
                self.functions = names
            case {"isometry": "failed"}:
                self.failed = _error(event)
            case {"isometry": "asked", "function": name, "index": index}:
                self.asked[name] = f"{name}({self.questions[name][index].words})"
            case {"isometry": "answered", "function": name, "error": _}:
                self.raised[name] = _error(event)
            case {"isometry": "answered", "function": name, "wrong": what}:
                self.wrong[name] = what
            case {"isometry": "answered", "function": name, "index": index}:
                value = np.load(self.folder / f"{name}-{index}.npy", allow_pickle=False)
                answer = Answer(
                    self.questions[name][index],
                    value.astype(np.float64),
                    str(value.dtype),
                    tuple(event["elsewhere"]),
                    tuple(event["warned"]),
                )
                self.answers.setdefault(name, []).append(answer)

    def grading(self, file: str, status: str, detail: str, request: Request) -> Grading:
        """Judge what was answered, after the process has ended in a status."""
        end = f"{status}: {detail}" if detail else "it ended its own process"
        if status == "timed out":
            end += "; is there a loop without end? --timeout allows more"
        if self.failed:
            return Grading(file, said=f"the file itself raised {self.failed}")
        if self.functions is None:
            return Grading(file, said=f"the file itself did not come to its end: {end}")
        known = [name for name in SUBJECTS if name in self.functions]
        others = [n for n in self.functions if n.startswith("my_") and n not in SUBJECTS]
        said = f"not looked at: {', '.join(others)}, no name of an exercise" if others else ""
        if not known:
            wanted = ", ".join(subject.signature for subject in SUBJECTS.values())
            said = f"there is no function that can be graded: name it {wanted}. {said}".strip()
        return Grading(file, tuple(self._grade(name, end, request) for name in known), said)

    def _grade(self, name: str, end: str, request: Request) -> Grade:
        subject = SUBJECTS[name]
        call = self.asked.get(name)
        if name in self.wrong:
            question = self.questions[name][len(self.answers.get(name, []))]
            claim = f"changes no argument, and returns real numbers of shape {question.shape}"
            said = (
                f"{call} {self.wrong[name]}; it must return a NumPy array, and change no argument"
            )
            return Grade(subject.signature, "wrong", said, (Finding(claim, False, said),))
        answers = self.answers.get(name, [])
        if len(answers) == len(self.questions[name]):
            found = subject.judge(answers, request)
            outcome = "right" if found.passed else "wrong"
            return Grade(subject.signature, outcome, found.said, found.findings, found.rates)
        if name in self.raised:
            said = f"{call} raised {self.raised[name]}; it is called as {subject.signature}"
        else:
            said = f"{call} gave no answer: {end}" if call else f"it was not reached: {end}"
        return Grade(subject.signature, "not graded", said)


def _error(event: Mapping[str, Any]) -> str:
    """Return an error in words, with its place in the file, and the limit if it met that."""
    error, place = event["error"], event["place"]
    memory = f", of which it has {MEMORY} MiB" if "MemoryError" in error else ""
    return f"{error}{memory}{f' ({place})' if place else ''}"
