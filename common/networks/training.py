"""Training of very deep nets by normalized gradients, which can be interrupted and resumed."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common.digits import digits
from isometry.common.errors import InvalidArgument
from isometry.common.laws.perceptron import cross_entropy
from isometry.common.networks.gradients import compiled_gradient, placed
from isometry.common.results import write_atomically

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = [
    "CLASSES",
    "PIXELS",
    "TRAINED",
    "Checkpoint",
    "Compiled",
    "Data",
    "Plan",
    "Training",
    "digits_data",
    "rows",
    "train",
]

Array = Any
Forward = Callable[[Mapping[str, Array], Array], Array]
"""``forward(parameters, x) -> logits``."""

CLASSES, PIXELS = 10, 64
TRAINED = 1536  # of 1797 images; the others are for the test
MOMENTUM = 0.9
EVERY = 10  # steps between two checkpoints


@dataclass(frozen=True)
class Data:
    """Images as the net takes them, one-hot labels; the first `trained` are trained on."""

    x: np.ndarray
    labels: np.ndarray
    trained: int


def digits_data(seed: int, q: float = 1.0, shape: tuple[int, ...] = (PIXELS,)) -> Data:
    """Return the digits in random order, centred on the mean image, each of mean square q."""
    images, labels = digits()
    order = np.random.default_rng(seed).permutation(len(images))
    x = images[order].astype(np.float64)
    x -= x[:TRAINED].mean(axis=0)
    x *= np.sqrt(q / np.square(x).mean(axis=1, keepdims=True))
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels[order]]
    return Data(x.astype(np.float32).reshape(-1, *shape), one_hot, TRAINED)


def rows(seed: int, batch: int, step: int, count: int) -> np.ndarray:
    """Return which of `count` images a step sees: without replacement, epoch by epoch.

    The last batch of an epoch is filled from its beginning. NumPy's generator draws them: the same
    on every backend.
    """
    per_epoch = math.ceil(count / batch)
    epoch, k = divmod(step, per_epoch)
    return np.resize(_order(seed, epoch, count), per_epoch * batch)[k * batch : (k + 1) * batch]


@functools.lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class Plan:
    """How a net is trained: `steps` of momentum 0.9 on gradients divided by their norm.

    The length of a step falls linearly from `rate` to 0. Batches are those of `rows`.
    """

    steps: int
    batch: int
    rate: float
    seed: int


@dataclass
class Training:
    """What was trained, and how it went.

    Attributes
    ----------
    parameters, velocity : dict of str to array
    losses : list of float
        Cross-entropy of each step's batch in nats, before the step.
    scale : float
        What the outputs are divided by: their root mean square at first.
    seconds : float
        Of the steps, also those before an interruption; `slowest` is the first, with compilation.
    accuracy, test_accuracy : float
        After the last step, on what was trained on and on the rest.
    """

    parameters: dict[str, Array]
    velocity: dict[str, Array]
    scale: float
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    accuracy: float = math.nan
    test_accuracy: float = math.nan

    @property
    def stopped(self) -> bool:
        """Whether the loss or its gradient overflowed, which ends the training."""
        return bool(self.losses) and not math.isfinite(self.losses[-1])


class Checkpoint:
    """A file that holds a training; what another run wrote is refused.

    Parameters
    ----------
    path : Path
        An ``.npz``, replaced in one step each time.
    run : mapping
        Everything that the training depends on; its digest stands in the file.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        text = json.dumps(run, sort_keys=True, default=str)
        self.digest = hashlib.sha256(text.encode()).hexdigest()

    def save(self, nx: Backend, training: Training) -> None:
        """Write the training as it is."""
        arrays = {"digest": np.array(self.digest), "losses": np.array(training.losses)}
        arrays["scale"], arrays["seconds"] = np.array(training.scale), np.array(training.seconds)
        for kind in ("parameters", "velocity"):
            for name, value in getattr(training, kind).items():
                arrays[f"{kind}:{name}"] = nx.to_numpy(value)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(self.path, buffer.getvalue())

    def load(self, nx: Backend) -> Training | None:
        """Return what was saved, or None if nothing was.

        Raises
        ------
        InvalidArgument
            If the file is not a checkpoint of this run.
        """
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                arrays = dict(archive)
            digest = str(arrays.pop("digest"))
        except (OSError, ValueError, KeyError) as error:
            raise InvalidArgument(
                f"{self.path} is not a checkpoint: {error}; remove it or name another"
            ) from error
        if digest != self.digest:
            raise InvalidArgument(
                f"{self.path} is the checkpoint of another run: its parameters, seed, backend or "
                "version differ; remove it or name another"
            )
        kinds: dict[str, dict[str, Array]] = {"parameters": {}, "velocity": {}}
        for name, value in arrays.items():
            kind, _, path = name.partition(":")
            if path:
                kinds[kind][path] = nx.asarray(value)
        return Training(
            kinds["parameters"],
            kinds["velocity"],
            scale=float(arrays["scale"]),
            losses=arrays["losses"].tolist(),
            seconds=float(arrays["seconds"]),
        )


class Compiled:
    """What a training computes, compiled once for all that have its shapes.

    Parameters
    ----------
    nx : Backend
    forward : callable
        ``forward(parameters, x) -> logits``.
    """

    def __init__(self, nx: Backend, forward: Forward) -> None:
        def loss(parameters: Mapping[str, Array], x: Array, labels: Array, factor: Array) -> Array:
            return cross_entropy(nx, forward(parameters, x) * factor, labels)

        self.nx = nx
        self.forward = nx.compile(forward)
        self.gradient = compiled_gradient(nx, loss)
        self.update = nx.compile(_update(nx))


def train(
    compiled: Compiled,
    parameters: Mapping[str, Array],
    data: Data,
    plan: Plan,
    tell: Callable[[Training], None],
    checkpoint: Checkpoint | None = None,
) -> Training:
    """Train, from the checkpoint on if it holds something, and measure the accuracy.

    Parameters
    ----------
    compiled : Compiled
    parameters : mapping of str to array
        To begin with.
    tell : callable
        Called after each step.
    """
    nx = compiled.nx
    training = checkpoint.load(nx) if checkpoint else None
    if training is None:
        parameters = placed(nx, parameters)
        first = compiled.forward(parameters, nx.asarray(data.x[: plan.batch]))
        scale = float(np.sqrt(np.mean(np.square(nx.to_numpy(first).astype(np.float64)))))
        zeros = {name: nx.ops.zeros_like(value) for name, value in parameters.items()}
        training = Training(parameters, zeros, scale or 1.0)
    factor = nx.asarray([1 / training.scale])
    while len(training.losses) < plan.steps and not training.stopped:
        started = time.perf_counter()
        rate = plan.rate * (1 - len(training.losses) / plan.steps)
        chosen = rows(plan.seed, plan.batch, len(training.losses), data.trained)
        x, labels = nx.asarray(data.x[chosen]), nx.asarray(data.labels[chosen])
        value, gradient = compiled.gradient(training.parameters, x, labels, factor)
        norm, *updated = compiled.update(
            training.parameters, training.velocity, gradient, nx.asarray([rate])
        )
        loss = float(nx.to_numpy(value))
        if math.isfinite(loss) and 0 < float(nx.to_numpy(norm)) < math.inf:
            half = len(parameters)
            training.parameters = dict(zip(sorted(parameters), updated[:half], strict=True))
            training.velocity = dict(zip(sorted(parameters), updated[half:], strict=True))
        else:  # the step is not taken, and there is none after it
            loss = math.nan
        training.losses.append(loss)
        training.seconds += time.perf_counter() - started
        if checkpoint and len(training.losses) % EVERY == 0:
            checkpoint.save(nx, training)
        tell(training)
    correct = _correct(compiled, training.parameters, data, plan.batch)
    training.accuracy = float(correct[: data.trained].mean())
    training.test_accuracy = float(correct[data.trained :].mean())
    if checkpoint:
        checkpoint.save(nx, training)
    return training


def _update(nx: Backend) -> Callable[..., tuple[Array, ...]]:
    """Return a step's arithmetic: the gradient's norm, then new parameters, then velocities.

    Both in alphabetical order: compilers do not keep the order of a dictionary.
    """
    ops = nx.ops

    def update(
        parameters: Mapping[str, Array],
        velocity: Mapping[str, Array],
        gradient: Mapping[str, Array],
        rate: Array,
    ) -> tuple[Array, ...]:
        names = sorted(parameters)
        squares = [ops.sum(ops.square(gradient[name])) for name in names]
        norm = ops.sqrt(ops.sum(ops.stack(squares)))
        faster = [MOMENTUM * velocity[name] + gradient[name] / norm for name in names]
        moved = [parameters[name] - rate * v for name, v in zip(names, faster, strict=True)]
        return norm, *moved, *faster

    return update


def _correct(
    compiled: Compiled, parameters: Mapping[str, Array], data: Data, batch: int
) -> np.ndarray:
    """Return whether each image gets its label, in batches of one size: one compilation."""
    nx = compiled.nx
    count = len(data.x)
    found = []
    for start in range(0, count, batch):
        chosen = np.arange(start, start + batch) % count
        logits = nx.to_numpy(compiled.forward(parameters, nx.asarray(data.x[chosen])))
        found.append(logits.argmax(axis=1) == data.labels[chosen].argmax(axis=1))
    return np.concatenate(found)[:count]
