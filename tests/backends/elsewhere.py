"""An adapter in a process where the framework itself would place arrays elsewhere.

``python elsewhere.py BACKEND right|wrong [arguments of pytest]`` judges the adapter by the suite
while the framework's default device is another: a second CPU or, in PyTorch, "meta", which holds no
values. Every array that a clause reads must lie on the adapter's device. With ``wrong``, `asarray`
places them on the other one, which must show.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Elsewhere = tuple[Callable[[Any], str], Callable[[np.ndarray], Any]]
"""``device_of(array)``, spelled as the adapter does; NumPy's array made one of the other device."""


def torch() -> Elsewhere:
    import torch

    torch.set_default_device("meta")
    return lambda x: str(x.device), lambda x: torch.as_tensor(x, device="meta")


def tensorflow() -> Elsewhere:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    tf.device("CPU:1").__enter__()

    def make(x: np.ndarray) -> Any:
        with tf.device("CPU:1"):
            return tf.constant(x)

    return lambda x: ":".join(x.device.lower().split(":")[-2:]), make


def jax() -> Elsewhere:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    import jax

    second = jax.devices("cpu")[1]
    jax.config.update("jax_default_device", second)
    return lambda x: ", ".join(
        f"{d.platform}:{d.id}" for d in x.devices()
    ), lambda x: jax.device_put(x, second)


def mxnet() -> Elsewhere:
    from isometry.backends.mxnet_backend import mx

    mx.cpu(1).__enter__()
    return lambda x: "cpu" if x.ctx == mx.cpu(0) else str(x.ctx), lambda x: mx.np.array(
        x, ctx=mx.cpu(1)
    )


def main(name: str, placed: str, arguments: list[str]) -> int:
    device_of, make = {f.__name__: f for f in (torch, tensorflow, jax, mxnet)}[name]()

    from isometry.common import registry

    class Right(registry.find(name)):  # type: ignore[misc]
        def to_numpy(self, x: Any, /) -> np.ndarray:
            assert device_of(x) == self.device, f"an array lies on {device_of(x)}"
            return super().to_numpy(x)

    class Wrong(Right):
        def asarray(self, value: Any, /, *, dtype: str | None = None) -> Any:
            return make(np.asarray(value, dtype or getattr(value, "dtype", "float32")))

    module = ModuleType("elsewhere")
    module.Backend = {"right": Right, "wrong": Wrong}[placed]  # type: ignore[attr-defined]
    sys.modules["elsewhere"] = module
    return pytest.main(
        ["-p", "isometry.conformance.plugin", "--backend", "elsewhere:Backend", *arguments]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
