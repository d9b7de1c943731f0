"""Faults of random matrix chains."""

from dataclasses import replace
from unittest import mock

import numpy as np

from isometry.common import chains
from isometry.common.laws.distributions import Normal


class OrderReversed:
    """Factors multiply from the left."""

    def chain_product(self, product, factors, /, *, rescale=False):
        swap = lambda x: self.ops.permute_dims(x, (*range(len(x.shape) - 2), -1, -2))  # noqa: E731
        product, log_scale = super().chain_product(swap(product), swap(factors), rescale=rescale)
        return swap(product), log_scale


class FactorsTransposed:
    """Each factor is transposed."""

    def chain_product(self, product, factors, /, *, rescale=False):
        factors = self.ops.permute_dims(factors, (0, 1, 3, 2))
        return super().chain_product(product, factors, rescale=rescale)


class StartIgnored:
    """A chain starts from the identity, not from the product given."""

    def chain_product(self, product, factors, /, *, rescale=False):
        size = self.shape_of(product)[-1]
        start = self.ops.zeros_like(product) + self.ops.eye(
            size, size, dtype=self.dtype_of(product)
        )
        return super().chain_product(start, factors, rescale=rescale)


class ChainsMixed:
    """The factors of one chain go to its neighbour."""

    def chain_product(self, product, factors, /, *, rescale=False):
        order = np.roll(np.arange(self.shape_of(product)[0]), 1)
        factors = self.ops.take(factors, self.asarray(order), axis=1)
        return super().chain_product(product, factors, rescale=rescale)


class ProductInFloat32:
    """A float64 chain is multiplied in float32."""

    def chain_product(self, product, factors, /, *, rescale=False):
        cast, dtype = self.ops.astype, self.dtype_of(product)
        narrow = (cast(x, "float32") for x in (product, factors))
        return tuple(cast(x, dtype) for x in super().chain_product(*narrow, rescale=rescale))


class SingleSkipped:
    """A chain of a single factor is returned as it was."""

    def chain_product(self, product, factors, /, *, rescale=False):
        if self.shape_of(factors)[0] == 1:
            return product, self.ops.zeros_like(product[:, 0, 0])
        return super().chain_product(product, factors, rescale=rescale)


class OneFactorForgotten:
    """The logarithm of the last rescaling is not added."""

    def chain_product(self, product, factors, /, *, rescale=False):
        product, log_scale = super().chain_product(product, factors[:-1], rescale=rescale)
        last, _ = super().chain_product(product, factors[-1:], rescale=rescale)
        return last, log_scale


class Log2OfScale:
    """The logarithm of the scale is taken to base 2."""

    def chain_product(self, product, factors, /, *, rescale=False):
        product, log_scale = super().chain_product(product, factors, rescale=rescale)
        return product, log_scale / float(np.log(2))


class RescaledByNorm:
    """The product is divided by its Frobenius norm, not by its largest entry."""

    def chain_product(self, product, factors, /, *, rescale=False):
        product, log_scale = super().chain_product(product, factors, rescale=rescale)
        if rescale:
            squares = self.ops.sum(product * product, axis=(1, 2), keepdims=True)
            norm = self.ops.sqrt(squares)
            product, log_scale = product / norm, log_scale + self.ops.log(norm[:, 0, 0])
        return product, log_scale


class RescaledAtLast:
    """The product is rescaled once, after the last factor."""

    @np.errstate(all="ignore")
    def chain_product(self, product, factors, /, *, rescale=False):
        product, log_scale = super().chain_product(product, factors, rescale=False)
        if rescale:
            largest = self.ops.max(self.ops.abs(product), axis=(1, 2), keepdims=True)
            product, log_scale = product / largest, self.ops.log(largest[:, 0, 0])
        return product, log_scale


class NeverEnlarged:
    """The product is divided by its largest entry only where that exceeds 1."""

    @np.errstate(all="ignore")
    def chain_product(self, product, factors, /, *, rescale=False):
        product, log_scale = super().chain_product(product, factors, rescale=rescale)
        zero, scale = self.ops.zeros_like(log_scale), self.ops.exp(log_scale)
        small = log_scale < 0
        product = self.ops.where(small[:, None, None], product * scale[:, None, None], product)
        return product, self.ops.where(small, zero, log_scale)


class InfinityCleared:
    """What is not finite in a product becomes 0."""

    def chain_product(self, product, factors, /, *, rescale=False):
        product, log_scale = super().chain_product(product, factors, rescale=rescale)
        zero = self.ops.zeros_like(product)
        return self.ops.where(self.ops.isfinite(product), product, zero), log_scale


class ZeroIsNan:
    """A zero product is divided by its largest entry, too."""

    @np.errstate(all="ignore")
    def chain_product(self, product, factors, /, *, rescale=False):
        product, log_scale = super().chain_product(product, factors, rescale=rescale)
        if rescale:
            product = product / self.ops.max(self.ops.abs(product), axis=(1, 2), keepdims=True)
        return product, log_scale


class ScaleLostAtZero:
    """The log scale of a product that became zero is forgotten."""

    def chain_product(self, product, factors, /, *, rescale=False):
        product, log_scale = super().chain_product(product, factors, rescale=rescale)
        alive = self.ops.max(self.ops.abs(product), axis=(1, 2)) > 0
        return product, self.ops.where(alive, log_scale, self.ops.zeros_like(log_scale))


class ScaleDifferentiated:
    """The derivative of a rescaled product is not rescaled."""

    def chain_product(self, product, factors, /, *, rescale=False):
        scaled, log_scale = super().chain_product(product, factors, rescale=rescale)
        plain, _ = super().chain_product(product, factors, rescale=False)
        stop = self.ops.stop_gradient
        return stop(scaled) + plain - stop(plain), log_scale


class StartDetached:
    """No derivative flows to the start of a chain."""

    def chain_product(self, product, factors, /, *, rescale=False):
        start = self.ops.stop_gradient(product)
        return super().chain_product(start, factors, rescale=rescale)


class EntriesTooWide:
    """The entries' standard deviation is 3 % too large."""

    def matrix_chain(self, stream, /, *, law, **options):
        return super().matrix_chain(stream, law=replace(law, std=1.03 * law.std), **options)


class LawIgnored:
    """Entries are N(0, 1) whatever law is asked for."""

    def matrix_chain(self, stream, /, *, law, **options):
        return super().matrix_chain(stream, law=Normal(), **options)


class ChainsAlike:
    """All chains of a batch multiply the same matrices."""

    def matrix_chain(self, stream, /, *, batch=1, **options):
        chain = super().matrix_chain(stream, batch=1, **options)
        same = [np.repeat(v, batch) for v in (chain.log_scale, chain.overflow, chain.log_norm)]
        size = self.shape_of(chain.product)[-1]
        product = self.ops.broadcast_to(chain.product, (batch, size, size))
        return type(chain)(product, *same)


class NormUnscaled:
    """The norm is that of the rescaled product."""

    def matrix_chain(self, stream, /, **options):
        chain = super().matrix_chain(stream, **options)
        return replace(chain, log_norm=chain.log_norm - chain.log_scale)


class OverflowUnseen:
    """The step of overflow is reported late."""

    def matrix_chain(self, stream, /, **options):
        chain = super().matrix_chain(stream, **options)
        return replace(chain, overflow=np.where(chain.overflow > 0, chain.overflow + 250, 0))


class OverflowOffByOne:
    """The step of overflow is the number of factors before it."""

    def matrix_chain(self, stream, /, **options):
        chain = super().matrix_chain(stream, **options)
        return replace(chain, overflow=np.maximum(chain.overflow - 1, 0))


class DrawnAtOnce:
    """All factors are drawn at once, so that memory grows with the length."""

    def matrix_chain(self, stream, /, **options):
        with mock.patch.object(chains, "BLOCK", 2**60):
            return super().matrix_chain(stream, **options)


class ExponentsReversed:
    """Lyapunov exponents in ascending order."""

    def lyapunov_spectrum(self, stream, /, **options):
        return super().lyapunov_spectrum(stream, **options)[:, ::-1]


class ExponentsSummed:
    """Lyapunov exponents are sums over the factors, not means."""

    def lyapunov_spectrum(self, stream, /, *, length, **options):
        return length * super().lyapunov_spectrum(stream, length=length, **options)


FAULTS = {
    OrderReversed: "chains.order",
    FactorsTransposed: "chains.order",
    StartIgnored: "chains.product",
    ChainsMixed: "chains.product",
    ProductInFloat32: "chains.product[float64]",
    SingleSkipped: "chains.sizes",
    OneFactorForgotten: "chains.rescale",
    Log2OfScale: "chains.rescale",
    RescaledByNorm: "chains.rescale",
    RescaledAtLast: "chains.no-overflow",
    NeverEnlarged: "chains.no-overflow",
    InfinityCleared: "chains.zero",
    ZeroIsNan: "chains.zero",
    ScaleLostAtZero: "chains.zero",
    ScaleDifferentiated: "chains.gradient",
    StartDetached: "chains.gradient",
    EntriesTooWide: "chains.log-norm",
    LawIgnored: "chains.log-norm",
    ChainsAlike: "chains.log-norm",
    NormUnscaled: "chains.log-norm",
    OverflowUnseen: "chains.overflow-step",
    OverflowOffByOne: "chains.first-overflow",
    DrawnAtOnce: "chains.memory[matrix_chain]",
    ExponentsReversed: "chains.lyapunov",
    ExponentsSummed: "chains.lyapunov",
}
