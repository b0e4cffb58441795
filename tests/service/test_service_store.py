from __future__ import annotations

from lighttransfer_core.service.store import ByteStore


def test_the_least_recently_used_leaves_first() -> None:
    gone: list[str] = []
    store: ByteStore[str, str] = ByteStore(100, on_evict=gone.append)
    store.put("a", "A", 40)
    store.put("b", "B", 40)
    assert store.get("a") == "A"
    store.put("c", "C", 40)
    assert gone == ["B"]
    assert [key for key, _value in store.items()] == ["a", "c"]
    assert store.nbytes == 80


def test_a_pinned_entry_never_leaves() -> None:
    store: ByteStore[str, str] = ByteStore(100)
    store.put("a", "A", 60, pinned=True)
    store.put("b", "B", 60)
    assert "a" in store
    assert "b" in store, "the newest entry stays even where there is no room"
    store.unpin("a")
    store.put("c", "C", 60)
    assert "a" not in store
    assert store.pinned_nbytes == 0


def test_an_entry_larger_than_the_store_stays_alone() -> None:
    store: ByteStore[str, str] = ByteStore(100)
    store.put("a", "A", 60)
    store.put("big", "B", 500)
    assert [key for key, _value in store.items()] == ["big"]


def test_putting_a_key_again_replaces_its_bytes_and_keeps_its_pins() -> None:
    store: ByteStore[str, str] = ByteStore()
    store.put("a", "A", 60, pinned=True)
    store.put("a", "A2", 10)
    assert (store.nbytes, store.pinned_nbytes, store.evict(10)) == (10, 10, 0)


def test_evict_frees_no_more_than_needed() -> None:
    store: ByteStore[str, str] = ByteStore()
    for name in "abc":
        store.put(name, name, 10)
    assert store.evict(11, spare="a") == 20
    assert [key for key, _value in store.items()] == ["a"]
    assert store.evict(0) == 0


def test_an_entry_leaves_with_the_one_it_needs() -> None:
    gone: list[str] = []
    store: ByteStore[str, str] = ByteStore(on_evict=gone.append)
    store.put("prompt", "P", 50)
    store.put("lane", "L", 10, needs="prompt")
    store.put("other", "O", 10)
    assert store.evict(50) == 60
    assert gone == ["P", "L"]
    store.put("late", "X", 10, needs="prompt")
    assert [key for key, _value in store.items()] == ["other"], "what it needs has left already"
    store.put("prompt", "P", 50)
    store.put("lane", "L", 10, needs="prompt")
    assert store.drop_where(lambda key: key in ("prompt", "lane")) == 60
    assert store.nbytes == 10
