"""Sets of layers: how people write them (3,5-7), and how many a share is."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from numbers import Real
from typing import Final

from lighttransfer_core.errors import InvalidInputError, InvalidPlanError

NONE: Final = "none"
ALL: Final = "all"

_TEXT_LIMIT: Final = 2000
_MOST_PROBLEMS: Final = 3
_DASHES: Final = str.maketrans("–—−", "---")


def format_layers(layers: Iterable[int]) -> str:
    """`(3, 5, 6, 7)` -> `3,5-7`; no layers -> `none`."""
    spans: list[list[int]] = []
    for layer in sorted(set(layers)):
        if spans and spans[-1][1] == layer - 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in spans) or NONE


def parse_layers(text: str, convertible: Collection[int]) -> tuple[int, ...]:
    """`3,5-7`, `none` or `all` -> layers, sorted.

    Raises
    ------
    InvalidPlanError
        The text is not of that form, or names a layer that cannot be converted.
    """
    wanted = text.strip().lower()
    if wanted in ("", NONE):
        return ()
    if wanted == ALL:
        return tuple(sorted(convertible))
    layers, problems = set[int](), list[str]()
    for part in wanted[:_TEXT_LIMIT].translate(_DASHES).split(","):
        try:
            layers.update(_span(part.strip(), top=max(convertible, default=0)))
        except InvalidPlanError as error:
            problems.append(str(error))
    if problems:
        raise InvalidPlanError(" ".join(list(dict.fromkeys(problems))[:_MOST_PROBLEMS]))
    refused = sorted(layers.difference(convertible))
    if refused:
        raise InvalidPlanError(
            f"Layers {format_layers(refused)} cannot be converted in this model. Choose among "
            f"{format_layers(convertible)}."
        )
    return tuple(sorted(layers))


def _span(part: str, top: int) -> range:
    if not part:
        raise InvalidPlanError("A comma has no layer beside it. Write layers like 3,5-9.")
    first, _, last = (piece.strip() for piece in part.partition("-"))
    if not (first.isdecimal() and (last.isdecimal() or "-" not in part)) or len(part) > 12:
        raise InvalidPlanError(
            f"“{part[:40]}” is not a layer or a range of layers. Write them like 3,5-9, or half, none or all."
        )
    low, high = int(first), int(last or first)
    if high < low:
        raise InvalidPlanError(f"“{part}” runs backwards. Write {high}-{low}.")
    if high > top:
        missing = max(low, top + 1)
        named = f"Layer {high} does" if missing == high else f"Layers {missing} to {high} do"
        raise InvalidPlanError(f"{named} not exist here. The last layer that can be converted is {top}.")
    return range(low, high + 1)


def layers_kept_full(keep_full: float, convertible: int) -> int:
    """How many of the convertible layers a share keeps, halves rounded up."""
    if not isinstance(keep_full, Real) or not 0.0 <= keep_full <= 1.0:
        raise InvalidInputError(f"keep_full={keep_full!r} is not a share: give a number from 0 to 1.")
    return math.floor(keep_full * convertible + 0.5)


def layers_lazy(share: float, convertible: int) -> int:
    """How many of the convertible layers stream at a share, so that those kept full are rounded as everywhere."""
    return convertible - layers_kept_full(1 - share, convertible)


def laziest_first(values: Sequence[float], convertible: Iterable[int]) -> tuple[int, ...]:
    """The convertible layers by their values, highest first; of equal ones the higher index first."""
    return tuple(sorted(convertible, key=lambda layer: (values[layer], layer), reverse=True))
