"""The process that runs a student's file: it asks, records, reports events, and judges nothing.

``python -m isometry.common.grading.child FILE FOLDER MIB``. FOLDER holds the questions, by the
function's name, and receives one .npy file for each answer. The limit of memory is one of address
space, set where the platform has it: it guards against accidents, not against attacks.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from isometry.common.grading.questions import Question
from isometry.common.isolation import emit

__all__ = ["main"]

FLOATS = ("float16", "float32", "float64")


def main(file: str, folder: str, mebibytes: str) -> None:
    """Load the file, ask each function that is there, and tell an event for each step."""
    questions: dict[str, list[Question]] = pickle.loads(
        (Path(folder) / "questions.pickle").read_bytes()
    )
    _limit(int(mebibytes))
    # what the student prints there must not get between the events
    nowhere = contextlib.redirect_stderr(open(os.devnull, "w"))  # noqa: SIM115
    with nowhere:
        student = _load(Path(file))
    if isinstance(student, BaseException):
        emit("failed", error=_named(student), place=_place(student, file))
        return
    functions = {name: value for name, value in vars(student).items() if callable(value)}
    emit("functions", names=list(functions))
    for name in (name for name in questions if name in functions):
        generators: dict[str, np.random.Generator] = {}
        for index, question in enumerate(questions[name]):
            emit("asked", function=name, index=index)
            with nowhere:
                answered = _ask(functions[name], question, generators, file)
            value = answered.pop("value", None)
            if value is not None:
                np.save(Path(folder) / f"{name}-{index}.npy", value, allow_pickle=False)
            emit("answered", function=name, index=index, **answered)
            if value is None:
                break  # the next would say the same


def _limit(mebibytes: int) -> None:
    """Bound the address space."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = mebibytes * 2**20
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        with contextlib.suppress(ValueError, OSError):  # macOS may refuse
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _load(file: Path) -> ModuleType | BaseException:
    """Execute the file as a module; return that, or what it raised."""
    module = ModuleType("student")
    module.__file__ = str(file)
    sys.modules["student"] = module  # dataclasses look there
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), vars(module))
    except BaseException as error:  # SystemExit among them
        return error
    return module


def _ask(
    function: Callable[..., Any],
    question: Question,
    generators: dict[str, np.random.Generator],
    file: str,
) -> dict[str, Any]:
    """Return the fields of the event, and the array under "value" if the answer is one."""
    arguments = [a.copy() if isinstance(a, np.ndarray) else a for a in question.arguments]
    if question.generator is not None:
        name, seed = question.generator
        arguments.append(generators.setdefault(name, np.random.default_rng(seed)))
    before = _elsewhere()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = [function(*arguments) for _ in range(question.count)]
    except BaseException as error:
        return {"error": _named(error), "place": _place(error, file)}
    wrong = next((_form(v) for v in values if not _right_form(v, question.shape)), "")
    changed = any(
        isinstance(given, np.ndarray) and not np.array_equal(given, now)
        for given, now in zip(question.arguments, arguments, strict=False)
    )
    if wrong or changed:
        return {"wrong": wrong or "overwrote its argument: work on a copy"}
    return {
        "value": np.stack(values) if question.count > 1 else values[0],
        "elsewhere": [what for what, state in _elsewhere().items() if state != before[what]],
        "warned": list(dict.fromkeys(str(warning.message) for warning in caught)),
    }


def _right_form(value: Any, shape: tuple[int, ...]) -> bool:
    return (
        isinstance(value, np.ndarray)
        and (value.dtype.kind in "biu" or value.dtype.name in FLOATS)
        and value.shape == shape
    )


def _form(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"returned an array of shape {value.shape} and dtype {value.dtype}"
    kind = "None: is a return missing?" if value is None else f"a {type(value).__name__}"
    return f"returned {kind}"


def _elsewhere() -> dict[str, str]:
    """Return the states of the generators that everything in a process shares."""
    return {
        "NumPy's global generator (np.random.*)": repr(_numpy_state()),
        "Python's module random": repr(random.getstate()),
    }


def _numpy_state() -> tuple[Any, ...]:
    state = np.random.get_state(legacy=True)
    return tuple(x.tobytes() if isinstance(x, np.ndarray) else x for x in state)


def _named(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: BaseException, file: str) -> str:
    """Return the line of the student's file from which the error came; empty if none did."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"line {frames[-1].lineno}: {frames[-1].line}" if frames else ""


if __name__ == "__main__":
    main(*sys.argv[1:])
