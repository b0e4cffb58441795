"""A backend whose model side is a stand-in: jobs that a test lets go on step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from lighttransfer_core.errors import ModelNotLoadedError, PrefillGoneError
from lighttransfer_core.service import client as client_module
from lighttransfer_core.service.answers import (
    LightScores,
    MemoryReport,
    MetricEntry,
    ScoreQuestion,
    Tokenized,
    TokenizeRequest,
)
from lighttransfer_core.service.app import create_app
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.limits import Limits
from lighttransfer_core.service.maps import PromptMap
from lighttransfer_core.service.model_side import ModelSide
from lighttransfer_core.service.runs import Run
from lighttransfer_core.service.specs import LoadSpec, PrefillSpec, RunSpec
from lighttransfer_core.service.turns import JobFactory, Steps, Turns
from lighttransfer_core.types import ModelSpec
from tests.service.in_process import WAIT_S, InProcessTransport, serving


def load(model: str = "m", **facts: Any) -> LoadSpec:
    return LoadSpec(model=model, **facts)


def new_run(name: str = "m") -> Run:
    return Run(load(name))


def finished(run: Run) -> bool:
    return run.wait_for(lambda record: record.status("").finished, WAIT_S)


@dataclass
class FakeSide:
    """Counts as many steps as the model's name says after the dash ("m-3"), each once the gate is open."""

    gate: threading.Event = field(default_factory=threading.Event)
    started: list[RunSpec] = field(default_factory=list)
    closed: list[RunSpec] = field(default_factory=list)
    tidied: int = 0
    device_name: str = "cpu"
    stepping: Callable[[RunSpec, int], None] = lambda _spec, _step: None

    def worker_key(self, load: LoadSpec) -> str:
        return load.model.rpartition("-")[0]

    def job(self, spec: RunSpec, texts: Sequence[str]) -> JobFactory:
        def build(_turns: Turns) -> Steps:
            self.started.append(spec)
            try:
                for step in range(int(spec.model.rpartition("-")[2])):
                    assert self.gate.wait(WAIT_S)
                    self.stepping(spec, step)
                    yield {"kind": "step", "step": step, "text": texts[0] if texts else None}
                return {"model": spec.model}
            finally:
                self.closed.append(spec)

        return build

    def model_spec(self, name: str) -> ModelSpec:
        raise ModelNotLoadedError(f"{name} is not loaded: start a load run first.")

    def loaded(self) -> list[ModelSpec]:
        return []

    def tokenize(self, request: TokenizeRequest, text: str) -> Tokenized:
        ids = tuple(text.encode())
        return Tokenized(len(ids), 100, text, (text[:1],), (text[-1:],), ids, 1, 2, 3)

    def memory(self) -> MemoryReport:
        return MemoryReport("cpu", 1, 2, 3, 4, 5, 6, 7)

    def laziness_metrics(self) -> list[MetricEntry]:
        return [MetricEntry("lazy_ratio", "Lazy ratio", "f", "m", "s", "c")]

    def keeps(self, load: LoadSpec, identity: str) -> bool:
        return True

    def check(self, spec: RunSpec) -> None:
        """Every plan fits the stand-in."""

    def prompt_map(
        self, load: LoadSpec, identity: str, lane: tuple[str, str] | None, check: Callable[[], None]
    ) -> PromptMap:
        raise PrefillGoneError("The stand-in keeps no prefill.")

    def scores(
        self,
        load: LoadSpec,
        identity: str,
        before: int | None,
        questions: Sequence[ScoreQuestion],
        check: Callable[[], None],
    ) -> list[LightScores]:
        raise PrefillGoneError("The stand-in keeps no prefill.")

    def tidy(self) -> None:
        self.tidied += 1


@contextmanager
def speaking_to(side: ModelSide, limits: Limits | None = None) -> Iterator[BackendClient]:
    """A client of a backend over this model side; at the end all of its workers have ended."""
    service = BackendService(lambda: side, limits)
    with serving(create_app(service)) as transport, BackendClient("http://backend", transport=transport) as speaking:
        yield speaking
    assert service.close()


@pytest.fixture(autouse=True)
def quick_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_S", 0.0)


@pytest.fixture
def side() -> FakeSide:
    fake = FakeSide()
    fake.gate.set()
    return fake


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
def service(side: FakeSide, limits: Limits) -> Iterator[BackendService]:
    backend = BackendService(lambda: side, limits)
    yield backend
    side.gate.set()
    assert backend.close()


@pytest.fixture
def transport(service: BackendService) -> Iterator[InProcessTransport]:
    with serving(create_app(service)) as in_process:
        yield in_process


@pytest.fixture
def client(transport: InProcessTransport) -> Iterator[BackendClient]:
    with BackendClient("http://backend", transport=transport) as speaking:
        yield speaking


@pytest.fixture
def prefill_spec(client: BackendClient) -> PrefillSpec:
    return PrefillSpec(model="m-1", prompt=client.put_prompt("a prompt"))
