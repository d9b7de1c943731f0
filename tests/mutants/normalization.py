"""Faults of the normalizations."""


class _BatchNorm:
    """Calls the right batch norm with `options` altered by the fault."""

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


class RunningInTraining(_BatchNorm):
    """Training normalizes by the running statistics."""

    def wrong(self, arrays, options, right):
        y, _, _ = right(*arrays, **{**options, "training": False})
        _, mean, variance = right(*arrays, **options)
        return y, mean, variance


class NaiveVariance:
    """E[x**2] - E[x]**2: nothing is left of it far from zero."""

    def layer_norm(self, x, scale, shift, /, *, axis=-1, eps=1e-5):
        ops = self.ops
        axes = tuple(range(axis % len(x.shape), len(x.shape)))
        with self.scope():
            mean = ops.mean(x, axis=axes, keepdims=True)
            square = ops.mean(ops.square(x), axis=axes, keepdims=True)
            return (x - mean) / ops.sqrt(ops.abs(square - mean * mean) + eps) * scale + shift


FAULTS = {
    BiasedForUnbiased: "normalization.conventions",
    MomentumSwapped: "normalization.conventions",
    EpsOutside: "normalization.batch",
    RunningInTraining: "normalization.batch",
    NaiveVariance: "normalization.conditioning",
}
