"""The same weights everywhere: every value is a function of seed, path and index alone.

Value k of the weight named by (seed, path) comes from word k of a Philox generator keyed by both,
through the transforms of :mod:`isometry.common.portable`; k counts in the *canonical order*, that
is row by row over (out, in, *kernel axes), whichever layout the values are stored in. So they
depend neither on the layout nor on what else is drawn, in which order, by which framework or on
which device, and any block of a weight can be drawn alone.

The key is a hash of the seed and of the path's UTF-8 bytes: the weight is the portable stream at
``Stream.path = words(path)``, four 64-bit words of BLAKE2b.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry._version import __version__
from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Distribution
from isometry.common.laws.fans import LAYOUTS
from isometry.common.laws.initializers import Initializer, initializer
from isometry.common.portable import PortableStream
from isometry.common.registry import load
from isometry.common.weights.blocks import BlockStream, Slices, block_bounds

if TYPE_CHECKING:
    from isometry.common.contract import Backend

__all__ = ["Weight", "Weights", "stored_axes", "weights", "words"]

DTYPES = ("float16", "float32", "float64")  # NumPy has no bfloat16


def words(path: str) -> tuple[int, ...]:
    """Return the 256-bit BLAKE2b hash of a path as four little-endian words.

    >>> [f"{word:016x}" for word in words("encoder.weight")][:2]
    ['2bf78890e310fc62', 'a6d264b6750ca70e']
    """
    digest = hashlib.blake2b(path.encode(), digest_size=32).digest()
    return tuple(int.from_bytes(digest[k : k + 8], "little") for k in range(0, 32, 8))


def stored_axes(rank: int, layout: str) -> tuple[int, ...]:
    """Return the axes of a canonical array, (out, in, *kernel), in the order a layout stores them.

    >>> stored_axes(4, "out_in"), stored_axes(4, "in_out"), stored_axes(1, "in_out")
    ((0, 1, 2, 3), (2, 3, 1, 0), (0,))
    """
    checks.choice("layout", layout, LAYOUTS)
    axes = tuple(range(rank))
    return axes if layout == "out_in" else (*axes[2:], *axes[:2][::-1])


@dataclass(frozen=True)
class Weight:
    """What one weight is: a law, and how its values are stored.

    Parameters
    ----------
    law : str or Initializer
        A name of `INITIALIZERS`, such as ``"he_normal"``, or a law, such as ``Normal(0.0, 0.02)``;
        of grouped or fused weights ``VarianceScaling(...).law(fans(shape, groups=4))``.
    shape : tuple of int
        As stored; at least 1 each.
    layout : {"out_in", "in_out"}
        ``(out, in, *kernel)`` or ``(*kernel, in, out)``; without meaning below two axes.
    dtype : {"float16", "float32", "float64"}

    Raises
    ------
    InvalidArgument
        If one of these is unknown, or the law does not take the shape.
    """

    law: str | Initializer
    shape: tuple[int, ...]
    layout: str = "out_in"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checks.shape("shape", self.shape, low=1))
        checks.choice("layout", self.layout, LAYOUTS)
        checks.choice("dtype", self.dtype, DTYPES)
        self.resolved()

    @property
    def axes(self) -> tuple[int, ...]:
        """Which canonical axis each stored axis is."""
        return stored_axes(len(self.shape), self.layout)

    @property
    def canonical(self) -> tuple[int, ...]:
        """The shape as (out, in, *kernel)."""
        return tuple(size for _, size in sorted(zip(self.axes, self.shape, strict=True)))

    def resolved(self) -> Any:
        """Return the exact law of the values in canonical order."""
        return initializer(self.law).resolve(self.canonical, "out_in")

    def draw(self, seed: int, path: str, block: Slices | None = None) -> np.ndarray:
        """Draw the weight, or a block of it alone.

        Elementwise laws (those of `Distribution`: normal, truncated, uniform, constant, masks, and
        variance scaling) give ``values[k] = f(word k)``, with the same bits on every machine;
        memory is the result and a constant. Others, such as orthogonal ones, are drawn whole by
        NumPy and then cut: the same bits with the same build of NumPy and LAPACK on the same kind
        of processor, and elsewhere up to rounding.

        Parameters
        ----------
        seed : int
            ``0 <= seed < 2**63``.
        path : str
            The name, such as ``"encoder.layer1.weight"``.
        block : tuple of slice, optional
            Of the stored axes, without steps or negative bounds; axes left out are whole.

        Returns
        -------
        numpy.ndarray
            ``draw(seed, path)[block]``, bit for bit; a transposed view in the layout ``in_out``.

        Raises
        ------
        InvalidArgument
            If the path is empty or not printable, or the block is empty or reaches outside.

        >>> weight = Weight("he_normal", (1000, 512))
        >>> whole = weight.draw(0, "dense.weight")
        >>> cut = weight.draw(0, "dense.weight", (slice(10, 20), slice(500, 512)))
        >>> bool((cut == whole[10:20, 500:]).all())
        True
        """
        stored = dict(zip(self.axes, block_bounds(self.shape, block), strict=True))
        bounds = [stored[axis] for axis in range(len(self.shape))]
        law, key = self.resolved(), words(_name(path))
        if isinstance(law, Distribution):
            own = BlockStream(seed, key, self.canonical, bounds, convert=_convert, dtypes=DTYPES)
            sizes = tuple(stop - start for start, stop in bounds)
            values = law.draw(_numpy(), own, sizes, dtype=self.dtype)
        else:
            stream = PortableStream(seed, key, convert=_convert, dtypes=DTYPES)
            values = law.draw(_numpy(), stream, self.canonical, dtype=self.dtype)
            values = values[tuple(slice(*bound) for bound in bounds)]
        return np.transpose(values, self.axes)


@dataclass(frozen=True, eq=False)
class Weights(Mapping[str, np.ndarray]):
    """Drawn weights by path, with all that is needed to draw them again."""

    spec: Mapping[str, Weight]
    seed: int
    arrays: Mapping[str, np.ndarray] = field(repr=False)
    versions: Mapping[str, str]
    """Of isometry and numpy, when they were drawn."""

    def __getitem__(self, path: str) -> np.ndarray:
        return self.arrays[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def weights(
    spec: Mapping[str, Weight] | Iterable[tuple[str, Weight]], seed: int, path: str = ""
) -> Weights:
    """Draw all weights of a specification.

    Parameters
    ----------
    spec : mapping, or pairs, of path and Weight
        Its order does not matter, nor what else is in it.
    seed : int
        ``0 <= seed < 2**63``.
    path : str
        Where these weights stand in a larger model: ``weights(spec, seed, "encoder")`` names and
        draws ``"layer1.weight"`` as ``"encoder.layer1.weight"``.

    Returns
    -------
    Weights
        A mapping from each full path to its array, in the layout and dtype of its `Weight`.

    Raises
    ------
    InvalidArgument
        If a path is empty, not printable or there twice, what it names is no `Weight`, or the seed
        is out of range.

    >>> spec = {"weight": Weight("xavier_uniform", (3, 2)), "bias": Weight("zeros", (3,))}
    >>> weights(spec, 0, "dense")["dense.weight"].round(3)
    array([[-0.799,  0.855],
           [ 0.296,  0.03 ],
           [ 0.288,  0.789]], dtype=float32)
    """
    try:
        given = spec.items() if isinstance(spec, Mapping) else spec
        pairs = [(_name(name), weight) for name, weight in given]
    except TypeError as error:
        raise InvalidArgument(
            f"spec must map paths to Weights, or give pairs of both; received {spec!r:.80}"
        ) from error
    for name, weight in pairs:
        if not isinstance(weight, Weight):
            raise InvalidArgument(
                f"the specification of {name!r} must be a Weight, such as "
                f'Weight("he_normal", (512, 256)); received {weight!r}'
            )
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise InvalidArgument(
            f"each path names one weight; received twice: {', '.join(twice)}; rename one of each"
        )
    named = {f"{path}.{name}" if path else name: weight for name, weight in pairs}
    arrays = {name: weight.draw(seed, name) for name, weight in named.items()}
    return Weights(named, seed, arrays, {"isometry": __version__, "numpy": np.__version__})


@functools.cache
def _numpy() -> Backend:
    return load("numpy")


def _convert(values: np.ndarray, *, dtype: str) -> Any:
    return values if values.dtype == dtype else _numpy().asarray(values, dtype=dtype)


def _name(path: object) -> str:
    if not isinstance(path, str) or not path or not path.isprintable():
        raise InvalidArgument(
            "the path of a weight must be a string of printable characters, such as "
            f"'encoder.layer1.weight'; received {path!r}"
        )
    return path
