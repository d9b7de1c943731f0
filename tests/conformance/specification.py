"""The specification: numbered clauses, each with formula, source, oracle and error rates.

Each group of clauses stands in a TOML file beside the tests that judge it: ``chains.toml`` beside
``test_chains.py``. `page` writes them down for people, in Markdown.

============ ====================================================================================
key          meaning
============ ====================================================================================
id           name within the group; ``chains.order`` in full
requires     the requirement, with its formula
source       where it comes from
oracle       what a backend's answer is compared with
tolerance    how far it may be off; "exact" by default
false_alarm  upper bound of the probability that a right backend fails one combination of mode,
             dtype and case, at the sizes the suite draws; 0 by default: deterministic
detects      which effects a statistical clause is sure to catch, and how often it misses one
profile      "core" (default), "gradients", "second-order" or "compiled"; a combination in a
             compiled mode belongs to "compiled", one in a half precision to "half"
smoke        whether it is quick, and tells whether an adapter is wired at all
since        version of the specification that introduced it; "0.1" by default
============ ====================================================================================
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

__all__ = ["CHANGES", "GROUPS", "VERSION", "Clause", "clauses", "page"]

VERSION = "0.1"
CHANGES: dict[str, str] = {"0.1": "The first version."}
"""Version -> what changed in it, the newest first."""

GROUPS = (
    "identity",
    "arrays",
    "ops",
    "activations",
    "chains",
    "initializers",
    "normalization",
    "differentiation",
    "compiled",
    "streams",
    "errors",
    "optimizers",
)
"""In the order of the specification; a clause keeps its number, new ones come last in a group."""


@dataclass(frozen=True)
class Clause:
    """One requirement; the attributes are the keys of the module's table."""

    number: str
    id: str
    requires: str
    source: str
    oracle: str
    tolerance: str = "exact"
    false_alarm: float = 0.0
    detects: str = ""
    profile: str = "core"
    smoke: bool = False
    since: str = "0.1"


@functools.cache
def _group(name: str) -> tuple[str, tuple[Clause, ...]]:
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    major = GROUPS.index(name) + 1
    found = tuple(
        Clause(**{**row, "id": f"{name}.{row['id']}", "number": f"{major}.{minor}"})
        for minor, row in enumerate(table["clause"], start=1)
    )
    return table["title"], found


@functools.cache
def clauses() -> Mapping[str, Clause]:
    """Return id -> clause, in the order of their numbers."""
    return {clause.id: clause for group in GROUPS for clause in _group(group)[1]}


# --- the page -----------------------------------------------------------------------------------


def page() -> str:
    """Return the specification as Markdown."""
    lines = [
        f"# The specification, version {VERSION}",
        "",
        "What a backend must do to conform, clause by clause. Each is judged by the suite",
        "(`isometry conform BACKEND`) in every mode and dtype that the backend declares. A",
        "statistical clause states its false alarm, an upper bound of the probability that a right",
        "backend fails one combination, and what it is sure to catch. A profile is met if every",
        "combination of every clause in it passes.",
        "",
        "This page is written by `isometry spec`.",
        "",
        "## Versions",
        "",
        *(f"- **{version}**: {text}" for version, text in CHANGES.items()),
    ]
    for major, group in enumerate(GROUPS, start=1):
        title, found = _group(group)
        lines += ["", f"## {major}. {title}"]
        for clause in found:
            lines += ["", *_section(clause)]
    return "\n".join(lines) + "\n"


def _section(clause: Clause) -> list[str]:
    rows = [
        ("Source", clause.source),
        ("Oracle", clause.oracle),
        ("Tolerance", clause.tolerance if not clause.false_alarm else ""),
        ("False alarm", f"at most {clause.false_alarm:g}" if clause.false_alarm else ""),
        ("Detects", clause.detects),
        ("Profile", clause.profile + (", smoke test" if clause.smoke else "")),
        ("Since", clause.since if clause.since != "0.1" else ""),
    ]
    return [
        f"### {clause.number} `{clause.id}`",
        "",
        _literal(clause.requires),
        "",
        *(f"- {name}: {_literal(text)}" for name, text in rows if text),
    ]


def _literal(text: str) -> str:
    """Escape what Markdown would read as emphasis."""
    return text.replace("*", "\\*").replace("_", "\\_")
