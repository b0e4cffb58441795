"""What a sweep asks: plain data, checked. The bounds in the annotations are enforced by the backend alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from annotated_types import Interval, Len

from lighttransfer_core.errors import InvalidInputError, InvalidWindowError
from lighttransfer_core.frontier.orders import Name, StaticOrder, window_text
from lighttransfer_core.types import JsonRecord, ModelSpec, Rendering, Window, is_integer

Question = Literal["aware", "agnostic"]
"""Whether the question stands in the prompt that is scored and cut, or is asked of the cut cache afterwards."""

MOST_EXAMPLES = 100_000
_SHORTEST = 0.99
"""Of its length a prompt has at least so much."""

Names = Annotated[tuple[Name, ...], Len(0, 24)]
Tokens = Annotated[int, Interval(ge=1, le=10_000_000)]
Share = Annotated[float, Interval(gt=0.0, le=1.0)]
Count = Annotated[int, Interval(ge=0, le=MOST_EXAMPLES)]


@dataclass(frozen=True)
class SweepSpec(JsonRecord):
    """Which rankings are tried on which tasks.

    Parameters
    ----------
    tasks
        Names of registered tasks.
    lengths
        Tokens of a prompt, with everything that the rendering adds; met within 1% and never exceeded.
    windows
        What streaming layers keep.
    shares
        Shares of the convertible layers that stream.
    rankings
        Names of registered metrics that score each prompt.
    trials
        Further metrics, which try layers out; they rank the first `trial_examples` of a cell only.
    orders
        Rankings that were made before.
    examples, first_seed
        Each task is asked with the seeds from `first_seed` on, the same for every ranking.
    max_new_tokens
        Cuts answers shorter than their tasks do.
    """

    tasks: Annotated[tuple[Name, ...], Len(1, 16)]
    lengths: Annotated[tuple[Tokens, ...], Len(1, 8)]
    windows: Annotated[tuple[Window, ...], Len(1, 4)]
    shares: Annotated[tuple[Share, ...], Len(1, 12)] = (0.25, 0.5, 0.7)
    rankings: Names = ("lazy_ratio",)
    trials: Names = ()
    trial_examples: Count = 0
    orders: Annotated[tuple[StaticOrder, ...], Len(0, 24)] = ()
    questions: Annotated[tuple[Question, ...], Len(1, 2)] = ("aware",)
    examples: Annotated[int, Interval(ge=1, le=MOST_EXAMPLES)] = 50
    first_seed: Annotated[int, Interval(ge=0, le=2**31 - 1)] = 0
    last: Annotated[int, Interval(ge=1, le=4096)] = 32
    rendering: Rendering = "chat"
    max_new_tokens: Annotated[int, Interval(ge=1, le=4096)] | None = None

    def __post_init__(self) -> None:
        for name in ("tasks", "lengths", "shares", "rankings", "trials", "questions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "windows", tuple(_record(Window, one) for one in self.windows))
        object.__setattr__(self, "orders", tuple(_record(StaticOrder, one) for one in self.orders))
        for name in ("tasks", "lengths", "windows", "shares", "questions"):
            if not getattr(self, name):
                raise InvalidInputError(f"A sweep needs {name}: give at least one.")
        if not all(isinstance(share, float | int) and 0 < share <= 1 for share in self.shares):
            raise InvalidInputError(f"shares={self.shares} are not shares of the layers: give numbers over 0 up to 1.")
        object.__setattr__(self, "shares", tuple(float(share) for share in self.shares))
        if not all(is_integer(length) and length >= 1 for length in self.lengths):
            raise InvalidInputError(f"lengths={self.lengths} are not numbers of tokens: give whole numbers from 1 up.")
        if not is_integer(self.last) or self.last < 1:
            raise InvalidInputError(f"last={self.last!r} is not a number of queries: give at least 1.")
        if not is_integer(self.examples) or not 1 <= self.examples <= MOST_EXAMPLES:
            raise InvalidInputError(f"examples={self.examples!r} is out of range: give 1 to {MOST_EXAMPLES:,}.")
        unknown = set(self.questions) - {"aware", "agnostic"}
        if unknown:
            raise InvalidInputError(f"questions={sorted(unknown)} are not known: give aware, agnostic, or both.")

    def check_once(self) -> None:
        """Refuses what would count a prompt twice, and a ranking that would take the place of another."""
        windows = tuple(map(window_text, self.windows))
        given = {name: getattr(self, name) for name in ("tasks", "lengths", "shares", "questions")}
        for name, values in {**given, "windows": windows}.items():
            if again := _repeated(values):
                raise InvalidInputError(f"{name} hold {again} more than once, which would count twice: give each once.")
        for window in self.windows:
            orders = (one.name for one in self.orders if one.window == window)
            if again := _repeated((*self.rankings, *self.trials, *orders)):
                raise InvalidInputError(
                    f"{again} would rank the window {window_text(window)} twice, and results hold one ranking of a "
                    "name: give each once; `calibrate --name` gives an order a name of its own."
                )

    def of(self, examples: int) -> Self:
        """The same with another number of prompts."""
        return replace(self, examples=examples)

    @property
    def prompts(self) -> int:
        """How many examples the sweep asks."""
        return self.examples * len(self.lengths) * len(self.tasks) * len(self.questions)

    @property
    def plans(self) -> int:
        """How many plans an example has at most, the full model aside."""
        proposed = len(self.shares) * (len(self.rankings) + len(self.trials) + len(self.orders))
        return len(self.windows) * (proposed + 1)

    @property
    def keys(self) -> list[ExampleKey]:
        """Every example that the sweep asks, in the order in which it asks them: all cells grow alike."""
        return [
            ExampleKey(task, length, seed, question)
            for seed in range(self.first_seed, self.first_seed + self.examples)
            for length in self.lengths
            for task in self.tasks
            for question in self.questions
        ]

    def keys_of(self, rank: int, processes: int) -> list[ExampleKey]:
        """The examples of one of several processes: of every cell as many as of the others, for all that some cells
        take longer, and both ways of asking together."""
        ways, cells = len(self.questions), len(self.lengths) * len(self.tasks)
        numbered = ((number // ways, key) for number, key in enumerate(self.keys))
        return [key for number, key in numbered if (number // cells + number % cells) % processes == rank]


@dataclass(frozen=True)
class ExampleKey(JsonRecord):
    """One example of a sweep."""

    task: str
    length: int
    seed: int
    question: Question

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.task}, {self.length:,} tokens, seed {self.seed}, question-{self.question}"


@dataclass(frozen=True)
class SweepHeader(JsonRecord):
    """The first line of a results file: everything that its lines depend on."""

    spec: SweepSpec
    model: ModelSpec
    versions: str = ""
    made: str = ""
    kind: str = "sweep"

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", _record(SweepSpec, self.spec))
        object.__setattr__(self, "model", _record(ModelSpec, self.model))

    @cached_property
    def identity(self) -> str:
        """The hash of what is asked of which model; how many examples is left out, since more may be added."""
        facts = [self.spec.of(1).to_dict(), *self._model_facts.values()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def _model_facts(self) -> dict[str, Any]:
        model = self.model
        return {"model": model.identity.to_dict(), "dtype": model.dtype, "notes": model.notes}

    def differences(self, other: SweepHeader) -> list[str]:
        """Names of the options in which another question, or its model, is another one."""
        mine, theirs = ({**one.spec.of(1).to_dict(), **one._model_facts} for one in (self, other))
        return [name for name, value in mine.items() if value != theirs[name]]

    @property
    def file_name(self) -> str:
        """Where the results are kept if nobody says otherwise: the same for whoever asks the same."""
        return f"{re.sub(r'[^A-Za-z0-9]+', '-', self.model.name).strip('-')[-60:]}-{self.identity[:16]}.jsonl"

    @property
    def subject(self) -> str:
        """The model, the tasks and the lengths, in one line."""
        lengths = ", ".join(f"{length:,}" for length in self.spec.lengths)
        return f"{self.model.name}, {', '.join(self.spec.tasks)}, {lengths} tokens"

    @property
    def title(self) -> str:
        """The same with the first seed, for a choice among several."""
        return f"{self.subject}, seeds from {self.spec.first_seed:,}"

    def continues(self, other: SweepHeader) -> bool:
        """Whether both ask the same of the same model; more examples of the same cells may be added to a file."""
        return self.identity == other.identity

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        if data.get("kind") != "sweep":
            raise InvalidInputError("This is not the first line of a sweep's results.")
        try:
            return super().from_dict(data)
        except (TypeError, KeyError, AttributeError) as error:
            raise InvalidInputError(f"The first line of these results lacks or mistypes {error}.") from error


def check_room_outside(window: Window, length: int) -> None:
    """Refuses a window that loses nothing of a prompt. Raises InvalidWindowError."""
    if window.size >= int(_SHORTEST * length):
        raise InvalidWindowError(
            f"The window {window.sink:,} + {window.recent:,} keeps {window.size:,} tokens, so a prompt of {length:,} "
            "loses nothing and nothing can be measured: give longer prompts or a smaller window."
        )


def _repeated(values: Iterable[Any]) -> str:
    """What is there more than once, in words."""
    return ", ".join(str(value) for value, count in Counter(values).items() if count > 1)


def _record(kind: Any, value: Any) -> Any:
    return kind.from_dict(value) if isinstance(value, dict) else value
