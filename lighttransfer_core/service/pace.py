"""How fast a comparison may go on: paused, one token at a time, at a limited speed, or as fast as it goes."""

from __future__ import annotations

import time

from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.turns import Resting

_PAUSED_S = 0.05


class Pace:
    """What the viewers' commands come to."""

    def __init__(self) -> None:
        self.paused = False
        self.tokens_per_s: float | None = None
        self._allowed = 0
        self._due = 0.0

    def obey(self, command: Command) -> None:
        if command.action == "speed":
            self.tokens_per_s = command.tokens_per_s
        elif command.action == "step":
            self.paused = True
            self._allowed += 1
        else:
            self.paused, self._allowed = command.action == "pause", 0

    def rest(self) -> Resting | None:
        """What to do in place of the next token; None: decode it."""
        if self.paused and not self._allowed:
            return Resting(_PAUSED_S, paused=True)
        left = self._due - time.monotonic()
        return Resting(left) if self.tokens_per_s is not None and left > 0 else None

    def advanced(self) -> None:
        """A token was decoded."""
        self._allowed = max(self._allowed - 1, 0)
        if self.tokens_per_s is not None:
            self._due = max(self._due + 1 / self.tokens_per_s, time.monotonic())
