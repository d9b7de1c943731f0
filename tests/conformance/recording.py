"""A stream that draws nothing: it notes what it is asked for, so that scales are judged exactly."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isometry.common.contract import Backend
from isometry.common.streams import Stream

__all__ = ["Draw", "RecordingStream"]


class Draw(NamedTuple):
    """One call of a draw; `a` and `b` are low and high, or mean and std."""

    law: str
    shape: tuple[int, ...]
    a: float
    b: float
    dtype: str


class RecordingStream(Stream):
    """Gives zeros of the backend, and notes each `Draw` in `draws`."""

    def __init__(self, nx: Backend) -> None:
        super().__init__(0)
        self.dtypes = nx.dtypes
        self.draws: list[Draw] = []
        self._nx = nx

    def child(self, index: int, /) -> RecordingStream:
        return RecordingStream(self._nx)

    def _note(self, draw: Draw) -> Any:
        self.draws.append(draw)
        return self._nx.asarray(np.zeros(draw.shape, np.float32), dtype=draw.dtype)

    def uniform(
        self,
        shape: tuple[int, ...],
        /,
        *,
        low: float = 0.0,
        high: float = 1.0,
        dtype: str = "float32",
    ) -> Any:
        return self._note(Draw("uniform", shape, low, high, dtype))

    def normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Any:
        return self._note(Draw("normal", shape, mean, std, dtype))

    def truncated_normal(
        self,
        shape: tuple[int, ...],
        /,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: str = "float32",
    ) -> Any:
        return self._note(Draw("truncated_normal", shape, mean, std, dtype))
