"""Embeddings, and one weight shared by several uses: whose fans differ from use to use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.common import checks
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Distribution, Normal
from isometry.common.laws.fans import Fans, fans
from isometry.common.laws.rules import Initializer
from isometry.common.laws.scaling import VarianceScaling

if TYPE_CHECKING:
    from isometry.common.contract import Backend
    from isometry.common.streams import Stream

__all__ = ["USES", "Embedding", "Tied"]

Array = Any


@dataclass(frozen=True)
class Embedding(Initializer):
    """A table (words, size) of independent entries; the row of the padding word is 0.

    Law: entries of `law`, N(0, 1) by default; the row `padding`, if given, exactly 0.
    Use: lookup tables. One word is active at a time, so that fan_in is 1 and no variance rule is
    needed: each feature has the law's variance.
    Keeps: the variance of each feature, whatever the number of words.
    Source: `torch.nn.Embedding`, whose default it is.

    Parameters
    ----------
    law : Distribution
    padding : int, optional
        A row; negative ones count from the end.

    Raises
    ------
    InvalidArgument
        If `law` is no distribution, the table not (words, size), or `padding` no row of it. The
        layout does not matter: every framework stores (words, size).
    """

    law: Distribution = Normal()  # noqa: RUF009 - frozen
    padding: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.law, Distribution):
            raise InvalidArgument(
                f"the entries of an embedding need a distribution such as Normal(0.0, 1.0); "
                f"received {self.law!r}"
            )

    def resolve(self, shape: tuple[int, ...], layout: str) -> Embedding:
        """Return the law itself; raises if the shape is no table with such a row."""
        words, _ = checks.shape("shape", shape, low=1, rank=2)
        if self.padding is not None:
            row = checks.integer("padding", self.padding)
            if not -words <= row < words:
                raise InvalidArgument(
                    f"padding must be a row of the table, from {-words} to {words - 1}; "
                    f"received {row}"
                )
        return self

    def draw(
        self, nx: Backend, stream: Stream, shape: tuple[int, ...], /, *, dtype: str = "float32"
    ) -> Array:
        """Draw the whole table, then clear the row."""
        table = self.law.draw(nx, stream, shape, dtype=dtype)
        if self.padding is None:
            return table
        kept = np.ones((shape[0], 1))
        kept[self.padding] = 0
        return nx.ops.where(nx.asarray(kept, dtype=dtype) > 0, table, nx.ops.zeros_like(table))


USES = ("dense", "transposed", "lookup")


@dataclass(frozen=True)
class Tied(Initializer):
    """One weight for several uses: the variance whose worst use is the least wrong.

    Law: that of `rule` for the fan sqrt(smallest * largest) over the uses, for two uses the
    geometric mean of their fans. The variance in use u is then off by the factor fan_u / fan
    (`factors`), at worst sqrt(largest / smallest): no other variance has a smaller worst factor.
    Use: autoencoders whose decoder is the encoder transposed ("dense", "transposed"); language
    models whose output projection is the embedding ("lookup", "dense"). In the latter the factor
    is size^(1/2): multiply what is looked up by sqrt(size) and give Normal(0, size^(-1/2)) instead
    (Vaswani et al. 2017, section 3.4), which suits both.
    Keeps: in each use what `rule` keeps, but for that use's factor.
    Source: closed form; Press and Wolf 2017, Using the output embedding, for the tying.

    Parameters
    ----------
    rule : VarianceScaling
        Its mode says which fan of a use counts.
    uses : tuple of {"dense", "transposed", "lookup"}
        The weight is (out, in, *kernel), or (*kernel, in, out): "dense" maps in to out,
        "transposed" out to in, "lookup" reads the features (in) of one word (out) at a time.

    Raises
    ------
    InvalidArgument
        If `rule` is no variance scaling, a use is unknown or none is given, or the shape has no
        fans.
    """

    rule: VarianceScaling
    uses: tuple[str, ...] = ("dense", "transposed")

    def __post_init__(self) -> None:
        if not isinstance(self.rule, VarianceScaling):
            raise InvalidArgument(
                f"a tied weight needs a rule with fans such as VarianceScaling(); "
                f"received {self.rule!r}"
            )
        if not self.uses:
            raise InvalidArgument("a tied weight needs at least one use; received none")
        for use in self.uses:
            checks.choice("use", use, USES)

    def fans(self, shape: tuple[int, ...], layout: str = "out_in") -> dict[str, Fans]:
        """Return the fans of each use.

        >>> Tied(VarianceScaling(), ("lookup", "dense")).fans((10_000, 64))
        {'lookup': Fans(fan_in=1, fan_out=64), 'dense': Fans(fan_in=64, fan_out=10000)}
        """
        dense = fans(shape, layout)
        every = {
            "dense": dense,
            "transposed": Fans(dense.fan_out, dense.fan_in),
            "lookup": Fans(1, dense.fan_in),
        }
        return {use: every[use] for use in self.uses}

    def fan(self, shape: tuple[int, ...], layout: str = "out_in") -> float:
        """Return the compromise, ``sqrt(smallest * largest)`` of the uses' fans."""
        every = [fan.by(self.rule.mode) for fan in self.fans(shape, layout).values()]
        return math.sqrt(min(every) * max(every))

    def factors(self, shape: tuple[int, ...], layout: str = "out_in") -> dict[str, float]:
        """Return by which factor the variance that `rule` wants is missed in each use.

        >>> Tied(VarianceScaling()).factors((100, 400))
        {'dense': 2.0, 'transposed': 0.5}
        """
        fan = self.fan(shape, layout)
        every = self.fans(shape, layout)
        return {use: of_use.by(self.rule.mode) / fan for use, of_use in every.items()}

    def resolve(self, shape: tuple[int, ...], layout: str) -> Distribution:
        """Return the exact law of the entries."""
        return self.rule.of_fan(self.fan(shape, layout))
