"""Which attention a map shows, as an address writes it. Plain text work, without tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.types import ModelSpec

_FORM = re.compile(r"(\d{1,4}|\*)\.(\d{1,4}|\*)(?:-(\d{1,4}|\*)\.(\d{1,4}|\*))?")


@dataclass(frozen=True)
class Source:
    """One head of one layer; None in either place: the average over all of them."""

    layer: int | None
    head: int | None

    def __str__(self) -> str:
        return f"{'*' if self.layer is None else self.layer}.{'*' if self.head is None else self.head}"


@dataclass(frozen=True)
class View:
    """What a map shows: a source, or the difference of two."""

    source: Source
    minus: Source | None = None

    def __str__(self) -> str:
        return str(self.source) if self.minus is None else f"{self.source}-{self.minus}"

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.source,) if self.minus is None else (self.source, self.minus)

    @classmethod
    def parse(cls, text: str) -> View:
        """`3.2` is layer 3, head 2; `3.*` the average over its heads; `3.2-4.1` a difference.

        Raises
        ------
        InvalidInputError
            The text is not of that form.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise InvalidInputError(
                f"{text[:40]!r} is not a map: write layer.head like 3.2, with * for the average over all, and a "
                "difference like 3.2-4.1."
            )
        places = [None if part in (None, "*") else int(part) for part in found.groups()]
        minus = Source(places[2], places[3]) if found[3] is not None else None
        return cls(Source(places[0], places[1]), minus)

    def check(self, spec: ModelSpec) -> None:
        """Refuses layers and heads that the model lacks."""
        for source in self.sources:
            for what, value, count in (("layer", source.layer, spec.num_layers), ("head", source.head, spec.num_heads)):
                if value is not None and value >= count:
                    raise InvalidInputError(
                        f"{what} {value} is out of range: {spec.name} has {what}s 0 to {count - 1}."
                    )
