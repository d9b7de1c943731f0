"""Run a lesson as a plain script, and judge its numbers beside NumPy's.

What a lesson calls `shown` is the same computation in every framework. Two of them may differ by
rounding alone, and each budget says how many roundings of float32 (unit roundoff u = 2**-24) that
is: the terms of its sums, times the layers or steps that follow each other, relative to each number
or to the largest of its array. What it calls `drawn` comes from the framework's own generator, and
is judged by its exact law with a false alarm of at most `FALSE_ALARM` a judgement.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import isometry as iso
from isometry.common.laws.chains import log_norm_law
from isometry.common.statistics.bounds import dkw

Arrays = dict[str, np.ndarray]
Budget = Callable[[np.ndarray], np.ndarray]

FALSE_ALARM = 1e-9
DETECTS = {"std": ("relative", 0.05), "distribution": ("absolute", 0.06)}
U = 2.0**-24

SAVE = """
import runpy, sys, numpy as np
names = runpy.run_path(sys.argv[1])
kept = {f"{kind}/{k}": v for kind in ("shown", "drawn") for k, v in names.get(kind, {}).items()}
np.savez(sys.argv[2], **kept)
"""


def ran(script: Path) -> Arrays:
    """Run a script in a process of its own; return what it showed and drew."""
    saved = script.with_suffix(".npz")
    run = subprocess.run(
        [sys.executable, "-P", "-c", SAVE, str(script), str(saved)],
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout
    with np.load(saved) as arrays:
        return dict(arrays)


# --- what is the same in every framework ----------------------------------------------------------


def each(count: float) -> Budget:
    return lambda right: count * U * np.abs(right)


def largest(count: float) -> Budget:
    return lambda right: np.full(right.shape, count * U * np.abs(right).max())


def spectra(count: float) -> Budget:
    """Relative to each matrix's largest singular value, which comes first."""
    return lambda right: count * U * right[..., :1] + np.zeros(right.shape)


def log_norms(factors: np.ndarray) -> np.ndarray:
    """Return the budget of ln |A_T ... A_1 v|, for each T.

    Each step rounds ``|A_k| |v|`` by gamma_6 (four terms, the norm, the division), which the
    factors after it stretch by the norm of their product, relative to the whole product (first
    order); the logarithms are rounded once each, and added up T times.
    """
    a = factors.astype(np.float64)
    length, chains, size, _ = a.shape
    v = np.zeros((chains, size))
    v[:, 0] = 1
    rounded, norms, budgets = [], [], []
    for k in range(length):
        rounded.append(6 * U * np.linalg.norm(np.einsum("cij,cj->ci", abs(a[k]), abs(v)), axis=1))
        v = np.einsum("cij,cj->ci", a[k], v)
        norms.append(np.linalg.norm(v, axis=1))
        after, total = np.broadcast_to(np.eye(size), (chains, size, size)), np.zeros(chains)
        for earlier in range(k, -1, -1):
            total = total + np.linalg.norm(after, 2, axis=(1, 2)) * rounded[earlier]
            after = after @ a[earlier]
        logs = np.abs(np.diff(np.log([np.ones(chains), *norms]), axis=0)).sum(axis=0)
        budgets.append(total / norms[-1] + (k + 2) * U * logs)
    return 2 * np.array(budgets)  # NumPy's own, and the other's


BUDGETS: dict[str, dict[str, Budget]] = {
    "sigmoid": {
        "sigmoid": each(8),  # exp within 2 ULP, a sum, a division
        "gradient": lambda right: np.full(right.shape, 4 * U),  # 1 - y is right to u, not to u(1-y)
        "accurate": each(8),
    },
    "products": {"factors": each(0)},
    # sums of 128 terms in each of 20 layers, of 64 examples in a gradient
    "xavier": dict.fromkeys(
        ("N(0, 0.02²), tanh", "Xavier, tanh", "Xavier, ReLU", "He, ReLU"),
        each(20 * (128 + 64)),
    ),
    # the losses are convex and rates below 2 / curvature: no step enlarges what is there
    "constant": {
        **{
            f"{what} from {start}": largest(300 * (100 + 8))
            for what in ("least squares", "dependent input")
            for start in (0, 1, 5)
        },
        **{
            f"{what} from {start}": largest(60 * (256 + 64))
            for what in ("losses", "weights")
            for start in (0, 1)
        },
    },
    "symmetry": dict.fromkeys(
        (
            "constant",
            "batches",
            "dropout",
            "other incoming",
            "other outgoing",
            "constant, ReLU",
            "opposite",
            "opposite, ReLU",
            "other incoming, ReLU",
        ),
        largest(40 * (256 + 64)),
    ),
    # forty steps, whose longest sums are over 64 images and 9 places
    "symmetries": dict.fromkeys(
        (
            *("convolution, mean pool", "convolution, max pool"),
            *("convolution, other outgoing", "convolution, other kernels"),
            *("recurrent, identity", "again", "recurrent, rotation", "recurrent, other incoming"),
            *("autoencoder", "autoencoder, denoising", "autoencoder, other incoming"),
            *("attention", "attention, a mask for all", "attention, positions"),
            *("attention, a mask for each head", "attention, other outgoing"),
            *("graph", "graph, nodes shuffled", "graph, positions", "graph, other incoming"),
            "maxout",
        ),
        largest(40 * 64 * 9),
    ),
    # sums of 32; x - mean is off by a mean's rounding, up to 20 standard deviations; sums of up to
    # 150 pixels, twice
    "normalization": {
        **dict.fromkeys(
            (f"pictures, {name}" for name in ("batch", "layer", "instance", "group", "RMS")),
            largest(2 * 150),
        ),
        **dict.fromkeys(("training", "inference", "alone", "two"), largest(20 * 40)),
        **dict.fromkeys(("running mean", "running variance"), each(30 * 40)),
        "gradient": largest(20 * 40),
        **dict.fromkeys(("layer", "layer, alone"), largest(16)),
    },
    # a decomposition of size 4 is right to 30 * 4 eps (LAPACK's own tests), eps = 2 u, in NumPy and
    # in the other; a share has three of them, a product of matrices (4 * 4) and two of numbers.
    # Ten layers of 8 terms, forward and back
    "bounds": {
        **dict.fromkeys(("A", "B"), spectra(2 * 240)),
        "AB": lambda right: np.full(right.shape, 2 * (3 * 240 + 16 + 2) * U),
        **{
            f"{net}: {what}": largest(2 * 10 * 8)
            for net in ("Gaussian", "orthogonal")
            for what in ("Jacobians", "gradients")
        },
    },
    # a hundred layers of 32 terms, forward and back; five steps
    "beyond": {
        f"{net}: {what}": budget
        for net in ("Gaussian", "orthogonal")
        for what, budget in (
            ("Jacobian", largest(2 * 100 * 32)),
            ("signal", each(100 * 32)),
            ("loss", each(5 * 2 * 100 * 32)),
        )
    },
    # ten layers of 8 terms; twenty steps
    "clipping": {
        "plain": each(2 * 10 * 8),
        "norms": each(2 * 10 * 8),
        "clipped": each(20 * 10 * 8),
        "lars": each(20 * 10 * 8),
        "warm-up": each(5 * 2 * 10 * 8),
        "shortcuts": each(20 * 10 * 8),
    },
}


def judge_shown(topic: str, found: Arrays, right: Arrays) -> None:
    """Assert that a framework shows NumPy's numbers within their budgets."""
    budgets = dict(BUDGETS[topic])
    if topic == "products":
        bound = log_norms(right["shown/factors"])
        budgets["log_norms"] = lambda _: bound
    names = {name for name in right if name.startswith("shown/")}
    assert names == {f"shown/{name}" for name in budgets}
    assert found.keys() == right.keys()
    for name, budget in budgets.items():
        here, there = found[f"shown/{name}"], right[f"shown/{name}"].astype(np.float64)
        assert here.shape == there.shape, name
        error, allowed = np.abs(here.astype(np.float64) - there), budget(there)
        assert np.all(error <= allowed), (name, error.max(), allowed.max())


# --- what is drawn --------------------------------------------------------------------------------

XAVIER = math.sqrt(6 / (300 + 100))
# what the framework's own layer of 300 inputs and 100 outputs starts with
DEFAULTS = {
    "numpy": iso.Normal(0.0, 1.0),
    "torch": iso.Uniform(-math.sqrt(1 / 300), math.sqrt(1 / 300)),
    "tensorflow": iso.Uniform(-XAVIER, XAVIER),
    "jax": iso.VarianceScaling(1.0, "fan_in", "truncated").of_fan(300),
    "mxnet": iso.Uniform(-0.07, 0.07),
}


def judge_drawn(topic: str, framework: str, found: Arrays) -> None:
    """Assert the laws of what a framework drew: weights and log-norms of chains."""
    if topic == "xavier":
        weights = found["drawn/xavier"]
        iso.assert_law(
            weights, iso.Uniform(-XAVIER, XAVIER), false_alarm=FALSE_ALARM, detects=DETECTS
        )
        iso.assert_law(
            found["drawn/default"], DEFAULTS[framework], false_alarm=FALSE_ALARM, detects=DETECTS
        )
    if topic == "products":
        length, chains = found["drawn/log_norms"].shape
        law = log_norm_law(4, length)
        values = np.sort(found["drawn/log_norms"][-1].astype(np.float64))
        allowed = law.times(chains).deviation(FALSE_ALARM) / chains
        assert abs(values.mean() - law.mean) <= allowed, (values.mean(), law.mean, allowed)
        exact, steps = law.cdf(values), np.arange(chains + 1) / chains
        distance = max((exact - steps[:-1]).max(), (steps[1:] - exact).max())
        assert distance <= dkw(chains, FALSE_ALARM), distance
