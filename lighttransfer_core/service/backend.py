"""The backend without HTTP: what its routes do, over runs, prompts and a model side that is made when first needed.

It imports neither torch nor the library's models at its top, so that the process answers before they are loaded.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lighttransfer_core.errors import InvalidInputError, InvalidPromptError
from lighttransfer_core.models.catalogue import CatalogueEntry, catalogue
from lighttransfer_core.service.access import check_model_name
from lighttransfer_core.service.runs import Run, RunBook, Ticket
from lighttransfer_core.service.scheduler import Scheduler
from lighttransfer_core.service.specs import (
    CompareSpec,
    Health,
    LoadSpec,
    MeasureSpec,
    MemoryReport,
    MetricEntry,
    ModelEntry,
    PrefillSpec,
    RunSpec,
    RunStatus,
    ThroughputSpec,
    Tokenized,
    TokenizeRequest,
    prompt_hash,
)
from lighttransfer_core.service.store import ByteStore
from lighttransfer_core.service.worker import JobFactory
from lighttransfer_core.types import ModelSpec
from lighttransfer_core.version import __version__

if TYPE_CHECKING:
    from lighttransfer_core.service.maps import PromptMap


class ModelSide(Protocol):
    """What the backend needs of the side that knows models; `jobs.JobEngine` is the real one."""

    @property
    def device_name(self) -> str: ...

    def worker_key(self, load: LoadSpec) -> str:
        """Runs with equal keys share a model, and so a worker."""

    def job(self, spec: RunSpec, text: str | None) -> JobFactory: ...

    def model_spec(self, name: str) -> ModelSpec: ...

    def loaded(self) -> list[ModelSpec]: ...

    def tokenize(self, request: TokenizeRequest, text: str) -> Tokenized: ...

    def memory(self) -> MemoryReport: ...

    def laziness_metrics(self) -> list[MetricEntry]: ...

    def keeps(self, load: LoadSpec, identity: str) -> bool:
        """Whether a prefill is still in memory."""

    def prompt_map(self, load: LoadSpec, identity: str, lane: str | None, check: Callable[[], None]) -> PromptMap: ...

    def tidy(self) -> None: ...


@dataclass(frozen=True)
class Limits:
    """What one backend takes on.

    Attributes
    ----------
    active_runs
        Runs of one model that share its turns.
    max_waiting
        Runs that may wait in line, over all models.
    records_nbytes, prompts_nbytes
        Bytes that ended runs and stored prompts may hold.
    """

    active_runs: int = 4
    max_waiting: int = 64
    records_nbytes: int = 64 * 2**20
    prompts_nbytes: int = 32 * 2**20


class BackendService:
    """One backend: its runs, its prompts, its models.

    Parameters
    ----------
    make_model_side
        Called once, when first needed; slow, since it imports torch.
    """

    def __init__(self, make_model_side: Callable[[], ModelSide], limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._make_model_side = make_model_side
        self._model_side: ModelSide | None = None
        self._making = threading.Lock()
        self._prompts: ByteStore[str, str] = ByteStore(limits.prompts_nbytes)
        self._book = RunBook(limits.records_nbytes)
        self._scheduler = Scheduler(self._ended, limits.active_runs, limits.max_waiting)
        self._ended_runs: Counter[tuple[str, str]] = Counter()

    @property
    def model_side(self) -> ModelSide:
        with self._making:
            if self._model_side is None:
                self._model_side = self._make_model_side()
            return self._model_side

    def close(self) -> bool:
        """Cancel every run and end the workers; whether all have ended, as a long turn cannot be broken off."""
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

    def laziness_metrics(self) -> list[MetricEntry]:
        return self.model_side.laziness_metrics()

    def put_prompt(self, text: str) -> str:
        key = prompt_hash(text)
        self._prompts.put(key, text, len(text.encode("utf-8", "surrogatepass")))
        return key

    def get_prompt(self, prompt: str) -> str:
        text = self._prompts.get(prompt)
        if text is None:
            raise InvalidPromptError(f"No prompt is stored under {prompt[:12]}...: send its text again.")
        return text

    def tokenize(self, request: TokenizeRequest) -> Tokenized:
        return self.model_side.tokenize(request, self.get_prompt(request.prompt))

    def start(self, spec: RunSpec) -> RunStatus:
        """A token for the run of this spec; an equal run that is under way or kept is shared."""
        check_model_name(spec.model)
        side = self.model_side  # made before the book is locked, since the first time takes seconds
        return self._book.start(spec, lambda run: self._submit(side, run), lambda run: _is_kept(side, run))

    def find(self, token: str) -> Ticket:
        return self._book.find(token)

    def cancel(self, token: str) -> None:
        self._book.cancel(token)
        self._scheduler.wake()

    def prompt_map(self, token: str, lane: str | None, check: Callable[[], None]) -> PromptMap:
        """The attention map of a run that is done: a prefill, or a lane of a comparison with its own tokens.

        `check` raises in mid-computation once nobody waits for the answer any more.
        """
        run = self.find(token).run
        what, needed = ("a prefill", PrefillSpec) if lane is None else ("a comparison", CompareSpec)
        if not isinstance(run.spec, needed) or run.result is None:
            raise InvalidInputError(f"This {run.spec.kind} run is {run.state}: the map needs {what} that is done.")
        of_lane = None if lane is None else run.result["lanes"].get(lane)
        if lane is not None and of_lane is None:
            raise InvalidInputError(f"Lane {lane} decoded one token only, which has no row of its own: ask for more.")
        return self.model_side.prompt_map(run.spec.load_spec(), run.result["identity"], of_lane, check)

    def metrics(self) -> dict[str, float]:
        """Counters and gauges by their Prometheus names."""
        ended = {
            f'lighttransfer_runs_ended_total{{kind="{kind}",state="{state}"}}': float(count)
            for (kind, state), count in sorted(self._ended_runs.items())
        }
        gauges = {
            "lighttransfer_runs_live": len(self._book.live_runs),
            "lighttransfer_runs_waiting": self._scheduler.waiting,
            "lighttransfer_records_bytes": self._book.records_nbytes,
            "lighttransfer_prompts_bytes": self._prompts.nbytes,
        }
        if self._model_side is not None:
            memory = self._model_side.memory()
            for name in ("results_bytes", "weights_bytes", "budget_bytes", "process"):
                gauges[f"lighttransfer_{name.removesuffix('_bytes')}_bytes"] = getattr(memory, name)
        return ended | gauges

    def _submit(self, side: ModelSide, run: Run) -> None:
        prompt = _prompt_of(run.spec)
        text = None if prompt is None else self.get_prompt(prompt)
        self._scheduler.submit(side.worker_key(run.spec.load_spec()), run, side.job(run.spec, text))

    def _ended(self, run: Run) -> None:
        self._ended_runs[run.spec.kind, run.state] += 1
        if run.state != "done" and self._model_side is not None:
            self._model_side.tidy()
        self._book.archive(run)


def _is_kept(side: ModelSide, run: Run) -> bool:
    """Whether a run that is done can serve once more: maps need what it computed, not its numbers only. What was
    measured is measured anew, since the machine may be quieter now."""
    if isinstance(run.spec, MeasureSpec | ThroughputSpec):
        return False
    if isinstance(run.spec, LoadSpec) or run.result is None:
        return True
    parts = [run.result.get("identity", ""), *run.result.get("lanes", {}).values()]
    return all(side.keeps(run.spec.load_spec(), part) for part in parts)


def _prompt_of(spec: RunSpec) -> str | None:
    if isinstance(spec, CompareSpec | ThroughputSpec):
        return spec.prefill.prompt
    return spec.prompt if isinstance(spec, PrefillSpec) else None


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
