from __future__ import annotations

from collections.abc import Generator

import pytest

from lighttransfer_core.errors import DoesNotFitError, ModelDoesNotFitError
from lighttransfer_core.service.admission import Lease, Ledger, PrefillKey
from lighttransfer_core.service.specs import LoadSpec
from lighttransfer_core.service.turns import Waiting

MODEL = LoadSpec("m")
OTHER = LoadSpec("other")


def key(name: str, load: LoadSpec = MODEL) -> PrefillKey:
    return PrefillKey(load, name)


def refusal(needed: int, most: int) -> DoesNotFitError:
    return DoesNotFitError(f"{needed} of {most}", offer=f"{most} bytes")


def asking(ledger: Ledger, nbytes: int, name: str = "p", load: LoadSpec = MODEL) -> Generator[Waiting, None, Lease]:
    return ledger.admit(load, lambda kept: 0 if kept else nbytes, refusal, key(name, load))


def granted(steps: Generator[Waiting, None, Lease]) -> Lease:
    with pytest.raises(StopIteration) as end:
        next(steps)
    lease: Lease = end.value.value
    return lease


@pytest.fixture
def ledger() -> Ledger:
    book = Ledger(100)
    book.add_model(MODEL, "weights", 20)
    return book


def test_what_never_fits_is_refused_with_an_offer(ledger: Ledger) -> None:
    with pytest.raises(DoesNotFitError) as refused:
        next(asking(ledger, 81))
    assert refused.value.offer == "80 bytes"
    assert granted(asking(ledger, 80)).nbytes == 80


def test_runs_wait_in_order_of_asking_and_are_told_their_place(ledger: Ledger) -> None:
    first = granted(asking(ledger, 50))
    second, third = asking(ledger, 60, "q"), asking(ledger, 10, "r")
    assert next(second) == Waiting(1)
    assert next(third) == Waiting(2), "a small run does not overtake a large one, or that one would wait for ever"
    ledger.release(first)
    assert next(third) == Waiting(2)
    assert granted(second).nbytes == 60
    assert granted(third).nbytes == 10


def test_who_gives_up_waiting_leaves_the_line(ledger: Ledger) -> None:
    first = granted(asking(ledger, 70))
    second, third = asking(ledger, 60, "q"), asking(ledger, 5, "r")
    next(second)
    assert next(third) == Waiting(2)
    second.close()
    assert granted(third).nbytes == 5
    ledger.release(first)


def test_kept_prefills_make_room_and_used_ones_do_not(ledger: Ledger) -> None:
    with granted(asking(ledger, 40, "old")) as lease:
        lease.keep(key("old"), "record", 40, reserved=40)
        assert lease.nbytes == 0
        waiting = asking(ledger, 50, "new")
        assert next(waiting) == Waiting(1), "a live run still reads the old one"
    assert granted(waiting).nbytes == 50
    assert key("old") not in ledger.prefills
    assert ledger.held_nbytes == 70


def test_a_kept_prefill_costs_nothing_again_and_is_pinned(ledger: Ledger) -> None:
    with granted(asking(ledger, 40)) as lease:
        lease.keep(key("p"), "record", 40, reserved=40)
    with granted(asking(ledger, 40)) as lease:
        assert (lease.nbytes, ledger.held_nbytes, ledger.prefills.pinned_nbytes) == (0, 60, 40)
    assert ledger.prefills.pinned_nbytes == 0


def test_an_idle_model_leaves_with_its_prefills_and_a_used_one_stays(ledger: Ledger) -> None:
    ledger.unpin_model(MODEL)
    with granted(asking(ledger, 40)) as lease:
        lease.keep(key("p"), "record", 40, reserved=40)
    ledger.add_model(OTHER, "weights", 90)
    assert MODEL not in ledger.models
    assert key("p") not in ledger.prefills
    assert ledger.held_nbytes == 90
    with pytest.raises(ModelDoesNotFitError, match="only 10 are free"):
        ledger.add_model(MODEL, "weights", 20)
    assert ledger.held_nbytes == 90


def test_runs_that_only_wait_for_each_other_are_refused_instead(ledger: Ledger) -> None:
    ledger.add_model(OTHER, "weights", 50)
    with pytest.raises(DoesNotFitError, match="60 of 30"):
        next(asking(ledger, 60))


def test_a_model_that_is_pinned_by_name_is_found_or_not(ledger: Ledger) -> None:
    assert ledger.pin_model(OTHER) is None
    assert ledger.pin_model(MODEL) == "weights"
    assert ledger.make_all_room() == 0
    ledger.unpin_model(MODEL)
    ledger.unpin_model(MODEL)
    assert ledger.make_all_room() == 20
