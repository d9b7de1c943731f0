"""Faults of the initializers whose entries differ by their place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Constant, Sparse
from isometry.common.laws.embeddings import Embedding, Tied
from isometry.common.laws.fans import axes
from isometry.common.laws.identities import Bilinear, Dirac, Fixed, Identity
from isometry.common.laws.initializers import initializer
from isometry.common.laws.mup import MuP
from isometry.common.laws.orthogonal import DeltaOrthogonal, Orthogonal
from isometry.common.laws.recurrent import Chrono, ForgetGateBias, PerGate
from isometry.common.laws.rules import Initializer
from isometry.common.laws.scaling import VarianceScaling
from isometry.common.laws.upsampling import ICNR


class _Given(Initializer):
    """These values, whatever the shape."""

    def __init__(self, values):
        self.values = values

    def resolve(self, shape, layout):
        return Fixed(self.values)


class _Redrawn:
    """Draws the rules of class `of` by `drawn`, given what draws a rule rightly."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        initialize, rule = super().initialize, initializer(rule)

        def right(rule):
            return initialize(rule, shape, stream, layout=layout, dtype=dtype)

        if not isinstance(rule, self.of):
            return right(rule)
        with self.scope():
            return self.drawn(right, rule, shape, stream, layout, dtype)


class _Wrong(_Redrawn):
    """Draws what `wrong` makes of the right rule."""

    def drawn(self, right, rule, shape, stream, layout, dtype):
        return right(self.wrong(rule, shape, layout))


class DiagonalAtTheEnd(_Wrong):
    """The ones of a rectangular identity end in its last corner."""

    of = Identity

    def wrong(self, rule, shape, layout):
        right = rule.resolve(shape, layout).values
        return _Given(right[::-1, ::-1])


class DiracLeftOfCentre(_Wrong):
    """The one of an even Dirac kernel stands at (k - 1) // 2, as that of a delta-orthogonal one."""

    of = Dirac

    def wrong(self, rule, shape, layout):
        values = rule.resolve(shape, layout).values
        *_, kernel = axes(shape, layout)
        first = 2 if layout == "out_in" else 0
        for axis, size in enumerate(kernel, start=first):
            values = np.roll(values, size % 2 - 1, axis=axis)
        return _Given(values)


class GroupsForgotten(_Wrong):
    """Only the first group of a Dirac kernel passes its channels on."""

    of = Dirac

    def wrong(self, rule, shape, layout):
        return replace(rule, groups=1)


class BilinearOffCentre(_Wrong):
    """A bilinear kernel has its top where MXNet's has it, half a pixel off for k = 3."""

    of = Bilinear

    def wrong(self, rule, shape, layout):
        values = rule.resolve(shape, layout).values
        *_, kernel = axes(shape, layout)
        for axis, size in enumerate(kernel, start=2 if layout == "out_in" else 0):
            f = (size + 1) // 2
            across = [-1 if k == axis else 1 for k in range(values.ndim)]
            right, wrong = (
                1 - np.abs(np.arange(size) - top) / f
                for top in ((size - 1) / 2, (2 * f - 1 - f % 2) / 2)
            )
            values = values / right.reshape(across) * wrong.reshape(across)
        return _Given(values)


class BilinearMixesChannels(_Wrong):
    """A bilinear kernel joins every channel with every other."""

    of = Bilinear

    def wrong(self, rule, shape, layout):
        values = rule.resolve(shape, layout).values
        channels = (0, 1) if layout == "out_in" else (-1, -2)
        return _Given(np.broadcast_to(values.max(axis=channels, keepdims=True), shape))


class ForgetGateThird(_Wrong):
    """The forget gate's bias stands in the third block, whatever the order of the gates."""

    of = ForgetGateBias

    def wrong(self, rule, shape, layout):
        return replace(rule, order="iofg" if rule.order == "ifgo" else "ifgo")


class DeltaOffCentre(_Redrawn):
    """The tap of an even delta-orthogonal kernel stands at k // 2."""

    of = DeltaOrthogonal

    def drawn(self, right, rule, shape, stream, layout, dtype):
        values = self.to_numpy(right(rule))
        *_, kernel = axes(shape, layout)
        for axis, size in enumerate(kernel, start=2 if layout == "out_in" else 0):
            values = np.roll(values, 1 - size % 2, axis=axis)
        return self.asarray(values, dtype=dtype)


class GatesAsOne(_Wrong):
    """The gates of a fused weight are drawn as one matrix, as Keras draws a recurrent kernel."""

    of = PerGate

    def wrong(self, rule, shape, layout):
        return rule.rule


class SubPixelsDiffer(_Wrong):
    """Each output of a sub-pixel convolution has weights of its own."""

    of = ICNR

    def wrong(self, rule, shape, layout):
        return rule.rule


class ChannelsShuffled(_Wrong):
    """ICNR repeats in the order of depth_to_space where pixel_shuffle follows."""

    of = ICNR

    def wrong(self, rule, shape, layout):
        return replace(rule, mode="DCR")


class PaddingDrawn(_Wrong):
    """The row of the padding word is drawn like any other."""

    of = Embedding

    def wrong(self, rule, shape, layout):
        return rule.law


class OutputAsHidden(_Wrong):
    """muP scales the output layer as a hidden one: 1 / fan_in instead of 1 / fan_in^2."""

    of = MuP

    def wrong(self, rule, shape, layout):
        return replace(rule, role="hidden")


class TiedAsDense(_Wrong):
    """A tied weight is scaled for its first use alone."""

    of = Tied

    def wrong(self, rule, shape, layout):
        return rule.rule


class ZerosByCoin(_Redrawn):
    """Entries of a sparse weight are zero by independent coins, so columns differ in number."""

    of = Sparse

    def drawn(self, right, rule, shape, stream, layout, dtype):
        values = right(rule.law)
        kept = stream.uniform(shape) > rule.fraction
        return self.ops.where(kept, values, self.ops.zeros_like(values))


class ZerosInOneBlock(_Redrawn):
    """The zeros of a sparse column follow each other, from a row drawn at random."""

    of = Sparse

    def drawn(self, right, rule, shape, stream, layout, dtype):
        values, (rows, columns) = right(rule.law), shape
        start = np.floor(self.to_numpy(stream.uniform((columns,))) * rows)
        place = (np.arange(rows)[:, None] - start) % rows
        kept = self.asarray((place >= rule.zeros(rows)).astype(np.float32))
        return self.ops.where(kept > 0, values, self.ops.zeros_like(values))


class ChronoLonger(_Wrong):
    """The forget gate's memory is drawn up to T steps instead of T - 1."""

    of = Chrono

    def wrong(self, rule, shape, layout):
        return replace(rule, longest=rule.longest + 1)


class ChronoUniform(_Redrawn):
    """The bias itself is uniform, not its exponential."""

    of = Chrono

    def drawn(self, right, rule, shape, stream, layout, dtype):
        highest = float(np.log(rule.longest - 1))
        forget = stream.uniform((shape[0] // 4,), high=highest, dtype=dtype)
        none = self.ops.zeros_like(forget)
        return self.ops.concat([-forget, forget, none, none], axis=0)


class OrthogonalOnAverage(_Wrong):
    """LSUV starts from normal weights, as if orthogonal ones were those."""

    of = Orthogonal

    def wrong(self, rule, shape, layout):
        return VarianceScaling(rule.gain)


class ZerosForRefusals:
    """What cannot be drawn is zeros, without a word."""

    def initialize(self, rule, shape, stream, /, *, layout="out_in", dtype="float32"):
        try:
            return super().initialize(rule, shape, stream, layout=layout, dtype=dtype)
        except InvalidArgument:
            return super().initialize(Constant(0.0), shape, stream, layout=layout, dtype=dtype)


FAULTS = {
    DiagonalAtTheEnd: "initializers.identity",
    DiracLeftOfCentre: "initializers.dirac",
    GroupsForgotten: "initializers.dirac",
    BilinearOffCentre: "initializers.bilinear",
    BilinearMixesChannels: "initializers.bilinear",
    ForgetGateThird: "initializers.forget-gate",
    DeltaOffCentre: "initializers.delta-orthogonal",
    GatesAsOne: "initializers.per-gate",
    SubPixelsDiffer: "initializers.icnr",
    ChannelsShuffled: "initializers.icnr[CRD]",
    PaddingDrawn: "initializers.padding",
    OutputAsHidden: "initializers.derived[mup-output]",
    TiedAsDense: "initializers.derived[tied]",
    ZerosByCoin: "initializers.sparse",
    ZerosInOneBlock: "initializers.sparse",
    ChronoLonger: "initializers.chrono",
    ChronoUniform: "initializers.chrono",
    OrthogonalOnAverage: "initializers.lsuv",
    ZerosForRefusals: "initializers.bad-input",
}
