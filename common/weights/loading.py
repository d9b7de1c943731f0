"""Weights into models of other libraries: every value where it belongs, or nothing changed.

A library brings, by an entry point of the group ``isometry.weights`` named as its top-level
package, a function ``load_weights(model, place)``. It describes the model's parameters to `place`
by their own names, and puts each array that it gets back where the name says; by then everything
has been checked here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import numpy as np

from isometry.common.errors import BackendNotInstalled, InvalidArgument, unknown_name
from isometry.common.laws.fans import LAYOUTS
from isometry.common.weights.named import Weights, stored_axes

__all__ = ["Parameter", "Place", "load_weights"]

GROUP = "isometry.weights"
Names = Mapping[str, str]


class Parameter(NamedTuple):
    """What a library says of a parameter; its shape is None while it has no values."""

    shape: tuple[int, ...] | None
    dtype: str


Place = Callable[[Mapping[str, Parameter]], Iterator[tuple[str, np.ndarray]]]
"""Own name -> parameter, to own name and new values: C-contiguous, of its shape and dtype."""


def load_weights(
    model: Any, weights: Weights, layouts: Names, *, names: Names | None = None
) -> Any:
    """Load weights into a model of torch.nn, Keras, Flax or Gluon.

    All floating-point arrays that the library saves with a model must be there, running statistics
    among them, a shared one once, by the first of its names; nothing else may be. Values are
    transposed and copied, never converted.

    ============ ==================================== ==================================
    library      model                                a parameter's own name
    ============ ==================================== ==================================
    torch.nn     Module                               of ``state_dict``: ``conv.weight``
    Keras        Model or Layer, built, any engine    ``path``: ``net/conv/kernel``
    flax.linen   variables, as `init` returns them    ``params/conv/kernel``
    flax.nnx     Module                               ``conv/kernel``, ``layers/0/bias``
    mxnet.gluon  Block, initialized, of known shapes  of ``save_parameters``: ``0.weight``
    ============ ==================================== ==================================

    Parameters
    ----------
    model : object
        Changed in place, but for linen's variables.
    weights : Weights
    layouts : mapping
        Path -> ``"out_in"`` or ``"in_out"``, how the *model* stores that parameter; it need not be
        as `weights` does. Of every weight of two axes or more, and never guessed: a square matrix
        does not tell. torch and Gluon store dense and convolution weights ``out_in``, Keras and
        Flax ``in_out``; all store an embedding as (words, features), one layout for all.
    names : mapping, optional
        Path -> the parameter's own name, where it is not the path itself.

    Returns
    -------
    object
        The model; of linen's variables a new tree.

    Raises
    ------
    BackendNotInstalled
        If Flax is not there to fill linen's variables.
    InvalidArgument
        If the model's library is unknown; or, in one error that lists all of them, if a name or
        path is unknown, a parameter missing or named twice, a layout missing, or a shape or dtype
        another one. The model is then as it was.
    """
    names = names or {}
    for name, value, kind in (
        ("weights", weights, Weights),
        ("layouts", layouts, Mapping),
        ("names", names, Mapping),
    ):
        if not isinstance(value, kind):
            raise InvalidArgument(
                f"{name} must be {_WANTED[name]}; received {value!r:.80} of type "
                f"{type(value).__name__}"
            )
    return _loader(model)(model, functools.partial(_place, weights, layouts, names))


_WANTED = {
    "weights": "what iso.weights or iso.read_weights returns",
    "layouts": 'a mapping from paths to "out_in" or "in_out"',
    "names": "a mapping from paths to the model's own names",
}


def _loader(model: Any) -> Callable[[Any, Place], Any]:
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    homes = [cls.__module__.partition(".")[0] for cls in type(model).__mro__]
    if isinstance(model, Mapping):
        homes = ["flax"]  # linen keeps a model's variables in mappings
    for home in homes:  # Keras before torch, which a model is on that engine
        if home in known:
            try:
                loader: Callable[[Any, Place], Any] = known[home].load()
            except ImportError as error:  # a mapping is given where Flax is not installed
                raise BackendNotInstalled(
                    f'{home} is not installed ({error}): pip install "isometry[natives]"'
                ) from error
            return loader
    cls = type(model)
    raise unknown_name("library of a model", f"{cls.__module__}.{cls.__qualname__}", known)


def _place(
    weights: Weights, layouts: Names, names: Names, own: Mapping[str, Parameter]
) -> Iterator[tuple[str, np.ndarray]]:
    problems = [
        f"{what}: {path!r} is no path of the weights"
        for what, given in (("layouts", layouts), ("names", names))
        for path in given
        if path not in weights
    ]
    filled: dict[str, str] = {}
    for path in weights:
        name = names.get(path, path)
        if name in filled:
            problems.append(f"{name}: filled twice, by {filled[name]!r} and {path!r}")
        elif name not in own:
            problems.append(f"{path}: the model has no parameter {name!r}")
        else:
            problems += _misfit(weights, path, layouts.get(path), own[name])
        filled[name] = path
    if not own:
        problems = ["the model has no parameters yet; build, initialize or call it first"]
    problems += [f"{name}: missing, no weight is placed there" for name in own.keys() - filled]
    if problems:
        listed = "\n  ".join(sorted(problems))
        raise InvalidArgument(
            f"the weights do not fit the model, which was left as it was:\n  {listed}"
        )
    return ((name, _stored(weights, path, layouts.get(path))) for name, path in filled.items())


def _misfit(weights: Weights, path: str, layout: str | None, parameter: Parameter) -> Iterator[str]:
    weight = weights.spec[path]
    if layout is None and len(weight.shape) > 1:
        yield f"{path}: layouts must say whether the model stores it out_in or in_out"
    elif layout not in (None, *LAYOUTS):
        yield f"{path}: " + str(unknown_name("layout", layout, LAYOUTS))
    elif parameter.shape is None:
        yield f"{path}: the model has no values there yet; build, initialize or call it first"
    else:
        axes = stored_axes(len(weight.shape), layout or "out_in")
        shape = tuple(weight.canonical[axis] for axis in axes)
        if (shape, weight.dtype) != parameter:
            yield (
                f"{path}: {weight.dtype} {shape} in the model's layout, where the model has "
                f"{parameter.dtype} {parameter.shape}"
            )


def _stored(weights: Weights, path: str, layout: str | None) -> np.ndarray:
    canonical = weights[path].transpose(np.argsort(weights.spec[path].axes))
    return np.array(canonical.transpose(stored_axes(canonical.ndim, layout or "out_in")), order="C")
