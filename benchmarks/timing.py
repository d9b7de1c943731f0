"""How two ways are timed against each other, and how a ratio is shown."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def ratio(ours: Callable[[], Any], peer: Callable[[], Any], rounds: int) -> float:
    """Return the median over interleaved rounds of our time over the peer's.

    Each comes first in every other round: what shares arrays with the one before finds them in the
    processor's cache.
    """
    ours(), peer()
    found = []
    for k in range(rounds):
        took = {run: seconds(run) for run in ((ours, peer) if k % 2 else (peer, ours))}
        found.append(took[ours] / took[peer])
    return statistics.median(found)


def show(what: str, value: float, target: str) -> None:
    print(f"{what:66} {value:7.2f}  {target}", flush=True)
