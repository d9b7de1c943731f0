"""Faults of the normalizations of examples."""

from typing import ClassVar

import numpy as np

from isometry.common.composed import as_rows


class _BatchNorm:
    """Calls `wrong` with the arrays, the options, and the right batch norm."""

    def batch_norm(
        self,
        x,
        scale,
        shift,
        mean,
        variance,
        /,
        *,
        training,
        axis=1,
        eps=1e-5,
        momentum=0.9,
        momentum_weights="running",
        running_variance="biased",
    ):
        options = {
            "training": training,
            "axis": axis,
            "eps": eps,
            "momentum": momentum,
            "momentum_weights": momentum_weights,
            "running_variance": running_variance,
        }
        return self.wrong((x, scale, shift, mean, variance), options, super().batch_norm)

    def wide(self, v, x, axis):
        """Return one value per channel in a shape that x broadcasts with."""
        axis %= len(self.shape_of(x))
        return self.ops.reshape(v, tuple(-1 if k == axis else 1 for k in range(len(x.shape))))


class BiasedForUnbiased(_BatchNorm):
    """The running variance divides by n where n - 1 was asked for."""

    def wrong(self, arrays, options, right):
        return right(*arrays, **{**options, "running_variance": "biased"})


class MomentumSwapped(_BatchNorm):
    """Momentum weights the other value."""

    def wrong(self, arrays, options, right):
        other = {"running": "batch", "batch": "running"}[options["momentum_weights"]]
        return right(*arrays, **{**options, "momentum_weights": other})


class EpsOutside(_BatchNorm):
    """Eps is added to the standard deviation, outside the square root."""

    def wrong(self, arrays, options, right):
        if not options["training"]:
            x, scale, shift, mean, variance = arrays
            std = self.ops.sqrt(variance) + options["eps"]
            return right(x, scale, shift, mean, std * std - options["eps"], **options)
        return right(*arrays, **options)


class EpsFixed(_BatchNorm):
    """Eps is the default whatever is asked for."""

    def wrong(self, arrays, options, right):
        return right(*arrays, **{**options, "eps": 1e-5})


class EpsInRunning(_BatchNorm):
    """The running variance includes eps."""

    def wrong(self, arrays, options, right):
        y, mean, variance = right(*arrays, **options)
        return y, mean, variance + (options["eps"] if options["training"] else 0.0)


class GammaFixed(_BatchNorm):
    """The scale is taken for 1, as MXNet's operator has it by default."""

    def wrong(self, arrays, options, right):
        x, scale, *others = arrays
        return right(x, self.ops.ones_like(scale), *others, **options)


class OutputUnbiased(_BatchNorm):
    """The output is divided by the unbiased standard deviation."""

    def wrong(self, arrays, options, right):
        x, scale, *others = arrays
        if options["training"]:
            count = int(self.to_numpy(x).size / self.to_numpy(scale).size)
            scale = scale * ((count - 1) / count) ** 0.5
        return right(x, scale, *others, **options)


class RunningInTraining(_BatchNorm):
    """Training normalizes by the running statistics."""

    def wrong(self, arrays, options, right):
        y, _, _ = right(*arrays, **{**options, "training": False})
        _, mean, variance = right(*arrays, **options)
        return y, mean, variance


class BatchInInference(_BatchNorm):
    """Inference normalizes by the statistics of the batch."""

    def wrong(self, arrays, options, right):
        y, _, _ = right(*arrays, **{**options, "training": True})
        return (y, *right(*arrays, **options)[1:])


class UpdatedInInference(_BatchNorm):
    """Inference moves the running statistics."""

    def wrong(self, arrays, options, right):
        y, _, _ = right(*arrays, **options)
        return (y, *right(*arrays, **{**options, "training": True})[1:])


class NeverUpdated(_BatchNorm):
    """Training leaves the running statistics as they were."""

    def wrong(self, arrays, options, right):
        return right(*arrays, **options)[0], *arrays[3:]


class StatisticsDifferentiated(_BatchNorm):
    """Gradients flow through the running mean."""

    def wrong(self, arrays, options, right):
        y, mean, variance = right(*arrays, **options)
        x = self.ops.mean(arrays[0])
        return y, mean + (x - self.ops.stop_gradient(x)), variance


class OldDifferentiated(_BatchNorm):
    """Gradients flow from the new running variance to the old one."""

    def wrong(self, arrays, options, right):
        y, mean, variance = right(*arrays, **options)
        old = arrays[4]
        return y, mean, variance + (old - self.ops.stop_gradient(old))


class BatchConstants(_BatchNorm):
    """Mean and variance of the batch are constants for differentiation."""

    def wrong(self, arrays, options, right):
        if not options["training"]:
            return right(*arrays, **options)
        x, scale, shift, _, _ = arrays
        axes = tuple(k for k in range(len(x.shape)) if k != options["axis"] % len(x.shape))
        z = self.ops.stop_gradient(x)
        m = self.ops.mean(z, axis=axes, keepdims=True)
        v = self.ops.mean(self.ops.square(z - m), axis=axes, keepdims=True)
        scale, shift = (self.wide(p, x, options["axis"]) for p in (scale, shift))
        y = (x - m) / self.ops.sqrt(v + options["eps"]) * scale + shift
        return (y, *right(*arrays, **options)[1:])


class RowNormalized(_BatchNorm):
    """One value per channel is normalized by the mean over the channels."""

    def wrong(self, arrays, options, right):
        if len(self.shape_of(arrays[0])) > 1:
            return right(*arrays, **options)
        return self.layer_norm(*arrays[:3], eps=options["eps"]), *arrays[3:]


class VolumesPass(_BatchNorm):
    """Arrays of five axes, batches of volumes, are not normalized."""

    def wrong(self, arrays, options, right):
        y, mean, variance = right(*arrays, **options)
        return arrays[0] if len(self.shape_of(y)) == 5 else y, mean, variance


class _LayerNorm:
    """Computes ``(x - m) / d * scale + shift`` with the fault's `statistics` m and d."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        axes = tuple(range(axis % len(x.shape), len(x.shape)))
        mean, deviation = self.statistics(x, axes, eps)
        return (x - mean) / deviation * scale + shift

    def moments(self, x, axes):
        mean = self.ops.mean(x, axis=axes, keepdims=True)
        return mean, self.ops.mean(self.ops.square(x - mean), axis=axes, keepdims=True)


class NaiveVariance(_LayerNorm):
    """The variance is E[x**2] - E[x]**2: nothing is left of it far from zero."""

    def statistics(self, x, axes, eps):
        mean = self.ops.mean(x, axis=axes, keepdims=True)
        square = self.ops.mean(self.ops.square(x), axis=axes, keepdims=True)
        return mean, self.ops.sqrt(self.ops.abs(square - mean * mean) + eps)


class NaiveDifferentiated(NaiveVariance):
    """The output is right, the gradient that of E[x**2] - E[x]**2."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        naive = super().layer_norm(x, scale, shift, axis=axis, eps=eps)
        right = super(_LayerNorm, self).layer_norm(x, scale, shift, axis=axis, eps=eps)
        return naive + self.ops.stop_gradient(right - naive)


class LayerUnbiased(_LayerNorm):
    """Layer norm divides by n - 1."""

    def statistics(self, x, axes, eps):
        mean, variance = self.moments(x, axes)
        count = 1
        for k in axes:
            count *= self.shape_of(x)[k]
        return mean, self.ops.sqrt(variance * (count / (count - 1)) + eps)


class LayerEpsOutside(_LayerNorm):
    """Layer norm adds eps to the standard deviation."""

    def statistics(self, x, axes, eps):
        mean, variance = self.moments(x, axes)
        return mean, self.ops.sqrt(variance) + eps


class LayerConstants(_LayerNorm):
    """Mean and variance of an example are constants for differentiation."""

    def statistics(self, x, axes, eps):
        mean, variance = self.moments(self.ops.stop_gradient(x), axes)
        return mean, self.ops.sqrt(variance + eps)


class Forward:
    """Knows whether a function runs in forward mode."""

    needs = frozenset({"jvp"})
    forward = False

    def jvp(self, f, x, tangent, /):
        self.forward = True
        try:
            return super().jvp(f, x, tangent)
        finally:
            self.forward = False


class ForwardConstants(Forward, LayerConstants):
    """Mean and variance of an example are constants for forward mode."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        layer_norm = super().layer_norm if self.forward else super(_LayerNorm, self).layer_norm
        return layer_norm(x, scale, shift, axis=axis, eps=eps)


class OnePivot(_LayerNorm):
    """The mean of all examples is subtracted first, not each example's own."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        return super().layer_norm(x - self.ops.mean(x), scale, shift, axis=axis, eps=eps)

    def statistics(self, x, axes, eps):
        mean, variance = self.moments(x, axes)
        return mean, self.ops.sqrt(variance + eps)


class LastAxisOnly(_LayerNorm):
    """Layer norm takes its statistics over the last axis alone."""

    def statistics(self, x, axes, eps):
        mean, variance = self.moments(x, axes[-1:])
        return mean, self.ops.sqrt(variance + eps)


class OverTheBatch(_LayerNorm):
    """Layer norm takes its statistics over the examples."""

    def statistics(self, x, axes, eps):
        mean, variance = self.moments(x, (0,))
        return mean, self.ops.sqrt(variance + eps)


class ShiftScaled:
    """The shift is added before scaling."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        return super().layer_norm(x, scale, shift * scale, axis=axis, eps=eps)


class LayerEpsFixed:
    """Layer norm has the default eps whatever is asked for."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        return super().layer_norm(x, scale, shift, axis=axis)


class OneValuePasses:
    """A layer of one value is not normalized."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        if self.shape_of(scale) == (1,):
            return x * scale + shift
        return super().layer_norm(x, scale, shift, axis=axis, eps=eps)


class LayerInFloat32:
    """Float64 is normalized in float32."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        narrow = (self.ops.astype(v, "float32") for v in (x, scale, shift))
        return self.ops.astype(super().layer_norm(*narrow, axis=axis, eps=eps), self.dtype_of(x))


class RowsForgotten(_BatchNorm):
    """Mean and variance are those of the first 16,384 rows."""

    def wrong(self, arrays, options, right):
        x, *others = arrays
        if not options["training"] or self.shape_of(x)[0] <= 16_384:
            return right(*arrays, **options)
        first = self.ops.take(x, self.asarray(np.arange(16_384)), axis=0)
        _, mean, variance = right(first, *others, **{**options, "momentum": 0.0})
        scale, shift, *_ = others
        return right(x, scale, shift, mean, variance, **{**options, "training": False})


class _GroupNorm:
    """Computes ``(x - m) / sqrt(v + eps) * scale + shift`` with the fault's `moments` m and v."""

    def group_norm(self, x, scale, shift, /, *, groups, axis=1, eps=1e-5):
        shape = self.shape_of(x)
        axis %= len(shape)
        rows, restored = as_rows(self, x, (0, axis), (shape[0], groups))
        mean, variance = self.moments(rows)
        wide = tuple(size if k == axis else 1 for k, size in enumerate(shape))
        scale, shift = (self.ops.reshape(p, wide) for p in (scale, shift))
        return restored((rows - mean) / self.ops.sqrt(variance + eps)) * scale + shift

    def moments(self, rows):
        mean = self.ops.mean(rows, axis=-1, keepdims=True)
        return mean, self.ops.mean(self.ops.square(rows - mean), axis=-1, keepdims=True)


class GroupsOverTheBatch(_GroupNorm):
    """Group norm takes its statistics over the examples too."""

    def moments(self, rows):
        mean = self.ops.mean(rows, axis=(0, 2), keepdims=True)
        return mean, self.ops.mean(self.ops.square(rows - mean), axis=(0, 2), keepdims=True)


class GroupConstants(_GroupNorm):
    """Mean and variance of a group are constants for differentiation."""

    def moments(self, rows):
        return super().moments(self.ops.stop_gradient(rows))


class GroupForwardConstants(Forward, GroupConstants):
    """Mean and variance of a group are constants for forward mode."""

    def group_norm(self, x, scale, shift, /, *, groups, axis=1, eps=1e-5):
        group_norm = super().group_norm if self.forward else super(_GroupNorm, self).group_norm
        return group_norm(x, scale, shift, groups=groups, axis=axis, eps=eps)


class GroupNaiveVariance(_GroupNorm):
    """Group norm takes E[x**2] - E[x]**2 for the variance, as Keras does on PyTorch."""

    def moments(self, rows):
        mean = self.ops.mean(rows, axis=-1, keepdims=True)
        square = self.ops.mean(self.ops.square(rows), axis=-1, keepdims=True)
        return mean, self.ops.abs(square - mean * mean)


class GroupNaiveDifferentiated(GroupNaiveVariance):
    """Group norm's output is right, its gradient that of E[x**2] - E[x]**2."""

    def group_norm(self, x, scale, shift, /, *, groups, axis=1, eps=1e-5):
        options = {"groups": groups, "axis": axis, "eps": eps}
        naive = super().group_norm(x, scale, shift, **options)
        right = super(_GroupNorm, self).group_norm(x, scale, shift, **options)
        return naive + self.ops.stop_gradient(right - naive)


class ChannelsInterleaved:
    """The channels of a group lie apart: channel c is in group c modulo groups."""

    def group_norm(self, x, scale, shift, /, *, groups, axis=1, eps=1e-5):
        order = np.arange(self.shape_of(scale)[0]).reshape(-1, groups).T.ravel()
        there, back = self.asarray(order), self.asarray(np.argsort(order))
        moved = (self.ops.take(a, there, axis=k) for a, k in ((x, axis), (scale, 0), (shift, 0)))
        y = super().group_norm(*moved, groups=groups, axis=axis, eps=eps)
        return self.ops.take(y, back, axis=axis)


class OneGroup:
    """All channels are one group."""

    def group_norm(self, x, scale, shift, /, *, groups, axis=1, eps=1e-5):
        return super().group_norm(x, scale, shift, groups=1, axis=axis, eps=eps)


class GroupEpsFixed:
    """Group norm has the default eps whatever is asked for."""

    def group_norm(self, x, scale, shift, /, *, groups, axis=1, eps=1e-5):
        return super().group_norm(x, scale, shift, groups=groups, axis=axis)


class InstancePasses:
    """An instance of one value is not normalized."""

    def instance_norm(self, x, scale, shift, /, *, axis=1, eps=1e-5):
        y = super().instance_norm(x, scale, shift, axis=axis, eps=eps)
        return x + y if self.shape_of(x)[2:] == (1,) else y


class GroupsMadeFitting:
    """Groups that do not divide the channels are taken for fewer that do, without a word."""

    CHECKS: ClassVar = {}

    def group_norm(self, x, scale, shift, /, *, groups, axis=1, eps=1e-5):
        while groups and self.shape_of(x)[axis] % groups:
            groups -= 1
        return super().group_norm(x, scale, shift, groups=groups, axis=axis, eps=eps)


class _RmsNorm:
    """Computes ``x / d * scale`` with the fault's `divisor` d."""

    def rms_norm(self, x, scale, /, *, axis=-1, eps=1e-6):
        axes = tuple(range(axis % len(x.shape), len(x.shape)))
        return x / self.divisor(x, axes, eps) * scale

    def square(self, x, axes):
        return self.ops.mean(self.ops.square(x), axis=axes, keepdims=True)


class RmsIsDeviation(_RmsNorm):
    """RMS norm divides by the standard deviation, as Keras's LayerNormalization(rms_scaling)."""

    def divisor(self, x, axes, eps):
        mean = self.ops.mean(x, axis=axes, keepdims=True)
        return self.ops.sqrt(self.square(x - mean, axes) + eps)


class RmsEpsOutside(_RmsNorm):
    """RMS norm adds eps outside the square root, as its authors' code."""

    def divisor(self, x, axes, eps):
        return self.ops.sqrt(self.square(x, axes)) + eps


class RmsWithoutEps(_RmsNorm):
    """RMS norm has no eps, as in its paper."""

    def divisor(self, x, axes, eps):
        return self.ops.sqrt(self.square(x, axes))


class RmsConstant(_RmsNorm):
    """The root mean square is a constant for differentiation."""

    def divisor(self, x, axes, eps):
        return self.ops.stop_gradient(self.ops.sqrt(self.square(x, axes) + eps))


FAULTS = {
    BiasedForUnbiased: "normalization.conventions[unbiased]",
    MomentumSwapped: "normalization.conventions",
    EpsOutside: "normalization.batch[inference]",
    EpsFixed: "normalization.batch[inference]",
    EpsInRunning: "normalization.batch[training]",
    GammaFixed: "normalization.batch[inference]",
    OutputUnbiased: "normalization.batch[training]",
    RunningInTraining: "normalization.batch[training]",
    BatchInInference: "normalization.batch[inference]",
    UpdatedInInference: "normalization.inference-statistics",
    NeverUpdated: "normalization.conventions",
    StatisticsDifferentiated: "normalization.statistics-gradient",
    OldDifferentiated: "normalization.statistics-gradient",
    BatchConstants: "normalization.batch-gradient[training]",
    NaiveVariance: "normalization.conditioning[layer_norm]",
    NaiveDifferentiated: "normalization.conditioning-gradient[layer_norm]",
    LayerUnbiased: "normalization.layer",
    LayerEpsOutside: "normalization.layer",
    LayerConstants: "normalization.layer-gradient",
    ForwardConstants: "normalization.jvp[layer_norm]",
    OnePivot: "normalization.conditioning[layer_norm]",
    LastAxisOnly: "normalization.layer",
    OverTheBatch: "normalization.layer",
    ShiftScaled: "normalization.layer",
    RowNormalized: "normalization.one-axis",
    VolumesPass: "normalization.any-shape",
    LayerEpsFixed: "normalization.eps",
    OneValuePasses: "normalization.smallest",
    LayerInFloat32: "normalization.layer[float64]",
    RowsForgotten: "normalization.many-rows",
    ChannelsInterleaved: "normalization.group",
    OneGroup: "normalization.group",
    GroupsOverTheBatch: "normalization.group",
    GroupEpsFixed: "normalization.group",
    GroupConstants: "normalization.group-gradient",
    GroupNaiveVariance: "normalization.group-conditioning",
    GroupNaiveDifferentiated: "normalization.group-conditioning-gradient",
    RmsIsDeviation: "normalization.rms",
    RmsEpsOutside: "normalization.rms",
    RmsConstant: "normalization.rms-gradient",
    RmsWithoutEps: "normalization.nothing-to-normalize",
    InstancePasses: "normalization.nothing-to-normalize",
    GroupsMadeFitting: "normalization.refused[groups that do not divide]",
    GroupForwardConstants: "normalization.composed-jvp[group_norm]",
}
