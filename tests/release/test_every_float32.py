"""The exact derivatives at every float32 whose derivative is normal: a minute or two each."""

import numpy as np
import pytest

from isometry.common.contract import Backend
from isometry.common.laws import activations
from isometry.common.statistics.tolerances import ACTIVATION_ULP

CHUNK = 2**24


@pytest.mark.parametrize("activation", activations.SMOOTH)
def test_every_float32(nx: Backend, activation: str) -> None:
    gradient = getattr(nx, f"{activation}_gradient")
    exact = getattr(activations, f"{activation}_gradient")  # float64: 2**-27 ULP of a float32
    limit = activations.largest_normal(activation, "float32")
    last = np.float32(limit)
    if float(last) > limit:
        last = np.nextafter(last, np.float32(0))
    end = int(last.view(np.uint32))
    worst = 0.0
    with np.errstate(all="ignore"):
        for start in range(0, end + 1, CHUNK):
            bits = np.arange(start, min(start + CHUNK, end + 1), dtype=np.uint32)
            x = bits.view(np.float32)
            y = nx.to_numpy(gradient(nx.asarray(x)))
            reference = exact(x.astype(np.float64))
            unit = np.spacing(reference.astype(np.float32)).astype(np.float64)
            worst = max(worst, float((np.abs(y - reference) / unit).max()))
            mirrored = nx.to_numpy(gradient(nx.asarray(-x)))
            assert np.array_equal(y, mirrored), "the derivative is not even in x"
    print(f"{nx.name} {activation}: {end + 1} positive floats, at most {worst:.3f} ULP")
    assert worst <= ACTIVATION_ULP["float32"]
