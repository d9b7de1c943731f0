"""Faults of random matrix chains."""

from dataclasses import replace
from unittest import mock

import numpy as np

from isometry.common import chains


class OrderReversed:
    """Factors multiply from the left."""

    def chain_product(self, product, factors, /, *, rescale=False):
        swap = lambda x: self.ops.permute_dims(x, (*range(len(x.shape) - 2), -1, -2))  # noqa: E731
        product, log_scale = super().chain_product(swap(product), swap(factors), rescale=rescale)
        return swap(product), log_scale


class OneFactorForgotten:
    """The logarithm of the last rescaling is not added."""

    def chain_product(self, product, factors, /, *, rescale=False):
        product, log_scale = super().chain_product(product, factors[:-1], rescale=rescale)
        last, _ = super().chain_product(product, factors[-1:], rescale=rescale)
        return last, log_scale


class EntriesTooWide:
    """The entries' standard deviation is 3 % too large."""

    def matrix_chain(self, stream, /, *, law, **options):
        return super().matrix_chain(stream, law=replace(law, std=1.03 * law.std), **options)


class OverflowUnseen:
    """The step of overflow is reported late."""

    def matrix_chain(self, stream, /, **options):
        chain = super().matrix_chain(stream, **options)
        return replace(chain, overflow=np.where(chain.overflow > 0, chain.overflow + 250, 0))


class DrawnAtOnce:
    """All factors are drawn at once, so that memory grows with the length."""

    def matrix_chain(self, stream, /, **options):
        with mock.patch.object(chains, "BLOCK", 2**60):
            return super().matrix_chain(stream, **options)


class ScaleDifferentiated:
    """The derivative of a rescaled product is not rescaled."""

    def chain_product(self, product, factors, /, *, rescale=False):
        scaled, log_scale = super().chain_product(product, factors, rescale=rescale)
        plain, _ = super().chain_product(product, factors, rescale=False)
        stop = self.ops.stop_gradient
        return stop(scaled) + plain - stop(plain), log_scale


class ExponentsReversed:
    """Lyapunov exponents in ascending order."""

    def lyapunov_spectrum(self, stream, /, **options):
        return super().lyapunov_spectrum(stream, **options)[:, ::-1]


FAULTS = {
    OrderReversed: "chains.order",
    OneFactorForgotten: "chains.rescale",
    ScaleDifferentiated: "chains.gradient",
    EntriesTooWide: "chains.log-norm",
    DrawnAtOnce: "chains.memory",
    OverflowUnseen: "chains.overflow-step",
    ExponentsReversed: "chains.lyapunov",
}
