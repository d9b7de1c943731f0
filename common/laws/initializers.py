"""Initializers by name.

======================= =========================== =============================================
name                    variance of an entry        source
======================= =========================== =============================================
lecun_*                 1 / fan_in                  LeCun et al. 1998, Efficient BackProp, eq. 16
xavier_*                2 / (fan_in + fan_out)      Glorot and Bengio 2010, eq. 12 and 16
he_*                    2 / fan_in                  He et al. 2015, eq. 10
orthogonal              1 / max(rows, columns)      Saxe et al. 2014; Mezzadri 2007 for Haar
delta_orthogonal        1 / (out taps), at a tap    Xiao et al. 2018, algorithm 2
identity, dirac         none                        Le et al. 2015; Zagoruyko and Komodakis 2017
bilinear                none                        Long et al. 2015, section 3.3
forget_gate_bias        none                        Jozefowicz et al. 2015
embedding               1                           `torch.nn.Embedding`
rezero, skipinit        none: zeros                 Bachlechner et al. 2021; De and Smith 2020
zeros, ones             none
======================= =========================== =============================================

``_normal`` is a plain normal, ``_truncated`` a normal cut at two parent standard deviations and
rescaled to the same variance, ``_uniform`` is uniform on ``+- sqrt(3 * variance)``. Those that need
an argument go by their class: `Sparse`, `ICNR`, `PerGate`, `Chrono`, `Tied`, `MuP`, `fixup`.
docs/initializers.md is the whole catalogue.
"""

from __future__ import annotations

import math

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Constant
from isometry.common.laws.embeddings import Embedding
from isometry.common.laws.identities import Bilinear, Dirac, Identity
from isometry.common.laws.orthogonal import DeltaOrthogonal, Orthogonal
from isometry.common.laws.recurrent import ForgetGateBias
from isometry.common.laws.rules import Initializer
from isometry.common.laws.scaling import DISTRIBUTIONS, VarianceScaling

__all__ = [
    "DISTRIBUTIONS",
    "INITIALIZERS",
    "Initializer",
    "Orthogonal",
    "VarianceScaling",
    "initializer",
]

INITIALIZERS: dict[str, Initializer] = {
    "zeros": Constant(0.0),
    "ones": Constant(1.0),
    "orthogonal": Orthogonal(),
    **{
        f"{family}_{distribution}": VarianceScaling(gain, mode, distribution)
        for family, gain, mode in (
            ("lecun", 1.0, "fan_in"),
            ("xavier", 1.0, "fan_avg"),
            ("he", math.sqrt(2.0), "fan_in"),
        )
        for distribution in DISTRIBUTIONS
    },
    "delta_orthogonal": DeltaOrthogonal(),
    "identity": Identity(),
    "dirac": Dirac(),
    "bilinear": Bilinear(),
    "forget_gate_bias": ForgetGateBias(),
    "embedding": Embedding(),
    "rezero": Constant(0.0),
    "skipinit": Constant(0.0),
}


def initializer(rule: str | Initializer) -> Initializer:
    """Return the initializer of a name, or the given one unchanged.

    >>> initializer("he_uniform")
    VarianceScaling(gain=1.4142135623730951, mode='fan_in', distribution='uniform')
    """
    if isinstance(rule, str):
        return INITIALIZERS[checks.choice("initializer", rule, tuple(INITIALIZERS))]
    if not isinstance(rule, Initializer):
        raise InvalidArgument(
            f"an initializer must be one of {', '.join(INITIALIZERS)} or a law such as "
            f"Normal(0.0, 0.01); received {rule!r} of type {type(rule).__name__}"
        )
    return rule
