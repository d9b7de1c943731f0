"""All five frameworks in one process: each is itself beside the others."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

import isometry as iso

NAMES = ("numpy", "torch", "tensorflow", "jax", "mxnet")

SCRIPT = """
import isometry as iso, numpy as np
backends = [iso.load(name) for name in {names!r}]
x = np.linspace(-8, 8, 161)
for nx in backends:
    with nx.scope():
        y = nx.to_numpy(nx.sigmoid_gradient(nx.asarray(x)))
        assert y.dtype == np.float64, (nx.name, y.dtype)
        e = np.exp(-np.abs(x))
        assert np.allclose(y, e / (1 + e) ** 2, rtol=1e-15, atol=0), nx.name
print("done")
"""


@pytest.mark.parametrize(
    "names",
    [(*pair,) for pair in itertools.permutations(NAMES[1:], 2)] + [NAMES, NAMES[::-1]],
    ids="-".join,
)
def test_every_order_of_loading(names: tuple[str, ...]) -> None:
    run = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT.format(names=names)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.strip().endswith("done")


KERNEL = (48, 32, 3)
SHAPES = {
    "delta_orthogonal": KERNEL,
    "dirac": KERNEL,
    "bilinear": KERNEL,
    "forget_gate_bias": (48,),
}


@pytest.mark.parametrize("rule", iso.INITIALIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_portable_weights_are_the_same_everywhere(rule: str, dtype: str) -> None:
    drawn = []
    for name in NAMES:
        nx = iso.load(name)
        stream = nx.portable_stream(7)
        w = nx.to_numpy(nx.initialize(rule, SHAPES.get(rule, (48, 32)), stream, dtype=dtype))
        drawn.append(w)
    if rule.endswith("orthogonal"):
        # a QR in each framework's own LAPACK: the same matrix up to n eps, not the same bits
        bound = 48 * np.finfo(dtype).eps
        assert max(np.abs(w - drawn[0]).max() for w in drawn) <= bound
    else:
        assert all(np.array_equal(w, drawn[0]) for w in drawn)


CALLS = {
    "unknown dtype": lambda nx: nx.asarray([1.0], dtype="float8"),
    "wrong array": lambda nx: nx.sigmoid([1.0]),
    "negative std": lambda nx: nx.stream(0).normal((3,), std=-1.0),
    "infinite std": lambda nx: nx.stream(0).normal((3,), std=float("inf")),
    "reversed bounds": lambda nx: nx.stream(0).uniform((3,), low=1.0, high=0.0),
    "empty shape": lambda nx: nx.initialize("he_normal", (0, 3), nx.stream(0)),
    "bias with fans": lambda nx: nx.initialize("he_normal", (3,), nx.stream(0)),
    "unknown rule": lambda nx: nx.initialize("he_norml", (3, 3), nx.stream(0)),
    "unknown layout": lambda nx: nx.initialize("he_normal", (3, 3), nx.stream(0), layout="oi"),
    "negative seed": lambda nx: nx.stream(-1),
    "slope": lambda nx: nx.leaky_relu(nx.asarray([1.0]), slope=float("nan")),
    "axis": lambda nx: nx.layer_norm(*[nx.asarray([1.0, 2.0])] * 3, axis=2),
    "no length": lambda nx: nx.matrix_chain(nx.stream(0), length=0, size=4),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_same_wrong_call_gives_the_same_error(call: str) -> None:
    said = {}
    for name in NAMES:
        nx = iso.load(name)
        with pytest.raises(iso.InvalidArgument) as caught:
            CALLS[call](nx)
        # the error may name the backend and list its dtypes; all else is the same
        listed = ", ".join(nx.dtypes)
        said[name] = str(caught.value).replace(listed, "...").replace(repr(name), "...")
    assert len(set(said.values())) == 1, said
