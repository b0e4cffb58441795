"""What a sweep asks: plain data, checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.types import JsonRecord, ModelSpec, Rendering, Window, is_integer

Question = Literal["aware", "agnostic"]
"""Whether the question stands in the prompt that is scored and cut, or is asked of the cut cache afterwards."""

MOST_EXAMPLES = 100_000


@dataclass(frozen=True)
class StaticOrder(JsonRecord):
    """A ranking that was made before, the same for every prompt: laziest first, for one window.

    Attributes
    ----------
    made
        How, in words: the metric and its calibration prompts.
    """

    name: str
    window: Window
    order: tuple[int, ...]
    made: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.window, dict):
            object.__setattr__(self, "window", Window.from_dict(self.window))
        object.__setattr__(self, "order", tuple(self.order))


@dataclass(frozen=True)
class SweepSpec(JsonRecord):
    """Which rankings are tried on which tasks.

    Parameters
    ----------
    tasks
        Names of registered tasks.
    lengths
        Tokens of a prompt, with everything that the rendering adds; met within 1 % and never exceeded.
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

    tasks: tuple[str, ...]
    lengths: tuple[int, ...]
    windows: tuple[Window, ...]
    shares: tuple[float, ...] = (0.25, 0.5, 0.7)
    rankings: tuple[str, ...] = ("lazy_ratio",)
    trials: tuple[str, ...] = ()
    trial_examples: int = 0
    orders: tuple[StaticOrder, ...] = ()
    questions: tuple[Question, ...] = ("aware",)
    examples: int = 50
    first_seed: int = 0
    last: int = 32
    rendering: Rendering = "chat"
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("tasks", "lengths", "shares", "rankings", "trials", "questions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "windows", tuple(_record(Window, one) for one in self.windows))
        object.__setattr__(self, "orders", tuple(_record(StaticOrder, one) for one in self.orders))
        for name in ("tasks", "lengths", "windows", "shares", "questions"):
            if not getattr(self, name):
                raise InvalidInputError(f"A sweep needs {name}: give at least one.")
        if not all(0 < share <= 1 for share in self.shares):
            raise InvalidInputError(f"shares={self.shares} are not shares of the layers: give numbers over 0 up to 1.")
        if not is_integer(self.examples) or not 1 <= self.examples <= MOST_EXAMPLES:
            raise InvalidInputError(f"examples={self.examples!r} is out of range: give 1 to {MOST_EXAMPLES:,}.")
        unknown = set(self.questions) - {"aware", "agnostic"}
        if unknown:
            raise InvalidInputError(f"questions={sorted(unknown)} are not known: give aware, agnostic, or both.")

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


@dataclass(frozen=True)
class ExampleKey(JsonRecord):
    """One example of a sweep."""

    task: str
    length: int
    seed: int
    question: Question


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

    def continues(self, other: SweepHeader) -> bool:
        """Whether both ask the same of the same model; more examples of the same cells may be added to a file."""
        mine, its = (
            (replace(one.spec, examples=1), one.model.identity, one.model.dtype, one.model.notes)
            for one in (self, other)
        )
        return mine == its

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        if data.get("kind") != "sweep":
            raise InvalidInputError("This is not the first line of a sweep's results.")
        try:
            return super().from_dict(data)
        except (TypeError, KeyError, AttributeError) as error:
            raise InvalidInputError(f"The first line of these results lacks or mistypes {error}.") from error


def _record(kind: Any, value: Any) -> Any:
    return kind.from_dict(value) if isinstance(value, dict) else value
