"""The desk at which routes have things computed off the event loop, for a few readers at a time.

Whose reader has gone before its turn is dropped, and what is under way may look now and then whether it still counts.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
from fastapi import HTTPException, Request

_AT_ONCE = 3
_GONE = 499
_LOOK_S = 0.05

Answer = TypeVar("Answer")


class Desk:
    """Computes for a few readers at a time; who leaves is no longer computed for."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    async def ask(self, request: Request, work: Callable[[Callable[[], None]], Answer]) -> Answer:
        """What `work` gives in a thread; it is handed a check that raises once the reader has gone."""
        self._limiter = self._limiter or anyio.CapacityLimiter(_AT_ONCE)  # belongs to the loop that serves
        left = threading.Event()

        def check() -> None:
            if left.is_set():
                raise _Abandoned

        def compute() -> Answer:
            check()
            return work(check)

        watch = asyncio.create_task(_until_left(request, left))
        try:
            return await anyio.to_thread.run_sync(compute, limiter=self._limiter)
        except _Abandoned:
            raise HTTPException(_GONE, "the reader has gone") from None
        finally:
            watch.cancel()


class _Abandoned(Exception):
    """Nobody waits for this computation any more."""


async def _until_left(request: Request, left: threading.Event) -> None:
    while not await request.is_disconnected():
        await anyio.sleep(_LOOK_S)
    left.set()
