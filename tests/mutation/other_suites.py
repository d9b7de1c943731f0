"""Wrong initializers, judged by the tests that their own libraries publish, and by this suite.

``python tests/mutation/other_suites.py -o docs/other-suites.md`` gives each library's initializers
one fault at a time, in the memory of a process of its own, shows by measurement that the fault took
effect, and runs the library's tests. It needs Keras with its engines, JAX, and this repository.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import functools
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isometry import conformance
from isometry.common import registry

TESTS = Path(__file__).parents[1]
SWAPPED = {"fan_in": "fan_out", "fan_out": "fan_in"}

Law = tuple[float, str, float]  # of variance scaling: scale, mode, and a factor of each value


@dataclass(frozen=True)
class Fault:
    """What is wrong, which measurement shows it, and this project's mutant with the same fault.

    Parameters
    ----------
    words : str
    law : function
        Scale, mode and distribution of variance scaling -> scale, mode and a factor of each value.
    probe : str
        The initializer whose standard deviation shows the fault.
    ratio : float
        That standard deviation over the right one, for a weight of 512 x 256.
    mutant : str
        A fault of `tests/mutants`, or one that this module makes: ``ScaledN`` is N % of each value.
    """

    words: str
    law: Callable[[float, str, str], Law] = lambda scale, mode, _: (scale, mode, 1.0)
    probe: str = "he_normal"
    ratio: float = 1.0
    mutant: str = ""


def _times(factor: float) -> Callable[[float, str, str], Law]:
    return lambda scale, mode, _: (scale, mode, factor)


def _times_where(distribution: str, factor: float) -> Callable[[float, str, str], Law]:
    return lambda scale, mode, law: (scale, mode, factor if law == distribution else 1.0)


CORRECTION = 0.87962566103423978  # the standard deviation of a normal law truncated at +-2
FAULTS = {
    "correct": Fault("none: the library as it is"),
    "truncation": Fault(
        "the correction for truncation dropped (standard deviation x 0.880)",
        _times_where("truncated_normal", CORRECTION),
        ratio=CORRECTION,
        mutant="mutants:ParentStd",
    ),
    "gain": Fault(
        "He's gain dropped (x 0.707)",
        lambda scale, mode, _: (1.0 if scale == 2 else scale, mode, 1.0),
        ratio=math.sqrt(1 / 2),
        mutant="mutants:GainDropped",
    ),
    "fans": Fault(
        "fan-in and fan-out exchanged",
        lambda scale, mode, _: (scale, SWAPPED.get(mode, mode), 1.0),
        ratio=math.sqrt(512 / 256),
        mutant="mutants:FanSwapped",
    ),
    **{
        f"std{percent}": Fault(
            f"standard deviation {percent - 100:+d} %",
            _times(percent / 100),
            ratio=percent / 100,
            mutant=f"other_suites:Scaled{percent}",
        )
        for percent in (120, 80, 130, 70)
    },
    "bound": Fault(
        "uniform laws bounded by their standard deviation (x 0.577)",
        _times_where("uniform", 1 / math.sqrt(3)),
        probe="he_uniform",
        ratio=1 / math.sqrt(3),
        mutant="mutants:BoundForStd",
    ),
    "zeros": Fault("all weights 0", _times(0.0), ratio=0.0, mutant="other_suites:Scaled0"),
    "signs": Fault(
        "orthogonal weights as QR gives them, the signs not made random",
        probe="orthogonal",
        mutant="mutants:SignsLeft",
    ),
}


class _Scaled:
    percent: float

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        x = super().initialize(rule, shape, stream, layout=layout, dtype=dtype)
        with self.scope():
            return x * (self.percent / 100)


def __getattr__(name: str) -> Any:
    """``other_suites:Scaled120_jax``: every weight of the JAX adapter times 1.2."""
    scaled, _, adapter = name.partition("_")
    if not (scaled.startswith("Scaled") and adapter):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    percent = float(scaled.removeprefix("Scaled"))
    return type(name, (_Scaled, registry.find(adapter)), {"percent": percent})


# --- Keras: the test file of its wheel ----------------------------------------------------------


def judge_keras(fault: str) -> dict[str, Any]:
    """Run Keras' own `random_initializers_test.py`, which its wheel and its sdist contain."""
    import keras
    import pytest

    make = {
        "he_normal": lambda: keras.initializers.HeNormal(seed=1),
        "he_uniform": lambda: keras.initializers.HeUniform(seed=1),
        "orthogonal": lambda: keras.initializers.Orthogonal(seed=1),
    }
    draw = lambda name: keras.ops.convert_to_numpy(make[name]()((512, 256)))  # noqa: E731
    measured = _patched(fault, draw, lambda: _patch_keras(fault))

    # the one name that the file takes from the repository's conftest, which is not published
    stand_in = types.ModuleType("conftest")
    stand_in.skip_if_backend = lambda name, reason: pytest.mark.skipif(
        keras.backend.backend() == name, reason=reason
    )
    sys.modules["conftest"] = stand_in
    counted = _Counted()
    file = Path(keras.__file__).parent / "src/initializers/random_initializers_test.py"
    pytest.main(
        ["-p", "no:cacheprovider", "-p", "no:terminal", "--noconftest", str(file)], [counted]
    )
    return {"measured": measured, "passed": counted.passed, "failed": counted.failed}


def _patch_keras(fault: str) -> None:
    from keras.src import ops, random
    from keras.src.initializers.random_initializers import Orthogonal, VarianceScaling

    right = VarianceScaling.__call__

    def wrong(self, shape, dtype=None):
        twin = copy.copy(self)
        twin.scale, twin.mode, factor = FAULTS[fault].law(self.scale, self.mode, self.distribution)
        return right(twin, shape, dtype) * factor

    def signs_left(self, shape, dtype=None):
        rows, columns = math.prod(shape[:-1]), shape[-1]
        flat = (max(rows, columns), min(rows, columns))
        q, _ = ops.qr(random.normal(flat, seed=self.seed, dtype=dtype))
        return self.gain * ops.reshape(q if rows >= columns else ops.transpose(q), shape)

    if fault == "signs":
        Orthogonal.__call__ = signs_left
    else:
        VarianceScaling.__call__ = wrong


class _Counted:
    """A pytest plugin that counts, and notes the clauses that fail."""

    def __init__(self) -> None:
        self.passed = self.failed = 0
        self.clauses: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.passed and report.when == "call"
        if report.failed:
            self.failed += 1
            self.clauses |= {value for name, value in report.user_properties if name == "clause"}


# --- JAX: the rule of its tests -----------------------------------------------------------------

SHAPES = [(2,), (2, 2), (2, 3), (3, 2), (2, 3, 4), (4, 3, 2), (2, 3, 4, 5)]
REAL = ("float32",)
INEXACT = ("float32", "complex64")  # with 64 bits off, as by default
# name -> dtypes, fewest and most dimensions
RULE = {
    "uniform": (REAL, 1, 4),
    "normal": (INEXACT, 1, 4),
    "truncated_normal": (REAL, 1, 4),
    **{
        f"{name}_{law}": (INEXACT, 2, 4)
        for name in ("he", "glorot", "lecun")
        for law in ("normal", "uniform")
    },
    "orthogonal": (REAL, 2, 2),
    "delta_orthogonal": (REAL, 4, 4),
}


def judge_jax(fault: str) -> dict[str, Any]:
    """Apply the rule of `NNInitializersTest`: the shape and the dtype are those asked for.

    The file is not in JAX's source distribution; the rule is that of `tests/nn_test.py` in
    https://github.com/jax-ml/jax, for the initializers, shapes and dtypes that it lists.
    """
    import jax
    import jax.numpy as jnp

    make = lambda name: getattr(jax.nn.initializers, name)()  # noqa: E731
    draw = lambda name: np.asarray(make(name)(jax.random.key(1), (512, 256)))  # noqa: E731
    measured = _patched(fault, draw, lambda: _patch_jax(fault))
    verdicts = []
    for name, (dtypes, low, high) in RULE.items():
        for shape in (s for s in SHAPES if low <= len(s) <= high):
            for dtype in map(jnp.dtype, dtypes):
                # nothing else is asked of it, so it need not be computed
                draw = functools.partial(make(name), shape=shape, dtype=dtype)
                x = jax.eval_shape(draw, jax.random.PRNGKey(0))
                verdicts.append(x.shape == shape and x.dtype == dtype)
    return {"measured": measured, "passed": sum(verdicts), "failed": verdicts.count(False)}


def _patch_jax(fault: str) -> None:
    import jax
    import jax.numpy as jnp
    from jax._src.nn import initializers as source

    right = source.variance_scaling

    def wrong(scale, mode, distribution, *args, **kwargs):
        scale, mode, factor = FAULTS[fault].law(scale, mode, distribution)
        init = right(scale, mode, distribution, *args, **kwargs)
        return lambda *a, **k: init(*a, **k) * factor

    def signs_left(scale=1.0, column_axis=-1, dtype=None):
        def init(key, shape, dtype=dtype, out_sharding=None):
            rows, columns = math.prod(shape[:-1]), shape[-1]
            flat = (max(rows, columns), min(rows, columns))
            q, _ = jnp.linalg.qr(jax.random.normal(key, flat, jnp.promote_types(dtype, "float32")))
            return (scale * (q if rows >= columns else q.T).reshape(shape)).astype(dtype)

        return init

    name, function = ("orthogonal", signs_left) if fault == "signs" else ("variance_scaling", wrong)
    setattr(source, name, function)
    setattr(jax.nn.initializers, name, function)


def _patched(fault: str, draw: Callable[[str], np.ndarray], patch: Callable[[], None]) -> float:
    """Patch the library, and return how far that moved what the fault moves."""
    right = draw(FAULTS[fault].probe)
    patch()
    wrong = draw(FAULTS[fault].probe)
    if fault == "signs":  # a Haar matrix has as many positive entries on its diagonal as negative
        shares = [np.mean(np.diag(x) > 0) for x in (right, wrong)]
        assert abs(shares[0] - 0.5) < 0.15 < abs(shares[1] - shares[0]), shares
        return float(shares[1])
    ratio = float(np.std(wrong) / np.std(right))
    assert abs(ratio - FAULTS[fault].ratio) < 0.02, (fault, ratio)
    return ratio


# --- this suite ---------------------------------------------------------------------------------


def judge_isometry(fault: str) -> dict[str, Any]:
    """Run this suite on the JAX adapter: every clause of the initializers if it is right, and
    with a fault the clause that is about it.
    """
    import mutants
    import pytest

    mutant = FAULTS[fault].mutant
    known = mutants.FAULTS.get(mutant.rpartition(":")[2])
    clause = known.clause if known else "initializers.law"
    counted = _Counted()
    tests = Path(conformance.__file__).parent / "test_initializers.py"
    pytest.main(
        [
            *("-p", "isometry.conformance.plugin", "-p", "no:terminal", "-p", "no:cacheprovider"),
            *(("--clause", clause) if mutant else ()),
            *("--rootdir", str(TESTS.parent), "-o", "addopts=--import-mode=importlib"),
            *("--backend", f"{mutant}_jax" if mutant else "jax", str(tests)),
        ],
        [counted],
    )
    return {"passed": counted.passed, "failed": counted.failed, "clauses": sorted(counted.clauses)}


# --- the table ----------------------------------------------------------------------------------

JUDGES = {
    **{
        f"Keras on {name}": (judge_keras, engine)
        for name, engine in (("JAX", "jax"), ("TensorFlow", "tensorflow"), ("PyTorch", "torch"))
    },
    "JAX (its rule)": (judge_jax, ""),
    "Isometry on JAX": (judge_isometry, ""),
}


def _judged(judge: str, fault: str) -> dict[str, Any]:
    """Return a verdict, found in a process of its own."""
    environment = os.environ | {
        "KERAS_BACKEND": JUDGES[judge][1] or "jax",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS / "mutation")]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, __file__, "--judge", judge, "--fault", fault]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{judge}, {fault}: {ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    print(judge, fault, found, flush=True)
    return found


def _cell(found: dict[str, Any]) -> str:
    if not found["failed"]:
        return f"all {found['passed']} pass"
    of = f" of `{', '.join(found['clauses'])}`" if "clauses" in found else ""
    return f"**{found['failed']} of {found['passed'] + found['failed']}{of} fail**"


def _rows(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    rows = [["fault", *JUDGES], ["---"] * (1 + len(JUDGES))]
    for name, fault in FAULTS.items():
        rows.append([fault.words, *(_cell(found[name][judge]) for judge in JUDGES)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _measured(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    libraries = [judge for judge in JUDGES if judge != "Isometry on JAX"]
    rows = [["fault", "expected", *libraries], ["---"] * (2 + len(libraries))]
    for name, fault in FAULTS.items():
        expected = "far from 0.5" if name == "signs" else f"{fault.ratio:.3f}"
        measured = (f"{found[name][judge]['measured']:.3f}" for judge in libraries)
        rows.append([fault.words, expected, *measured])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _page(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    names = ("keras", "jax", "tensorflow-cpu", "torch", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return (
        (Path(__file__).parent / "other_suites.md")
        .read_text(encoding="utf-8")
        .format(
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            versions=f"Python {platform.python_version()}, {versions}",
            verdicts=_rows(found),
            measured=_measured(found),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.md", help="write the page here")
    parser.add_argument("--judge", choices=JUDGES, help=argparse.SUPPRESS)
    parser.add_argument("--fault", choices=FAULTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge:
        print(json.dumps(JUDGES[options.judge][0](options.fault)))
        return
    found = {fault: {judge: _judged(judge, fault) for judge in JUDGES} for fault in FAULTS}
    if options.output:
        options.output.write_text(_page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
