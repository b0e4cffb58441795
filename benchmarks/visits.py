"""Visits of the pages without browsers: each speaks the page server's websocket protocol as its front end does.

What a browser would draw is read to the end of each script run and thrown away; what is measured is the server's work.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Self

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.beside import Beside

PAGES = ("laziness", "convert", "compare", "")
"""The names of pages that a crowd is on; the first page of the app has the empty one."""
_PATIENCE_S = 120.0


class Visit:
    """One session: a tab that is open at an address.

    Attributes
    ----------
    buttons
        Identifiers of the buttons that the last script run drew, by label; of those only that can be pressed.
    """

    def __init__(self, url: str, query: str) -> None:
        self._url = url
        self._query = query
        self._socket: ClientConnection | None = None
        self.buttons: dict[str, str] = {}

    async def open(self) -> Self:
        self._socket = await connect(
            self._url.replace("http", "ws", 1) + "/_stcore/stream",
            subprotocols=["streamlit"],  # type: ignore[list-item]
            origin=self._url,  # type: ignore[arg-type]
            max_size=None,
            proxy=None,
        )
        return self

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def cut_off(self, page: str) -> None:
        """Ask for a page, and break the connection while its script runs."""
        await self.open()
        assert self._socket is not None
        await self._ask(page)
        await self._socket.recv(decode=False)
        self._socket.transport.abort()

    async def rerun(self, page: str, press: str | None = None) -> float:
        """Run the page's script, perhaps as after a click on a button; returns the seconds to its end.

        Raises RuntimeError where the script shows an exception, or has no such button.
        """
        if press is not None and press not in self.buttons:
            raise RuntimeError(f"page {page} has no button {press!r} to press, only {sorted(self.buttons)}")
        began = time.perf_counter()
        await self._ask(page, None if press is None else self.buttons[press])
        self.buttons = {}
        await asyncio.wait_for(self._read_to_end(page), _PATIENCE_S)
        return time.perf_counter() - began

    async def _ask(self, page: str, pressed: str | None = None) -> None:
        assert self._socket is not None
        asked = BackMsg()
        asked.rerun_script.query_string = self._query
        asked.rerun_script.page_name = page
        if pressed is not None:
            state = asked.rerun_script.widget_states.widgets.add()
            state.id, state.trigger_value = pressed, True
        await self._socket.send(asked.SerializeToString())

    async def _read_to_end(self, page: str) -> None:
        assert self._socket is not None
        while True:
            told = ForwardMsg.FromString(await self._socket.recv(decode=False))
            kind = told.WhichOneof("type")
            if kind == "delta":
                element = told.delta.new_element
                drawn = element.WhichOneof("type")
                if drawn == "exception":
                    raise RuntimeError(f"page {page}: {element.exception.type}: {element.exception.message}")
                if drawn == "button" and not element.button.disabled:
                    self.buttons[element.button.label] = element.button.id
            elif kind == "page_not_found":
                raise RuntimeError(f"page {page} does not exist")
            elif kind == "script_finished" and told.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                return


def click(url: str, query: str, page: str, button: str) -> None:
    """One visit that opens a page, clicks a button and leaves."""

    async def visit() -> None:
        visitor = await Visit(url, query).open()
        await visitor.rerun(page)
        await visitor.rerun(page, button)
        await visitor.close()

    asyncio.run(visit())


class Crowd(Beside):
    """Visits that run a page's script again and again, every `every_s` seconds each, in a thread of their own.

    Attributes
    ----------
    seconds
        How long each script run took.
    failures
        What went wrong, a sentence each; a visit that failed has ended.
    """

    def __init__(self, url: str, query: str, count: int, every_s: float, seed: int = 0) -> None:
        super().__init__()
        self._visits = [Visit(url, query) for _ in range(count)]
        self._every_s = every_s
        self._chance = random.Random(seed)
        self._opened = threading.Barrier(2)
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        """Returns once every visit has seen its first page."""
        super().__enter__()
        self._opened.wait()
        return self

    def work(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        for number, visit in enumerate(self._visits):
            try:
                await visit.open()
                await visit.rerun(PAGES[number % len(PAGES)])
            except (OSError, RuntimeError, TimeoutError) as error:
                self.failures.append(f"opening: {type(error).__name__}: {error}")
        await asyncio.to_thread(self._opened.wait)
        await asyncio.gather(*(self._stay(number, visit) for number, visit in enumerate(self._visits)))

    async def _stay(self, number: int, visit: Visit) -> None:
        await self._pause(self._chance.uniform(0, self._every_s))
        try:
            while not self.leaving.is_set():
                took = await visit.rerun(PAGES[number % len(PAGES)])
                self.seconds.append(took)
                await self._pause(max(self._every_s - took, 0.0))
            await visit.close()
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.leaving.is_set() and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.1))
