"""Natives in NumPy, right ones and ones with a known deviation, for the tests of the scoreboard."""

from __future__ import annotations

import math
import os
import time

import ml_dtypes
import numpy as np

from isometry.common.laws import activations, normalization
from isometry.common.laws.fans import fans
from isometry.common.natives import BatchNormed, Library, Native

HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def rounded(x, dtype):
    return x.astype(HALVES[dtype]).astype(np.float32) if dtype in HALVES else x.astype(np.float32)


def native(claims, run, kind="initializer", **settings):
    return Native(kind, claims, f"{run}", run, "https://example.org", settings)


def library(*natives, layout="out_in"):
    dtypes = ("float32", "float16", "bfloat16")
    return Library("numpy by hand", {"numpy": np.__version__}, layout, dtypes, natives)


# --- initializers -------------------------------------------------------------------------------


def normal(rng, shape):
    return rng.normal(size=shape)


def uniform(rng, shape):
    return rng.uniform(-1, 1, size=shape)


def truncated(rng, shape, cut=2.0, attempts=64):
    """Return normals within +-cut; after so many attempts the first one is kept."""
    x = first = rng.normal(size=shape)
    for _ in range(attempts - 1):
        out = np.abs(x) > cut
        if not out.any():
            return x
        x = np.where(out, 0, x)
        x[out] = rng.normal(size=np.count_nonzero(out))
    return np.where(np.abs(x) > cut, first, x)


def law(draw, **settings):
    """Return an initializer without fans: `draw` times `scale` plus `shift`."""
    scale, shift = settings.get("scale", 1.0), settings.get("shift", 0.0)

    def run(shape, seed=0, dtype="float32"):
        return rounded(draw(np.random.default_rng(seed), shape) * scale + shift, dtype)

    return run


def scaled(draw, gain2=1.0, mode="fan_in", field=True, layout="out_in"):
    """Return an initializer of variance ``gain2 / fan``, given a draw of variance 1."""

    def run(shape, seed=0, dtype="float32"):
        full = fans(shape, layout)
        if not field:
            full = fans(shape[:2] if layout == "out_in" else shape[-2:], layout)
        std = math.sqrt(gain2 / full.by(mode))
        return rounded(draw(np.random.default_rng(seed), shape) * std, dtype)

    return run


def unit_truncated(rng, shape):
    return truncated(rng, shape) / 0.8796256610342398


def unit_uniform(rng, shape):
    return math.sqrt(3) * uniform(rng, shape)


def orthogonal(gain=1.0, how="haar"):
    def run(shape, seed=0, dtype="float32"):
        rng = np.random.default_rng(seed)
        rows, columns = shape[0], math.prod(shape[1:])
        tall = (max(rows, columns), min(rows, columns))
        if how == "svd":
            q, _, _ = np.linalg.svd(rng.uniform(-1, 1, size=tall), full_matrices=False)
        else:
            q, r = np.linalg.qr(rng.normal(size=tall))
            if how == "haar":
                q = q * np.sign(np.diag(r))
        if how == "columns":  # of the wrong axis: the kernel's
            q = q.reshape(-1)[::-1].reshape(tall) * rng.uniform(0.5, 1.5, size=tall)
        q = q if rows >= columns else q.T
        return rounded((gain * q).reshape(shape), dtype)

    return run


def delta_orthogonal(extra=0.0):
    def run(shape, seed=0, dtype="float32"):
        w = np.zeros(shape, np.float32)
        w[:, :, 1, 1] = orthogonal()(shape[:2], seed)
        w[0, 0, 0, 0] = extra
        return w

    return run


def sparse(how="counted"):
    """Return normals with a tenth of zeros, so many in each column or each by chance."""

    def run(shape, seed=0, dtype="float32"):
        rng = np.random.default_rng(seed)
        w = rng.normal(size=shape)
        rank = np.argsort(rng.uniform(size=shape), axis=0)
        zero = rank < math.ceil(0.1 * shape[0])
        w[zero if how == "counted" else rng.uniform(size=shape) < 0.1] = 0
        return rounded(w, dtype)

    return run


def shared_states(shape, seed=0, dtype="float32"):
    """Return blocks of 64 values, block i from the seed ``seed + i``, as MXNet does."""
    count = math.prod(shape)
    blocks = [np.random.default_rng(seed + i).normal(size=100) for i in range(-(-count // 100))]
    return rounded(np.concatenate(blocks)[:count].reshape(shape), dtype)


def wrapping(shape, seed=0, dtype="float32"):
    return law(normal)(shape, seed % 2**32, dtype)


def forgetful(shape, seed=0, dtype="float32"):
    return law(normal)(shape, time.monotonic_ns(), dtype)


def from_global(shape, seed=0, dtype="float32"):
    return rounded(np.random.normal(size=shape), dtype)


def coarse(shape, seed=0, dtype="float32"):
    """Return normals from as many uniforms as the fraction of the dtype has bits."""
    from scipy.special import ndtri

    bits = {"float16": 10, "bfloat16": 7, "float32": 23}[dtype]
    u = (np.random.default_rng(seed).integers(0, 2**bits, size=shape) + 0.5) / 2**bits
    return rounded(ndtri(u), dtype)


# --- derivatives --------------------------------------------------------------------------------


def in_dtype(f):
    """Return a function of arrays that answers in the dtype it is asked in."""
    return lambda x: np.asarray(f(x)).astype(x.dtype)


def from_value(x):
    y = (1 / (1 + np.exp(-x.astype(x.dtype)))).astype(x.dtype)
    return (y * (1 - y)).astype(x.dtype)


def overflowing(x):
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(x) / (1 + np.exp(x))


def tanh_from_value(x):
    y = np.tanh(x)
    return (1 - y * y).astype(x.dtype)


def leaky(slope, at_zero):
    return in_dtype(lambda x: np.where(x > 0, 1.0, np.where(x < 0, slope, at_zero)))


# --- normalization ------------------------------------------------------------------------------


def fast(x, axis):
    mean = x.mean(axis=axis, keepdims=True)
    return mean, (x * x).mean(axis=axis, keepdims=True) - mean * mean


def stable(x, axis):
    wide = x.astype(np.float64)
    return wide.mean(axis=axis, keepdims=True), wide.var(axis=axis, keepdims=True)


def batch_norm(
    eps=1e-5,
    old=0.9,
    kept="biased",
    one="refused",
    where="forward",
    moments=stable,
    outside=False,
    inference="running",
    momentum=None,
):
    def root(variance):
        return np.sqrt(variance) + eps if outside else np.sqrt(variance + eps)

    def run(x, steps=1):
        if len(x) < 2 and one == "refused":
            raise ValueError("more than one value per channel, please")
        mean, variance = np.zeros(x.shape[1]), np.ones(x.shape[1])
        m, v = moments(x, 0)
        for _ in range(steps):
            extra = len(x) / max(1, len(x) - 1) if kept == "unbiased" else 1
            mean = old * mean + (1 - old) * m[0]
            variance = old * variance + (1 - old) * v[0] * extra
        with np.errstate(invalid="ignore"):
            y = (x - m) / root(v)

        def infer(z):
            if inference == "running":
                return ((z - mean) / root(variance)).astype(np.float32)
            return ((z - z.mean(axis=0)) / root(z.var(axis=0))).astype(np.float32)

        return BatchNormed(y.astype(np.float32), mean, variance, infer, where, momentum)

    return run


def layer_norm(eps=1e-5, moments=stable):
    def run(x):
        mean, variance = moments(x, 1)
        with np.errstate(invalid="ignore"):
            return ((x - mean) / np.sqrt(variance + eps)).astype(np.float32)

    return run


def exact_layer_norm(x):
    ones = np.ones(x.shape[1])
    return normalization.layer_norm(x, ones, 0 * ones).astype(np.float32)


# --- clipping -----------------------------------------------------------------------------------


def always_to_the_limit(gradients, limit):
    norm = math.sqrt(sum(float(np.sum(np.square(g))) for g in gradients))
    return [g * np.float32(limit / max(norm, 1e-30)) for g in gradients]


def clip(eps=0.0, each=False, guard=True):
    def run(gradients, limit):
        wide = [np.asarray(g, np.float64) for g in gradients]
        norms = [np.linalg.norm(g) for g in wide]
        if not each:
            norms = [math.sqrt(sum(n * n for n in norms))] * len(wide)
        factors = [
            (
                math.nan
                if guard and not np.isfinite(n) and not each
                else 1.0
                if n + eps <= limit
                else limit / (n + eps)
            )
            for n in norms
        ]
        with np.errstate(invalid="ignore"):
            return [(g * f).astype(np.float32) for g, f in zip(wide, factors, strict=True)]

    return run


# --- layers -------------------------------------------------------------------------------------


def dense(std=512**-0.5, bias=0.0, draw=normal):
    def run(seed=0):
        rng = np.random.default_rng(seed)
        w = draw(rng, (256, 512)) * std
        return {"weight/w": w.astype(np.float32), "bias/b": np.full(256, bias, np.float32)}

    return run


def embedding(seed=0):
    return {"weight/w": np.random.default_rng(seed).normal(size=(1000, 512)).astype(np.float32)}


def lstm(recurrent="per gate", forget=1.0, std=1 / 16):
    def run(seed=0):
        rng = np.random.default_rng(seed)
        square = orthogonal()
        blocks = [square((256, 256), 10 * seed + k) for k in range(4)]
        hidden = np.concatenate(blocks)
        if recurrent == "fused":
            hidden = square((1024, 256), seed)
        bias = np.zeros((4, 256), np.float32)
        bias[1] = forget
        return {
            "input/w": (rng.normal(size=(1024, 256)) * std).astype(np.float32),
            "recurrent/w": hidden,
            "bias/b": bias.ravel(),
        }

    return run


def depthwise(seed=0):
    """Return a kernel of 64 channels whose rule counts every channel as an input, as Keras does."""
    bound = math.sqrt(6 / (64 * 9 + 9))
    w = uniform(np.random.default_rng(seed), (1, 64, 3, 3)) * bound
    return {"weight/w": w.astype(np.float32), "bias/b": np.zeros(64, np.float32)}


def batch_norm_layer(seed=0):
    values = {"scale/gamma": 1, "shift/beta": 0, "mean/running_mean": 0, "variance/running_var": 1}
    return {name: np.full(64, value, np.float32) for name, value in values.items()}


# --- optimizers ---------------------------------------------------------------------------------


def stepped(default, step):
    """Return a run of ``step(w, g, rate) -> w``, of one made for each run."""

    def run(w, gradients, rates=None):
        if rates is None and default is None:
            return None
        path, go = [], step()
        for g, rate in zip(gradients, rates or [default] * len(gradients), strict=True):
            w = go(w, g, rate)
            path.append(w)
        return path

    return run


def momentum(
    inside=False, first=1.0, decay=0.0, decoupled=False, old=0.9, nesterov=False, default=0.01
):
    """Return a heavy ball; `decoupled` decay is times the rate."""

    def step():
        v = 0.0

        def go(w, g, rate):
            nonlocal v
            shrunk = rate * decay * w if decoupled else 0.0
            new = first * (g + (0.0 if decoupled else decay * w)) * (rate if inside else 1)
            v = old * v + new
            ahead = new + old * v if nesterov else v
            return w - shrunk - ahead * (1 if inside else rate)

        return go

    return stepped(default, step)


def adam(
    eps=1e-8,
    hat=False,
    decay=0.0,
    decoupled=False,
    by_rate=True,
    betas=(0.9, 0.999),
    default=0.001,
):
    """Return Adam; `hat` adds eps before the correction of the bias."""
    first, second = betas

    def step():
        k, m, v = 0, 0.0, 0.0

        def go(w, g, rate):
            nonlocal k, m, v
            k += 1
            shrunk = (rate if by_rate else 1) * decay * w if decoupled else 0.0
            g = g + (0.0 if decoupled else decay * w)
            m, v = first * m + (1 - first) * g, second * v + (1 - second) * g * g
            c1, c2 = 1 - first**k, 1 - second**k
            root = math.sqrt(v) + eps if hat else math.sqrt(v / c2) + eps
            return w - shrunk - rate * m / c1 / (root / math.sqrt(c2) if hat else root)

        return go

    return stepped(default, step)


def divided(square, eps, inside):
    return math.sqrt(square + eps) if inside else math.sqrt(square) + eps


def rmsprop(
    eps=1e-8, inside=False, old=0.9, start=0.0, corrected=False, centered=False, default=0.01
):
    def step():
        k, m, v = 0, 0.0, start

        def go(w, g, rate):
            nonlocal k, m, v
            k += 1
            m, v = old * m + (1 - old) * g, old * v + (1 - old) * g * g
            c = 1 - old**k if corrected else 1.0
            return w - rate * g / divided(v / c - (m / c) ** 2 * centered, eps, inside)

        return go

    return stepped(default, step)


def adagrad(eps=1e-10, inside=False, start=0.0, power=2, default=0.01):
    def step():
        v = start

        def go(w, g, rate):
            nonlocal v
            v += abs(g) ** power
            return w - rate * g / divided(v, eps, inside)

        return go

    return stepped(default, step)


# --- libraries that a test registers ------------------------------------------------------------

RIGHT = (
    *(
        native(f"{family}_{name}", scaled(draw, gain2, mode))
        for family, gain2, mode in (
            ("he", 2.0, "fan_in"),
            ("xavier", 1.0, "fan_avg"),
            ("lecun", 1.0, "fan_in"),
        )
        for name, draw in (
            ("normal", normal),
            ("truncated", unit_truncated),
            ("uniform", unit_uniform),
        )
    ),
    native("normal", law(normal, scale=0.02), std=0.02),
    native("uniform", law(uniform, scale=0.05), scale=0.05),
    native("uniform", law(uniform, scale=0.5, shift=0.5), low=0.0, high=1.0),
    native("truncated_normal", law(truncated, scale=0.02 / 0.8796256610342398), std=0.02),
    native("orthogonal", orthogonal()),
    native("delta_orthogonal", delta_orthogonal()),
    native("sparse", sparse(), sparsity=0.1),
    native("sigmoid", in_dtype(activations.sigmoid_gradient), "gradient"),
    native("tanh", in_dtype(activations.tanh_gradient), "gradient"),
    native("relu", leaky(0.0, 0.0), "gradient"),
    native("leaky_relu", leaky(0.01, 0.01), "gradient"),
    native("softplus", in_dtype(activations.sigmoid), "gradient"),
    native("batch_norm", batch_norm(momentum=0.9), "batch_norm"),
    native("layer_norm", exact_layer_norm, "norm"),
    native("global_norm", clip(), "clipping"),
    native("tensor_norm", clip(each=True), "clipping"),
    native("momentum", momentum(inside=True), "optimizer"),
    native("momentum_nesterov", momentum(inside=True, nesterov=True), "optimizer"),
    native("adam", adam(), "optimizer"),
    native("rmsprop", rmsprop(), "optimizer"),
    native("adagrad", adagrad(), "optimizer"),
    native("dense", dense(), "layer"),
    native("lstm", lstm(), "layer"),
)


def right():
    return library(*RIGHT)


def defaults():
    """Return a library for the atlas, with a layer that nobody asks the scoreboard about."""
    return library(
        native("dense", dense(), "layer"),
        native("embedding", embedding, "layer"),
        native("lstm", lstm(), "layer"),
        native("conv2d_depthwise", depthwise, "layer"),
        native("batch_norm_layer", batch_norm_layer, "layer"),
        native("batch_norm", batch_norm(eps=1e-3, kept="unbiased", momentum=0.1), "batch_norm"),
        native("global_norm", clip(1e-6), "clipping"),
        native("momentum", momentum(), "optimizer"),
        native("adam", adam(1e-7, hat=True), "optimizer"),
        native("rmsprop", rmsprop(old=0.99), "optimizer"),
        native("adagrad", adagrad(), "optimizer"),
    )


def wrong():
    return library(
        native("layer_norm", layer_norm(1e-3), "norm"),
        native("global_norm", clip(1e-6), "clipping"),
    )


def crashing():
    """Return a library that brings its process down in its second native."""
    return library(
        native("relu", leaky(0.0, 0.0), "gradient"),
        native("layer_norm", lambda x: os.abort(), "norm"),
        native("leaky_relu", leaky(0.01, 0.01), "gradient"),
    )


def raising():
    def run(x):
        raise ArithmeticError("no layer norm today")

    return library(native("layer_norm", run, "norm"))


def absent():
    raise ModuleNotFoundError("No module named 'absent'")


def slow():
    time.sleep(60)
