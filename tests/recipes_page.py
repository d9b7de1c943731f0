"""Writes docs/recipes.md: ``python -m recipes_page > ../docs/recipes.md`` in tests."""

from __future__ import annotations

import sys

from isometry.common.recipes import SUBJECTS, recipe
from isometry.common.recipes.behaviours import BEHAVIOURS, DEFAULTS, LIBRARIES

EXAMPLES = (("torch", "flax", "dense"), ("keras", "torch", "adam"))

HEAD = """\
# Recipes

`isometry recipe --from torch --to flax dense` prints a program that makes Flax's layer start as
PyTorch's does: its laws, eps, momentum and layouts, or the steps of its optimizer. It is complete
and runs as it stands; change the sizes. `isometry recipe --list` shows all names; all ordered pairs
of the libraries are there. This page is written from the code.

What each library does by default is data, held to the library itself by the tests; what is printed
is the target's page of templates with the source's data. The tests execute every recipe and judge
the result beside the source library, run in the same process: fresh weights by `iso.assert_law`
(false alarm at most 1e-10 a call; a change of the standard deviation by 3 % and a distance of 0.04
are missed with a probability of at most 1e-6), outputs, running statistics and steps within a
derived bound on rounding, compiled where the library compiles (`nnx.jit`, `tf.function`). Recipes
written from wrong data are refused by the same judge.
"""

LIMITS = """\
## What cannot be matched, and what stays different

- **The same numbers.** No two libraries draw the same numbers from one seed: a recipe gives the
  same law. For the same weights, carry them over with the recipe's `kernel_from_...`, or draw them
  by `iso.weights` ([weights.md](weights.md)).
- **A truncated normal in Keras on PyTorch.** Keras draws each value four times there and keeps the
  first if all lie beyond the cut: about 4 weights of a million do.
- **When running statistics move.** MXNet moves them in the backward pass, the others in the forward
  pass. This is the same if each forward pass in training has its backward pass.
- **A batch of one value for each channel.** PyTorch refuses it in training; the others give the
  shift and move their statistics. The unbiased variance is not defined there: the recipes take 0.
- **Flattening.** Gluon's dense layer flattens each example. No other does: put a flatten before it.
- **Same padding in Gluon** is by a number on both sides: for odd kernels. With a stride, in Gluon
  and in PyTorch, which has none, it depends on the image: the recipes pad each one as it comes.
- **Flax linen** has the defaults of nnx ([atlas](atlas.md)) and takes the same initializers, eps
  and momentum by the same names, so a recipe from nnx is one from linen. There is none to linen: a
  layer there holds no weights, and a program would have to end in an `init` with a key and an
  input, and average an unbiased variance in a collection of its own. `flax.nnx.bridge.to_linen`
  makes a linen layer of the class and the arguments that a recipe prints.
- **Flax's fast variance**, E[x^2] - E[x]^2, loses its digits where the mean is large beside the
  spread. Recipes to Flax turn it off; from Flax they give the centred one.
- **Optax has no default rate**: recipes from it take 0.001, which is the others' default.
- **Gradients in Gluon.** `Trainer.step(n)` divides them by n; the recipe is of the optimizer alone.
- **Weight decay** is off by default everywhere, and means different things once asked for: see the
  table.
"""


def table(subject: str) -> list[str]:
    words = {name: BEHAVIOURS[subject][name].words() for name in LIBRARIES}
    questions = list(words["torch"])
    rows = [["", *questions]]
    rows.append(["---"] * len(rows[0]))
    rows += [[f"`{DEFAULTS[name][subject]}`", *words[name].values()] for name in LIBRARIES]
    return ["| " + " | ".join(row) + " |" for row in rows]


def write() -> str:
    lines = [HEAD, "## What differs", ""]
    lines += ["Measured with " + ", ".join(map(str, LIBRARIES.values())) + ".", ""]
    for subject in SUBJECTS:
        lines += [f"### {subject}", "", *table(subject), ""]
    lines += [LIMITS, "## Two examples"]
    for source, target, subject in EXAMPLES:
        command = f"isometry recipe --from {source} --to {target} {subject}"
        code = recipe(source, target, subject)
        lines += ["", f"`{command}`", "", f"```python\n{code}```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(write())
