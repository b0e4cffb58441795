"""What a sweep found, one JSON line per example, and reading files of such lines; `files` writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.frontier.orders import StaticOrder
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader
from lighttransfer_core.layer_sets import format_layers, parse_layers
from lighttransfer_core.types import JsonRecord, Window

SUFFIX = ".jsonl"
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Outcome(JsonRecord):
    """How one plan did on one example.

    Attributes
    ----------
    score
        The task's, 0 to 1; None where it is scored by likelihood.
    nll
        Mean negative log-likelihood of the reference's tokens, in nats; of tasks scored by likelihood.
    kl
        Mean KL(full model || plan) on them, in nats per token.
    """

    score: float | None
    nll: float | None = None
    kl: float | None = None

    @property
    def value(self) -> float:
        """What is averaged: the score, or minus the NLL."""
        if self.score is not None:
            return self.score
        return math.nan if self.nll is None else -self.nll


@dataclass(frozen=True)
class ExampleResult:
    """One example under every plan that some ranking proposes.

    Attributes
    ----------
    full, streaming
        The full model, and all convertible layers streaming, by window.
    orders
        By window and ranking: the convertible layers, laziest first.
    outcomes
        By window and set of lazy layers.
    seconds
        What it took to compute; None where that was not noted.
    """

    key: ExampleKey
    num_tokens: int
    answer: str
    full: Outcome
    orders: Mapping[Window, Mapping[str, tuple[int, ...]]]
    outcomes: Mapping[Window, Mapping[tuple[int, ...], Outcome]]
    seconds: float | None = None

    def outcome(self, ranking: str, window: Window, lazy: int) -> Outcome | None:
        """With the `lazy` laziest layers of a ranking converted; None where it did not rank this example."""
        order = self.orders.get(window, {}).get(ranking)
        if order is None:
            return None
        return self.full if lazy == 0 else self.outcomes[window].get(tuple(sorted(order[:lazy])))

    def to_json(self) -> str:
        """One line."""
        windows = [
            {
                "window": [window.sink, window.recent],
                "orders": {name: list(order) for name, order in orders.items()},
                "outcomes": {
                    format_layers(layers): _short(outcome) for layers, outcome in self.outcomes[window].items()
                },
            }
            for window, orders in self.orders.items()
        ]
        line = {**self.key.to_dict(), "num_tokens": self.num_tokens, "answer": self.answer, "full": _short(self.full)}
        taken = {} if self.seconds is None else {"seconds": self.seconds}
        return json.dumps({**line, **taken, "windows": windows}, separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: dict[str, Any], convertible: Iterable[int]) -> Self:
        known = tuple(convertible)
        orders, outcomes = {}, {}
        for entry in data["windows"]:
            window = Window(*entry["window"])
            orders[window] = {name: tuple(order) for name, order in entry["orders"].items()}
            outcomes[window] = {
                _set_of(layers, known): Outcome(*outcome) for layers, outcome in entry["outcomes"].items()
            }
        key, taken = ExampleKey.from_dict(data), data.get("seconds")
        full = Outcome(*data["full"])
        seconds = None if taken is None else float(taken)
        return cls(key, int(data["num_tokens"]), str(data["answer"]), full, orders, outcomes, seconds)


@lru_cache(maxsize=4096)
def _set_of(layers: str, convertible: tuple[int, ...]) -> tuple[int, ...]:
    """Of the sets in a file most are in it many times."""
    return parse_layers(layers, convertible)


def _short(outcome: Outcome) -> list[float | None]:
    values = [outcome.score, outcome.nll, outcome.kl]
    rounded = [None if value is None else round(value, 6) for value in values]
    return rounded[:1] if rounded[1:] == [None, None] else rounded


@dataclass(frozen=True)
class Sweep:
    """A results file, read; or several together, of which `parts` has a line each."""

    header: SweepHeader
    results: tuple[ExampleResult, ...]
    parts: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """In one line, for a choice among several; it stays when there is more of it."""
        return f"{self.header.subject}, several sweeps together" if self.parts else self.header.title

    @property
    def done(self) -> set[ExampleKey]:
        return {result.key for result in self.results}


def read_sweep(file: Path) -> Sweep:
    """Reads a results file; a last line that a crash cut short is left out.

    Raises
    ------
    InvalidInputError
        It is no such file.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InvalidInputError(f"{file} is larger than {_MOST_BYTES >> 20} MB, so it is not read.")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"Cannot read {file}: {error}.") from error
    return parse_sweep(text, str(file))


def parse_sweep(text: str, name: str = "these results") -> Sweep:
    """The same of a file's text."""
    lines = text.split("\n")
    whole = lines[:-1] if lines and not text.endswith("\n") and len(lines) > 1 and not _is_json(lines[-1]) else lines
    numbered = [(number, line) for number, line in enumerate(whole, start=1) if line.strip()]
    if not numbered:
        raise InvalidInputError(f"{name} is empty: a sweep's results begin with a line that says what was asked.")
    asked = _object(numbered[0][1], name, 1)
    try:
        header = SweepHeader.from_dict(asked)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error}") from error
    results = []
    for number, line in numbered[1:]:
        data = _object(line, name, number)
        try:
            results.append(ExampleResult.from_dict(data, header.model.convertible_layers))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"Line {number} of {name} is no result: {error!r}.") from error
    return Sweep(header, tuple(results))


def read_folder(folder: Path) -> list[Sweep]:
    """The sweeps in a folder, in the order of their files' names; files of one question are one sweep."""
    return merged([read_sweep(file) for file in sorted(folder.glob(f"*{SUFFIX}"))])


def merged(sweeps: Iterable[Sweep]) -> list[Sweep]:
    """Sweeps of the same question on the same model made one, as when several processes wrote a file each."""
    found: list[Sweep] = []
    for sweep in sweeps:
        same = next((index for index, one in enumerate(found) if one.header.continues(sweep.header)), None)
        if same is None:
            found.append(sweep)
        else:
            by_key = {result.key: result for result in (*found[same].results, *sweep.results)}
            found[same] = Sweep(found[same].header, tuple(by_key.values()))
    return found


def with_set(sweep: Sweep, others: Iterable[Sweep], chosen: StaticOrder) -> Sweep:
    """The sweep with one set of layers beside its rankings, where others have tried that set on the same prompts.

    Only those count that were asked for the set. A ranking proposes it too for some prompts, but then for those that
    it fits.
    """
    layers = chosen.lazy_set
    assert layers is not None, "an order that is tried at every share is no set"
    tried = {
        result.key: result.outcomes[chosen.window][layers]
        for other in others
        if _asks_alike(sweep.header, other.header)
        and any(one.lazy_set == layers and one.window == chosen.window for one in other.header.spec.orders)
        for result in other.results
    }
    return replace(sweep, results=tuple(_with(one, chosen, layers, tried.get(one.key)) for one in sweep.results))


def _asks_alike(one: SweepHeader, other: SweepHeader) -> bool:
    """Whether equal seeds are equal prompts, asked of the same model in the same way."""
    facts = [
        (header.model.identity, header.model.dtype, header.spec.rendering, header.spec.max_new_tokens)
        for header in (one, other)
    ]
    return facts[0] == facts[1]


def _with(
    result: ExampleResult, chosen: StaticOrder, layers: tuple[int, ...], outcome: Outcome | None
) -> ExampleResult:
    if outcome is None:
        return result
    window = chosen.window
    orders = {**result.orders.get(window, {}), chosen.name: chosen.order}
    outcomes = {**result.outcomes.get(window, {}), layers: outcome}
    return replace(result, orders={**result.orders, window: orders}, outcomes={**result.outcomes, window: outcomes})


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _object(line: str, name: str, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"Line {number} of {name} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InvalidInputError(f"Line {number} of {name} is not a JSON object.")
    return found
