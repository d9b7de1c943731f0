"""Residual nets without normalization: Fixup; ReZero and SkipInit are zeros of one scalar.

A block is x + alpha F(x). ReZero (Bachlechner et al. 2021, eq. 1) and SkipInit (De and Smith 2020)
start with alpha = 0: ``nx.initialize("rezero", (), stream)``. Every block is then the identity, and
so are the net and its Jacobian, at any depth.
"""

from __future__ import annotations

from dataclasses import replace

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Constant
from isometry.common.laws.orthogonal import DeltaOrthogonal, Orthogonal
from isometry.common.laws.rules import Initializer
from isometry.common.laws.scaling import VarianceScaling

__all__ = ["fixup"]

_HE = VarianceScaling(2.0**0.5)


def fixup(
    branches: int, layers: int, rule: VarianceScaling | Orthogonal | DeltaOrthogonal = _HE
) -> tuple[Initializer, ...]:
    """Return the initializers of the layers of one residual branch, from the first to the last.

    Law: the last layer is 0; each other is `rule` with its gain times branches^(-1/(2 layers - 2)).
    Use: residual nets without normalization: all branches so, the classifier "zeros", a scalar 0
    as bias before each layer and activation, a scalar 1 as factor of each branch.
    Keeps: the size of one SGD step's change of the output, of the order of the learning rate at
    any depth; with the last layers 0 every block is the identity at the start.
    Source: Zhang, Dauphin and Ma 2019, Fixup initialization, section 3.

    Parameters
    ----------
    branches : int
        Residual branches of the whole net, at least 1.
    layers : int
        Weight layers of one branch, at least 1; with one there is the zero layer alone.
    rule : VarianceScaling, Orthogonal or DeltaOrthogonal
        He's by default.

    Raises
    ------
    InvalidArgument
        If a count is below 1, or `rule` has no gain.

    >>> fixup(16, 2)[0].gain == 2**0.5 / 4
    True
    """
    checks.integer("branches", branches, low=1)
    checks.integer("layers", layers, low=1)
    if not isinstance(rule, (VarianceScaling, Orthogonal, DeltaOrthogonal)):
        raise InvalidArgument(
            f"Fixup scales the gain of VarianceScaling, Orthogonal or DeltaOrthogonal; "
            f"received {rule!r}"
        )
    zero = Constant(0.0)
    if layers == 1:
        return (zero,)
    scaled = replace(rule, gain=rule.gain * branches ** (-1 / (2 * layers - 2)))
    return (*(layers - 1) * (scaled,), zero)
