"""The two phases of the load test: everybody at once, then the same among clients that misbehave."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import httpx2

from benchmarks.beside import Beside
from benchmarks.load_clients import Clients, Followed, Together, Work, follow
from benchmarks.load_trouble import Refusals, Troublemaker, doomed, give_up, leave_and_return, outcome
from benchmarks.visits import Crowd
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec

SHARERS = 40
VISITS = 20
EVERY_S = 5.0
LEAVERS = 10
CANCELLERS = 6
TROUBLEMAKERS = 4
_BEAT_S = 0.1


@dataclass
class Seen:
    """What the clients of one phase saw."""

    prefills: list[Followed]
    sharers: list[Followed]
    onlookers: list[Followed]
    queued: list[Followed]
    leavers: list[Followed] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    raised: dict[str, str] = field(default_factory=dict)
    refusals: Refusals = field(default_factory=Refusals)
    visit_failures: list[str] = field(default_factory=list)
    rerun_s: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def shared(self) -> list[Followed]:
        """All who asked for the one comparison and stayed."""
        return [*self.sharers, *self.onlookers, *self.leavers]


class Pulse(Beside):
    """Asks for /health ten times a second, over the page server, as long as it is open."""

    def __init__(self, clients: Clients) -> None:
        super().__init__()
        self._http = clients.raw()
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def __exit__(self, *_exc: object) -> None:
        super().__exit__()
        self._http.close()

    def work(self) -> None:
        while not self.leaving.wait(_BEAT_S):
            began = time.perf_counter()
            try:
                status = self._http.get("/health").status_code
                if status != 200:
                    self.failures.append(f"answered {status}")
            except httpx2.TransportError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.seconds.append(time.perf_counter() - began)


def store_texts(clients: Clients, work: Work) -> None:
    with clients.client() as client:
        for text in work.texts:
            client.put_prompt(text)


def everybody(clients: Clients, work: Work, trouble: Callable[[Seen], None] | None = None) -> Seen:
    """All clients of the first phase, and whatever `trouble` there is while they are served.

    Forty ask for one prefill at once. Then forty ask for one comparison at once, twenty more that stand for the pages'
    event streams follow it, and eight different comparisons are asked for one after the other.
    """
    store_texts(clients, work)
    seen = Seen([], [], [], [])
    began = time.perf_counter()
    with Crowd(clients.app.url, "", VISITS, EVERY_S) as crowd:
        seen.prefills = Together([lambda: _ask(clients, work.prefill)] * SHARERS).join()
        sharers = Together([lambda: _ask(clients, work.compare)] * SHARERS)
        onlookers = Together([lambda: _ask(clients, work.compare)] * VISITS)
        tokens = _in_order(clients, work.queued)
        queued = Together([_following(clients, token) for token in tokens])
        if trouble is not None:
            trouble(seen)
        seen.queued, seen.sharers, seen.onlookers = queued.join(), sharers.join(), onlookers.join()
    seen.seconds = time.perf_counter() - began
    seen.visit_failures, seen.rerun_s = crowd.failures, crowd.seconds
    return seen


def amid_trouble(clients: Clients, work: Work, seed: int, deeds: int) -> Seen:
    """The first phase again, while others disconnect, send garbage, ask too much, cancel, and make runs raise."""

    return everybody(clients, work, lambda seen: _all_trouble(clients, work, seen, seed, deeds))


def _all_trouble(clients: Clients, work: Work, seen: Seen, seed: int, deeds: int) -> None:
    chance = random.Random(seed)
    with clients.client() as owner:
        shared = owner.start(work.compare).token

    def later(what: Callable[[], None]) -> threading.Thread:
        wait_s = chance.uniform(0.0, 2.0)

        def run() -> None:
            time.sleep(wait_s)
            what()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def make_trouble(number: int) -> None:
        Troublemaker(clients, seen.refusals, work, shared, seed + number).misbehave(deeds)

    def cancel(number: int) -> None:
        spec = replace(work.compare, copy=f"given up {number}", max_new_tokens=400)
        seen.given_up.append(give_up(clients, spec, seed + number))

    def fail(expected: str, spec: CompareSpec | PrefillSpec) -> None:
        seen.raised[expected] = outcome(clients, spec)

    def flood() -> None:
        Troublemaker(clients, seen.refusals, work, shared, seed).flood()

    leavers = Together([partial(leave_and_return, clients, work.compare, seed + number) for number in range(LEAVERS)])
    threads = [later(partial(make_trouble, number)) for number in range(TROUBLEMAKERS)]
    threads += [later(partial(cancel, number)) for number in range(CANCELLERS)]
    threads += [later(partial(fail, *item)) for item in doomed(work).items()]
    threads.append(later(flood))
    for thread in threads:
        thread.join()
    seen.leavers = leavers.join()


def _ask(clients: Clients, spec: CompareSpec | PrefillSpec) -> Followed:
    with clients.client() as client:
        return follow(client, client.start(spec).token)


def _in_order(clients: Clients, specs: tuple[CompareSpec, ...]) -> list[str]:
    """The tokens of runs that were asked for one after the other, by different clients."""
    tokens = []
    for spec in specs:
        with clients.client() as client:
            tokens.append(client.start(spec).token)
    return tokens


def _following(clients: Clients, token: str) -> Callable[[], Followed]:
    def followed() -> Followed:
        with clients.client() as client:
            return follow(client, token)

    return followed
