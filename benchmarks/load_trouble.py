"""Clients that misbehave, each from a seed: what they send, and the answers that are right for it."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import httpx2

from benchmarks.failing_backend import FAILING_SEED
from benchmarks.load_clients import Clients, Followed, Work
from benchmarks.visits import Visit
from lighttransfer_core.errors import LightTransferError
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.service.access import MAX_BODY_NBYTES
from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec
from lighttransfer_core.types import ConversionPlan

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
DOOMED = ("InvalidPlanError", "InvalidPromptError", "PrefillMismatchError", "RunFailedError")
_FLOOD, _CONNECTIONS = 240, 24
_TOO_LONG = 2_000_001


@dataclass
class Refusals:
    """How often each kind of misdeed was answered in each way, and the answers that were not right for it."""

    counted: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def judge(self, misdeed: str, status: int, right: set[int], text: str = "") -> None:
        with self.lock:
            self.counted[f"{misdeed}: {status}"] += 1
            if status not in right:
                self.wrong.append(f"{misdeed} was answered {status}, not {sorted(right)}: {text[:200]}")

    def seen(self, misdeed: str) -> int:
        return sum(count for name, count in self.counted.items() if name.startswith(f"{misdeed}: "))


class Troublemaker:
    """One client that sends what it should not, `count` times, from one seed."""

    def __init__(self, clients: Clients, refusals: Refusals, work: Work, shared: str, seed: int) -> None:
        self._http = clients.raw()
        self._url = clients.app.url
        self._refusals = refusals
        self._work = work
        self._shared = shared
        self._chance = random.Random(seed)

    def misbehave(self, count: int) -> None:
        """Every misdeed once in a random order, then again, until there are `count`."""
        deeds: list[Callable[[], None]] = []
        while len(deeds) < count:
            every = [self.garbage_body, self.garbage_token, self.foreign_token, self.too_many_tokens, self.unknown_text]
            every += [self.foreign_model, self.long_text, self.large_body, self.no_length, self.half_a_request]
            every += [self.pause_for_all, self.cut_visit]
            self._chance.shuffle(every)
            deeds += every
        for deed in deeds[:count]:
            deed()
            time.sleep(self._chance.uniform(0.0, 0.2))
        self._http.close()

    def flood(self) -> None:
        """More prompts than one address may send, over many connections, so that slow answers do not slow it down."""

        def send(_number: int) -> None:
            self._send("too many requests", "POST", "/prompts", {200, 429}, json={"text": "again"})

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            list(pool.map(send, range(_FLOOD)))
        self._http.close()

    def garbage_body(self) -> None:
        made = self._work.compare.to_dict()
        bodies = [
            b"{",
            self._chance.randbytes(300),
            b"[" * 3000,
            b"null",
            json.dumps({**made, "kind": "no such kind"}).encode(),
            json.dumps({**made, "seed": 2**70}).encode(),
            json.dumps({**made, "lanes": []}).encode(),
            json.dumps({**made, "prefill": {"model": 7}}).encode(),
            json.dumps({**made, "temperature": float("nan")}).encode(),
        ]
        kind = {"content-type": "application/json"}
        self._send("garbage body", "POST", "/runs", {400, 422}, content=self._chance.choice(bodies), headers=kind)

    def garbage_token(self) -> None:
        length = self._chance.choice([1, 15, 65, 3000])
        name = self._chance.choice(["%00" * 20, "%2e%2e%2f" * 8, "é" * 20, self._random_name(length)])
        self._send("garbage token", "GET", f"/runs/{name}{self._what()}", {400, 404, 422})

    def foreign_token(self) -> None:
        method, what = self._chance.choice([("GET", self._what()), ("DELETE", ""), ("POST", "/leave")])
        self._send("token of another", method, f"/runs/{self._random_name(32)}{what}", {404})

    def too_many_tokens(self) -> None:
        spec = {**self._work.compare.to_dict(), "max_new_tokens": self._chance.choice([4097, 10**9, 0, -1])}
        self._send("too many new tokens", "POST", "/runs", {422}, json=spec)

    def unknown_text(self) -> None:
        spec = replace(self._work.prefill, prompt=self._chance.randbytes(32).hex())
        self._send("unknown text", "POST", "/runs", {422}, json=spec.to_dict())

    def foreign_model(self) -> None:
        name = self._chance.choice(["/etc/passwd", "../secret", "a/b/c", "http://example.com/x"])
        self._send("model by path", "POST", "/runs", {404}, json=replace(self._work.prefill, model=name).to_dict())

    def long_text(self) -> None:
        self._send("text too long", "POST", "/prompts", {422}, json={"text": "x" * _TOO_LONG})

    def large_body(self) -> None:
        body = b'{"text": "' + b"x" * MAX_BODY_NBYTES + b'"}'
        kind = {"content-type": "application/json"}
        self._send("body too large", "POST", "/prompts", {413}, content=body, headers=kind)

    def no_length(self) -> None:
        chunks = (b'{"text": ', b'"x"}')
        self._send("body of unknown length", "POST", "/prompts", {411}, content=iter(chunks))

    def half_a_request(self) -> None:
        """Closes in the middle of what it sends; there is no answer to judge."""
        parts = urlsplit(self._url)
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as plain:
            plain.sendall(b"POST /api/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{" + bytes(100))
        with self._refusals.lock:
            self._refusals.counted["half a request: no answer"] += 1

    def cut_visit(self) -> None:
        """Breaks the connection of a page while its script runs."""
        asyncio.run(Visit(self._url, "").cut_off("laziness"))
        with self._refusals.lock:
            self._refusals.counted["visit that is cut off: no answer"] += 1

    def pause_for_all(self) -> None:
        """Others follow the run, or it is over: either way it is not changed for them."""
        path, command = f"/runs/{self._shared}/commands", Command("pause").to_dict()
        self._send("pause what others follow", "POST", path, {409, 422}, json=command)

    def _what(self) -> str:
        return self._chance.choice(["", "/events", "/session", "/map", "/map/tokens"])

    def _random_name(self, length: int) -> str:
        return "".join(self._chance.choices(_ALPHABET, k=length))

    def _send(self, misdeed: str, method: str, path: str, right: set[int], **given: object) -> None:
        try:
            answer = self._http.request(method, path, **given)  # type: ignore[arg-type]
        except httpx2.TransportError as error:
            self._refusals.judge(misdeed, 0, right, f"{type(error).__name__}: {error}")
            return
        self._refusals.judge(misdeed, answer.status_code, right, answer.text)


def leave_and_return(clients: Clients, spec: CompareSpec, seed: int) -> Followed:
    """Follows its own request of a run that others want too, breaks off at random places, and takes it up again."""
    chance, seen = random.Random(seed), Followed()
    with clients.client() as client:
        seen.token = client.start(spec).token
        while not seen.events or seen.events[-1]["kind"] not in ("done", "failed", "cancelled"):
            stream = client.events(seen.token, after=len(seen.events))
            for _ in range(chance.randint(1, 8)):
                if (event := next(stream, None)) is None:
                    break
                seen.events.append(event)
            stream.close()
            time.sleep(chance.uniform(0.0, 0.5))
        seen.result = client.status(seen.token).result
    return seen


def give_up(clients: Clients, spec: CompareSpec, seed: int) -> str:
    """Starts a run, looks on for a moment, cancels it, and returns the state that it ended in."""
    chance = random.Random(seed)
    with clients.client() as client:
        token = client.start(spec).token
        stream = client.events(token)
        for _ in range(chance.randint(0, 6)):
            next(stream, None)
        client.cancel(token)
        stream.close()
        return client.status(token).state


def doomed(work: Work) -> dict[str, CompareSpec | PrefillSpec]:
    """Runs that are taken on and raise in their worker, by the name of what they raise.

    A plan with a layer that the model does not have; a conversation that outgrows the positions; a prefill that is
    made whole before it raises, since it keeps one row of queries where the score averages over thirty-two; and a
    comparison that the failing backend breaks off in the middle of its decoding.
    """
    refused = LaneSettings(ConversionPlan((999,), work.prefill.window))
    long = replace(work.compare, turns=(work.prefill.prompt,) * 2, max_new_tokens=4096)
    broken = replace(work.compare, seed=FAILING_SEED)
    specs = (replace(work.compare, lanes=(refused,)), long, replace(work.prefill, query_rows=1), broken)
    return dict(zip(DOOMED, specs, strict=True))


def outcome(clients: Clients, spec: CompareSpec | PrefillSpec) -> str:
    """The name of the error that a run ended with."""
    with clients.client() as client:
        try:
            client.wait(client.start(spec).token)
        except LightTransferError as error:
            return type(error).__name__
    return "done"
