"""Attention: the plain loop over tokens, Jacobians in closed form, what it leaves alike."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Normal
from isometry.common.laws.initializers import INITIALIZERS
from isometry.common.networks.attention import Attention, softmax
from isometry.common.statistics.assertions import assert_law

sys.path.insert(0, str(Path(__file__).parent))
from networks_by_hand import assert_gradient, standardized

nx = NumpyBackend()
CLOSE = 1e-12  # three blocks of sums of at most 5 terms, and a norm that divides by about 0.1
BATCH, TOKENS, FEATURES = 2, 5, 4
OPTIONS = [
    {},
    {"head": 3, "residual": False},
    {"head": 6, "fused": True},
    {"layer_norm": "before"},
    {"layer_norm": "after", "head": 2},
    {"layer_norm": "after", "residual": False},
]


def drawn(options, *, depth=3):
    """Return the network, parameters whose scales and shifts have no special value, and x."""
    network = Attention(depth, FEATURES, initializer=Normal(0.0, 0.7), **options)
    stream = nx.stream(1)
    parameters = network.initialize(nx, stream, dtype="float64")
    for name in ("scale", "shift"):
        if name in parameters:
            noise = stream.normal(parameters[name].shape, std=0.3, dtype="float64")
            parameters[name] = parameters[name] + noise
    return network, parameters, stream.normal((BATCH, TOKENS, FEATURES), dtype="float64")


def weights(parameters, block, size):
    """Return W_Q, W_K, W_V and W_O of a block."""
    W = parameters["projection"][block]
    return W[:size], W[size : 2 * size], W[2 * size :], parameters["output"][block]


def by_hand(network, parameters, x):
    """Return the output and the scores, token by token."""
    outputs, scores = np.zeros_like(x), np.zeros((network.depth, BATCH, TOKENS, TOKENS))
    for example, h in enumerate(x):
        for block in range(network.depth):
            Q, K, V, O = weights(parameters, block, network.size)  # noqa: E741 - its name

            def norm(h, block=block):
                rows = np.array([standardized(token, 1e-5) for token in h])
                return parameters["scale"][block] * rows + parameters["shift"][block]

            heard = norm(h) if network.layer_norm == "before" else h
            new = np.zeros_like(h)
            for i in range(TOKENS):
                s = [sum((Q @ heard[i]) * (K @ u)) / math.sqrt(network.size) for u in heard]
                scores[block, example, i] = s
                e = [math.exp(value) for value in s]
                value = sum(a * (V @ u) for a, u in zip(e, heard, strict=True)) / sum(e)
                new[i] = O @ value + (h[i] if network.residual else 0)
            h = norm(new) if network.layer_norm == "after" else new
        outputs[example] = h
    return outputs, scores


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_forward_is_the_plain_loop(options):
    network, parameters, x = drawn(options)
    output, trace = network.forward(nx, parameters, x)
    scores = np.stack([network.scores(nx, z) for z in trace["projection"]])
    for observed, expected in zip((output, scores), by_hand(network, parameters, x), strict=True):
        assert observed.shape == expected.shape
        np.testing.assert_allclose(observed, expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradient_is_that_of_the_function(options):
    network, parameters, x = drawn(options)
    v = nx.stream(3).normal(x.shape, dtype="float64")

    def loss(p):
        return nx.ops.sum(network.forward(nx, p, p["x"])[0] * v)

    assert_gradient(nx, loss, {**parameters, "x": x}, step=3e-4, rel=1e-7)


# --- Jacobians, of one example, with the tokens' features one after the other --------------------


def jacobian(network, parameters, x):
    """Return that of the output in x (1, tokens, features), as the framework finds it."""
    _, pullback = nx.vjp(lambda x: network.forward(nx, parameters, x)[0], x)
    return np.array([pullback(v.reshape(x.shape)).ravel() for v in np.eye(x.size)])


def in_closed_form(h, Q, K, V, O):  # noqa: E741 - its name
    """``dy_i = O sum_m (A_im V dh_m + V h_m dA_im)``, ``dA_i = (diag(A_i) - A_i A_i^T) dS_i``.

    ``dS_im = (K h_m . Q dh_i + Q h_i . K dh_m) / sqrt(d)``.
    """
    q, k, v = h @ Q.T, h @ K.T, h @ V.T
    s = q @ k.T / math.sqrt(len(Q))
    A = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
    found = np.zeros((TOKENS, FEATURES, TOKENS, FEATURES))
    for i in range(TOKENS):
        spread = np.diag(A[i]) - np.outer(A[i], A[i])
        for j in range(TOKENS):
            to_scores = np.outer(np.eye(TOKENS)[j], q[i] @ K)  # (tokens, features)
            if i == j:
                to_scores = to_scores + k @ Q
            found[i, :, j, :] = O @ (A[i, j] * V + v.T @ spread @ to_scores / math.sqrt(len(Q)))
    return found.reshape(TOKENS * FEATURES, -1)


@pytest.mark.parametrize("residual", [False, True])
def test_the_jacobian_is_the_product_of_closed_forms(residual):
    network, parameters, x = drawn({"head": 3, "residual": residual})
    expected = np.eye(x[0].size)
    for block in range(network.depth):
        one = Attention(block, FEATURES, 3, residual=residual) if block else None
        first = {name: a[:block] for name, a in parameters.items()}
        h = one.forward(nx, first, x[:1])[0] if one else x[:1]
        step = in_closed_form(h[0], *weights(parameters, block, 3))
        expected = (step + residual * np.eye(len(step))) @ expected
    observed = jacobian(network, parameters, x[:1])
    np.testing.assert_allclose(observed, expected, rtol=1e-11, atol=1e-11)


def test_queries_of_zero_hear_all_tokens_alike():
    network, parameters, x = drawn({"residual": False}, depth=1)
    parameters["projection"][0, :FEATURES] = 0
    _, _, V, O = weights(parameters, 0, FEATURES)  # noqa: E741 - its name
    output, trace = network.forward(nx, parameters, x)
    assert (network.scores(nx, trace["projection"][0]) == 0).all()
    mean = np.broadcast_to(x.mean(axis=1, keepdims=True), x.shape) @ (O @ V).T
    np.testing.assert_allclose(output, mean, rtol=CLOSE, atol=CLOSE)
    expected = np.tile(O @ V / TOKENS, (TOKENS, TOKENS))
    np.testing.assert_allclose(
        jacobian(network, parameters, x[:1]), expected, rtol=CLOSE, atol=CLOSE
    )


# --- what it keeps, and what it loses ------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_reordering_tokens_reorders_the_output(options):
    network, parameters, x = drawn(options)
    order = np.array([3, 0, 4, 2, 1])
    moved, _ = network.forward(nx, parameters, x[:, order])
    plain, _ = network.forward(nx, parameters, x)
    np.testing.assert_allclose(moved, plain[:, order], rtol=CLOSE, atol=CLOSE)
    assert np.abs(plain[:, order] - plain).max() > 1e-2


def test_without_shortcuts_the_tokens_grow_alike():
    """With orthogonal W_V and W_O a block averages and turns: no distance grows.

    Dong, Cordonnier and Loukas 2021, Attention is not all you need: it goes to 0, and a shortcut
    keeps it.
    """
    stream = nx.stream(5)
    x = stream.normal((1, TOKENS, FEATURES), dtype="float64")

    def spread(h):
        return max(np.linalg.norm(a - b) for a in h[0] for b in h[0])

    apart = {}
    for residual in (False, True):
        network = Attention(30, FEATURES, initializer="orthogonal", residual=residual)
        parameters = network.initialize(nx, nx.stream(6), dtype="float64")
        distances = [spread(x)]
        for depth in range(1, 31):
            first = {name: a[:depth] for name, a in parameters.items()}
            part = Attention(depth, FEATURES, residual=residual)
            distances.append(spread(part.forward(nx, first, x)[0]))
        apart[residual] = distances
    steps = np.array(apart[False])
    assert (steps[1:] <= steps[:-1] * (1 + 1e-13) + 1e-14).all()
    assert steps[-1] < 1e-6 * steps[0]
    assert apart[True][-1] > apart[True][0]


def test_softmax_of_scores_of_any_size():
    scores = np.array([[1e4, 0.0, -1e300], [-1e4, -1e4, -1e4], [math.log(2), 0.0, math.log(3)]])
    expected = [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [1 / 3, 1 / 6, 1 / 2]]
    np.testing.assert_allclose(softmax(nx, scores), expected, rtol=4e-16)


# --- parameters ----------------------------------------------------------------------------------


def test_parameters_have_these_paths_shapes_and_dtypes():
    network = Attention(2, 6, 4, layer_norm="before")
    parameters = network.initialize(nx, nx.stream(0))
    assert {path: a.shape for path, a in parameters.items()} == {
        "projection": (2, 12, 6),
        "output": (2, 6, 4),
        "scale": (2, 6),
        "shift": (2, 6),
    }
    assert (parameters["scale"] == 1).all()
    assert (parameters["shift"] == 0).all()
    output, trace = network.forward(nx, parameters, nx.stream(1).normal((3, 5, 6)))
    assert {name: a.shape for name, a in trace.items()} == {
        "projection": (2, 3, 5, 12),
        "output": (2, 3, 5, 6),
    }
    for a in (*parameters.values(), output, *trace.values()):
        assert a.dtype == np.float32
    assert set(Attention(2, 6).initialize(nx, nx.stream(0))) == {"projection", "output"}


@pytest.mark.parametrize(("fused", "rows"), [(False, 24), (True, 72)])
def test_projections_follow_the_law_of_their_fans(fused, rows):
    network = Attention(12, 30, 24, fused=fused)
    parameters = network.initialize(nx, nx.stream(4))
    rule = INITIALIZERS["xavier_normal"]
    laws = {"projection": rule.resolve((rows, 30), "out_in")}
    laws["output"] = rule.resolve((30, 24), "out_in")
    for name, law in laws.items():
        assert_law(parameters[name], law, false_alarm=1e-9, detects={"std": ("relative", 0.1)})


def test_each_projection_is_drawn_by_itself():
    W = Attention(2, 6, initializer="orthogonal").initialize(nx, nx.stream(7), dtype="float64")
    for block in W["projection"].reshape(6, 6, 6):
        np.testing.assert_allclose(block @ block.T, np.eye(6), atol=CLOSE)
    fused = Attention(2, 6, initializer="orthogonal", fused=True)
    for whole in fused.initialize(nx, nx.stream(7), dtype="float64")["projection"]:
        np.testing.assert_allclose(whole.T @ whole, np.eye(6), atol=CLOSE)
        assert np.abs(whole[:6] @ whole[:6].T - np.eye(6)).max() > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "depth must be at least 1; received 0"),
        ({"features": 0}, "features must be at least 1; received 0"),
        ({"head": 0}, "head must be at least 1; received 0"),
        ({"layer_norm": "befor"}, "did you mean 'before'"),
        ({"initializer": "he_norml"}, "did you mean 'he_normal'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        Attention(**{"depth": 2, "features": 3, **arguments})
