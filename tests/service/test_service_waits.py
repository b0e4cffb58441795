from __future__ import annotations

import pytest

from lighttransfer_core.errors import RateLimitedError
from lighttransfer_core.service.limits import RateLimit
from lighttransfer_core.service.waits import Durations, shared_waits


def test_waits_are_those_of_a_worker_that_is_shared_evenly() -> None:
    assert shared_waits([2.0], [5.0, 5.0]) == [2.0, 7.0]
    assert shared_waits([1.0, 3.0], [4.0, 4.0, 4.0]) == [2.0, 6.0, 10.0]
    assert shared_waits([0.0], [1.0]) == [0.0]


def test_nothing_is_promised_before_a_run_has_ended() -> None:
    durations = Durations()
    assert durations.expected_waits([0.0], 2) == [None, None]
    durations.add(4.0)
    durations.add(8.0)
    assert durations.expected_waits([1.0], 2) == [5.0, 11.0]
    assert durations.expected_waits([100.0], 1) == [0.0], "a run that takes longer than the others may end any moment"
    assert durations.expected_waits([], 1) == [None], "only paused runs hold the places"


def test_a_bucket_empties_and_refills() -> None:
    now = [0.0]
    limit = RateLimit(60, clock=lambda: now[0])
    for _ in range(12):
        limit.take("one")
    with pytest.raises(RateLimitedError, match=r"try again in 1\.0 s"):
        limit.take("one")
    limit.take("two")
    now[0] = 1.0
    limit.take("one")
    with pytest.raises(RateLimitedError):
        limit.take("one")
    now[0] = 1000.0
    for _ in range(12):
        limit.take("one")
    with pytest.raises(RateLimitedError):
        limit.take("one")
