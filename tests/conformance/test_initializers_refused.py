"""Bad input of initializers: refused before anything is drawn, or the documented finite result."""

from __future__ import annotations

import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Constant, Normal, Sparse, TruncatedNormal, Uniform
from isometry.common.laws.embeddings import Embedding, Tied
from isometry.common.laws.identities import Bilinear, Dirac, Identity
from isometry.common.laws.orthogonal import DeltaOrthogonal, Orthogonal
from isometry.common.laws.recurrent import Chrono, PerGate
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.laws.upsampling import ICNR
from isometry.conformance.shapes import DENSE, TALL

REFUSED = {
    "convolution that widens": (
        DeltaOrthogonal(),
        (3, 4, 3),
        "no more inputs than outputs; received shape (3, 4, 3), out_in: 4 inputs, 3 outputs",
    ),
    "orthogonal vector": ("orthogonal", (4,), "fans need a weight of at least 2 dimensions"),
    "identity of a convolution": ("identity", (2, 2, 3), "an identity matrix has 2 sizes"),
    "dirac without a kernel": ("dirac", (2, 2), "a convolution has a kernel"),
    "groups that do not divide": (Dirac(4), (6, 2, 3), "groups must divide 6"),
    "groups of an upsampling": (Bilinear(4), (6, 2, 3), "groups must divide 6"),
    "gates that do not divide": (PerGate(Orthogonal()), (6, 2), "gates must divide 6"),
    "sub-pixels that do not divide": (ICNR(Normal()), (6, 2, 3, 3), "scale**2 must divide 6"),
    "bias of three gates": ("forget_gate_bias", (6,), "a vector of 4 equal blocks"),
    "bias that is a matrix": (Chrono(10.0), (4, 2), "a vector of 4 equal blocks"),
    "sparse convolution": (Sparse(0.5, Normal()), (4, 2, 3), "a sparse weight is a matrix"),
    "sparse to nothing": (Sparse(0.9, Normal()), (4, 2), "more outputs than zeros in a column"),
    "no such word": (Embedding(padding=5), (5, 2), "padding must be a row of the table"),
    "tied vector": (Tied(VarianceScaling()), (5,), "fans need a weight of at least 2 dimensions"),
    "beyond the dtype": (Identity(1e39), (2, 2), "an entry must be at most 3.40282e+38"),
    "constant beyond the dtype": (Constant(-1e39), (2,), "value must be at most 3.40282e+38"),
    "gain beyond the dtype": (Orthogonal(1e39), (2, 2), "gain must be at most 3.40282e+38"),
    "std beyond the dtype": (Normal(0.0, 1e39), (2, 2), "std must be at most 3.40282e+38"),
}


@pytest.mark.clause("initializers.bad-input")
@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_law_is_refused_before_anything_is_drawn(nx, case):
    rule, shape, message = REFUSED[case]
    stream, fresh = nx.stream(15), nx.stream(15)
    with pytest.raises(InvalidArgument) as caught:
        nx.initialize(rule, shape, stream)
    assert message in str(caught.value)
    np.testing.assert_array_equal(nx.to_numpy(stream.normal((4,))), nx.to_numpy(fresh.normal((4,))))


NOTHING = {
    Normal(0.5, 0.0): DENSE,
    TruncatedNormal(0.5, 0.0): DENSE,
    Uniform(0.5, 0.5): DENSE,
    VarianceScaling(0.0, "fan_avg", "uniform"): DENSE,
    Orthogonal(0.0): TALL,
    DeltaOrthogonal(0.0): (*TALL, 4),
}
"""Rule -> shape to draw it in."""


@pytest.mark.clause("initializers.bad-input")
@pytest.mark.parametrize("rule", NOTHING, ids=repr)
def test_a_spread_of_zero_gives_the_mean(nx, dtype, rule):
    weight = nx.to_numpy(nx.initialize(rule, NOTHING[rule], nx.stream(16), dtype=dtype))
    mean = rule.moments[0] if hasattr(rule, "moments") else 0.0
    np.testing.assert_array_equal(weight, np.full(NOTHING[rule], mean))
