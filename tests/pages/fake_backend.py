"""A backend without a model: the client's methods, answered from the recorded default run."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.cost.measured import BatchRun, Latency, MeasuredPoint, MeasuredThroughput, Measurement
from lighttransfer_core.cost.roofline import DeviceSpeed
from lighttransfer_core.errors import (
    BackendUnavailableError,
    InvalidPromptError,
    LightTransferError,
    ModelNotLoadedError,
    RunNotFoundError,
)
from lighttransfer_core.frontier.choice import CheckedPrompt, CheckResult, ChoiceCheck
from lighttransfer_core.frontier.results import Outcome
from lighttransfer_core.models.catalogue import catalogue
from lighttransfer_core.service.answers import (
    BeforeQuestion,
    BenchmarkReport,
    Health,
    KeepOffer,
    LightScores,
    MemoryReport,
    ModelEntry,
    PromptScores,
    ScoreQuestion,
    SweepEntry,
    TaskEntry,
    Tokenized,
)
from lighttransfer_core.service.specs import (
    CheckSpec,
    CompareSpec,
    ErrorRecord,
    MeasureSpec,
    PrefillSpec,
    RunSpec,
    RunStatus,
    ScoreSpec,
    SweepRunSpec,
    ThroughputSpec,
    prompt_hash,
)
from lighttransfer_core.service.sweep_files import SweepFolder
from lighttransfer_core.tasks import list_tasks, task_info
from lighttransfer_core.types import LayerScores, ModelSpec, Window
from pages.parts import results


class FakeBackend:
    """Stands in for the launcher's backend and for its client at once."""

    def __init__(self) -> None:
        self.up = True
        self.age_s = 0.0
        self.restarts = 0
        self.last_exit: int | None = None
        self.loaded = {catalogue()[0].name}
        self.prompts: dict[str, str] = {}
        self.started: list[RunSpec] = []
        self.runs: dict[str, RunStatus] = {}
        self.left: list[str] = []
        self.refusal: LightTransferError | None = None
        self.num_tokens: int | None = None
        self.offers: tuple[KeepOffer, ...] = ()
        self.asked: list[tuple[ScoreQuestion, ...]] = []
        self.gone: LightTransferError | None = None
        self.no_question = ""
        self.missing: set[str] = set()
        self.answers: Callable[[int], tuple[float, float]] = lambda _seed: (1.0, 1.0)
        self._folder = SweepFolder(10**9)
        self.measured: BenchmarkReport | LightTransferError = BenchmarkReport("A processor")
        self.finish: Callable[[RunSpec], str] = lambda spec: "done"

    def client(self, timeout_s: float = 30.0) -> FakeBackend:
        if not self.up:
            raise BackendUnavailableError("The backend is not up.")
        return self

    def health(self) -> Health:
        return Health("ok", "0.1.0", 1, "cpu")

    def benchmark(self) -> BenchmarkReport:
        if isinstance(self.measured, LightTransferError):
            raise self.measured
        return self.measured

    def models(self) -> list[ModelEntry]:
        return [
            ModelEntry(**{**_defaults(ModelEntry), "name": e.name, "title": e.title, "loaded": e.name in self.loaded})
            for e in catalogue()
        ]

    def spec(self, model: str) -> ModelSpec:
        if model not in self.loaded:
            raise ModelNotLoadedError(f"{model} is not loaded.")
        return ModelSpec.from_dict(results.record()["prefill"]["spec"])

    def memory(self) -> MemoryReport:
        return MemoryReport("cpu", None, None, 10**9, 10**10, 10**8, 5 * 10**8, 6 * 10**9)

    def tasks(self) -> list[TaskEntry]:
        return [TaskEntry(**{**task_info(name).to_dict(), "ready": name not in self.missing}) for name in list_tasks()]

    def sweeps(self) -> list[SweepEntry]:
        if not self.up:
            raise BackendUnavailableError("The backend is not up.")
        return self._folder.entries()

    def sweep_text(self, name: str) -> str:
        return self._folder.read(name).decode()

    def put_prompt(self, text: str, visitor: str = "") -> str:
        self.prompts[prompt_hash(text)] = text
        return prompt_hash(text)

    def get_prompt(self, prompt: str) -> str:
        if prompt not in self.prompts:
            raise InvalidPromptError(f"No prompt is stored under {prompt[:12]}...: send its text again.")
        return self.prompts[prompt]

    def tokenize(self, model: str, prompt: str, rendering: str = "chat", system: str | None = None) -> Tokenized:
        if model not in self.loaded:
            raise ModelNotLoadedError(f"{model} is not loaded.")
        text = self.get_prompt(prompt)
        count = self.num_tokens or len(text.split())
        ids = tuple(range(min(count, 100)))
        return Tokenized(count, 8192, text, ("a",) * 32, ("b",) * 32, ids, 10**8, 2 * 10**8, 10**9, self.offers)

    def start(self, spec: RunSpec, visitor: str = "") -> RunStatus:
        if self.refusal is not None:
            raise self.refusal
        self.started.append(spec)
        token = f"token-{len(self.started)}"
        self.runs[token] = self._status(token, spec, self.finish(spec))
        return self.runs[token]

    def status(self, token: str, peek: bool = False) -> RunStatus:
        if not self.up:
            raise BackendUnavailableError("The backend is not up.")
        if token not in self.runs:
            raise RunNotFoundError("No run has that token.")
        return self.runs[token]

    def scores(self, token: str, questions: Sequence[ScoreQuestion], visitor: str = "") -> list[LayerScores]:
        self.asked.append(tuple(questions))
        if self.gone is not None:
            raise self.gone
        return [_scored(one, shift=one.window.recent % 7 + one.last % 3) for one in questions]

    def cancel(self, token: str) -> None:
        self.runs[token] = dataclasses.replace(self.runs[token], state="cancelled")

    def leave(self, token: str) -> None:
        self.left.append(token)

    def restart(self) -> None:
        """Dies and comes back, as the launcher sees it."""
        self.runs.clear()
        self.prompts.clear()
        self.restarts, self.last_exit = self.restarts + 1, -9

    def end(self, state: str) -> None:
        """All runs that are under way end so."""
        for number, spec in enumerate(self.started, start=1):
            token = f"token-{number}"
            if token in self.runs and not self.runs[token].finished:
                self.runs[token] = self._status(token, spec, state)

    def _status(self, token: str, spec: RunSpec, state: str) -> RunStatus:
        error = ErrorRecord("RunFailedError", "It broke.") if state == "failed" else None
        result = self._result(spec) if state == "done" else None
        return RunStatus(token, spec.kind, state, error=error, result=result, age_s=self.age_s)  # type: ignore[arg-type]

    def _result(self, spec: RunSpec) -> dict[str, Any]:
        if isinstance(spec, CompareSpec):
            found = copy.deepcopy(results.record()["session"]["result"])
            found["lanes"]["b"]["settings"] = spec.lanes[0].to_dict()
            return found
        if isinstance(spec, MeasureSpec):
            return _measured(self.spec(spec.model), spec).to_dict()
        if isinstance(spec, ThroughputSpec):
            return _decoded(self.spec(spec.model), spec).to_dict()
        if isinstance(spec, ScoreSpec):
            found = [self._prompt_scores(spec, name, place) for place, name in enumerate(spec.prompts)]
            return {"prompts": found, "spec": results.record()["prefill"]["spec"]}
        if isinstance(spec, SweepRunSpec):
            return {"file": "x.jsonl", "done": spec.sweep.prompts, "total": spec.sweep.prompts}
        if isinstance(spec, CheckSpec):
            return self._checked(spec.check).to_dict()
        result = dict(results.record()["prefill"])
        if isinstance(spec, PrefillSpec):
            informative = result["num_tokens"] > spec.window.size
            result["scores"] = result["scores"] | {"window": spec.window.to_dict(), "informative": informative}
            result["before"] = self._before(spec.window).to_dict()
        return result

    def _checked(self, check: ChoiceCheck) -> CheckResult:
        """Forty needles, asked both ways, and six passages; asked later the plan loses the first two."""
        needles = [
            CheckedPrompt(
                "passkey",
                seed,
                check.length,
                Outcome(full),
                Outcome(0.0 if way == "agnostic" and seed < 2 else plan),
                Outcome(0.0),
                "12345",
                ("12345", "<b>54</b>"),
                way,
            )
            for seed in range(40)
            for full, plan in [self.answers(seed)]
            for way in ("aware", "agnostic")
        ]
        read = [
            CheckedPrompt("passages", seed, check.length, Outcome(None, 2.0, 0.0), *[Outcome(None, 2.05, 0.02)] * 2)
            for seed in range(6)
        ]
        given_up = [
            CheckedPrompt("niah_multikey_2", seed, check.length, Outcome(0.0), Outcome(0.0), Outcome(0.0))
            for seed in range(2)
        ]
        return CheckResult(check, (*needles, *read, *given_up), "time", 119.0)

    def _prompt_scores(self, spec: ScoreSpec, name: str, place: int) -> dict[str, Any]:
        """Each prompt's ranking is the recorded one, moved on by some layers."""
        asked = ScoreQuestion(spec.window, spec.last, spec.metric)
        return PromptScores(name, LightScores.of(_scored(asked, place)), self._before(spec.window)).to_dict()

    def _before(self, window: Window) -> BeforeQuestion:
        if self.no_question:
            return BeforeQuestion(reason=self.no_question)
        asked = ScoreQuestion(window, question="agnostic")
        return BeforeQuestion(results.record()["prefill"]["before"]["tokens"], LightScores.of(_scored(asked)))


def _scored(asked: ScoreQuestion, shift: int = 0) -> LayerScores:
    """The recorded scores under another question: with values that have moved on by so many layers."""
    recorded = results.record()["prefill"]
    if asked.question == "agnostic":
        data = {**recorded["before"]["scores"], "per_head": None, "per_query": None}
    else:
        data = dict(recorded["scores"])
    values = data["values"][-shift % len(data["values"]) :] + data["values"][: -shift % len(data["values"])]
    told = {"metric": asked.metric, "window": asked.window, "last": asked.last, "values": values}
    return LayerScores.from_dict({**data, **told, "informative": data["num_tokens"] > asked.window.size})


def _measured(model: ModelSpec, spec: MeasureSpec) -> Measurement:
    """Steps that take ten milliseconds, and twice as long without the plan."""
    points = tuple(
        MeasuredPoint(
            tokens=tokens,
            batch=batch,
            with_plan=with_plan,
            latency=Latency(0.02 / (1 + with_plan), 0.01, 0.02, 9),
            kv_bytes=kv_bytes(model, spec.plan if with_plan else None, tokens, batch),
            kv_formula_bytes=kv_bytes(model, spec.plan if with_plan else None, tokens, batch),
        )
        for batch in spec.batches
        for tokens in spec.contexts
        for with_plan in (False, True)
    )
    speed = DeviceSpeed(1e10, ((1, 5e9), (8, 8e9)), ((1, 0.01), (8, 0.02)), "cpu", "float32", 2, "torch 0")
    return Measurement(model, spec.plan, speed, points)


def _decoded(model: ModelSpec, spec: ThroughputSpec) -> MeasuredThroughput:
    """A prompt of 3,000 tokens: the full model at 10 tokens a second, the plan at 15."""
    latency = Latency(0.2, 0.2, 0.2, spec.steps)
    full, lazy = (BatchRun(size, 3019, latency, 100, 100, 120, 10**9) for size in (2, 3))
    return MeasuredThroughput(model, spec.plan, spec.kv_nbytes, 3000, full, lazy, "cpu", 2, "torch 0")


def _defaults(kind: type) -> dict[str, Any]:
    """A value for each field that is of no concern."""
    blanks: dict[str, Any] = {"str": "", "int": 1, "bool": False}
    return {field.name: blanks.get(str(field.type)) for field in dataclasses.fields(kind)}
