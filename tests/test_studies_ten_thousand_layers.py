"""The study ten-thousand-layers: right on NumPy, resumed as it was, and its checks can fail."""

import numpy as np
import pytest

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.laws import plain_tanh
from isometry.common.laws.mean_field import second_moments
from isometry.common.laws.orthogonal import Orthogonal
from isometry.common.networks import training
from isometry.common.networks.plain import Bench, Net
from isometry.common.networks.training import Data, Plan

STUDY = "ten-thousand-layers"
SMALL = {"depth": 96, "rungs": 0, "contrasts": "gaussian,gain", "convolutional": 2}
UNTRAINED = {**SMALL, "depth": 60, "steps": 1, "contrasts": "gaussian", "convolutional": 0}


def run(backend=None, **parameters):
    return studies.run(STUDY, backend or NumpyBackend(), seed=3, parameters=parameters)


def failed(backend, **parameters):
    """Return the claims that a backend fails."""
    return [check.claim for check in run(backend, **parameters).checks if not check.passed]


def test_numpy_keeps_every_claim():
    told = []
    result = studies.run(
        STUDY,
        NumpyBackend(),
        parameters=SMALL,
        tell=lambda done, total, what: told.append((done, total, what)),
    )
    assert [check for check in result.checks if not check.passed] == []
    claims = [check.claim for check in result.checks]
    assert len(set(claims)) == len(claims)
    assert "gaussian: learns less than 90 % of the images that it is trained on" in claims
    assert "gain: learns less than 90 % of the images that it is trained on" in claims
    assert sum(check.false_alarm for check in result.checks) <= 1e-7
    assert told[-1] == (400, 400, "done")
    assert any("s left" in what for *_, what in told)
    assert sorted(done for done, *_ in told) == [done for done, *_ in told]
    assert all(np.isfinite(q.values).all() for q in result.quantities.values())
    assert result.finding.endswith(".")
    assert "fails from 96 on" in result.finding
    assert studies.find(STUDY).question.endswith("?")
    assert all(parameter.help for parameter in studies.find(STUDY).parameters)


# --- the checks can fail -------------------------------------------------------------------------


class Weaker(NumpyBackend):
    """A tanh that is 2 % too small."""

    def tanh(self, x, /):
        return 0.98 * super().tanh(x)


class LostGradient(NumpyBackend):
    """Loses 1 % of the gradient in every layer, and no signal."""

    def tanh(self, x, /):
        y = super().tanh(x)
        return 0.99 * y + 0.01 * self.ops.stop_gradient(y)


class Uphill(NumpyBackend):
    """Takes its steps uphill."""

    def value_and_gradient(self, f, /):
        evaluate = super().value_and_gradient(f)

        def reversed_(parameters, *args):
            value, gradient = evaluate(parameters, *args)
            return value, {name: -g for name, g in gradient.items()}

        return reversed_


SIGNAL = "the length of the signal changes through all layers as its law says"
GRADIENT = "the length of the gradient changes through all layers as its law says"


@pytest.mark.parametrize(
    ("broken", "claims"),
    [
        (Weaker, [f"critical: {SIGNAL}"]),
        (LostGradient, [f"critical: {GRADIENT}"]),
    ],
)
def test_a_broken_layer_fails_its_law(broken, claims):
    untrained = "critical: learns at least 97 % of the images that it is trained on"
    assert set(claims) | {untrained} <= set(failed(broken(), **UNTRAINED))
    assert set(failed(NumpyBackend(), **UNTRAINED)) == {untrained}


def test_wrong_weights_fail_their_law(monkeypatch):
    def wider(self, nx, stream, shape, count, /, *, dtype="float32"):
        return 1.01 * stream.normal((count, *shape), dtype=dtype) / np.sqrt(shape[1])

    monkeypatch.setattr(Orthogonal, "draw_stack", wider)
    assert f"critical: {SIGNAL}" in failed(NumpyBackend(), **UNTRAINED)


def test_gaussian_weights_of_a_wrong_scale_fail_their_law():
    class Wider(NumpyBackend):
        def stream(self, seed, /):
            stream = super().stream(seed)
            normal = stream.normal
            stream.normal = lambda *args, **kwargs: 1.2 * normal(*args, **kwargs)
            return stream

    claims = failed(Wider(), **UNTRAINED)
    assert (
        "gaussian: each layer multiplies the squared length of the signal by chi2_n / n" in claims
    )


def test_a_net_that_goes_uphill_fails_to_learn():
    claims = failed(Uphill(), depth=16, steps=20, contrasts="", convolutional=2)
    assert "critical: learns at least 97 % of the images that it is trained on" in claims
    assert "convolutional: learns at least 97 % of the images that it is trained on" in claims


# --- interrupted and resumed ---------------------------------------------------------------------


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    parameters = {"depth": 12, "steps": 30, "contrasts": "bias", "rungs": 0, "convolutional": 0}
    whole = run(**parameters)
    parameters["checkpoint"] = str(tmp_path / "run")

    def interrupt(done, total, what):
        if done == 45:  # in the second net, 15 steps from its beginning
            raise Interrupted

    with pytest.raises(Interrupted):
        studies.run(STUDY, NumpyBackend(), seed=3, parameters=parameters, tell=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "run-numpy-bias-12.npz",
        "run-numpy-critical-12.npz",
    ]
    steps = []
    resumed = studies.run(
        STUDY,
        NumpyBackend(),
        seed=3,
        parameters=parameters,
        tell=lambda done, *_: steps.append(done),
    )
    assert steps == [0, 30, *range(41, 61), 60]  # nothing of the first net, 20 of the second
    for name in ("loss/critical", "loss/bias", "accuracy/critical", "accuracy/bias"):
        assert np.array_equal(whole.quantities[name].values, resumed.quantities[name].values)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["another run", "no checkpoint"])
def test_what_is_no_checkpoint_of_this_run_is_refused(tmp_path, content):
    path = tmp_path / "run-numpy-critical-12.npz"
    if content == "another run":
        np.savez(path, digest=np.array("0" * 64))
    else:
        path.write_bytes(b"no archive")
    parameters = {"depth": 12, "steps": 2, "contrasts": "", "convolutional": 0}
    with pytest.raises(InvalidArgument, match="remove it or name another"):
        run(**parameters, checkpoint=str(tmp_path / "run"))
    assert path.exists()


def test_the_digest_names_everything_that_a_training_depends_on(tmp_path):
    base = {"seed": 1, "width": 32, "batch": 64, "steps": 10, "rate": 0.1}

    def digest(**changed):
        values = {**base, **changed}
        bench = Bench(NumpyBackend(), lambda *_: None, **values, checkpoint=str(tmp_path / "a"))
        return bench.saved("critical", 12).digest

    assert digest() == digest()
    changes = {"seed": 2, "width": 16, "batch": 32, "steps": 11, "rate": 0.2}
    assert len({digest(), *(digest(**{k: v}) for k, v in changes.items())}) == 6


def test_an_overflow_ends_the_training():
    nx = NumpyBackend()
    data = Data(np.ones((8, 2), np.float32), np.eye(2, dtype=np.float32)[[0, 1] * 4], 4)

    def forward(parameters, x):
        return nx.ops.matmul(x, parameters["w"]) * (1 / (1 - nx.ops.max(parameters["w"])))

    weights = {"w": nx.asarray([[1.0, 0.0], [0.0, 0.0]])}
    with np.errstate(all="ignore"):
        found = training.train(
            training.Compiled(nx, forward), weights, data, Plan(5, 4, 0.1, 0), lambda _: None
        )
    assert found.stopped
    assert len(found.losses) == 1
    assert np.array_equal(found.parameters["w"], weights["w"])


def test_every_image_is_trained_on_once_an_epoch():
    epochs = [
        np.concatenate([training.rows(7, 4, step, 12) for step in range(k, k + 3)]) for k in (0, 3)
    ]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert not np.array_equal(*epochs)
    assert training.rows(7, 4, 2, 10).shape == (4,)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"depth": 0}, "depth"),
        ({"depth": 3}, "depth"),
        ({"width": 0}, "width"),
        ({"width": 65}, "width"),
        ({"batch": 0}, "batch"),
        ({"steps": 0}, "steps"),
        ({"rate": 0.0}, "rate"),
        ({"rungs": -1}, "rungs"),
        ({"convolutional": -1}, "convolutional"),
        ({"contrasts": "gaussian,sparse"}, "sparse"),
    ],
)
def test_what_is_refused(parameters, words):
    with pytest.raises(InvalidArgument, match=words):
        run(**parameters)


# --- the law -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [3, 10, 32, 64])
@pytest.mark.parametrize("q", [1e-4, 0.03, 0.7, 1.9])
def test_maps_of_length_and_slope(width, q):
    import mpmath

    mpmath.mp.dps = 30
    radius = mpmath.sqrt(mpmath.mpf(width) * q)

    def mean(f):
        density = lambda u: (1 - u * u) ** (mpmath.mpf(width - 3) / 2)  # noqa: E731
        edges = [0, mpmath.mpf(1) / 4, mpmath.mpf(1) / 2, 1]
        return mpmath.quad(lambda u: f(radius * u) * density(u), edges) / mpmath.quad(
            density, edges
        )

    length = mean(lambda z: mpmath.tanh(z) ** 2)
    slope = mean(lambda z: mpmath.sech(z) ** 4)
    assert abs(plain_tanh.length_map(q, width) / float(length) - 1) <= 1e-9
    assert abs(plain_tanh.slope_map(q, width) / float(slope) - 1) <= 1e-9


def test_wide_nets_follow_the_mean_field():
    for q in (0.01, 0.5):
        wide = plain_tanh.length_map(q, 1000), plain_tanh.slope_map(q, 1000)
        # to first order in q the maps differ by 2 q (1 - n/(n+2)), relatively
        assert np.allclose(wide, second_moments("tanh", q), rtol=4 * q / 1000)


def test_signal_and_gradient_lose_two_thirds_at_any_depth():
    for depth in (1000, 10_000):
        lengths, logs = plain_tanh.curves(1 / depth, 1000, depth)
        assert abs(lengths[-1] * depth - 1 / 3) <= 3 / depth + 2 / 1000
        assert abs(np.exp(logs[-1]) - 1 / 3) <= 3 / depth + 2 / 1000


def test_networks_are_described_as_asked():
    network = Net(bias=True).network(5, 16)
    assert network.widths == (64, 16, 16, 16, 16, 10)
    assert network.bias == "zeros"
    assert Net(gain=2.0).network(5, 16).initializer == Orthogonal(2.0)
