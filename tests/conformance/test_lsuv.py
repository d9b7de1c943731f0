"""Layer-sequential unit variance, over a net of three layers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isometry.common.errors import InvalidArgument
from isometry.common.laws.fans import LAYOUTS
from isometry.common.laws.lsuv import lsuv
from isometry.common.statistics import rounding
from isometry.conformance import asserts
from isometry.conformance.shapes import SQUARE

LAYERS = ("first", "second", "third")


def _net(nx, dtype, layout, scale=1.0):
    """Return parameters, inputs, and the function from these to the preactivations."""
    size = SQUARE[0]
    weights = {path: nx.ops.ones(SQUARE, dtype=dtype) for path in LAYERS}
    parameters = {**weights, "bias": nx.ops.full((size,), 0.25, dtype=dtype)}
    inputs = scale * np.random.default_rng(12).normal(size=(64, size))

    def forward(parameters, x):
        preactivations = {}
        for path in LAYERS:
            weight = parameters[path]
            if layout == "out_in":
                weight = nx.ops.permute_dims(weight, (1, 0))
            preactivations[path] = nx.ops.matmul(x, weight)
            x = nx.relu(preactivations[path] + parameters["bias"])
        return preactivations

    return parameters, nx.asarray(inputs, dtype=dtype), forward


@pytest.mark.clause("initializers.lsuv")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lsuv_gives_every_layer_unit_variance(nx, full_dtype, layout):
    parameters, x, forward = _net(nx, full_dtype, layout, scale=3.0)
    scaled = lsuv(nx, forward, parameters, x, nx.stream(13), layout=layout, tolerance=1e-3)
    assert scaled.keys() == parameters.keys()
    with nx.scope():
        preactivations = forward(scaled, x)
    bound = rounding.orthogonality(*SQUARE, full_dtype)
    bound += 10 * rounding.gamma(2, full_dtype)  # two roundings in each of up to ten divisions
    for path in LAYERS:
        asserts.within(np.var(nx.to_numpy(preactivations[path]), dtype=np.float64), 1.0, 1e-3)
        assert nx.dtype_of(scaled[path]) == full_dtype
        w = nx.to_numpy(scaled[path]).astype(np.float64)
        asserts.within(w @ w.T / np.mean(np.square(w)) / len(w), np.eye(len(w)), bound)
        np.testing.assert_array_equal(nx.to_numpy(parameters[path]), 1.0)  # not changed in place
    assert scaled["bias"] is parameters["bias"]


@pytest.mark.clause("initializers.lsuv")
@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (0.0, "the preactivation of layer 'first' must vary over the batch"),
        (math.nan, "the preactivation of layer 'first' must be finite"),
        (1e200, "the preactivation of layer 'first' must be finite"),
    ],
)
def test_lsuv_refuses_a_layer_without_variance(nx, scale, message):
    parameters, x, forward = _net(nx, "float32", "out_in")
    with np.errstate(over="ignore"):
        x = nx.asarray((scale * nx.to_numpy(x).astype(np.float64)).astype(np.float32))
    with pytest.raises(InvalidArgument) as caught:
        lsuv(nx, forward, parameters, x, nx.stream(14))
    assert message in str(caught.value)
