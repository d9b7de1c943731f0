"""Backends that go wrong on purpose; child processes find them by PYTHONPATH."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common.errors import InvalidArgument


class Crashes(NumpyBackend):
    """Its process dies by a signal, as of a segmentation fault in a framework."""

    name = "crashes"

    def sigmoid_gradient(self, x, /):
        os.kill(os.getpid(), signal.SIGSEGV)


class Raises(NumpyBackend):
    """Has a bug."""

    name = "raises"

    def sigmoid_gradient(self, x, /):
        raise ZeroDivisionError("a bug")


class Hangs(NumpyBackend):
    """Starts a process of its own, writes both numbers to $PIDS, and never comes back."""

    name = "hangs"

    def sigmoid_gradient(self, x, /):
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pids = Path(os.environ["PIDS"])
        pids.with_suffix(".new").write_text(f"{os.getpid()} {helper.pid}")
        pids.with_suffix(".new").rename(pids)  # whole, for whoever waits for it
        time.sleep(600)


class Wrong(NumpyBackend):
    """Differentiates the sigmoid as y (1 - y), which is 0 in the tail."""

    name = "wrong"

    def sigmoid_gradient(self, x, /):
        y = self.sigmoid(x)
        return y * (1 - y)


class Threads(NumpyBackend):
    """Refuses to start, and says how many threads it was given."""

    name = "threads"

    def __init__(self, *, device=None):
        raise InvalidArgument(f"OMP_NUM_THREADS is {os.environ['OMP_NUM_THREADS']}")


class Miscased(NumpyBackend):
    """Expects a case to fail that there is none of."""

    name = "miscased"
    expected_failures = {"activations.exact[float31]": "known"}  # noqa: RUF012 - as declared


class Nameless(NumpyBackend):
    """Does not say which framework it is."""

    name = "nameless"
    framework = ""
