"""How many inputs Hypothesis makes up for a clause: few, and the same in every run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

__all__ = ["EXAMPLES"]

EXAMPLES = settings(
    max_examples=25,
    derandomize=True,
    database=None,  # leaves no files where the suite runs
    deadline=None,  # a framework may compile
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""Fixtures are of the backend, which no example changes."""
