"""What the backend's routes take and answer beside runs: prompts, models, memory, metrics, maps.

Plain frozen dataclasses with a JSON round trip. It knows neither torch nor FastAPI.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from annotated_types import Ge, Interval, Len

from lighttransfer_core.cost.benchmark import Benchmark
from lighttransfer_core.score_sets import QuestionPlace
from lighttransfer_core.selection import RECOMMENDED_METRIC
from lighttransfer_core.service.specs import ErrorRecord, Name, PromptHash, SystemText
from lighttransfer_core.types import JsonRecord, LayerScores, ModelIdentity, Rendering, Window


@dataclass(frozen=True)
class ErrorEnvelope(JsonRecord):
    """The body of every answer that refuses."""

    error: ErrorRecord


@dataclass(frozen=True)
class Health(JsonRecord):
    status: str
    version: str
    pid: int
    device: str


@dataclass(frozen=True)
class ModelEntry(JsonRecord):
    """A model of the catalogue, or one that is loaded."""

    name: str
    title: str
    family: str
    parameters: int
    loaded: bool
    kv_bytes_per_token: int
    max_positions: int
    notes: str = ""


@dataclass(frozen=True)
class PromptText(JsonRecord):
    text: Annotated[str, Len(1, 2_000_000)]


@dataclass(frozen=True)
class PromptRef(JsonRecord):
    """Where a prompt is kept: the SHA-256 of its text."""

    prompt: PromptHash


@dataclass(frozen=True)
class MetricEntry(JsonRecord):
    """A laziness metric in words."""

    name: str
    title: str
    formula: str
    meaning: str
    source: str
    cost: str


@dataclass(frozen=True)
class TaskEntry(JsonRecord):
    """A task in words; `ready` where its texts are on the backend's machine."""

    name: str
    title: str
    description: str
    source: str
    scorer: str
    ready: bool


@dataclass(frozen=True)
class SweepEntry(JsonRecord):
    """A file of results: it holds `prompts` of the `total` that were asked for last. `problem` says why it cannot be
    read, where it cannot."""

    name: str
    nbytes: int
    changed_ns: int
    title: str = ""
    prompts: int = 0
    total: int = 0
    problem: str = ""


@dataclass(frozen=True)
class BenchmarkReport(JsonRecord):
    """What `make bench` found last in the backend's folder, or None, and the processor that the backend runs on."""

    processor: str
    benchmark: Benchmark | None = None

    def __post_init__(self) -> None:
        if isinstance(self.benchmark, dict):
            object.__setattr__(self, "benchmark", Benchmark.from_dict(self.benchmark))


@dataclass(frozen=True)
class MemoryReport(JsonRecord):
    """Bytes: of the device, of this process, and what the backend's own store, weights and budget come to."""

    device: str
    allocated: int | None
    reserved: int | None
    process: int
    total: int
    results_bytes: int
    weights_bytes: int
    budget_bytes: int


@dataclass(frozen=True)
class MapFacts(JsonRecord):
    """The shape of a prompt's attention maps: tiles of `tile` cells a side, levels 0 (exact) to `top_level` (one tile).

    Levels from `base_level` up are computed once for the whole map. Rows before
    `first_rows[layer]` have no queries kept. Rows from `prompt_tokens` on were decoded, with the layers in `streaming`
    seeing sinks and window only.
    """

    num_tokens: int
    num_layers: int
    num_heads: int
    tile: int
    top_level: int
    base_level: int
    first_rows: tuple[int, ...]
    prompt_tokens: int
    streaming: tuple[int, ...]


@dataclass(frozen=True)
class HeadFacts(JsonRecord):
    """All heads from a sample of `rows`; `characters` holds `[L, H]` by name, thumbnails have `side` cells a side."""

    rows: tuple[int, ...]
    side: int
    characters: dict[str, list[list[float]]]


@dataclass(frozen=True)
class ScoreQuestion(JsonRecord):
    """One way to score a finished prefill: all of its prompt ("aware"), or only up to its question ("agnostic")."""

    window: Window = field(default_factory=Window)
    last: Annotated[int, Interval(ge=1, le=512)] = 32
    metric: Name = RECOMMENDED_METRIC
    question: QuestionPlace = "aware"

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", _record(Window, self.window))


@dataclass(frozen=True)
class ScoresRequest(JsonRecord):
    questions: Annotated[tuple[ScoreQuestion, ...], Len(1, 64)]


@dataclass(frozen=True)
class LightScores(JsonRecord):
    """`LayerScores` without its parts by head and by query."""

    metric: str
    window: Window
    last: int
    num_tokens: int
    values: tuple[float, ...]
    sink: tuple[float, ...]
    recent: tuple[float, ...]
    rest: tuple[float, ...]
    learned_sink: tuple[float, ...] | None
    convertible: tuple[int, ...]
    informative: bool
    model: ModelIdentity | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", _record(Window, self.window))
        object.__setattr__(self, "model", _record(ModelIdentity, self.model))
        for name in ("values", "sink", "recent", "rest", "learned_sink", "convertible"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))

    @classmethod
    def of(cls, scores: LayerScores) -> Self:
        return cls.from_dict(scores.to_dict())

    def scores(self) -> LayerScores:
        return LayerScores.from_dict({**self.to_dict(), "per_head": None, "per_query": None})


@dataclass(frozen=True)
class BeforeQuestion(JsonRecord):
    """What a prompt shows up to its question: how many tokens that is, and their scores or why there are none."""

    tokens: int | None = None
    scores: LightScores | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", _record(LightScores, self.scores))


@dataclass(frozen=True)
class PromptScores(JsonRecord):
    """One prompt of a run over several."""

    prompt: PromptHash
    aware: LightScores
    before: BeforeQuestion

    def __post_init__(self) -> None:
        object.__setattr__(self, "aware", _record(LightScores, self.aware))
        object.__setattr__(self, "before", _record(BeforeQuestion, self.before))


def _record(kind: Any, value: Any) -> Any:
    return kind.from_dict(value) if isinstance(value, dict) else value


@dataclass(frozen=True)
class TokenizeRequest(JsonRecord):
    model: Name
    prompt: PromptHash
    rendering: Rendering = "chat"
    system: SystemText | None = None


@dataclass(frozen=True)
class KeepOffer(JsonRecord):
    """What fits: queries of the last `query_rows` rows (None: all), of all rows in the first `layers` layers, in the
    host's memory, or of a model loaded as `dtype`; `nbytes` on the device."""

    query_rows: int | None
    layers: int
    nbytes: int
    host: bool = False
    dtype: str | None = None


@dataclass(frozen=True)
class Tokenized(JsonRecord):
    """A prompt as the model reads it.

    `max_tokens` is the longest prompt that fits positions and bytes with all queries kept. `kv_nbytes` and
    `query_nbytes` are what its prefill would keep, of the `budget_nbytes` beside the weights; `offers` name what fits
    in place of all queries where that is too much.
    """

    num_tokens: int
    max_tokens: Annotated[int, Ge(0)]
    rendered: str
    head_tokens: tuple[str, ...]
    tail_tokens: tuple[str, ...]
    input_ids: tuple[int, ...]
    kv_nbytes: int
    query_nbytes: int
    budget_nbytes: int
    offers: tuple[KeepOffer, ...] = ()

    def __post_init__(self) -> None:
        for name in ("head_tokens", "tail_tokens", "input_ids"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        offers = (KeepOffer.from_dict(offer) if isinstance(offer, dict) else offer for offer in self.offers)
        object.__setattr__(self, "offers", tuple(offers))
