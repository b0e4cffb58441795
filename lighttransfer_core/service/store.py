"""A store bounded in bytes: the least recently used entry leaves first, a pinned one never does.

An entry may need another one, whose memory it shares: it leaves together with that one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass
class _Entry(Generic[Value]):
    value: Value
    nbytes: int
    pins: int = 0
    needs: Hashable = None


class ByteStore(Generic[Key, Value]):
    """Values with their sizes, least recently used first.

    Parameters
    ----------
    capacity
        Bytes that may be held, or None where somebody else keeps the account and calls `evict`. The newest entry
        stays even if it alone is larger.
    on_evict
        Called with each value that leaves.
    """

    def __init__(self, capacity: int | None = None, on_evict: Callable[[Value], None] | None = None) -> None:
        self._capacity = capacity
        self._on_evict = on_evict
        self._entries: OrderedDict[Key, _Entry[Value]] = OrderedDict()
        self._lock = threading.RLock()

    def __contains__(self, key: Key) -> bool:
        with self._lock:
            return key in self._entries

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def items(self) -> list[tuple[Key, Value]]:
        """What is here now, least recently used first; looking does not count as using."""
        with self._lock:
            return [(key, entry.value) for key, entry in self._entries.items()]

    @property
    def nbytes(self) -> int:
        with self._lock:
            return sum(entry.nbytes for entry in self._entries.values())

    @property
    def pinned_nbytes(self) -> int:
        with self._lock:
            return sum(entry.nbytes for entry in self._entries.values() if entry.pins)

    def get(self, key: Key) -> Value | None:
        """The value, which counts as used now; None where it is not here."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry.value

    def size_of(self, key: Key) -> int:
        """Bytes of an entry; 0 where it is not here."""
        with self._lock:
            entry = self._entries.get(key)
            return entry.nbytes if entry else 0

    def put(self, key: Key, value: Value, nbytes: int, *, pinned: bool = False, needs: Key | None = None) -> None:
        """Keep a value; it leaves with the entry that it `needs`, and is not kept where that has left already."""
        with self._lock:
            if needs is not None and needs not in self._entries:
                return
            pins = self._entries[key].pins if key in self._entries else 0
            self._entries[key] = _Entry(value, nbytes, pins + pinned, needs)
            self._entries.move_to_end(key)
            if self._capacity is not None:
                self.evict(self.nbytes - self._capacity, spare=key)

    def pin(self, key: Key) -> None:
        """Keep an entry until `unpin` has been called as often."""
        with self._lock:
            self._entries[key].pins += 1
            self._entries.move_to_end(key)

    def unpin(self, key: Key) -> None:
        with self._lock:
            self._entries[key].pins -= 1

    def evict(self, wanted: int, spare: Key | None = None) -> int:
        """Let entries go until `wanted` bytes are free or none may go; returns the bytes freed."""
        freed = 0
        with self._lock:
            for key in list(self._entries):
                if freed >= wanted:
                    break
                if key in self._entries and key != spare and not self._entries[key].pins:
                    freed += self._remove(key)
        return freed

    def oldest_unpinned(self) -> Key | None:
        """The key that would leave first; None where none may."""
        with self._lock:
            return next((key for key, entry in self._entries.items() if not entry.pins), None)

    def drop_where(self, condition: Callable[[Key], bool]) -> int:
        """Let every entry go that nobody pinned and whose key fulfils the condition; returns the bytes freed."""
        with self._lock:
            doomed = [key for key, entry in self._entries.items() if not entry.pins and condition(key)]
            return sum(self._remove(key) for key in doomed if key in self._entries)

    def _remove(self, key: Key) -> int:
        entry = self._entries.pop(key)
        if self._on_evict is not None:
            self._on_evict(entry.value)
        dependent = [other for other, kept in self._entries.items() if kept.needs == key]
        return entry.nbytes + sum(self._remove(other) for other in dependent)
