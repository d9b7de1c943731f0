"""Layers of one shape as one stack of parameters, run by one scan."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Distribution
from isometry.common.laws.initializers import Initializer, initializer
from isometry.common.laws.orthogonal import DeltaOrthogonal, Orthogonal

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["Family", "Layer", "Stack", "check_widths", "draw", "grouped", "run", "run_all"]

Array = Any
Layer = Callable[[Array, Mapping[str, Array]], tuple[Array, Array]]
"""``layer(h, own) -> (h', z)``: a layer's output and preactivation, given its own arrays."""


class Family:
    """What every family of networks is: a pass that keeps preactivations, `forward`, or does not.

    A family defines ``_run(nx, parameters, x, ..., extras=None, *, keep)``, which returns the
    output and, with `keep`, what `forward` makes its preactivations of.
    """

    def _run(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def output(self, nx: Backend, parameters: Mapping[str, Array], /, *inputs: Any) -> Array:
        """Return the output of `forward`, given the same, alone: no preactivations are kept."""
        return self._run(nx, parameters, *inputs, keep=False)[0]


@dataclass(frozen=True)
class Stack:
    """Consecutive layers of one shape, whose parameters are stacked.

    Attributes
    ----------
    name : str
        Prefix of the parameters' paths.
    first : int
        Number of the first layer, from 1.
    count, n_in, n_out : int
    hidden : bool
        Whether an activation follows: after every layer but the last of the network.
    """

    name: str
    first: int
    count: int
    n_in: int
    n_out: int
    hidden: bool

    @property
    def keeps_width(self) -> bool:
        """Whether a shortcut can be added to what its hidden layers give out."""
        return self.hidden and self.n_in == self.n_out


def check_widths(widths: object) -> None:
    """Raise unless `widths` are sizes of an input and of at least one layer."""
    if not isinstance(widths, Sequence) or len(widths) < 2:
        raise InvalidArgument(
            f"widths must name the input and at least one layer; received {widths}"
        )
    for width in widths:
        checks.integer("a width", width, low=1)


def grouped(shapes: Iterable[tuple[int, int, bool]]) -> tuple[Stack, ...]:
    """Return the stacks of layers ``(n_in, n_out, hidden)``: equal ones in a row are one."""
    found, first = [], 1
    for k, (shape, group) in enumerate(itertools.groupby(shapes)):
        count = len(list(group))
        found.append(Stack(f"stack{k}", first, count, *shape))
        first += count
    return tuple(found)


def draw(
    nx: Backend,
    rule: str | Initializer,
    count: int,
    shape: tuple[int, ...],
    stream: Stream,
    dtype: str,
) -> Array:
    """Return `count` independent weights of a rule, as (count, *shape), fans being of one layer."""
    law = initializer(rule).resolve(shape, "out_in")
    if isinstance(law, Distribution):  # independent entries: all at once
        return law.draw(nx, stream, (count, *shape), dtype=dtype)
    if isinstance(law, (Orthogonal, DeltaOrthogonal)):
        return law.draw_stack(nx, stream, shape, count, dtype=dtype)
    return nx.ops.stack([law.draw(nx, stream, shape, dtype=dtype) for _ in range(count)])


def run(
    nx: Backend, layer: Layer, h: Array, stacked: Mapping[str, Array], *, keep: bool = True
) -> tuple[Array, Array | None]:
    """Run the layers of a stack in order.

    Parameters
    ----------
    h : array
        What enters the first; each layer keeps its shape, unless there is only one.
    stacked : mapping of str to array (count, ...)
        The arrays that each layer gets one of.
    keep : bool
        Whether to keep the preactivations, which takes time and, where nothing is differentiated,
        most of the memory.

    Returns
    -------
    h : array
        What leaves the last.
    z : array (count, ...) or None
        The preactivations, with `keep`.
    """
    ops = nx.ops
    names = sorted(stacked)
    if nx.shape_of(stacked[names[0]])[0] == 1:
        h, z = layer(h, {name: ops.squeeze(stacked[name], axis=0) for name in names})
        return h, ops.expand_dims(z, axis=0) if keep else None

    def step(h: Array, own: tuple[Array, ...]) -> tuple[Array, Array | None]:
        h, z = layer(h, dict(zip(names, own, strict=True)))
        return h, z if keep else None

    h, z = ops.scan(step, h, tuple(stacked[name] for name in names))
    return h, z


def run_all(
    nx: Backend,
    stacks: Iterable[Stack],
    layer: Callable[[Stack], Layer],
    h: Array,
    every: Mapping[str, Array],
    *,
    keep: bool = True,
) -> tuple[Array, dict[str, Array | None]]:
    """Run stacks in order, each with those of the arrays whose paths begin with its name.

    Returns what leaves the last, and the preactivations of each by its name, as `run` does.
    """
    trace = {}
    for stack in stacks:
        prefix = f"{stack.name}/"
        own = {k.removeprefix(prefix): v for k, v in every.items() if k.startswith(prefix)}
        h, trace[stack.name] = run(nx, layer(stack), h, own, keep=keep)
    return h, trace
