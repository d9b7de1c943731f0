"""Execute every recipe to one library and judge what it makes: ``check_recipes.py torch``.

Subjects may follow, if not all are wanted. Not a test but a program that the tests start: Keras
fixes its engine when it is imported. What is judged is the layer that a recipe makes, beside the
source library's own default, run here:

- the law of fresh weights of both, by `iso.assert_law`: each call has a false alarm of at most
  `FALSE_ALARM`, and detects a change of the standard deviation by 3 % and a distance of 0.04, with
  a miss rate of at most 1e-6 (a truncated normal is 0.043 from the uniform law of its variance);
- what is deterministic, within a bound on rounding that is derived here: the output with the same
  weights, norms after two training steps and in inference, and five steps of Adam.

A recipe written from a wrong behaviour must be refused by the same judge.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
from recipe_libraries import RATE, library

import isometry as iso
from isometry.common.recipes import SUBJECTS, recipe, write
from isometry.common.recipes.behaviours import BEHAVIOURS, DEFAULTS, LIBRARIES, Law

FALSE_ALARM = 1e-10
DETECTS = {"std": ("relative", 0.03), "distribution": ("absolute", 0.04)}
U = 2.0**-24  # unit roundoff of float32
# as many outputs as a bias needs, for few inputs: the fans cannot be mistaken for each other
SIZES = {
    "dense": {"inputs": 6, "outputs": 36_000},
    "convolution": {"inputs": 2, "outputs": 36_000, "size": 3},
    "strided_convolution": {"inputs": 2, "outputs": 36_000, "size": 3, "stride": 2},
    "grouped_convolution": {"inputs": 4, "outputs": 36_000, "size": 3, "groups": 2},
    "embedding": {"rows": 4_000, "features": 30},
}


def gamma(n: float) -> float:
    """Return ``n u / (1 - n u)`` (Higham 2002, Accuracy and Stability, lemma 3.1)."""
    return n * U / (1 - n * U)


class Case:
    """One subject from one library to another: the source's default, and what a program makes."""

    def __init__(self, subject: str, source: str, target: str, behaviour: Any = None) -> None:
        self.subject, self.behaviour = subject, BEHAVIOURS[subject][source]
        self.here, self.there = library(source), library(target)
        self.call, self.source = DEFAULTS[source][subject], source
        self.own = BEHAVIOURS[subject][target]
        self.right = behaviour is None
        if self.right:
            self.text = recipe(source, target, subject)
        else:
            self.text = write(subject, behaviour, source=source, target=target)

    def run(self, seed: int = 0, **sizes: int) -> dict[str, Any]:
        """Execute the text, with other sizes and seed in its assignments if asked for."""
        text = self.text
        for name, value in {**sizes, "seed": seed}.items():
            text, count = re.subn(rf"(?m)^{name} = \d+$", f"{name} = {value}", text)
            assert count == 1 or name == "seed", (name, text)
        self.there.seed(seed)
        names: dict[str, Any] = {}
        exec(compile(text, f"{self.source} {self.subject}", "exec"), names)
        return names

    def default(self, seed: int = 0, **sizes: int) -> Any:
        self.here.seed(seed)
        return self.here.made(self.call, sizes)

    def carried(self, what: str, array: np.ndarray, names: dict[str, Any]) -> np.ndarray:
        """Transpose an array of the source as the recipe says; it says nothing if none is due."""
        carry = names.get(f"{what}_from_{self.source}", lambda array: array)
        return np.ascontiguousarray(carry(array))


# --- laws and outputs of layers with weights ------------------------------------------------------


def judge_laws(case: Case) -> None:
    """Both the source's default and what the recipe makes follow the laws of the behaviour."""
    sizes = SIZES[case.subject]
    names = case.run(seed=20, **sizes)
    taps, groups = sizes.get("size", 1) ** 2, sizes.get("groups", 1)
    fans = {f"fan_{side}": sizes.get(f"{side}puts", 0) * taps // groups for side in ("in", "out")}
    laws = [law for law in vars(case.behaviour).values() if isinstance(law, Law)]
    found = [case.there.weights(names["layer"])]
    if case.right:
        found.append(case.here.weights(case.default(seed=10, **sizes)))
    for weights in found:
        for values, law in zip(weights, laws, strict=True):
            exact = law.exact({**fans, **sizes})
            detects = None if law.kind == "zeros" else DETECTS
            iso.assert_law(values, exact, false_alarm=FALSE_ALARM, detects=detects)


def close(found: np.ndarray, wanted: np.ndarray, bound: np.ndarray) -> float:
    """Return the largest share of its bound that a difference takes; raise if it is above 1."""
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    share = float(np.max(np.abs(found.astype("float64") - wanted) / bound))
    assert share <= 1, f"{share:.3g} times the bound on rounding"
    return share


def judge_output(case: Case, x: np.ndarray, terms: int, *, image: bool = False) -> float:
    """Give both the same weights, and compare outputs.

    Each is off by at most gamma(n) of the sum of the sizes of its n terms, in any order (Higham
    2002, equation 3.5), which is the source's own output for the sizes of input and weights.
    """
    sizes = {name: int(v) for name, v in re.findall(r"(?m)^(\w+) = (\d+)$", case.text)}
    layer, names = case.default(**sizes), case.run()
    rng = np.random.default_rng(1)
    drawn = [rng.normal(size=w.shape).astype("float32") for w in case.here.weights(layer)]
    case.here.fill(layer, drawn)
    wanted = case.here.apply(layer, x)
    case.here.fill(layer, [np.abs(w) for w in drawn])
    bound = 2 * gamma(terms + 4) * case.here.apply(layer, np.abs(x)).astype("float64")
    placed = [case.carried("kernel", drawn[0], names), *drawn[1:]]
    shapes = [w.shape for w in case.there.weights(names["layer"])]
    assert [w.shape for w in placed] == shapes, shapes
    case.there.fill(names["layer"], placed)
    if image:
        x = case.carried("images", x, names)
        assert x.shape[case.own.images.split(", ").index("channels")] == sizes["inputs"], x.shape
        y = case.there.apply(names["layer"], x)
        return close(y, case.carried("images", wanted, names), case.carried("images", bound, names))
    if getattr(case.behaviour, "flattens", False):
        x = x.reshape(len(x), -1)
    return close(case.there.apply(names["layer"], x), wanted, bound)


def dense(case: Case) -> float:
    judge_laws(case)
    shapes = [(4, 2, 256)] if case.behaviour.flattens else [(4, 1, 512), (4, 3, 512)]
    rng = np.random.default_rng(0)
    return max(judge_output(case, rng.normal(size=s).astype("float32"), 513) for s in shapes)


def convolution(case: Case) -> float:
    """A stride of 2 leaves a rest along the 7 and none along the 6: padding differs."""
    judge_laws(case)
    shape = (2, 64, 7, 6) if case.behaviour.images.startswith("batch, channels") else (2, 7, 6, 64)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    return judge_output(case, x, 64 * 9 + 1, image=True)


def embedding(case: Case) -> float:
    judge_laws(case)
    return judge_output(case, np.array([[0, 999, 7], [7, 1, 500]], dtype="int32"), 1)


# --- norms ----------------------------------------------------------------------------------------


def moments(x: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return mean and variance in float64, and how far two libraries may differ in each.

    The mean of n values is off by at most gamma(n) of their mean size. The variance is off by
    gamma(n + 4) of the sum of the terms of ``E[x^2] - E[x]^2``, by less if it is centred (Chan,
    Golub and LeVeque 1983). Two libraries: twice as much.
    """
    n = int(np.prod([x.shape[a] for a in axes]))
    size, square = np.mean(np.abs(x), axis=axes), np.mean(x * x, axis=axes)
    return x.mean(axis=axes), x.var(axis=axes), 2 * gamma(n) * size, 4 * gamma(n + 4) * square


def normalized(
    x: np.ndarray, mean: np.ndarray, var: np.ndarray, off: tuple[np.ndarray, np.ndarray], eps: float
) -> np.ndarray:
    """Return how far ``(x - mean) / sqrt(var + eps)`` may differ: to first order, and 8 roundings.

    The moments' own differences are `off`; 1.01 covers the second order, which is below 1e-4 of it.
    """
    root = np.sqrt(var + eps)
    y = (np.abs(x) + np.abs(mean)) / root
    centred = np.abs(x - mean) / root
    return 1.01 * (off[0] / root + centred * off[1] / (2 * (var + eps)) + 2 * gamma(8) * y)


def batch_norm(case: Case) -> float:
    """Two training steps and one inference, on (batch, positions, channels)."""
    b, features = case.behaviour, 64
    rng = np.random.default_rng(0)
    # of a variance beside which no eps is nothing, and a mean that is not 0
    batches = [(0.3 + 0.2 * rng.normal(size=(4, 3, features))).astype("float32") for _ in range(3)]
    layer, names = case.default(features=features), case.run()

    def of(library: SimpleNamespace, layer: Any, axis: str) -> tuple[list[np.ndarray], Any]:
        last = axis != "axis 1"
        inputs = [x if last else np.ascontiguousarray(x.transpose(0, 2, 1)) for x in batches]
        outputs = library.norm(layer, inputs)
        return [y if last else y.transpose(0, 2, 1) for y in outputs], library.statistics(layer)

    wanted, statistics = of(case.here, layer, b.channels)
    found, others = of(case.there, names["layer"], case.own.channels)
    mean, var = np.zeros(features), np.ones(features)
    off = np.zeros(features), np.zeros(features)
    shares, w = [], b.old_weight
    factor = 12 / 11 if b.unbiased else 1.0
    for x, y, z in zip(batches[:-1], found, wanted, strict=False):
        m, v, dm, dv = moments(x.astype("float64"), (0, 1))
        shares.append(close(y, z, normalized(x, m, v, (dm, dv), b.eps)))
        # a weight is rounded, too: by u of 1, whether it is kept as w or as 1 - w
        grown = gamma(8)
        off = (
            w * off[0] + (1 - w) * dm + 2 * grown * (np.abs(mean) + np.mean(np.abs(x), (0, 1))),
            w * off[1] + factor * (1 - w) * dv + 2 * grown * (var + factor * v),
        )
        mean, var = w * mean + (1 - w) * m, w * var + (1 - w) * factor * v
    shares += [close(a, z, d) for a, z, d in zip(others, statistics, off, strict=True)]
    bound = normalized(batches[-1], mean, var, off, b.eps)
    single(case)
    return max(*shares, close(found[-1], wanted[-1], bound))


def single(case: Case) -> None:
    """A batch of one value for each channel: refused by PyTorch, finite elsewhere."""
    layer, x = case.run()["layer"], np.full((1, 64), 3, "float32")
    if case.there is library("torch"):
        try:
            case.there.train(layer, x)
        except ValueError:
            return
        raise AssertionError("PyTorch normalized one value")
    y, _ = case.there.norm(layer, [x, x])
    assert np.all(y == 0), y
    assert all(np.isfinite(s).all() for s in case.there.statistics(layer))


def layer_norm(case: Case) -> float:
    features = 512
    rng = np.random.default_rng(0)
    x = (0.03 + 0.02 * rng.normal(size=(6, features))).astype("float32")
    layer, names = case.default(features=features), case.run()
    m, v, dm, dv = (a[:, None] for a in moments(x.astype("float64"), (1,)))
    bound = normalized(x, m, v, (dm, dv), case.behaviour.eps)
    return close(case.there.apply(names["layer"], x), case.here.apply(layer, x), bound)


# --- Adam -----------------------------------------------------------------------------------------


def adam(case: Case) -> float:
    """Five steps from 0, on gradients from 1e-9 to 1, which do not change sign.

    So m and v are sums of positive terms, off by gamma(4 t) each. 1 - beta, where beta is rounded
    by u, and the corrections 1 - beta**t, off by u (t + 8) with the power, are relative to what is
    left; those of beta2 stand below a root, beside eps or before it. A step is off by this share
    of itself in each library, and by the rounding of the parameter.
    """
    b = case.behaviour
    exponents = np.linspace(-9, 0, 8)
    ups = np.array([1.0, 0.1, 2.0, 0.5, 1.5])
    gradients = (ups[:, None] * 10.0**exponents * (-1) ** np.arange(8)).astype("float32")
    wanted = case.here.descend(case.default(), gradients).astype("float64")
    found = case.there.descend(case.run()["optimizer"], gradients).astype("float64")
    t = np.arange(1, 6)[:, None]
    share = gamma(64)  # of both sums and what is done with them, for t up to 5
    for beta, power in ((b.beta1, 1), (b.beta2, 0.5)):
        share = share + power * ((t + 8) * U / (1 - beta**t) + U / (1 - beta))
    steps, others = (np.diff(path, axis=0, prepend=0) for path in (wanted, found))
    return close(others, steps, 1.01 * 2 * share * np.abs(steps) + 4 * U * np.abs(wanted))


JUDGES = {f.__name__: f for f in (dense, convolution, embedding, batch_norm, layer_norm, adam)}
JUDGES |= {"strided_convolution": convolution, "grouped_convolution": convolution}


# --- wrong behaviours, which the judge must refuse ------------------------------------------------


def wrong(subject: str, source: str, target: str) -> Iterator[tuple[str, Any]]:
    """Yield a name and a wrong behaviour: a default of the target kept, a number not converted."""
    b, own = BEHAVIOURS[subject][source], BEHAVIOURS[subject][target]
    kept = [field for field, value in vars(b).items() if getattr(own, field) != value]
    silent = {"moves", "channels", "decay", "rate"}  # stated, not written; rate: Optax has none
    if target != "gluon":
        silent |= {"flattens"}  # only a Gluon layer can be told
    for field in kept:
        if field not in silent:
            yield f"{field} of the target kept", replace(b, **{field: getattr(own, field)})
    if subject == "batch_norm":
        yield "momentum not complemented", replace(b, old_weight=round(1 - b.old_weight, 10))
        yield "the other variance", replace(b, unbiased=not b.unbiased)
    if hasattr(b, "eps"):
        yield "eps ten times", replace(b, eps=10 * b.eps)
    if subject == "adam":
        place = "before" if b.eps_place == "after" else "after"
        yield "the other place of eps", replace(b, eps_place=place)
        yield "beta1", replace(b, beta1=0.95)
        yield "beta2", replace(b, beta2=0.99)
        yield "rate", replace(b, rate=0.0011)
    if hasattr(b, "padding"):
        other = "same" if b.padding == "valid" else "valid"
        yield "the other padding", replace(b, padding=other)
    if subject == "grouped_convolution" and "fan" in b.kernel.scale:
        of_all = "groups * fan_out" in b.kernel.scale  # beside which the fan_in here is nothing
        counts = ("groups * fan_out", "fan_out") if of_all else ("fan_in", "groups * fan_in")
        law = replace(b.kernel, scale=b.kernel.scale.replace(*counts))
        yield "a fan of other groups", replace(b, kernel=law)
    for field in ("kernel", "bias", "table"):
        if hasattr(b, field):
            yield f"{field} of half the size", replace(b, **{field: Law("uniform", "0.01")})


def facts(name: str) -> None:
    """What a behaviour states and no recipe can write: judged on the library itself."""
    own = library(name)
    for distribution, stated in LIBRARIES[name].versions.items():
        assert version(distribution).partition("+")[0] == stated, distribution
    layer = own.made(DEFAULTS[name]["batch_norm"], {"features": 8})
    x = np.random.default_rng(0).normal(3, 1, (6, 8)).astype("float32")
    own.train(layer, x)
    mean, _ = own.statistics(layer)
    moves = "forward" if np.all(mean > 0) else "backward"
    assert moves == BEHAVIOURS["batch_norm"][name].moves
    # of a gradient of 0: a decay that is added to it makes a step of the rate, whatever its size
    decayed = own.made(own.decayed, {})
    (w,) = own.descend(decayed, np.zeros((1, 8), "float32"), 1.0)
    how = {0.1 * RATE: "decoupled", RATE: "added to the gradient"}
    (found,) = (text for step, text in how.items() if np.allclose(1 - w, step, rtol=0.01))
    assert BEHAVIOURS["adam"][name].decay.startswith(found), found


def check(target: str, subjects: Sequence[str]) -> Iterator[str]:
    facts(target)
    for subject in subjects:
        for source in LIBRARIES:
            if source == target:
                continue
            try:
                share = JUDGES[subject](Case(subject, source, target))
                yield f"ok {subject} {source} within {share:.3f} of its bound"
            except Exception as error:
                yield f"FAILED {subject} {source}: {type(error).__name__}: {error}"
            for name, behaviour in wrong(subject, source, target):
                try:
                    JUDGES[subject](Case(subject, source, target, behaviour))
                except AssertionError:
                    yield f"refused {subject} {source} {name}"
                else:
                    yield f"FAILED {subject} {source}: {name} was not refused"


if __name__ == "__main__":
    for line in check(sys.argv[1], sys.argv[2:] or SUBJECTS):
        print(line, flush=True)
