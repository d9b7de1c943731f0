"""Fans where no backend is needed: what is refused, and the oracle that counts connections."""

from __future__ import annotations

import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Normal
from isometry.common.laws.fans import Fans, fans, rows_and_columns
from isometry.common.laws.initializers import VarianceScaling
from isometry.conformance import connections


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((5,), {}, "fans need a weight of at least 2 dimensions; received shape (5,)"),
        ((5, 0), {}, "shape must have sizes of at least 1; received (5, 0)"),
        ((6, 4), {"layout": "oihw"}, "unknown layout 'oihw'"),
        ((6, 4), {"groups": 4}, "groups must divide 6, the size of its axis in a weight of shape"),
        ((6, 4), {"fused": 4}, "fused must divide 6"),
        ((6, 4), {"fused": 3, "transposed": True}, "fused must divide 4"),
        ((6, 4), {"groups": 0}, "groups must be at least 1; received 0"),
        ((6, 4), {"fused": 2.0}, "fused must be an integer; received 2.0 of type float"),
    ],
)
def test_what_has_no_fans_is_refused(shape, arguments, message):
    with pytest.raises(InvalidArgument) as error:
        fans(shape, **arguments)
    assert message in str(error.value)


def test_a_fan_is_one_of_both_or_their_mean():
    both = fans((64, 8, 3, 3), groups=4)
    assert both == (72, 144)
    assert [both.by(mode) for mode in ("fan_in", "fan_out", "fan_avg")] == [72, 144, 108]


def test_groups_do_not_change_the_matrix_that_a_weight_is():
    assert rows_and_columns((64, 8, 3, 3)) == (64, 72)
    assert rows_and_columns((3, 3, 8, 64), "in_out") == (64, 72)


def test_a_rule_gives_its_law_for_given_fans():
    rule = VarianceScaling(gain=2.0, mode="fan_out")
    assert rule.law(fans((12, 4), fused=3)) == Normal(0.0, 1.0)
    assert rule.law(fans((16, 3))) == rule.resolve((16, 3), "out_in") == Normal(0.0, 0.5)


def test_counting_sees_each_connection_once():
    """By hand: 2 groups of 3 inputs and 5 outputs, a kernel of 4 positions, on a circle of 4."""
    assert connections.count(connections.convolution(3, 5, 4, groups=2)) == Fans(12, 20)


def test_counting_refuses_units_that_differ():
    uneven = connections.Layer((3, 3), lambda o, i: (i, min(o, i)))
    with pytest.raises(ValueError, match="too many values to unpack"):
        connections.count(uneven)
