"""What the backend needs of the side that knows models and imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from lighttransfer_core.service.answers import (
    LightScores,
    MemoryReport,
    MetricEntry,
    ScoreQuestion,
    Tokenized,
    TokenizeRequest,
)
from lighttransfer_core.service.specs import LoadSpec, RunSpec
from lighttransfer_core.service.turns import JobFactory
from lighttransfer_core.types import ModelSpec

if TYPE_CHECKING:
    from lighttransfer_core.service.maps import PromptMap


class ModelSide(Protocol):
    """`jobs.JobEngine` is the real one."""

    @property
    def device_name(self) -> str: ...

    def worker_key(self, load: LoadSpec) -> str:
        """Runs with equal keys share a model, and so a worker."""

    def job(self, spec: RunSpec, texts: Sequence[str]) -> JobFactory:
        """The job of a run; `texts` are those that the spec names by their hashes."""

    def check(self, spec: RunSpec) -> None:
        """Refuses what could not run, as far as that is known before it starts."""

    def model_spec(self, name: str) -> ModelSpec: ...

    def loaded(self) -> list[ModelSpec]: ...

    def tokenize(self, request: TokenizeRequest, text: str) -> Tokenized: ...

    def memory(self) -> MemoryReport: ...

    def laziness_metrics(self) -> list[MetricEntry]: ...

    def keeps(self, load: LoadSpec, identity: str) -> bool:
        """Whether a prefill, or the lanes of a comparison, are still in memory."""

    def prompt_map(
        self, load: LoadSpec, identity: str, lane: tuple[str, str] | None, check: Callable[[], None]
    ) -> PromptMap: ...

    def scores(
        self,
        load: LoadSpec,
        identity: str,
        before: int | None,
        questions: Sequence[ScoreQuestion],
        check: Callable[[], None],
    ) -> list[LightScores]:
        """Scores of a kept prefill; `before` tokens of its prompt come before the question."""

    def tidy(self) -> None: ...
