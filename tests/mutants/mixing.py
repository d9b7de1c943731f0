"""How a fault gets into a right class."""

from __future__ import annotations

from typing import Any


def mixed(fault: type, right: type, /, **attributes: Any) -> type:
    """Return `right` with the methods of `fault`, in whose bodies ``super()`` is the right one.

    They are copied into the new class, so that they too run behind the checks of their arguments
    and within the scope of the framework (`isometry.common.checks.Checked`).
    """
    own: dict[str, Any] = {}
    for base in reversed(fault.__mro__[:-1]):
        own |= {k: v for k, v in vars(base).items() if k not in ("__dict__", "__weakref__")}
    return type(fault.__name__, (fault, right), own | attributes)
