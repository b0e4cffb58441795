"""The clients of the load test: what they ask for, what they take down, and what a run must have given them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from benchmarks.prompt import demo_text
from benchmarks.running_app import RunningApp, address
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec, prompt_hash
from lighttransfer_core.types import ConversionPlan, Window

MODEL = "smollm2"
QUEUED = 8
_WINDOW = Window(sink=4, recent=60)
_PLAN = ConversionPlan(tuple(range(0, 30, 2)), _WINDOW)
_SHORT_CHARS, _SHARED_CHARS = 600, 2400

Answers = dict[str, tuple[list[int], list[float]]]
"""By lane: the token ids of its answer, and their divergences from lane a."""


@dataclass(frozen=True)
class Work:
    """What is asked for: one recipe by everybody, and different ones that have to wait in line."""

    prefill: PrefillSpec
    compare: CompareSpec
    queued: tuple[CompareSpec, ...]
    texts: tuple[str, ...]

    def fresh(self, query_rows: int) -> Work:
        """The same answers, from prefills that nobody has made yet: other rows of queries are kept."""

        def of(spec: CompareSpec) -> CompareSpec:
            return replace(spec, prefill=replace(spec.prefill, query_rows=query_rows))

        compare = of(self.compare)
        return Work(compare.prefill, compare, tuple(map(of, self.queued)), self.texts)


def work(new_tokens: int) -> Work:
    """Texts from the demo documents, each from another place."""
    document = demo_text()
    places = [int(len(document) * share / (QUEUED + 2)) for share in range(QUEUED + 1)]
    texts = [document[place : place + _SHORT_CHARS] for place in places[:QUEUED]]
    texts.append(document[places[QUEUED] : places[QUEUED] + _SHARED_CHARS])

    def compare(text: str) -> CompareSpec:
        prefill = PrefillSpec(MODEL, prompt_hash(text), rendering="raw", window=_WINDOW)
        return CompareSpec(prefill, (LaneSettings(_PLAN),), new_tokens)

    *queued, shared = map(compare, texts)
    return Work(shared.prefill, shared, tuple(queued), tuple(texts))


def answers(result: dict[str, Any]) -> Answers:
    return {name: (lane["answers"][0]["tokens"], lane["answers"][0]["kl"]) for name, lane in result["lanes"].items()}


def difference(found: Answers, lone: Answers) -> float | None:
    """The largest difference of a divergence, in nats; None where the tokens are not the same ones."""
    if {name: tokens for name, (tokens, _kl) in found.items()} != {name: tokens for name, (tokens, _) in lone.items()}:
        return None
    pairs = [(one, other) for name in found for one, other in zip(found[name][1], lone[name][1], strict=True)]
    return max((abs(one - other) for one, other in pairs), default=0.0)


@dataclass
class Tally:
    """Every request of every client: how it was answered, and after how many seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, status: int, seconds: float) -> None:
        with self.lock:
            self.statuses[status] += 1
            self.seconds.append(seconds)


class Recorded(httpx2.BaseTransport):
    """Requests from one address, each added to the tally once its answer begins."""

    def __init__(self, tally: Tally, number: int) -> None:
        self._tally = tally
        self._inner = address(number)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        began = time.perf_counter()
        response = self._inner.handle_request(request)
        self._tally.add(response.status_code, time.perf_counter() - began)
        return response

    def close(self) -> None:
        self._inner.close()


@dataclass
class Followed:
    """A run as one client saw it: its events, or what went wrong."""

    events: list[dict[str, Any]] = field(default_factory=list)
    token: str = ""
    result: dict[str, Any] | None = None
    error: str = ""

    @property
    def whole(self) -> bool:
        """Whether every event came once and in order, up to the end."""
        cursors = [event["cursor"] for event in self.events]
        return cursors == list(range(1, len(cursors) + 1)) and bool(cursors) and self.events[-1]["kind"] == "done"

    @property
    def places(self) -> list[int]:
        return [event["place"] for event in self.events if event["kind"] == "waiting"]

    @property
    def began_at(self) -> float:
        """When it had its first turn of its own."""
        own = (event["at"] for event in self.events if event["kind"] in ("prefill", "begin"))
        return float(next(own, 0.0))


class Clients:
    """Makes clients with addresses of their own, and runs what they do side by side."""

    def __init__(self, app: RunningApp, tally: Tally) -> None:
        self.app = app
        self.tally = tally
        self._made = 0
        self._lock = threading.Lock()

    def client(self) -> BackendClient:
        return self.app.client(transport=self.transport())

    def raw(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.app.api, transport=self.transport(), timeout=120.0)

    def transport(self) -> Recorded:
        with self._lock:
            self._made += 1
            return Recorded(self.tally, self._made)


def follow(client: BackendClient, token: str) -> Followed:
    """Reads a run's events to their end, then its result."""
    seen = Followed(token=token)
    try:
        for event in client.events(token):
            seen.events.append(event)
        seen.result = client.status(token).result
    except Exception as error:
        seen.error = f"{type(error).__name__}: {error}"
    return seen


class Together:
    """Threads that are started at once and joined at the end; what they return, in order."""

    def __init__(self, tasks: Iterable[Callable[[], Followed]]) -> None:
        self.found: dict[int, Followed] = {}
        tasks = list(tasks)
        gate = threading.Barrier(len(tasks))

        def work(place: int, task: Callable[[], Followed]) -> None:
            gate.wait()
            try:
                self.found[place] = task()
            except Exception as error:
                self.found[place] = Followed(error=f"{type(error).__name__}: {error}")

        self._threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(tasks)]
        for thread in self._threads:
            thread.start()

    def join(self) -> list[Followed]:
        for thread in self._threads:
            thread.join()
        return [self.found[place] for place in range(len(self._threads))]
