"""Rows of a benchmark: one side at one size, what it is held to, and lines fitted through several. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.types import JsonRecord

Record = TypeVar("Record", bound=JsonRecord)


def convert(record: object, kind: Callable[[Any], object], *names: str, optional: bool = False) -> None:
    """Gives fields of a frozen record their type, whatever a file had in their place; None stays if `optional`.

    Raises TypeError or ValueError for what cannot be converted.
    """
    for name in names:
        value = getattr(record, name)
        if value is not None or not optional:
            object.__setattr__(record, name, kind(value))


def nested(kind: type[Record]) -> Callable[[Any], Record]:
    """How a field becomes a record of that kind."""

    def read(value: Any) -> Record:
        if isinstance(value, kind):
            return value
        if not isinstance(value, dict):
            raise TypeError(f"{value!r} is not a {kind.__name__}")
        return kind.from_dict(value)

    return read


def several(kind: type[Record]) -> Callable[[Any], tuple[Record, ...]]:
    """How a field becomes a tuple of such records."""
    return lambda values: tuple(map(nested(kind), values))


@dataclass(frozen=True)
class Spread(JsonRecord):
    """Median and quartiles of `count` measurements."""

    median: float
    low: float
    high: float
    count: int

    def __post_init__(self) -> None:
        convert(self, float, "median", "low", "high")
        convert(self, int, "count")

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0], len(values))
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))


@dataclass(frozen=True)
class Bar(JsonRecord):
    """What we hold a row to: one of its numbers at most or at least so much."""

    quantity: Literal["ratio", "seconds", "extra_bytes"]
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        if self.quantity not in ("ratio", "seconds", "extra_bytes"):
            raise InvalidInputError(f"{self.quantity!r} is no number of a row: give ratio, seconds or extra_bytes.")
        convert(self, float, "at_most", "at_least", optional=True)

    def met(self, row: Row) -> bool | None:
        """Whether the row keeps to it; None where that was not measured."""
        found = self.found(row)
        if found is None:
            return None
        most = math.inf if self.at_most is None else self.at_most
        least = -math.inf if self.at_least is None else self.at_least
        return least <= found <= most

    def found(self, row: Row) -> float | None:
        """The row's number."""
        if self.quantity == "extra_bytes":
            return row.extra_bytes
        spread = row.ratio if self.quantity == "ratio" else row.seconds
        return None if spread is None else spread.median


@dataclass(frozen=True)
class Row(JsonRecord):
    """One side at one size.

    Attributes
    ----------
    side
        What ran.
    dtype, tokens, batch
        Precision of weights and cache, tokens of a sequence, sequences at once.
    seconds
        Of one prefill, scoring, tile or decode step; None where it could not be measured, and `note` says why.
    ratio, ratio_of
        How it compares with another side of the same rounds, and what the ratio is of.
    peer
        Whether it is other people's code. Its ratio says how many times as long it took as ours.
    bars
        What we hold it to.
    lazy_layers
        Layers that keep a window only; None where there is no such choice.
    kept_bytes
        What a prefill left behind; of a decode step the keys and values kept, counted from tensors.
    kept_tokens
        Tokens of a sequence that a layer keeps, averaged over the layers.
    extra_bytes
        The most that was held at a time, beyond what was held before and what was kept after.
    read_bytes, limit_s
        Weights, keys and values, which a step reads at least once, and how long that takes at the memory's bandwidth.
    """

    side: str
    dtype: str
    tokens: int
    batch: int = 1
    seconds: Spread | None = None
    ratio: Spread | None = None
    ratio_of: str = ""
    peer: bool = False
    bars: tuple[Bar, ...] = ()
    lazy_layers: int | None = None
    kept_bytes: int | None = None
    kept_tokens: float | None = None
    extra_bytes: int | None = None
    read_bytes: int | None = None
    limit_s: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        convert(self, str, "side", "dtype", "ratio_of", "note")
        convert(self, int, "tokens", "batch")
        convert(self, int, "lazy_layers", "kept_bytes", "extra_bytes", "read_bytes", optional=True)
        convert(self, float, "kept_tokens", "limit_s", optional=True)
        convert(self, nested(Spread), "seconds", "ratio", optional=True)
        convert(self, several(Bar), "bars")
        if self.seconds is not None and not self.seconds.median > 0:
            raise InvalidInputError(f"{self.side} took {self.seconds.median} seconds: give what was measured, or None.")

    @property
    def ahead(self) -> bool:
        """Whether other people's code was faster than ours beyond the quartiles of their ratio."""
        return self.peer and self.ratio is not None and self.ratio.high < 1.0

    @property
    def tokens_per_s(self) -> float | None:
        """All sequences together, at the median step."""
        return None if self.seconds is None else self.batch / self.seconds.median


@dataclass(frozen=True)
class Growth(JsonRecord):
    """A straight line through measured points, by least squares.

    Attributes
    ----------
    what, over
        What grows, and what stands on the line's horizontal axis.
    intercept, slope
        Seconds at 0, and seconds more for each one of `over`.
    r2
        Share of the points' variance that the line explains; 1 where they do not vary.
    first, last
        The ends of the axis that was measured.
    """

    what: str
    over: str
    intercept: float
    slope: float
    r2: float
    first: float
    last: float
    count: int

    def __post_init__(self) -> None:
        convert(self, str, "what", "over")
        convert(self, float, "intercept", "slope", "r2", "first", "last")
        convert(self, int, "count")

    @classmethod
    def fitted(cls, what: str, over: str, places: Sequence[float], seconds: Sequence[float]) -> Self:
        """Of at least two different places."""
        slope, intercept = statistics.linear_regression(places, seconds)
        middle = statistics.fmean(seconds)
        varies = sum((value - middle) ** 2 for value in seconds)
        missed = sum((y - intercept - slope * x) ** 2 for x, y in zip(places, seconds, strict=True))
        r2 = 1.0 - missed / varies if varies else 1.0
        return cls(what, over, intercept, slope, r2, min(places), max(places), len(places))

    @property
    def times(self) -> float:
        """The line's value at the last place over that at the first."""
        first, last = (self.intercept + self.slope * place for place in (self.first, self.last))
        return last / first if first else math.inf
