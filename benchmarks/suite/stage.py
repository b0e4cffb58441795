"""The parties on one model: each has a worker, which is started when it is first asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.suite.process import Asked
from benchmarks.workers.protocol import OURS, Unavailable, party_of
from lighttransfer_core.types import ModelSpec

MakeWorker = Callable[[str], Asked]
"""A worker by the name of its party; raises Unavailable."""


class Stage:
    """One model with its prompt.

    Parameters
    ----------
    make
        Makes workers.
    ids
        The prompt's token ids, of which sides run the first so many.
    model
        What runs, in words.
    """

    def __init__(self, make: MakeWorker, ids: Sequence[int], model: str) -> None:
        self.model = model
        self._make, self._ids = make, list(ids)
        self._workers: dict[str, Asked | Unavailable] = {}
        self._specs: dict[str, ModelSpec] = {}

    def of(self, side: str) -> Asked:
        """The worker of a side, or of a party; raises Unavailable."""
        party = party_of(side)
        if party not in self._workers:
            self._workers[party] = self._made(party)
        worker = self._workers[party]
        if isinstance(worker, Unavailable):
            raise worker
        return worker

    def missing(self, sides: Sequence[str]) -> dict[str, str]:
        """The sides that cannot be had here, with the reasons."""
        found = {}
        for side in sides:
            try:
                self.of(side).ask("available", side=side)
            except Unavailable as reason:
                found[side] = str(reason)
        return found

    def spec(self, dtype: str) -> ModelSpec:
        """The model's facts in a precision."""
        if dtype not in self._specs:
            self._specs[dtype] = ModelSpec.from_dict(self.of(OURS).ask("spec", dtype=dtype))
        return self._specs[dtype]

    def close(self) -> None:
        for worker in self._workers.values():
            if not isinstance(worker, Unavailable):
                worker.close()
        self._workers.clear()

    def _made(self, party: str) -> Asked | Unavailable:
        try:
            worker = self._make(party)
        except Unavailable as reason:
            return reason
        worker.ask("prompt", ids=self._ids)
        return worker
