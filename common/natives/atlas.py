"""The defaults atlas: what you get from each library when you write nothing, measured."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from isometry._version import __version__
from isometry.common.conformity import dumps
from isometry.common.natives import scoreboard
from isometry.common.natives.calls import called
from isometry.common.natives.findings import Finding
from isometry.common.natives.measure import SHEETS
from isometry.common.natives.scoreboard import Measured
from isometry.common.results import write_atomically

__all__ = ["Atlas", "Row", "Topic", "run", "save"]

SCHEMA = 1
SETTINGS = ("layer", "decay", "default", "nesterov", "eps")  # last words of claims of one topic


@dataclass(frozen=True)
class Row:
    """One function or layer of a library, ``torch.nn.Linear``: what each question found."""

    library: str
    name: str
    cells: Mapping[str, Finding]

    @property
    def calls(self) -> tuple[str, ...]:
        """What was called: the layer itself, and with other settings where a question needs it."""
        return tuple(dict.fromkeys(found.call for found in self.cells.values()))


@dataclass(frozen=True)
class Topic:
    """A layer, norm or optimizer: question -> what it means, and a row for each native."""

    name: str
    questions: Mapping[str, str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Atlas:
    """Library x question, with what was measured."""

    libraries: Sequence[Measured]
    created: str
    isometry: str = __version__
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=lambda: f"{platform.system()} {platform.machine()}")

    @property
    def topics(self) -> list[Topic]:
        """Return the findings by topic, in the order of the questions."""
        order = dict.fromkeys(claim for c in SHEETS["atlas"] for claim in c.claims)
        topics = dict.fromkeys(map(_topic, order))
        return [topic for name in topics if (topic := self._of(name)).rows]

    def _of(self, name: str) -> Topic:
        asked: dict[str, str] = {}
        rows: dict[tuple[str, str], dict[str, Finding]] = {}
        for library in self.libraries:
            for f in library.findings:
                claim, _, aspect = f.clause.partition(".")
                if _topic(claim) == name:
                    asked[aspect] = f.promise
                    rows.setdefault((library.name, called(f.call)), {})[aspect] = f
        questions = {c.aspect: asked[c.aspect] for c in SHEETS["atlas"] if c.aspect in asked}
        return Topic(name, questions, [Row(*key, cells) for key, cells in rows.items()])

    @property
    def failed(self) -> bool:
        """Whether something crashed."""
        broken = any(m.status in ("crashed", "timed out") for m in self.libraries)
        return broken or any(f.verdict == "crashed" for m in self.libraries for f in m.findings)

    @property
    def complete(self) -> bool:
        """Whether every library was measured."""
        return all(m.status == "measured" for m in self.libraries)


def _topic(claim: str) -> str:
    """Return the topic of a claim: a norm's layer and a call's settings belong to what it is."""
    name, _, setting = claim.rpartition("_")
    return name if setting in SETTINGS else claim


def run(libraries: Sequence[str], folder: Path, tell: Callable[[int, int, str], None]) -> Atlas:
    """Measure libraries, each in a process of its own, and write ``atlas.json`` into a folder.

    Libraries, `tell` and errors are those of `isometry.common.natives.scoreboard.measure`.
    """
    atlas = Atlas(
        scoreboard.measure(libraries, "atlas", tell),
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    save(atlas, folder / "atlas.json")
    return atlas


def save(atlas: Atlas, path: Path) -> None:
    """Write what was measured as JSON, whole or not at all."""
    write_atomically(path, dumps({"schema": SCHEMA, **asdict(atlas)}, indent=1).encode())
