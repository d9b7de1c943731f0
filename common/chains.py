"""Random matrix chains: products of many random matrices, plain and in log scale.

The loop over steps is each adapter's own (`Backend.chain_product`); what surrounds it, drawing in
blocks of constant size, watching for overflow, and the QR iteration, is composed here once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Distribution

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["MatrixChain", "lyapunov_spectrum", "matrix_chain"]

Array = Any
BLOCK = 2**21  # entries drawn at once: enough to hide what a draw costs, 16 MiB in float64
STEPS = 128  # factors in a block, so that few logarithms are added up in the array's own dtype


@dataclass(frozen=True)
class MatrixChain:
    """The products of a batch of chains.

    Attributes
    ----------
    product : array (batch, n, n)
        With `rescale`, its largest absolute entry is 1 and the true product is
        ``product * exp(log_scale)``; signs are the product's own either way.
    log_scale : numpy.ndarray (batch,), float64
        Natural logarithm; 0 without `rescale`.
    overflow : numpy.ndarray (batch,), int64
        Number of factors after which an entry first was not finite in the dtype; 0 if none was.
    log_norm : numpy.ndarray (batch,), float64
        Natural logarithm of the Frobenius norm of the true product.
    """

    product: Array
    log_scale: np.ndarray
    overflow: np.ndarray
    log_norm: np.ndarray


def _check(size: int, batch: int, length: int, law: Distribution, dtype: str, nx: Backend) -> None:
    for name, value in (("length", length), ("size", size), ("batch", batch)):
        checks.integer(name, value, low=1)
    if not isinstance(law, Distribution):
        raise InvalidArgument(
            f"law must be a law of independent entries such as Normal(0.0, 1.0); received {law!r}"
        )
    checks.choice("dtype", dtype, tuple(d for d in nx.dtypes if d in ("float32", "float64")))


def _blocks(length: int, entries: int) -> Iterator[int]:
    """Yield the steps of each block: sizes that differ by at most 1, under BLOCK and STEPS."""
    count = max(math.ceil(length * entries / BLOCK), math.ceil(length / STEPS))
    count = min(max(count, 1), length)
    for k in range(count):
        yield length * (k + 1) // count - length * k // count


def matrix_chain(
    nx: Backend,
    stream: Stream,
    /,
    *,
    length: int,
    size: int,
    batch: int,
    law: Distribution,
    dtype: str,
    rescale: bool,
) -> MatrixChain:
    """Return ``P = M_1 M_2 ... M_length`` for `batch` chains of random size x size matrices.

    Parameters
    ----------
    stream : Stream
        Native or portable; moves on by ``length * batch * size**2`` entries.
    length : int
        Number of factors; the chapter's demonstration (one matrix and 100 more) has 101.
    law : Distribution
        Of the independent entries.
    dtype : {"float32", "float64"}
    rescale : bool
        Keep the product in log scale, so that it neither overflows nor vanishes.

    Notes
    -----
    Memory: a fixed block of at most 2**21 entries (or one step) whatever the length. log_scale is
    added up in float64; its error is that of 128 or fewer logarithms in `dtype` a block.
    """
    checks.stream_like("stream", stream)
    _check(size, batch, length, law, dtype, nx)
    entries = batch * size * size
    product = nx.ops.broadcast_to(nx.ops.eye(size, size, dtype=dtype), (batch, size, size))
    log_scale = np.zeros(batch)
    overflow = np.zeros(batch, dtype=np.int64)
    done = 0
    for steps in _blocks(length, entries):
        factors = law.draw(nx, stream, (steps, batch, size, size), dtype=dtype)
        before = product
        product, log_step = nx.chain_product(before, factors, rescale=rescale)
        if rescale:
            log_scale += nx.to_numpy(log_step).astype(np.float64)
        elif np.any((overflow == 0) & ~_finite(nx, product)):
            overflow = _first_overflow(nx, before, factors, done, overflow)
        done += steps
    return MatrixChain(product, log_scale, overflow, log_scale + _log_norm(nx, product))


def _finite(nx: Backend, product: Array) -> np.ndarray:
    return np.asarray(np.isfinite(nx.to_numpy(product)).all(axis=(1, 2)))


def _first_overflow(
    nx: Backend, product: Array, factors: Array, done: int, overflow: np.ndarray
) -> np.ndarray:
    """Repeat a block step by step; an entry that is not finite once never is again."""
    for k in range(nx.shape_of(factors)[0]):
        factor = nx.ops.expand_dims(factors[k], axis=0)  # (1, batch, n, n)
        product, _ = nx.chain_product(product, factor, rescale=False)
        overflow = np.where((overflow == 0) & ~_finite(nx, product), done + k + 1, overflow)
    return overflow


def _log_norm(nx: Backend, product: Array) -> np.ndarray:
    """Return the log of the Frobenius norm, scaled so that squaring cannot overflow."""
    values = nx.to_numpy(product).astype(np.float64)
    largest = np.abs(values).max(axis=(1, 2), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.where(largest > 0, values / largest, 0.0)
        return np.asarray(
            np.log(largest[:, 0, 0]) + np.log(np.sqrt(np.square(unit).sum(axis=(1, 2))))
        )


def lyapunov_spectrum(
    nx: Backend,
    stream: Stream,
    /,
    *,
    length: int,
    size: int,
    batch: int,
    law: Distribution,
    dtype: str,
) -> np.ndarray:
    """Return the exponents (batch, size) of finite chains, each the mean of log|R_ii| by QR.

    ``Q_0 = I; M_t^T Q_{t-1} = Q_t R_t; lambda_i = (1 / length) sum_t log |R_t,ii|`` (Benettin et
    al. 1980). For entries N(0, s**2) log|R_t,ii| is exactly ``log(s) + log(chi_{n-i+1})``,
    independent over t and i (Newman 1986), so the result has a known law at every length.

    Returns
    -------
    numpy.ndarray (batch, size), float64, natural logarithm per factor, in the order of R's
    diagonal (descending in expectation).
    """
    checks.stream_like("stream", stream)
    _check(size, batch, length, law, dtype, nx)
    ops = nx.ops
    diagonal = ops.eye(size, size, dtype=dtype)
    q = ops.broadcast_to(diagonal, (batch, size, size))
    total = np.zeros((batch, size))
    for steps in _blocks(length, batch * size * size):
        factors = law.draw(nx, stream, (steps, batch, size, size), dtype=dtype)
        logs = ops.zeros((batch, size), dtype=dtype)
        for k in range(steps):
            q, r = ops.qr(ops.matmul(ops.permute_dims(factors[k], (0, 2, 1)), q))
            logs = logs + ops.log(ops.abs(ops.sum(r * diagonal, axis=-1)))
        total += nx.to_numpy(logs).astype(np.float64)
    return total / length
