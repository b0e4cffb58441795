"""The account of bytes: weights, kept prefills, and what live runs hold. A run is admitted, waits, or is refused.

What is only kept for later (prefills and models that no live run uses) makes room, least recently used first. It
counts bytes and knows neither models nor torch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from lighttransfer_core.errors import DoesNotFitError, ModelDoesNotFitError
from lighttransfer_core.service.specs import LoadSpec
from lighttransfer_core.service.store import ByteStore
from lighttransfer_core.service.turns import Waiting


@dataclass(frozen=True)
class PrefillKey:
    """Which prefill: `identity` is the hash of model commit, token ids, dtype and what is captured."""

    load: LoadSpec
    identity: str


class Lease:
    """Bytes that one live run may hold; a context manager that gives them back."""

    def __init__(self, ledger: Ledger, nbytes: int) -> None:
        self._ledger = ledger
        self.nbytes = nbytes
        self.pinned: list[PrefillKey] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ledger.release(self)

    def keep(self, key: PrefillKey, prefill: Any, nbytes: int, reserved: int) -> None:
        """Hand a prefill to the store, pinned until the run ends; the bytes reserved for it leave the lease."""
        self._ledger.keep(self, key, prefill, nbytes, reserved)


class Ledger:
    """Who holds how many bytes of the budget.

    Attributes
    ----------
    prefills, models
        What is kept. Entries are pinned while a live run uses them; a model that leaves takes its prefills along.
    """

    def __init__(self, budget_nbytes: int) -> None:
        self.budget_nbytes = budget_nbytes
        self.prefills: ByteStore[PrefillKey, Any] = ByteStore()
        self.models: ByteStore[LoadSpec, Any] = ByteStore()
        self._leases: set[Lease] = set()
        self._line: deque[object] = deque()
        self._lock = threading.RLock()

    @property
    def held_nbytes(self) -> int:
        """Bytes that are taken: all weights, all kept prefills, all leases."""
        with self._lock:
            return self.models.nbytes + self.prefills.nbytes + sum(lease.nbytes for lease in self._leases)

    def limit(self, load: LoadSpec) -> int:
        """The most bytes that a run of this model could ever be given."""
        return self.budget_nbytes - self.models.size_of(load)

    def admit(
        self,
        load: LoadSpec,
        need: Callable[[bool], int],
        refusal: Callable[[int, int], DoesNotFitError],
        use: PrefillKey,
    ) -> Generator[Waiting, None, Lease]:
        """Wait for bytes in order of asking; to be driven by `yield from`.

        Parameters
        ----------
        load
            The model of the run, which must be pinned.
        need
            Bytes to reserve, given whether `use` is kept: asked anew at each try, since it may come or leave meanwhile.
        refusal
            The error for a need that never fits, from the bytes needed and the most that can be given.
        use
            The prefill that the run reads: pinned where it is kept.
        """
        place = object()
        with self._lock:
            self._line.append(place)
        try:
            while (lease := self._try(place, load, need, refusal, use)) is None:
                yield Waiting(self._place_of(place))
            return lease
        finally:
            with self._lock:
                self._line.remove(place)

    def release(self, lease: Lease) -> None:
        with self._lock:
            self._leases.discard(lease)
            for key in lease.pinned:
                self.prefills.unpin(key)
            lease.pinned.clear()

    def keep(self, lease: Lease, key: PrefillKey, prefill: Any, nbytes: int, reserved: int) -> None:
        with self._lock:
            lease.nbytes -= reserved
            lease.pinned.append(key)
            self.prefills.put(key, prefill, nbytes, pinned=True)

    @contextmanager
    def using(self, key: PrefillKey) -> Iterator[Any | None]:
        """A kept prefill, which stays inside the context; None where it has left."""
        with self._lock:
            kept = self.prefills.get(key)
            if kept is not None:
                self.prefills.pin(key)
        try:
            yield kept
        finally:
            if kept is not None:
                self.prefills.unpin(key)

    def pin_model(self, load: LoadSpec) -> Any | None:
        """The model, kept until `unpin_model`; None where it is not loaded."""
        with self._lock:
            model = self.models.get(load)
            if model is not None:
                self.models.pin(load)
            return model

    def unpin_model(self, load: LoadSpec) -> None:
        self.models.unpin(load)

    def add_model(self, load: LoadSpec, model: Any, nbytes: int) -> None:
        """Account for a model that was just loaded, pinned; idle models and unused prefills make room for it."""
        with self._lock:
            excess = self.held_nbytes + nbytes - self.budget_nbytes
            if self._make_room(excess, None) < excess:
                raise ModelDoesNotFitError(
                    f"The weights of {load.model} take {nbytes:,} bytes, and of the backend's {self.budget_nbytes:,} "
                    f"only {self.budget_nbytes - self.held_nbytes:,} are free while other runs go on: try again when "
                    "they have ended, or start the backend with a larger --budget."
                )
            self.models.put(load, model, nbytes, pinned=True)

    def make_all_room(self) -> int:
        """Let everything go that no live run uses; returns the bytes freed."""
        with self._lock:
            return self._make_room(self.held_nbytes, None)

    def _place_of(self, place: object) -> int:
        with self._lock:
            return self._line.index(place) + 1

    def _try(
        self,
        place: object,
        load: LoadSpec,
        need: Callable[[bool], int],
        refusal: Callable[[int, int], DoesNotFitError],
        use: PrefillKey,
    ) -> Lease | None:
        with self._lock:
            kept = use in self.prefills
            wanted = need(kept)
            total = wanted + self.prefills.size_of(use)
            if total > self.limit(load):
                raise refusal(total, self.limit(load))
            if self._line[0] is not place:
                return None
            excess = self.held_nbytes + wanted - self.budget_nbytes
            if excess > 0 and self._make_room(excess, use) < excess:
                if not self._leases:  # nobody is left who could give bytes back: models in use hold them
                    raise refusal(total, self.budget_nbytes - self.models.nbytes)
                return None
            return self._grant(wanted, use if kept else None)

    def _grant(self, nbytes: int, use: PrefillKey | None) -> Lease:
        lease = Lease(self, nbytes)
        self._leases.add(lease)
        if use is not None:
            self.prefills.pin(use)
            lease.pinned.append(use)
        return lease

    def _make_room(self, wanted: int, spare: PrefillKey | None) -> int:
        freed = self.prefills.evict(wanted, spare)
        while freed < wanted and (load := self.models.oldest_unpinned()) is not None:
            freed += self._drop_model(load)
        return freed

    def _drop_model(self, load: LoadSpec) -> int:
        """A kept prefill holds its model, so it leaves with it."""
        return self.prefills.drop_where(lambda key: key.load == load) + self.models.drop_where(lambda key: key == load)
