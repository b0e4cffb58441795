"""The backend without HTTP: what its routes do, over runs, prompts and a model side that is made when first needed.

It imports neither torch nor the library's models at its top, so that the process answers before they are loaded.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lighttransfer_core.cost.benchmark import benchmark_file, processor_name, read_benchmark
from lighttransfer_core.errors import InvalidInputError, InvalidPromptError
from lighttransfer_core.models.catalogue import CatalogueEntry, catalogue
from lighttransfer_core.service.access import check_model_name
from lighttransfer_core.service.answers import (
    BenchmarkReport,
    Health,
    LightScores,
    MemoryReport,
    MetricEntry,
    ModelEntry,
    ScoreQuestion,
    Tokenized,
    TokenizeRequest,
)
from lighttransfer_core.service.book import RunBook, Ticket
from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.limits import Limits, RateLimit
from lighttransfer_core.service.metrics import Metrics
from lighttransfer_core.service.model_side import ModelSide
from lighttransfer_core.service.runs import Run
from lighttransfer_core.service.saving import saved
from lighttransfer_core.service.scheduler import Scheduler
from lighttransfer_core.service.specs import (
    CheckSpec,
    CompareSpec,
    LoadSpec,
    MeasureSpec,
    PrefillSpec,
    RunSpec,
    RunStatus,
    ScoreSpec,
    SweepRunSpec,
    ThroughputSpec,
    prompt_hash,
)
from lighttransfer_core.service.store import ByteStore
from lighttransfer_core.service.sweep_files import SweepFolder
from lighttransfer_core.session import Session
from lighttransfer_core.types import ModelSpec
from lighttransfer_core.version import __version__

if TYPE_CHECKING:
    from lighttransfer_core.service.maps import PromptMap


class BackendService:
    """One backend: its runs, its prompts, its models.

    Parameters
    ----------
    make_model_side
        Called once, when first needed; slow, since it imports torch.
    """

    def __init__(self, make_model_side: Callable[[], ModelSide], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._make_model_side = make_model_side
        self._model_side: ModelSide | None = None
        self._making = threading.Lock()
        self._prompts: ByteStore[str, str] = ByteStore(self.limits.prompts_nbytes)
        self._book = RunBook(self.limits.records_nbytes)
        self._scheduler = Scheduler(
            self._ended,
            self.limits.active_lanes,
            self.limits.max_waiting,
            self.limits.wall_clock_s,
            self.limits.sweep_clock_s,
        )
        self._rate = RateLimit(self.limits.requests_per_minute)
        self._leaving: dict[str, threading.Timer] = {}
        self._metrics = Metrics()
        self.sweeps = SweepFolder(self.limits.results_nbytes)

    @property
    def model_side(self) -> ModelSide:
        with self._making:
            if self._model_side is None:
                self._model_side = self._make_model_side()
            return self._model_side

    def close(self) -> bool:
        """Cancel every run and end the workers; whether all have ended, as a long turn cannot be broken off."""
        for timer in list(self._leaving.values()):
            timer.cancel()
        return self._scheduler.close()

    def health(self) -> Health:
        ready = self._model_side
        device = ready.device_name if ready is not None else "not known yet"
        return Health(status="ok", version=__version__, pid=os.getpid(), device=device)

    def models(self) -> list[ModelEntry]:
        """The catalogue, then whatever else is loaded."""
        loaded = {spec.name: spec for spec in self._model_side.loaded()} if self._model_side is not None else {}
        known = [_catalogue_entry(entry, loaded.pop(entry.name, None)) for entry in catalogue()]
        return known + [_loaded_entry(spec) for spec in loaded.values()]

    def model_spec(self, name: str) -> ModelSpec:
        check_model_name(name)
        return self.model_side.model_spec(name)

    def memory(self) -> MemoryReport:
        return self.model_side.memory()

    def benchmark(self) -> BenchmarkReport:
        """What was measured on this machine; raises InvalidInputError for a damaged file."""
        return BenchmarkReport(processor_name(), read_benchmark(benchmark_file()))

    def laziness_metrics(self) -> list[MetricEntry]:
        return self.model_side.laziness_metrics()

    def put_prompt(self, text: str) -> str:
        key = prompt_hash(text)
        self._prompts.put(key, text, len(text.encode("utf-8", "surrogatepass")))
        return key

    def get_prompt(self, prompt: str) -> str:
        text = self._prompts.get(prompt)
        if text is None:
            raise InvalidPromptError(
                f"No prompt is stored under {prompt[:12]}…: it was never sent here, or has made room since. Send its "
                "text again."
            )
        return text

    def tokenize(self, request: TokenizeRequest) -> Tokenized:
        return self.model_side.tokenize(request, self.get_prompt(request.prompt))

    def admit(self, client: str) -> None:
        """Counts a request that makes work; raises RateLimitedError where the client sends too many."""
        self._rate.take(client)

    def start(self, spec: RunSpec, client: str = "") -> RunStatus:
        """A token for the run of this spec; an equal run that is under way or kept is shared.

        A client that says who it is has one run at a time beside loads.
        """
        check_model_name(spec.model)
        self.limits.check(spec)
        side = self.model_side  # made before the book is locked, since the first time takes seconds
        side.check(spec)
        if isinstance(spec, SweepRunSpec):
            self.sweeps.check_room()
        return self._book.start(spec, lambda run: self._submit(side, run), lambda run: _is_kept(side, run), client)

    def find(self, token: str, peek: bool = False) -> Ticket:
        return self._book.find(token, peek)

    def cancel(self, token: str) -> None:
        self._book.cancel(token)
        self._scheduler.wake()

    def leave(self, token: str) -> None:
        """The page behind a request was closed: it is given up after a while, unless its token is used again."""
        self._book.leave(token)
        self._give_up_later(token)

    def _give_up_later(self, token: str) -> None:
        """One timer for a request, however often its page is closed."""

        def give_up() -> None:
            self._leaving.pop(token, None)
            if self._book.drop_left(token):
                self._give_up_later(token)
            self._scheduler.wake()

        timer = threading.Timer(self.limits.leave_grace_s, give_up)
        timer.daemon = True
        earlier, self._leaving[token] = self._leaving.get(token), timer
        if earlier is not None:
            earlier.cancel()
        timer.start()

    def command(self, token: str, command: Command) -> None:
        """Pause a comparison, let it go on, slow it down, or begin one of its lanes anew."""
        self._book.command(token, command, self.model_side.check)
        self._scheduler.wake()

    def session(self, token: str) -> Session:
        """A comparison that is over, as a file that replays without the model."""
        run = self.find(token).run
        if not isinstance(run.spec, CompareSpec) or run.result is None:
            raise InvalidInputError(f"This {run.spec.kind} run is {run.state}: a comparison that is done can be saved.")
        return saved(run, [self.get_prompt(name) for name in _texts_of(run.spec)])

    def prompt_map(self, token: str, lane: str | None, check: Callable[[], None]) -> PromptMap:
        """The attention map of a run that is done: a prefill, or a lane of a comparison with its own tokens.

        `check` raises in mid-computation once nobody waits for the answer any more.
        """
        needed = PrefillSpec if lane is None else CompareSpec
        run, result = self._done(token, needed, "the map needs")
        of_lane = None if lane is None else (str(result["kept"]), lane)
        return self.model_side.prompt_map(run.spec.load_spec(), result["identity"], of_lane, check)

    def scores(self, token: str, questions: Sequence[ScoreQuestion], check: Callable[[], None]) -> list[LightScores]:
        """One answer to each question about a prefill that is done; `check` as in `prompt_map`."""
        run, result = self._done(token, PrefillSpec, "scores need")
        before = result["before"]["tokens"]
        return self.model_side.scores(run.spec.load_spec(), result["identity"], before, questions, check)

    def _done(self, token: str, needed: type[PrefillSpec] | type[CompareSpec], who: str) -> tuple[Run, dict[str, Any]]:
        """A run of that kind that is done, with its result. Raises RunNotFoundError and InvalidInputError."""
        run = self.find(token).run
        if not isinstance(run.spec, needed) or run.result is None:
            what = "a prefill" if needed is PrefillSpec else "a comparison"
            raise InvalidInputError(f"This {run.spec.kind} run is {run.state}: {who} {what} that is done.")
        return run, run.result

    def metrics(self) -> str:
        """Prometheus text."""
        gauges: dict[str, float] = {
            "runs_live": len(self._book.live_runs),
            "runs_waiting": self._scheduler.waiting,
            "event_readers": self._book.open_streams,
            "records_bytes": self._book.records_nbytes,
            "prompts_bytes": self._prompts.nbytes,
        }
        if self._model_side is not None:
            memory = self._model_side.memory()
            for name in ("results_bytes", "weights_bytes", "budget_bytes", "process"):
                gauges[f"{name.removesuffix('_bytes')}_bytes"] = getattr(memory, name)
        return self._metrics.text(gauges)

    def _submit(self, side: ModelSide, run: Run) -> None:
        texts = [self.get_prompt(name) for name in _texts_of(run.spec)]
        self._scheduler.submit(side.worker_key(run.spec.load_spec()), run, side.job(run.spec, texts))

    def _ended(self, run: Run) -> None:
        self._metrics.ended(run)
        if run.state != "done" and self._model_side is not None:
            self._model_side.tidy()
        self._book.archive(run)


def _is_kept(side: ModelSide, run: Run) -> bool:
    """Whether a run that is done can serve once more: maps need what it computed, not its numbers only. What was
    measured is measured anew, since the machine may be quieter now; and a sweep looks into its file anew."""
    if isinstance(run.spec, MeasureSpec | ThroughputSpec | SweepRunSpec):
        return False
    if isinstance(run.spec, LoadSpec) or run.result is None:
        return True
    parts = [run.result[name] for name in ("identity", "kept") if name in run.result]
    return all(side.keeps(run.spec.load_spec(), part) for part in parts)


def _texts_of(spec: RunSpec) -> tuple[str, ...]:
    """The hashes of the texts that a run reads: the prompt, then further questions."""
    if isinstance(spec, CompareSpec):
        return (spec.prefill.prompt, *spec.turns)
    if isinstance(spec, ThroughputSpec):
        return (spec.prefill.prompt,)
    if isinstance(spec, ScoreSpec):
        return spec.prompts
    if isinstance(spec, CheckSpec):
        return () if spec.prompt is None else (spec.prompt,)
    return (spec.prompt,) if isinstance(spec, PrefillSpec) else ()


def _catalogue_entry(entry: CatalogueEntry, loaded: ModelSpec | None) -> ModelEntry:
    return ModelEntry(
        name=entry.name,
        title=entry.title,
        family=entry.family,
        parameters=entry.parameters,
        loaded=loaded is not None,
        kv_bytes_per_token=entry.kv_bytes_per_token,
        max_positions=entry.max_positions,
        notes=entry.notes,
    )


def _loaded_entry(spec: ModelSpec) -> ModelEntry:
    return ModelEntry(
        name=spec.name,
        title=spec.name,
        family=spec.family,
        parameters=spec.parameters,
        loaded=True,
        kv_bytes_per_token=spec.kv_bytes_per_token_per_layer * spec.layer_kinds.count("full"),
        max_positions=spec.max_positions,
        notes=spec.notes,
    )
