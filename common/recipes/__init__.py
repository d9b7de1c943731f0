"""Recipes: the code that makes a layer of one library start and act as another library's does.

A recipe is the *writer* of the target, its page of templates in this folder, applied to the
*behaviour* of the source, which is data in `isometry.common.recipes.behaviours`. So each library
is described once and written once, whatever it is paired with.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.recipes.behaviours import BEHAVIOURS, DEFAULTS, LIBRARIES, Law

__all__ = ["SUBJECTS", "listing", "recipe", "write"]

SUBJECTS = tuple(BEHAVIOURS)
SIZES = {
    "dense": {"inputs": 512, "outputs": 256},
    "convolution": {"inputs": 64, "outputs": 128, "size": 3},
    "strided_convolution": {"inputs": 64, "outputs": 128, "size": 3, "stride": 2},
    "grouped_convolution": {"inputs": 64, "outputs": 128, "size": 3, "groups": 4},
    "embedding": {"rows": 1000, "features": 512},
    "batch_norm": {"features": 64},
    "layer_norm": {"features": 512},
    "adam": {},
}
# fan -> its expression: what of a kernel meets one output, or one input
DENSE = {"fan_in": "inputs", "fan_out": "outputs"}
IMAGES = {"fan_in": "inputs * size**2", "fan_out": "outputs * size**2"}
GROUPS = {"fan_in": "inputs // groups * size**2", "fan_out": "outputs // groups * size**2"}
FANS = {
    "dense": DENSE,
    "convolution": IMAGES,
    "strided_convolution": IMAGES,
    "grouped_convolution": GROUPS,
}


def recipe(source: str, target: str, subject: str) -> str:
    """Return a program that makes `target`'s layer do what `source`'s does by default.

    It is complete: imports, sizes as plain assignments, and the layer bound to the name `layer`,
    or the optimizer to `optimizer`. Where the two libraries store a kernel or an image differently
    functions named ``kernel_from_...`` and ``images_from_...`` transpose arrays of the source.

    Parameters
    ----------
    source, target : {"torch", "keras", "flax", "gluon"}
        Two different libraries.
    subject : str
        One of `SUBJECTS`: ``"dense"``, ``"convolution"`` (of images), ``"strided_convolution"``,
        ``"grouped_convolution"``, ``"embedding"``, ``"batch_norm"``, ``"layer_norm"``, ``"adam"``.

    Raises
    ------
    InvalidArgument
        If a name is unknown, or both libraries are the same.

    >>> print(recipe("torch", "keras", "layer_norm").splitlines()[0])
    # layer_norm: from PyTorch (torch 2.13.0) to Keras (keras 3.15.1)
    """
    checks.choice("subject", subject, SUBJECTS)
    for name in (source, target):
        checks.choice("library", name, tuple(LIBRARIES))
    if source == target:
        others = ", ".join(name for name in LIBRARIES if name != source)
        raise InvalidArgument(
            f"a recipe leads from one library to another; received {source!r} twice, and its own "
            f"defaults need none; name another target: {others}"
        )
    return write(subject, BEHAVIOURS[subject][source], source=source, target=target)


def listing() -> str:
    """Return the names that `recipe` takes, and what each stands for."""
    lines = ["libraries"]
    lines += [f"  {name:<20} {library}" for name, library in LIBRARIES.items()]
    lines += ["subjects"]
    for subject in SUBJECTS:
        calls = (DEFAULTS[name][subject].partition("(")[0] for name in LIBRARIES)
        lines.append(f"  {subject:<20} {', '.join(calls)}")
    return "\n".join(lines) + "\n"


def write(subject: str, behaviour: Any, *, source: str, target: str) -> str:
    """Return a program that makes `target`'s layer do this behaviour, said to be `source`'s."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    laws = {name: law for name, law in vars(behaviour).items() if isinstance(law, Law)}
    scales = " ".join(law.scale for law in laws.values())
    own = BEHAVIOURS[subject][target]
    text = environment.get_template("recipe.jinja").render(
        subject=subject,
        b=behaviour,
        own=own,
        source=source,
        target=target,
        header=_header(subject, behaviour, source, target),
        laws=laws,
        kinds={law.kind for law in laws.values()},
        fans=_fans(subject, scales),
        sqrt="sqrt(" in scales,
        sizes=SIZES[subject],
        moved=_moved(behaviour, own),
        libraries=LIBRARIES,
        arrays={"axes": "kernel", "images": "images"},
    )
    return _spaced(text)


def _header(subject: str, behaviour: Any, source: str, target: str) -> list[str]:
    """Return the first lines: from where to where, and the behaviour in words."""
    return [
        f"{subject}: from {LIBRARIES[source]} to {LIBRARIES[target]}",
        f"{DEFAULTS[source][subject]} by default:",
        *(f"  {name}: {answer}" for name, answer in behaviour.words().items()),
    ]


def _fans(subject: str, scales: str) -> dict[str, str]:
    """Return fan -> its expression, for each fan that a scale names."""
    fans = FANS.get(subject, {})
    return {name: expression for name, expression in fans.items() if name in scales}


def _moved(behaviour: Any, own: Any) -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """Return field -> axes here, axes there, and the transposition, where they differ."""
    moved = {}
    for field in ("axes", "images"):
        here, there = getattr(behaviour, field, ""), getattr(own, field, "")
        if here != there:
            names = here.split(", ")
            moved[field] = (here, there, tuple(names.index(name) for name in there.split(", ")))
    return moved


def _spaced(text: str) -> str:
    """Return code with two blank lines around definitions and at most one elsewhere."""
    blocks = [block.strip("\n") for block in re.split(r"\n{3,}", text)]
    spaced = blocks[0]
    for before, block in pairwise(blocks):
        defines = block.startswith(("def ", "class ", "@")) or before.splitlines()[-1][:1] == " "
        spaced += ("\n\n\n" if defines else "\n\n") + block
    return spaced.strip("\n") + "\n"
