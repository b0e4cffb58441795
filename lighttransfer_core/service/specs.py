"""What is asked of the backend and how it stands: run specs, run states, errors.

Plain frozen dataclasses with a JSON round trip. The bounds in the annotations are enforced by the backend; a client
only carries them. It knows neither torch nor FastAPI.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from annotated_types import Interval, Len

from lighttransfer_core import errors
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.frontier.choice import ChoiceCheck
from lighttransfer_core.frontier.spec import SweepSpec
from lighttransfer_core.selection import RECOMMENDED_METRIC
from lighttransfer_core.types import ConversionPlan, JsonRecord, Rendering, Window

CLIENT_HEADER = "X-LightTransfer-Client"
"""Names the visitor on whose behalf a page server asks."""

ADDRESS_HEADER = "X-Forwarded-For"
"""The address of a browser whose request a page server forwards."""

RunState = Literal["waiting", "running", "done", "failed", "cancelled"]
FINAL_STATES: frozenset[str] = frozenset({"done", "failed", "cancelled"})

Name = Annotated[str, Len(1, 300)]
PromptHash = Annotated[str, Len(64, 64)]
SystemText = Annotated[str, Len(0, 20_000)]
NewTokens = Annotated[int, Interval(ge=1, le=4096)]
QueryRows = Annotated[int, Interval(ge=1, le=10_000_000)]
LayerIndex = Annotated[int, Interval(ge=0, le=10_000)]
LastQueries = Annotated[int, Interval(ge=1, le=4096)]
Contexts = Annotated[tuple[Annotated[int, Interval(ge=1, le=10_000_000)], ...], Len(1, 16)]
Batches = Annotated[tuple[Annotated[int, Interval(ge=1, le=4096)], ...], Len(1, 8)]
KVBytes = Annotated[int, Interval(ge=1, le=2**50)]
BatchSteps = Annotated[int, Interval(ge=1, le=512)]


@dataclass(frozen=True)
class LoadSpec(JsonRecord):
    """Load a model; forty equal requests share one load."""

    model: Name
    device: Name = "auto"
    dtype: Name = "auto"
    revision: Name | None = None
    kind: Literal["load"] = "load"

    def load_spec(self) -> LoadSpec:
        """Itself."""
        return self


@dataclass(frozen=True)
class PrefillSpec(JsonRecord):
    """Run a stored prompt once and score its layers.

    `prompt` is the hash that `POST /prompts` gave. `last` counts the queries that the metric averages over.
    `query_rows` keeps the queries of the last so many tokens only (enough for scores, less memory); None keeps all, as
    attention maps need; in `query_layers` all are kept in any case. With `query_host` they go to the host's memory.
    """

    model: Name
    prompt: PromptHash
    rendering: Rendering = "chat"
    system: SystemText | None = None
    dtype: Name = "auto"
    window: Window = field(default_factory=Window)
    last: LastQueries = 32
    metric: Name = RECOMMENDED_METRIC
    device: Name = "auto"
    revision: Name | None = None
    query_rows: QueryRows | None = None
    query_layers: tuple[LayerIndex, ...] = ()
    query_host: bool = False
    kind: Literal["prefill"] = "prefill"

    def __post_init__(self) -> None:
        object.__setattr__(self, "query_layers", tuple(self.query_layers))
        if isinstance(self.window, dict):
            object.__setattr__(self, "window", Window.from_dict(self.window))

    def load_spec(self) -> LoadSpec:
        """The load that this run depends on."""
        return LoadSpec(model=self.model, device=self.device, dtype=self.dtype, revision=self.revision)


@dataclass(frozen=True)
class CompareSpec(JsonRecord):
    """Decode the full model (lane a) and one to three other lanes from one prefill, step by step.

    `turns` are the hashes of further questions, each put to every lane when all have answered. Equal specs share one
    run; a `copy` of another name is a run of its own, which its maker may pause and change.
    """

    prefill: PrefillSpec
    lanes: Annotated[tuple[LaneSettings, ...], Len(1, 3)]
    max_new_tokens: NewTokens = 64
    temperature: Annotated[float, Interval(ge=0.0, le=10.0)] = 0.0
    seed: Annotated[int, Interval(ge=0, le=2**31 - 1)] = 0
    turns: Annotated[tuple[PromptHash, ...], Len(0, 16)] = ()
    copy: Annotated[str, Len(0, 32)] = ""
    kind: Literal["compare"] = "compare"

    def __post_init__(self) -> None:
        if isinstance(self.prefill, dict):
            object.__setattr__(self, "prefill", PrefillSpec.from_dict(self.prefill))
        lanes = (LaneSettings.from_dict(lane) if isinstance(lane, dict) else lane for lane in self.lanes)
        object.__setattr__(self, "lanes", tuple(lanes))
        object.__setattr__(self, "turns", tuple(self.turns))

    @property
    def model(self) -> str:
        return self.prefill.model

    @property
    def settings(self) -> tuple[LaneSettings, ...]:
        """Of every lane, the full model first."""
        return (LaneSettings(), *self.lanes)

    def load_spec(self) -> LoadSpec:
        """The load that this run depends on."""
        return self.prefill.load_spec()


@dataclass(frozen=True)
class MeasureSpec(JsonRecord):
    """Measure how fast a model decodes: the device's speed, then full model and plan at each context and batch size."""

    model: Name
    plan: ConversionPlan
    contexts: Contexts
    batches: Batches = (1,)
    dtype: Name = "auto"
    device: Name = "auto"
    revision: Name | None = None
    kind: Literal["measure"] = "measure"

    def __post_init__(self) -> None:
        if isinstance(self.plan, dict):
            object.__setattr__(self, "plan", ConversionPlan.from_dict(self.plan))
        object.__setattr__(self, "contexts", tuple(self.contexts))
        object.__setattr__(self, "batches", tuple(self.batches))

    def load_spec(self) -> LoadSpec:
        """The load that this run depends on."""
        return LoadSpec(model=self.model, device=self.device, dtype=self.dtype, revision=self.revision)


@dataclass(frozen=True)
class ThroughputSpec(JsonRecord):
    """Decode one prompt at the largest batch whose keys and values fit `kv_nbytes`: the full model, then the plan."""

    prefill: PrefillSpec
    plan: ConversionPlan
    kv_nbytes: KVBytes
    steps: BatchSteps = 16
    kind: Literal["throughput"] = "throughput"

    def __post_init__(self) -> None:
        if isinstance(self.prefill, dict):
            object.__setattr__(self, "prefill", PrefillSpec.from_dict(self.prefill))
        if isinstance(self.plan, dict):
            object.__setattr__(self, "plan", ConversionPlan.from_dict(self.plan))

    @property
    def model(self) -> str:
        return self.prefill.model

    def load_spec(self) -> LoadSpec:
        """The load that this run depends on."""
        return self.prefill.load_spec()


@dataclass(frozen=True)
class ScoreSpec(JsonRecord):
    """Score the layers on several stored prompts, one after the other; nothing of the prompts is kept."""

    model: Name
    prompts: Annotated[tuple[PromptHash, ...], Len(1, 64)]
    rendering: Rendering = "chat"
    system: SystemText | None = None
    dtype: Name = "auto"
    window: Window = field(default_factory=Window)
    last: LastQueries = 32
    metric: Name = RECOMMENDED_METRIC
    device: Name = "auto"
    revision: Name | None = None
    kind: Literal["score"] = "score"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts))
        if isinstance(self.window, dict):
            object.__setattr__(self, "window", Window.from_dict(self.window))

    def load_spec(self) -> LoadSpec:
        """The load that this run depends on."""
        return LoadSpec(model=self.model, device=self.device, dtype=self.dtype, revision=self.revision)


@dataclass(frozen=True)
class SweepRunSpec(JsonRecord):
    """Measure rankings over many prompts. What is found is added to a file, with which the next equal run goes on."""

    model: Name
    sweep: SweepSpec
    dtype: Name = "auto"
    device: Name = "auto"
    revision: Name | None = None
    kind: Literal["sweep"] = "sweep"

    def __post_init__(self) -> None:
        if isinstance(self.sweep, dict):
            object.__setattr__(self, "sweep", SweepSpec.from_dict(self.sweep))

    def load_spec(self) -> LoadSpec:
        """The load that this run depends on."""
        return LoadSpec(model=self.model, device=self.device, dtype=self.dtype, revision=self.revision)


@dataclass(frozen=True)
class CheckSpec(JsonRecord):
    """Hold a plan against the full model on needles, and on passages of the stored `prompt` if one is named."""

    model: Name
    check: ChoiceCheck
    prompt: PromptHash | None = None
    dtype: Name = "auto"
    device: Name = "auto"
    revision: Name | None = None
    kind: Literal["check"] = "check"

    def __post_init__(self) -> None:
        if isinstance(self.check, dict):
            object.__setattr__(self, "check", ChoiceCheck.from_dict(self.check))

    def load_spec(self) -> LoadSpec:
        """The load that this run depends on."""
        return LoadSpec(model=self.model, device=self.device, dtype=self.dtype, revision=self.revision)


RunSpec = LoadSpec | PrefillSpec | CompareSpec | MeasureSpec | ThroughputSpec | ScoreSpec | SweepRunSpec | CheckSpec


def weight(spec: RunSpec) -> int:
    """How many lanes take turns in a run; none of a sweep, which takes hours and so no place from others."""
    if isinstance(spec, SweepRunSpec):
        return 0
    return len(spec.settings) if isinstance(spec, CompareSpec) else 1


def spec_identity(spec: RunSpec) -> str:
    """The hash under which equal requests share a run."""
    return hashlib.sha256(json.dumps(spec.to_dict(), sort_keys=True).encode()).hexdigest()


def prompt_hash(text: str) -> str:
    """The hash under which a prompt's text is stored."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class ErrorRecord(JsonRecord):
    """An error as it travels: the name of its class in `lighttransfer_core.errors`, its message, perhaps an offer."""

    type: str
    message: str
    offer: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> Self:
        if isinstance(error, errors.LightTransferError):
            return cls(type(error).__name__, str(error), getattr(error, "offer", None))
        return cls("RunFailedError", f"{type(error).__name__}: {error}")

    def to_exception(self) -> errors.LightTransferError:
        found = getattr(errors, self.type, None)
        if found is errors.DoesNotFitError:
            return errors.DoesNotFitError(self.message, self.offer)
        if isinstance(found, type) and issubclass(found, errors.LightTransferError):
            return found(self.message)
        return errors.RunFailedError(self.message)


@dataclass(frozen=True)
class RunStatus(JsonRecord):
    """Where a run stands.

    `place` is its place in the queue, from 1; 0 once it is not waiting. `wait_s` is how long that may last, judged by
    the runs that ended lately; None where nothing is known. `events` counts the events so far, and `result` is there
    once the state is "done". `reason` says why a run was cancelled where its owner did not do it. `age_s` is how long
    ago the run was first asked for.
    """

    token: str
    kind: str
    state: RunState
    place: int = 0
    events: int = 0
    error: ErrorRecord | None = None
    result: dict[str, Any] | None = None
    wait_s: float | None = None
    reason: str = ""
    age_s: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.error, dict):
            object.__setattr__(self, "error", ErrorRecord.from_dict(self.error))

    @property
    def finished(self) -> bool:
        return self.state in FINAL_STATES
