"""Work that goes on in a thread of its own beside what is measured, until the block ends."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Beside(ABC):
    """A context manager: `work` runs meanwhile, and looks at `leaving` to know when to end."""

    def __init__(self) -> None:
        self.leaving = threading.Event()
        self._thread = threading.Thread(target=self.work, name=type(self).__name__, daemon=True)

    @abstractmethod
    def work(self) -> None: ...

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.leaving.set()
        self._thread.join()
