"""The code of lessons side by side: blocks of which each framework has its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from isometry.common.lessons import FRAMEWORKS, TOPICS

__all__ = ["Translation", "translations"]


@dataclass
class Translation:
    """One step of a lesson: its heading, and framework -> code."""

    topic: str
    heading: str
    code: dict[str, str] = field(default_factory=dict)


def translations(topic: str) -> list[Translation]:
    """Return the steps of a lesson that every framework writes in its own way, in order.

    Parameters
    ----------
    topic : str
        One of :data:`isometry.common.lessons.TOPICS`.
    """
    text = (Path(__file__).parent / f"{topic}.md").read_text(encoding="utf-8")
    steps: list[Translation] = []
    heading, framework = TOPICS[topic], ""
    block: list[str] | None = None
    for line in text.splitlines():
        if block is not None and line == "```":
            if framework == FRAMEWORKS[0]:
                steps.append(Translation(topic, heading))
            if framework in FRAMEWORKS:
                steps[-1].code[framework] = "\n".join(block)
            block = None
        elif block is not None:
            block.append(line)
        elif line.startswith("```python"):
            block, framework = [], line.removeprefix("```python").strip()
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    return steps
