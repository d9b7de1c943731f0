"""Plain nets on the 8x8 digits: the critical net, its contrasts, and the bench they train on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isometry.common.laws.initializers import initializer
from isometry.common.laws.orthogonal import Orthogonal
from isometry.common.networks.convolutional import Convolutional
from isometry.common.networks.fully_connected import FullyConnected
from isometry.common.networks.gradients import both_passes
from isometry.common.networks.training import (
    CLASSES,
    PIXELS,
    Checkpoint,
    Compiled,
    Data,
    Plan,
    Training,
    digits_data,
    train,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from isometry.common.contract import Backend

__all__ = ["CONTRASTS", "CRITICAL", "Bench", "Net"]

Network = FullyConnected | Convolutional

SIZE = 8
CHANNELS = 8  # of the convolutional net


@dataclass(frozen=True)
class Net:
    """What a net is made of; a contrast differs from the critical net in one field."""

    gain: float = 1.0
    gaussian: bool = False
    bias: bool = False
    unit: bool = False
    activation: str = "tanh"

    def network(self, depth: int, width: int) -> FullyConnected:
        """Return the network: `depth` layers of weights, the last of them the readout."""
        weights = initializer("lecun_normal") if self.gaussian else Orthogonal(self.gain)
        widths = (PIXELS, *[width] * (depth - 1), CLASSES)
        bias = "zeros" if self.bias else None
        return FullyConnected(widths, self.activation, weights, bias)


CRITICAL = Net()
CONTRASTS: dict[str, Net] = {
    "linear": Net(activation="linear"),
    "gaussian": Net(gaussian=True),
    "gain": Net(gain=5 / 3),
    "bias": Net(bias=True),
    "unit": Net(unit=True),
}


@dataclass
class Bench:
    """What all trainings of a run share: data, compiled functions, progress, checkpoints."""

    nx: Backend
    tell: Callable[[int, int, str], None]
    seed: int
    width: int
    batch: int
    steps: int
    rate: float
    checkpoint: str
    total: int = 0
    done: int = 0
    written: list[Path] = field(default_factory=list)
    compiled: dict[Network, Compiled] = field(default_factory=dict)
    probes: dict[Network, Callable[..., Any]] = field(default_factory=dict)

    def data(self, q: float, shape: tuple[int, ...] = (PIXELS,)) -> Data:
        """Return the digits with images of mean square q."""
        return digits_data(self.seed, q, shape)

    def train(self, name: str, net: Net, depth: int) -> Training:
        """Train a fully connected net from the weights that the seed gives it."""
        network = net.network(depth, self.width)
        return self._train(name, network, depth, self.data(1.0 if net.unit else 1 / depth))

    def train_convolutional(self, layers: int) -> Training:
        """Train a net of `layers` convolutions, delta-orthogonal and critical, and a readout."""
        network = Convolutional((1, *[CHANNELS] * layers), SIZE, CLASSES)
        # a kernel from one channel to several keeps the norm, and divides q by their number
        data = self.data(CHANNELS / layers, (1, SIZE, SIZE))
        return self._train("convolutional", network, layers + 1, data)

    def probe(self, network: FullyConnected) -> Callable[..., Any]:
        """Return `gradients.both_passes` of preactivations: one for all initializers."""
        shape = replace(network, initializer="zeros")
        if shape not in self.probes:
            self.probes[shape] = both_passes(self.nx, network, "offset")
        return self.probes[shape]

    def _train(self, name: str, network: Network, depth: int, data: Data) -> Training:
        nx, started = self.nx, self.done
        plan = Plan(self.steps, self.batch, self.rate / math.sqrt(depth), self.seed)
        what = f"{name}, {depth} layers"

        def tell(training: Training) -> None:
            steps = len(training.losses)
            left = training.seconds / steps * (self.steps - steps)
            text = f"{what}: loss {training.losses[-1]:.3f}, {left:.0f} s left"
            self.tell(started + steps, self.total, text)

        self.tell(started, self.total, what)
        parameters = network.initialize(nx, nx.stream(self.seed))
        shape = replace(network, initializer="zeros")  # compiled once for all initializers
        if shape not in self.compiled:
            self.compiled[shape] = Compiled(nx, lambda p, x: network.output(nx, p, x))
        saved = self.saved(name, depth)
        training = train(self.compiled[shape], parameters, data, plan, tell, saved)
        self.done += self.steps
        return training

    def saved(self, name: str, depth: int) -> Checkpoint | None:
        """Return where a training is kept, under a digest of all that it depends on."""
        if not self.checkpoint:
            return None
        nx = self.nx
        path = Path(f"{self.checkpoint}-{nx.name}-{name}-{depth}.npz")
        self.written.append(path)
        asked = {k: getattr(self, k) for k in ("seed", "width", "batch", "steps", "rate")}
        return Checkpoint(
            path, {**asked, "net": name, "depth": depth, "backend": nx.name, "version": nx.version}
        )

    def finish(self) -> None:
        """Remove the checkpoints: the result holds what they were for."""
        for path in self.written:
            path.unlink(missing_ok=True)
        self.tell(self.total, self.total, "done")
