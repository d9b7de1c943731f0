"""The residual net of two-layer branches: right on NumPy, drawn by its laws."""

import math

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Normal
from isometry.common.networks.residual import REMEDIES, Residual
from isometry.common.statistics.bounds import moment

nx = NumpyBackend()
WIDTHS, BLOCKS, BATCH = (5, 6, 3), 4, 7
CLOSE = 1e-12
"""Of values about 1: eight layers of at most 7 terms are some hundred roundings of 1.1e-16."""


def drawn(remedy):
    """Return the network, its parameters all moved off 0 and 1, and x."""
    network, stream = Residual(WIDTHS, BLOCKS, remedy), nx.stream(3)
    parameters = network.initialize(nx, stream, dtype="float64")
    moved = {
        path: a + stream.normal(a.shape, std=0.3, dtype="float64") for path, a in parameters.items()
    }
    return network, moved, stream.normal((BATCH, WIDTHS[0]), dtype="float64")


def by_hand(remedy, p, x):
    """Return output, what enters each block and what each second layer multiplies, by loops."""

    def norm(z, scale, shift):
        return (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5) * scale + shift

    h, signals, hidden = x @ p["input/weight"][0].T, [], []
    for k in range(BLOCKS):
        own = {path.split("/")[1]: a[k] for path, a in p.items() if path.startswith("blocks/")}
        signals.append(h)
        if remedy == "fixup":
            z = (h + own["bias1"]) @ own["weight1"].T + own["bias2"]
            a = np.maximum(z, 0) + own["bias3"]
            change = own["factor"] * (a @ own["weight2"].T)
        elif remedy == "batch":
            a = np.maximum(norm(h @ own["weight1"].T, own["scale1"], own["shift1"]), 0)
            change = norm(a @ own["weight2"].T, own["scale2"], own["shift2"])
        else:
            a = np.maximum(h @ own["weight1"].T, 0)
            change = a @ own["weight2"].T
        hidden.append(a)
        h = h + change
    output = h @ p["output/weight"][0].T + p["output/bias"]
    return output, np.array(signals), np.array(hidden)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_forward_is_that_of_loops(remedy):
    network, parameters, x = drawn(remedy)
    output, trace = network.forward(nx, parameters, x)
    exact = by_hand(remedy, parameters, x)
    for found, expected in zip((output, trace["signal"], trace["hidden"]), exact, strict=True):
        np.testing.assert_allclose(found, expected, rtol=CLOSE, atol=CLOSE * np.abs(expected).max())
    np.testing.assert_array_equal(network.output(nx, parameters, x), output)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_every_parameter_is_used(remedy):
    network, parameters, x = drawn(remedy)
    before = network.output(nx, parameters, x)
    for path in parameters:
        draws = np.random.default_rng(1).normal(size=parameters[path].shape)
        after = network.output(nx, parameters | {path: parameters[path] + draws}, x)
        assert not np.allclose(after, before), path


def test_one_block():
    network = Residual(WIDTHS, 1)
    parameters = network.initialize(nx, nx.stream(0), dtype="float64")
    x = nx.stream(1).normal((BATCH, WIDTHS[0]), dtype="float64")
    output, trace = network.forward(nx, parameters, x)
    assert output.shape == (BATCH, WIDTHS[2])
    assert trace["hidden"].shape == trace["signal"].shape == (1, BATCH, WIDTHS[1])


@pytest.mark.parametrize("remedy", REMEDIES)
def test_weights_are_he_s_and_fixup_s(remedy):
    network = Residual((40, 60, 10), 9, remedy)
    parameters = network.initialize(nx, nx.stream(2))
    variances = {"input/weight": 2 / 40, "blocks/weight1": 2 / 60, "blocks/weight2": 2 / 60}
    variances["output/weight"] = 2 / 60
    if remedy == "fixup":
        variances |= {"blocks/weight1": 2 / 60 / 9, "blocks/weight2": 0, "output/weight": 0}
    for path, variance in variances.items():
        w = parameters[path].astype(np.float64)
        if variance:
            law = Normal(0.0, math.sqrt(variance))
            low, high = moment(law, 2, w.size, 1e-12)
            assert low <= np.mean(w**2) / variance <= high, path
        else:
            assert not w.any(), path
    assert not parameters["output/bias"].any()
    rest = {
        path: a
        for path, a in parameters.items()
        if path.startswith("blocks/") and "weight" not in path
    }
    for path, a in rest.items():
        one = "scale" in path or "factor" in path
        np.testing.assert_array_equal(a, np.full_like(a, one))
    assert len(rest) == (0 if remedy == "none" else 4)


def test_with_fixup_every_block_is_the_identity_at_first():
    network = Residual(WIDTHS, BLOCKS, "fixup")
    parameters = network.initialize(nx, nx.stream(0))
    output, trace = network.forward(nx, parameters, nx.stream(1).normal((BATCH, WIDTHS[0])))
    assert not output.any()
    np.testing.assert_array_equal(trace["signal"], trace["signal"][:1].repeat(BLOCKS, axis=0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((5, 6), 2), r"widths must be those of input, blocks and output; received \(5, 6\)"),
        (((5, 0, 3), 2), "a width must be at least 1; received 0"),
        ((WIDTHS, 0), "blocks must be at least 1; received 0"),
        ((WIDTHS, 2, "rezero"), "unknown remedy 'rezero': known are none, fixup, batch"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        Residual(*arguments)


def test_extras_are_refused():
    network, parameters, x = drawn("none")
    extras = {"blocks/offset": np.ones((BLOCKS, BATCH, WIDTHS[1]))}
    for run in (network.forward, network.output):
        with pytest.raises(InvalidArgument, match=r"no extras; received \['blocks/offset'\]"):
            run(nx, parameters, x, extras)
        run(nx, parameters, x, {})
