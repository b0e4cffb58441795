"""The address of a view: how choices are written in it, and what is said when it asks for the impossible.

Pure text work; streamlit binds the widgets to the address.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from lighttransfer_core.layer_sets import ALL, format_layers

HALF: Final = "half"
INVERSE: Final = "inverse"
RANDOM: Final = "random"
ON_HOST: Final = "all on the host"
SIDEBAR: Final = "as in the sidebar"

SINK_RANGE: Final = (0, 1024)
RECENT_RANGE: Final = (1, 65_536)
LAST_RANGE: Final = (1, 512)
NEW_TOKENS_RANGE: Final = (1, 512)
CONTEXT_RANGE: Final = (64, 2**20)
BATCH_RANGE: Final = (1, 1024)
MEMORY_RANGE: Final = (1, 2**24)
BANDWIDTH_RANGE: Final = (0, 100_000)
PROMPTS_RANGE: Final = (1, 1000)
SEED_RANGE: Final = (0, 2**31 - 1)
ANSWER_RANGE: Final = (1, 512)
CHANCE_RANGE: Final = (0, 5)
CHECK_RANGE: Final = (256, 2**20)

_RANGES: Final = {
    "sink": SINK_RANGE,
    "recent": RECENT_RANGE,
    "last": LAST_RANGE,
    "tokens": NEW_TOKENS_RANGE,
    "context": CONTEXT_RANGE,
    "batch": BATCH_RANGE,
    "memory": MEMORY_RANGE,
    "bandwidth": BANDWIDTH_RANGE,
    "prompts": PROMPTS_RANGE,
    "first_seed": SEED_RANGE,
    "answer_tokens": ANSWER_RANGE,
    "chance": CHANCE_RANGE,
    "check_tokens": CHECK_RANGE,
}
_PLACES: Final = {"ask": "on the page Scale"}
"""Where a choice from a list is that is not in the sidebar."""
_KEEP: Final = re.compile(
    r"last (?P<rows>\d{1,9})|layers (?P<first>\d{1,4})(?:-(?P<last>\d{1,4}))?|all in (?P<dtype>bfloat16)"
)


@dataclass(frozen=True)
class Kept:
    """Which queries a prefill keeps, and where: the last `rows` of every layer (None: all), all of `layers`."""

    rows: int | None = None
    layers: tuple[int, ...] = ()
    host: bool = False
    dtype: str = "auto"


def format_keep(rows: int | None, layers: int, host: bool, dtype: str | None) -> str:
    """An offer as the address has it."""
    if host:
        return ON_HOST
    if dtype:
        return f"all in {dtype}"
    return f"layers {format_layers(range(layers))}" if layers else f"last {rows}"


def parse_keep(text: str, least_rows: int) -> Kept:
    """`all`, `all on the host`, `all in bfloat16`, `last 2048` or `layers 0-9`.

    Scores need the last rows of every layer, so at least `least_rows` are kept. What has another form means `all`.
    """
    wanted = text.strip().lower()
    found = _KEEP.fullmatch(wanted)
    if found is None:
        return Kept(host=wanted == ON_HOST)
    if found["dtype"]:
        return Kept(dtype=found["dtype"])
    if found["rows"]:
        return Kept(max(int(found["rows"]), least_rows))
    return Kept(least_rows, tuple(range(int(found["first"]), int(found["last"] or found["first"]) + 1)))


def is_hash(key: str) -> bool:
    """Whether a text is named by its hash: a visitor's prompt, or a further question."""
    return len(key) == 64 and all(letter in "0123456789abcdef" for letter in key)


def not_here(name: str, asked: str, place: str) -> str:
    """That an address asks for what there is not, and where to choose."""
    return f"{_asks_in_vain(name, asked)}; the default is used. Choose one {place}."


def left_out(name: str, asked: str) -> str:
    """The same where several may be chosen."""
    return f"{_asks_in_vain(name, asked)}; it is left out. Add it on this page."


def _asks_in_vain(name: str, asked: str) -> str:
    return f"The address asks for {name} “{asked[:60]}”, which does not exist here"


def complaints(asked: Mapping[str, str], options: Mapping[str, Collection[str]]) -> list[str]:
    """What an address asks for and cannot have, a sentence each; the widgets fall back to their defaults.

    Parameters
    ----------
    asked
        The address's parameters.
    options
        For the choices from a list: what may be chosen.
    """
    found = []
    for name, allowed in options.items():
        if name in asked and asked[name] not in allowed:
            found.append(not_here(name, asked[name], _PLACES.get(name, "in the sidebar")))
    for name, (low, high) in _RANGES.items():
        if name in asked and not (asked[name].isdecimal() and low <= int(asked[name][:20]) <= high):
            found.append(
                f"The address asks for {name} “{asked[name][:60]}”; it must be a whole number from {low:,} to "
                f"{high:,}. The default is used."
            )
    if (keep := asked.get("keep", ALL)) != ALL and parse_keep(keep, 1) == Kept():
        found.append(
            f"The address asks for keep “{keep[:60]}”; it is all, all on the host, all in bfloat16, last 2048 or "
            "layers 0-9. All queries are kept."
        )
    if not all(is_hash(name) for name in asked.get("questions", "").split(",") if name):
        found.append("The address asks for questions that are no hashes of a text; they are left out.")
    return found
