"""Finding adapters: by name through the entry-point group `isometry.backends`, or by reference."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from isometry.common.errors import BackendNotInstalled, InvalidArgument, unknown_name

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["INSTALL", "find", "load", "names"]

GROUP = "isometry.backends"
BUILT_IN = ("numpy", "torch", "tensorflow", "jax", "mxnet")  # the order of every table

INSTALL = {
    "mxnet": 'pip install "isometry[mxnet]" && pip install --no-deps mxnet==1.9.1',
}
"""How to install a backend's framework, where ``pip install "isometry[name]"`` is not enough."""


def install_hint(name: str) -> str:
    """Return the command that installs the framework of a backend."""
    return INSTALL.get(name, f'pip install "isometry[{name}]"')


def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> tuple[str, ...]:
    """Return the names of all registered adapters, ours first; imports none of them."""
    found = _registered()
    ours = tuple(name for name in BUILT_IN if name in found)
    return ours + tuple(sorted(found.keys() - set(ours)))


def find(name: str, /) -> type[Backend]:
    """Return the adapter class of a name, or of a reference ``"package.module:Class"``.

    Raises
    ------
    InvalidArgument
        If the name is unknown, or the reference does not lead to a Backend.
    BackendNotInstalled
        If the framework cannot be imported; the error says how to install it.
    """
    if not isinstance(name, str):
        raise unknown_name("backend", name, names())
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise InvalidArgument(
                f"backend reference {name!r} cannot be loaded: {error}; "
                "it must read package.module:Class and be importable here"
            ) from error
    else:
        entry = _registered().get(name)
        if entry is None:
            raise unknown_name("backend", name, names())
        try:
            cls = entry.load()
        except ImportError as error:
            raise BackendNotInstalled(
                f"backend {name!r} is not installed ({error}): {install_hint(name)}"
            ) from error
    from isometry.common.contract import Backend

    if not (isinstance(cls, type) and issubclass(cls, Backend)):
        raise InvalidArgument(
            f"backend {name!r} leads to {cls!r}, which is not a subclass of isometry.Backend"
        )
    return cls


def load(name: str, /, *, device: str | None = None) -> Backend:
    """Return the backend of a name: ``nx = isometry.load("jax")``.

    Parameters
    ----------
    name : str
        A registered name (``isometry.names()``) or a reference ``"package.module:Class"``.
    device : str, optional
        Where it places arrays, as the framework spells it; the CPU by default.

    Raises
    ------
    InvalidArgument
        If the name or the device is unknown; the error lists what there is.
    BackendNotInstalled
        If the framework is not installed; the error says how to install it.
    """
    cls = find(name)
    if not isinstance(device, str | None):
        raise InvalidArgument(
            f"device must be a string as {cls.name} spells it, or None for the CPU; "
            f"received {device!r} of type {type(device).__name__}"
        )
    return cls(device=device)
