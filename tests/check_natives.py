"""Check that every native of a library is wired: ``check_natives.py keras_native:library``.

Not a test but a program that the tests start: a library that fixes its engine when it is imported
needs a process of its own. It judges no law; `isometry conform --natives` does.
"""

import importlib
import math
import sys
import traceback
import warnings

import numpy as np

from isometry.common.natives import KINDS, Library, Native

# draws the places of its zeros from the global generator, whichever it is given (torch 2.13)
UNSEEDED = ("torch.nn.init.sparse_(w, sparsity=0.1, generator=g)",)
# of rate 0.1 and a gradient of 1, where it is not the plain one: Nesterov's looks ahead by 0.9,
# RMSprop divides by the root of 1 - decay, and a sum of squares may start above 0
FIRST_STEPS = {"momentum_nesterov": (0.19, 0.19), "rmsprop": (0.3, 1.0), "adagrad": (0.09, 0.1)}
BATCH = np.float32([[1, -2, 3, -4], [5, 6, -7, 8], [-9, 1, 2, 3]])
# eps is at most 1e-3 beside the variances of these inputs, and norms are rounded at 2**-24
SLACK = 2.0**-10


def initializer(native: Native, library: Library) -> None:
    shape = (3, 3, 8, 16) if native.claims == "delta_orthogonal" else (24, 36)
    refuses_half = "orthogonal" in native.claims  # there is no QR in half precision
    for dtype in ("float32",) if refuses_half else library.dtypes:
        w = native.run(shape, 3, dtype)
        assert w.shape == shape
        assert w.dtype == ("float32" if dtype == "bfloat16" else dtype)
        assert np.isfinite(w).all()
        assert np.array_equal(w, native.run(shape, 3, dtype)) == (native.call not in UNSEEDED)
        assert not np.array_equal(w, native.run(shape, 17, dtype))


SIZES = {
    "dense": {"weight": 512 * 256},
    "conv2d": {"weight": 64 * 128 * 3 * 3},
    "conv2d_grouped": {"weight": 64 * 128 * 3 * 3 // 4},
    "conv2d_depthwise": {"weight": 64 * 3 * 3},
    "conv2d_transposed": {"weight": 64 * 128 * 3 * 3},
    "embedding": {"weight": 1000 * 512},
    "lstm": {"input": 4 * 256 * 256, "recurrent": 4 * 256 * 256},
    "rnn": {"input": 128 * 256, "recurrent": 256 * 256},
    "gru": {"input": 3 * 128 * 256, "recurrent": 3 * 256 * 256},
    "attention": {"weight": 4 * 512 * 512},
}
UNITS = {
    "dense": 256,
    "conv2d": 128,
    "conv2d_grouped": 128,
    "conv2d_depthwise": 64,
    "conv2d_transposed": 128,
    "lstm": 4 * 256,
    "rnn": 256,
    "gru": 256,
    "attention": 512,
}


def layer(native: Native, library: Library) -> None:
    if native.claims.endswith("_norm_layer"):
        norm_layer(native)
        return
    arrays, again, other = native.run(3), native.run(3), native.run(17)
    sizes: dict[str, int] = {}
    for path, w in arrays.items():
        role, _, own = path.partition("/")
        assert own
        assert w.dtype == "float32"
        assert np.array_equal(w, again[path])
        sizes[role] = sizes.get(role, 0) + w.size
        assert role == "bias" or not np.array_equal(w, other[path])
    biases = sizes.pop("bias", 0)
    assert sizes == SIZES[native.claims]
    units = UNITS.get(native.claims)
    assert biases % units == 0 < biases if units else biases == 0


def norm_layer(native: Native) -> None:
    roles = {path.partition("/")[0]: w for path, w in native.run(3).items()}
    averaged = {"mean", "variance"} if native.claims.startswith("batch") else set()
    learned = {"scale", "shift"} if roles else set()  # an instance norm may learn nothing
    assert roles.keys() == averaged | learned
    for role, w in roles.items():
        assert (w == (role in ("scale", "variance"))).all()


def optimizer(native: Native, library: Library) -> None:
    path = native.run(1.0, (1.0, 1.0), (0.1, 0.0))
    assert len(path) == 2
    assert all(isinstance(w, float) for w in path)
    # the first step of rate 0.1 is 0.1 downhill, and 0.01 more if w decays, coupled or not
    least, most = FIRST_STEPS.get(native.claims, (0.1, 0.11))
    assert least - SLACK < 1 - path[0] < most + SLACK
    assert native.run(1.0, (1.0,), (0.1,)) == path[:1]
    free = native.run(1.0, (1.0,))
    assert free is None if library.name == "optax" else 0 < 1 - free[0] < 1 - path[0]


def gradient(native: Native, library: Library) -> None:
    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    def normal(x: float) -> float:
        return (1 + math.erf(x / math.sqrt(2))) / 2

    exact = {
        "sigmoid": lambda x: logistic(x) * logistic(-x),
        "tanh": lambda x: 1 / math.cosh(x) ** 2,
        "softplus": logistic,
        "silu": lambda x: logistic(x) * (1 + x * logistic(-x)),
        "gelu": lambda x: normal(x) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    }
    x = np.float32([-2, -1, 1, 2])
    y = native.run(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    if native.claims in exact:  # nearest to the one it claims to be, of all
        distance = {n: np.abs(y - [f(float(v)) for v in x]).max() for n, f in exact.items()}
        assert native.claims == min(distance, key=distance.__getitem__)
    else:
        assert (y[x > 0] == 1).all()
        assert 0 <= y[0] < 1
        assert y[0] == y[1]
        assert (y[0] == 0) == (native.claims == "relu")


def batch_norm(native: Native, library: Library) -> None:
    one, two = native.run(BATCH), native.run(BATCH, steps=2)
    assert one.updated_in in ("forward", "backward")
    mean, variance = BATCH.mean(axis=0), BATCH.var(axis=0)
    for found in (one, two):
        assert found.y.shape == BATCH.shape
        assert found.y.dtype == "float32"
        assert np.allclose(found.y, (BATCH - mean) / np.sqrt(variance), rtol=0, atol=SLACK)
        assert found.running_mean.shape == found.running_variance.shape == (BATCH.shape[1],)
        inferred = found.inference(BATCH)
        assert inferred.shape == BATCH.shape
        right = (BATCH - found.running_mean) / np.sqrt(found.running_variance)
        assert np.allclose(inferred, right, rtol=SLACK, atol=SLACK)
    # from 0 and 1 towards the statistics of the batch, and further with each step
    assert (np.abs(two.running_mean - mean) < np.abs(one.running_mean - mean)).all()
    assert (np.abs(one.running_mean - mean) < np.abs(mean)).all()
    assert (one.running_variance > 1).all()
    assert (one.running_variance < two.running_variance).all()


def norm(native: Native, library: Library) -> None:
    x = np.concatenate([BATCH * 10, BATCH[:, ::-1] * 7], axis=1)
    groups = int(native.settings.get("groups", 1))
    y = native.run(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    y = y.reshape(len(x), groups, -1)
    assert np.allclose(np.square(y).mean(axis=-1), 1, rtol=0, atol=SLACK)
    centred = np.abs(y.mean(axis=-1)).max() <= SLACK
    assert centred == (native.claims != "rms_norm")


def clipping(native: Native, library: Library) -> None:
    gradients = [np.float32([3, 0]), np.float32([[0], [0], [4]])]
    clipped = native.run(gradients, 2.5)
    norms = {"global_norm": (1.5, 2.0), "tensor_norm": (2.5, 2.5)}[native.claims]
    assert [g.shape for g in clipped] == [(2,), (3, 1)]
    assert all(g.dtype == "float32" for g in clipped)
    assert np.allclose([np.linalg.norm(g) for g in clipped], norms, rtol=SLACK, atol=0)
    assert (gradients[0] == [3, 0]).all()
    assert (gradients[1] == [[0], [0], [4]]).all()


WIRED = (initializer, layer, gradient, batch_norm, norm, clipping, optimizer)
CHECKS = dict(zip(KINDS, WIRED, strict=True))


def main(target: str) -> int:
    """Print what is wrong, and return 1; or print which natives are wired, and return 0."""
    module, _, function = target.partition(":")
    library = getattr(importlib.import_module(f"isometry.backends.{module}"), function)()
    assert library.natives
    assert all(library.versions.values())
    failed = []
    warnings.simplefilter("error")
    for native in library.natives:
        try:
            assert native.source.startswith("https://")
            CHECKS[native.kind](native, library)
        except Exception:
            failed.append(f"{native.claims}: {native.call}\n{traceback.format_exc()}")
    print(*failed, f"{library.name}: {len(failed)} of {len(library.natives)} fail", sep="\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
