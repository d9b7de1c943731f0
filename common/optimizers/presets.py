"""The optimizers of the libraries as rules: what each computes when nothing but its name is given.

What a library has no default for, the rate in Optax, is that of the rule. MXNet's scalars are
float32 numbers whatever the dtype of the weights; Keras holds the rate in one.
"""

from __future__ import annotations

from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from isometry.common.errors import unknown_name
from isometry.common.optimizers.layerwise import LAMB, LARS, NovoGrad
from isometry.common.optimizers.quickprop import Quickprop
from isometry.common.optimizers.rules import SGD, Adagrad, Adam, Momentum, RMSprop, Rule

__all__ = ["PRESETS", "optimizer_rule"]

_PAPER: dict[str, Rule] = {
    "sgd": SGD(rate=0.01),
    "momentum": Momentum(rate=0.01),
    "nesterov": Momentum(rate=0.01, form="inside", nesterov=True),
    "adam": Adam(),
    "adamw": Adam(weight_decay=0.01, decay="decoupled"),
    "rmsprop": RMSprop(),
    "adagrad": Adagrad(),
    "lars": LARS(),
    "larc": LARS(trust=0.02, eps=1e-8, form="outside", clip=True),
    "lamb": LAMB(),
    "novograd": NovoGrad(),
    "quickprop": Quickprop(),
}
_BIASES = ("gamma", "beta", "bias")  # names that MXNet's LARS leaves alone

PRESETS: MappingProxyType[str, MappingProxyType[str, Rule]] = MappingProxyType(
    {
        library: MappingProxyType(rules)
        for library, rules in {
            "paper": _PAPER,
            "torch": {
                "sgd": SGD(rate=1e-3),
                "momentum": Momentum(rate=1e-3),
                "nesterov": Momentum(rate=1e-3, nesterov=True),
                "adam": Adam(),
                "adamw": Adam(weight_decay=0.01, decay="decoupled"),
                "rmsprop": RMSprop(rate=0.01, decay_second=0.99),
                "adagrad": Adagrad(),
            },
            "keras": {
                "sgd": SGD(rate=0.01, decay="decoupled"),
                "momentum": Momentum(rate=0.01, form="inside", decay="decoupled"),
                "nesterov": Momentum(rate=0.01, form="inside", nesterov=True, decay="decoupled"),
                "adam": Adam(eps=1e-7, place="hat", decay="decoupled"),
                "adamw": Adam(eps=1e-7, place="hat", weight_decay=4e-3, decay="decoupled"),
                "rmsprop": RMSprop(eps=1e-7, place="inside", decay="decoupled"),
                "adagrad": Adagrad(
                    rate=1e-3, initial=0.1, eps=1e-7, place="inside", decay="decoupled"
                ),
                "lamb": LAMB(eps=1e-7, weight_decay=0.0, decay="decoupled"),
            },
            "optax": {
                "sgd": SGD(rate=0.01),
                "momentum": Momentum(rate=0.01),
                "nesterov": Momentum(rate=0.01, nesterov=True),
                "adam": Adam(),
                "adamw": Adam(weight_decay=1e-4, decay="decoupled"),
                "rmsprop": RMSprop(place="inside"),
                "adagrad": Adagrad(initial=0.1, eps=1e-7, place="inside"),
                "lars": LARS(denominator="together"),
                "lamb": LAMB(weight_decay=0.0),
                "novograd": NovoGrad(decay_first=0.9, decay_second=0.25, eps=1e-6),
            },
            "mxnet": {
                "sgd": SGD(rate=0.01),
                "momentum": Momentum(rate=0.01, form="inside"),
                "nesterov": Momentum(rate=0.01, form="inside", nesterov=True),
                "adam": Adam(place="hat"),
                "rmsprop": RMSprop(place="inside"),
                "adagrad": Adagrad(eps=1e-7, place="inside", decay="decoupled"),
                "lars": LARS(momentum=0.0, form="outside", exempt=_BIASES),
                "lamb": LAMB(weight_decay=0.0),
            },
        }.items()
    }
)
"""Library -> name -> rule; "paper" has all of them, as their papers write them."""


def optimizer_rule(name: str, /, *, library: str = "paper", **constants: Any) -> Rule:
    """Return a library's rule of a name, with some constants changed.

    Parameters
    ----------
    name : str
        "sgd", "momentum", "nesterov", "adam", ...: a key of ``PRESETS[library]``.
    library : str
        "paper" (default), "torch", "keras", "optax" or "mxnet".
    **constants
        Fields of the rule, such as ``rate=0.1``.

    Raises
    ------
    InvalidArgument
        If the library, its optimizer or a constant is unknown, or a value is not allowed.

    Examples
    --------
    >>> optimizer_rule("adam", library="keras").eps
    1e-07
    """
    if library not in PRESETS:
        raise unknown_name("library of optimizers", library, PRESETS)
    if name not in PRESETS[library]:
        raise unknown_name(f"optimizer of {library!r}", name, PRESETS[library])
    rule = PRESETS[library][name]
    known = [field.name for field in fields(rule)]
    for constant in constants:
        if constant not in known:
            raise unknown_name(f"constant of {type(rule).__name__}", constant, known)
    return replace(rule, **constants)
