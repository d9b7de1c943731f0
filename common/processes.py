"""Python modules in processes of their own, several at once, each killed with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Coroutine, Iterable, Mapping
from typing import IO, Any, TypeVar

__all__ = ["cores", "death", "end", "gather", "run", "start"]

T = TypeVar("T")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _environment(jobs: int) -> dict[str, str]:
    """Return the children's environment: cores and a GPU are shared; what the user set is kept."""
    threads = str(max(1, cores() // jobs))
    return {
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # each would take a whole GPU at its start
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **os.environ,
    }


async def start(
    module: str,
    *arguments: str,
    jobs: int,
    interpreter: str = sys.executable,
    stdout: int | IO[bytes] = DEVNULL,
    stderr: int | IO[bytes] = PIPE,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start a module in a process group of its own, so that all of it can be killed.

    Parameters
    ----------
    jobs : int
        How many such processes run at once: they share out the cores.
    environment : mapping, optional
        Variables to set for it.
    """
    return await asyncio.create_subprocess_exec(
        interpreter,
        # -P: the folder one stands in must not shadow what is installed, as a checkout would
        *("-P", "-m", module),
        *arguments,
        stdin=DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=_environment(jobs) | dict(environment or {}),
        start_new_session=True,
        limit=2**24,  # longest line
    )


async def end(process: Process) -> None:
    """Kill what is left of the process and of what it started in its group."""
    if process.returncode is None or (process.stderr and not process.stderr.at_eof()):
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
    # whoever left the group may still hold the pipe: do not wait for that
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.communicate(), timeout=5)


def death(returncode: int | None, last: str = "") -> str:
    """Return in one line how a process died, and the last that it said."""
    if returncode is not None and returncode < 0:
        name = signal.Signals(-returncode).name
        memory = " (out of memory?)" if name == "SIGKILL" else ""
        how = f"killed by {name}{memory}"
    else:
        how = f"exit code {returncode}"
    return f"{how}: {last}" if last else how


async def gather(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return what they return, in their order; the first that fails cancels the others."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(item) for item in work]
    return [task.result() for task in tasks]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; Ctrl-C and SIGTERM cancel it and raise KeyboardInterrupt."""

    async def interruptible() -> T:
        task = asyncio.current_task()
        assert task is not None
        # Windows has no such handlers, and only the main thread may set them
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
