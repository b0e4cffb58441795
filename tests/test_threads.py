from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from lighttransfer_core.threads import _RUNTIMES, alone


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = counts()
    for runtime in _RUNTIMES:
        runtime.set_num_threads(2)
    yield
    for runtime, threads in zip(_RUNTIMES, before, strict=True):
        runtime.set_num_threads(threads)


def counts() -> list[int]:
    return [runtime.get_num_threads() for runtime in _RUNTIMES]


def test_work_is_alone_and_the_number_comes_back() -> None:
    assert _RUNTIMES, "torch computes with OpenMP on every platform that we know"
    assert alone(counts) == [1] * len(_RUNTIMES)
    assert alone(torch.get_num_threads) == 1
    assert counts() == [2] * len(_RUNTIMES)


def test_one_inside_another_and_one_that_fails() -> None:
    assert alone(alone, counts) == [1] * len(_RUNTIMES)
    with pytest.raises(ZeroDivisionError):
        alone(lambda: 1 / 0)
    assert counts() == [2] * len(_RUNTIMES)


def test_other_threads_keep_theirs() -> None:
    """Also one that begins meanwhile: torch's own setting would be its first."""
    found: list[int] = []

    def meanwhile() -> None:
        other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        other.start()
        other.join()

    before = torch.get_num_threads()
    meanwhile()
    alone(meanwhile)
    assert found[0] == found[1]
    assert torch.get_num_threads() == before
