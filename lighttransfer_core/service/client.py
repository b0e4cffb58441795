"""The typed client of the backend: one method a route, errors raised as the classes they were on the other side.

It is safe to share between threads. It knows neither torch nor streamlit.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx2

from lighttransfer_core.errors import BackendUnavailableError, RunFailedError, ServiceError
from lighttransfer_core.service.answers import (
    BenchmarkReport,
    Health,
    LightScores,
    MemoryReport,
    MetricEntry,
    ModelEntry,
    ScoreQuestion,
    ScoresRequest,
    SweepEntry,
    TaskEntry,
    Tokenized,
    TokenizeRequest,
)
from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.specs import CLIENT_HEADER, FINAL_STATES, ErrorRecord, RunSpec, RunStatus
from lighttransfer_core.session import Session
from lighttransfer_core.types import LayerScores, ModelSpec, Rendering

_RECONNECTS = 5
_FIRST_PAUSE_S = 0.05
_HEARTBEAT_S = 15.0


def is_loopback(host: str | None) -> bool:
    """Whether an address reaches only this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class BackendClient:
    """Speaks to one backend.

    Parameters
    ----------
    base_url
        Such as `http://127.0.0.1:8765`.
    token
        The bearer token, where the backend demands one.
    transport
        For tests: an in-process transport instead of the network.
    timeout_s
        How long to wait for an answer, in seconds; an event stream may stay silent for two heartbeats.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        transport: httpx2.BaseTransport | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            transport=transport,
            timeout=httpx2.Timeout(timeout_s, connect=5.0),
            # a proxy from the environment must not stand between two processes of one machine
            trust_env=not is_loopback(urlsplit(self.base_url).hostname),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def health(self) -> Health:
        return Health.from_dict(self._json("GET", "/health"))

    def models(self) -> list[ModelEntry]:
        return [ModelEntry.from_dict(entry) for entry in self._json("GET", "/models")]

    def spec(self, model: str) -> ModelSpec:
        """The facts of a loaded model. Raises ModelNotLoadedError where it is not loaded yet."""
        return ModelSpec.from_dict(self._json("GET", f"/models/{quote(model)}"))

    def laziness_metrics(self) -> list[MetricEntry]:
        """The registered metrics in words, by name."""
        return [MetricEntry.from_dict(entry) for entry in self._json("GET", "/laziness/metrics")]

    def tasks(self) -> list[TaskEntry]:
        """The tasks of sweeps, and whether they can be asked there without a download."""
        return [TaskEntry.from_dict(entry) for entry in self._json("GET", "/tasks")]

    def sweeps(self) -> list[SweepEntry]:
        """The results of sweeps that the backend keeps."""
        return [SweepEntry.from_dict(entry) for entry in self._json("GET", "/sweeps")]

    def sweep_text(self, name: str) -> str:
        """One of them, for `parse_sweep`. Raises SweepNotFoundError where it is not there."""
        return str(self._raw("GET", f"/sweeps/{quote(name, safe='')}").content.decode("utf-8", "replace"))

    def memory(self) -> MemoryReport:
        return MemoryReport.from_dict(self._json("GET", "/memory"))

    def benchmark(self) -> BenchmarkReport:
        """What `make bench` measured on the backend's machine. Raises InvalidInputError for a damaged file."""
        return BenchmarkReport.from_dict(self._json("GET", "/benchmark"))

    def put_prompt(self, text: str, visitor: str = "") -> str:
        """Store a prompt; returns the hash that specs name it by."""
        return str(self._json("POST", "/prompts", {"text": text}, visitor)["prompt"])

    def get_prompt(self, prompt: str) -> str:
        return str(self._json("GET", f"/prompts/{quote(prompt)}")["text"])

    def tokenize(self, model: str, prompt: str, rendering: Rendering = "chat", system: str | None = None) -> Tokenized:
        request = TokenizeRequest(model=model, prompt=prompt, rendering=rendering, system=system)
        return Tokenized.from_dict(self._json("POST", "/tokenize", request.to_dict()))

    def start(self, spec: RunSpec, visitor: str = "") -> RunStatus:
        """Ask for a run. An equal one that is under way or kept is shared; the token is always the caller's own.

        A named visitor has one run at a time beside loads: the one that was asked for before is given up.
        """
        return RunStatus.from_dict(self._json("POST", "/runs", spec.to_dict(), visitor))

    def status(self, token: str, peek: bool = False) -> RunStatus:
        """Where a run stands. With `peek` that does not count as its owner's being there."""
        return RunStatus.from_dict(self._json("GET", f"/runs/{quote(token)}{'?peek=true' if peek else ''}"))

    def cancel(self, token: str) -> None:
        self._json("DELETE", f"/runs/{quote(token)}")

    def leave(self, token: str) -> None:
        """Say that whoever asked may be gone: the request is given up after a while, unless its token is used."""
        self._json("POST", f"/runs/{quote(token)}/leave")

    def command(self, token: str, command: Command) -> None:
        """Pause a comparison, let it go on, slow it down, or begin one of its lanes anew."""
        self._json("POST", f"/runs/{quote(token)}/commands", command.to_dict())

    def scores(self, token: str, questions: Sequence[ScoreQuestion], visitor: str = "") -> list[LayerScores]:
        """A finished prefill scored in several ways, without parts by head and by query; one answer a question.

        Raises PrefillGoneError where the prefill has left the backend's memory.
        """
        body = ScoresRequest(tuple(questions)).to_dict()
        found = self._json("POST", f"/runs/{quote(token)}/scores", body, visitor)
        return [LightScores.from_dict(one).scores() for one in found]

    def session(self, token: str) -> Session:
        """A comparison that is done, as a file that replays without the model."""
        return Session.from_bytes(self._raw("GET", f"/runs/{quote(token)}/session").content)

    def events(self, token: str, after: int = 0) -> Generator[dict[str, Any], None, None]:
        """The run's events from cursor `after` on, as they happen, to the last one ("done", "failed", "cancelled").

        Each carries its `cursor`. A connection that breaks is taken up again where it broke. Closing the generator
        closes the connection.
        """
        broken = 0
        while True:
            try:
                for event in self._stream(token, after):
                    after, broken = event["cursor"], 0
                    yield event
                    if event["kind"] in FINAL_STATES:
                        return
                status = self.status(token)
                if status.finished and status.events <= after:
                    return  # it had ended at this cursor already
            except httpx2.TransportError as error:
                if broken == _RECONNECTS:
                    raise self._unavailable(error) from error
            except RuntimeError as error:
                if not self._http.is_closed:
                    raise
                raise self._unavailable(error) from error  # the launcher closed this client: its backend has died
            broken += 1
            if broken > _RECONNECTS:
                raise BackendUnavailableError(f"The backend at {self.base_url} keeps ending the run's event stream.")
            time.sleep(_FIRST_PAUSE_S * 2**broken)

    def wait(self, token: str) -> dict[str, Any]:
        """The run's result; raises the run's own error where it failed."""
        for _event in self.events(token):
            pass
        status = self.status(token)
        if status.error is not None:
            raise status.error.to_exception()
        if status.result is None:
            raise RunFailedError("The run was cancelled, so it has no result; start it again.")
        return status.result

    def _stream(self, token: str, after: int) -> Iterator[dict[str, Any]]:
        timeout = httpx2.Timeout(2 * _HEARTBEAT_S, connect=5.0)
        with self._http.stream("GET", f"/runs/{quote(token)}/events", params={"after": after}, timeout=timeout) as got:
            if got.is_error:
                got.read()
                raise _error_of(got)
            for message in httpx2.EventSource(got):
                yield {"cursor": int(message.id), **json.loads(message.data)}

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None, visitor: str = "") -> Any:
        response = self._raw(method, path, body, visitor)
        return response.json() if response.content else None

    def _raw(self, method: str, path: str, body: dict[str, Any] | None = None, visitor: str = "") -> httpx2.Response:
        headers = {CLIENT_HEADER: visitor} if visitor else None
        try:
            response = self._http.request(method, path, json=body, headers=headers)
        except httpx2.TransportError as error:
            raise self._unavailable(error) from error
        except RuntimeError as error:
            if not self._http.is_closed:
                raise
            raise self._unavailable(error) from error
        if response.is_error:
            raise _error_of(response)
        return response

    def _unavailable(self, error: Exception) -> BackendUnavailableError:
        return BackendUnavailableError(
            f"The backend at {self.base_url} does not answer ({type(error).__name__}: {error}). "
            "Check that it runs: python -m lighttransfer_core serve."
        )


def _error_of(response: httpx2.Response) -> Exception:
    try:
        return ErrorRecord.from_dict(response.json()["error"]).to_exception()
    except (ValueError, KeyError, TypeError):
        return ServiceError(f"{response.request.url} answered {response.status_code} without a typed error.")
