from __future__ import annotations

import json
import threading

import pytest

from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, RunNotFoundError, SharedRunError
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.service.book import LEFT, REPLACED, RunBook
from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.runs import Run, encode
from lighttransfer_core.service.specs import CompareSpec, ErrorRecord, LoadSpec, PrefillSpec, RunSpec
from lighttransfer_core.types import ConversionPlan


def ask(model: str = "m", **facts: str) -> PrefillSpec:
    return PrefillSpec(model, "0" * 64, **facts)


@pytest.fixture
def submitted() -> list[Run]:
    return []


@pytest.fixture
def book() -> RunBook:
    return RunBook(10_000)


def end(book: RunBook, run: Run, size: int = 10) -> None:
    run.finish("done", {"text": "x" * size})
    book.archive(run)


def test_equal_specs_share_a_run_and_each_request_has_its_own_token(book: RunBook, submitted: list[Run]) -> None:
    tokens = {book.start(ask(), submitted.append).token for _ in range(40)}
    assert len(tokens) == 40
    assert len(submitted) == 1
    assert all(len(token) >= 32 for token in tokens)
    book.start(ask(dtype="float32"), submitted.append)
    assert len(submitted) == 2


def test_a_result_that_is_kept_is_not_computed_again(book: RunBook, submitted: list[Run]) -> None:
    book.start(ask(), submitted.append)
    end(book, submitted[0])
    status = book.start(ask(), submitted.append)
    assert (len(submitted), status.state, status.result) == (1, "done", {"text": "x" * 10})


def test_a_load_is_never_taken_from_the_records(book: RunBook, submitted: list[Run]) -> None:
    book.start(LoadSpec("m"), submitted.append)
    end(book, submitted[0])
    book.start(LoadSpec("m"), submitted.append)
    assert len(submitted) == 2, "the model may have left since"


def test_a_failed_run_is_tried_again_and_its_own_token_still_tells_why(book: RunBook, submitted: list[Run]) -> None:
    token = book.start(ask(), submitted.append).token
    submitted[0].finish("failed", error=ErrorRecord("DoesNotFitError", "too much", "less"))
    book.archive(submitted[0])
    book.start(ask(), submitted.append)
    assert len(submitted) == 2
    error = book.find(token).status().error
    assert error is not None
    assert error.offer == "less"


def test_a_run_ends_only_when_nobody_asks_for_it_any_more(book: RunBook, submitted: list[Run]) -> None:
    first, second = (book.start(ask(), submitted.append).token for _ in range(2))
    book.cancel(first)
    assert not submitted[0].unwanted.is_set()
    assert book.find(first).status().state == "cancelled"
    assert book.find(first).status().age_s > 0, "it is still said when it was asked for"
    assert book.find(second).status().state == "waiting"
    book.cancel(second)
    assert submitted[0].unwanted.is_set()
    book.start(ask(), submitted.append)
    assert len(submitted) == 2, "a run that is ending is not joined"
    book.archive(submitted[0])
    assert book.live_runs == [submitted[1]]


def test_cancelling_what_has_ended_changes_nothing(book: RunBook, submitted: list[Run]) -> None:
    token = book.start(ask(), submitted.append).token
    end(book, submitted[0])
    book.cancel(token)
    assert book.find(token).status().state == "done"


def test_records_are_bounded_in_bytes_and_their_tokens_go_with_them(book: RunBook, submitted: list[Run]) -> None:
    tokens = []
    for number in range(4):
        tokens.append(book.start(ask(f"m{number}"), submitted.append).token)
        end(book, submitted[number], size=4000)
    assert book.records_nbytes <= 10_000
    with pytest.raises(RunNotFoundError, match="left to make room"):
        book.find(tokens[0])
    assert book.find(tokens[3]).status().state == "done"
    book.start(ask("m0"), submitted.append)
    assert len(submitted) == 5


def test_a_run_that_could_not_be_submitted_leaves_no_trace(book: RunBook) -> None:
    def refuse(_run: Run) -> None:
        raise RunNotFoundError("refused")

    with pytest.raises(RunNotFoundError):
        book.start(ask(), refuse)
    assert book.live_runs == []


def test_numbers_that_are_not_finite_become_null() -> None:
    value = {"a": [float("nan"), 1.5], "b": (float("inf"), {"c": -float("inf")}), "d": "nan"}
    assert json.loads(encode(value)) == {"a": [None, 1.5], "b": [None, {"c": None}], "d": "nan"}


def test_events_and_state_are_read_whole_while_they_are_written() -> None:
    run = Run(ask())
    writer = threading.Thread(target=lambda: [run.append({"kind": "step", "n": n}) for n in range(500)])
    writer.start()
    seen: list[str] = []
    while len(seen) < 500:
        seen += run.read(len(seen))[0]
    writer.join()
    assert [json.loads(event)["n"] for event in seen] == list(range(500))


def comparison(*layers: int) -> CompareSpec:
    return CompareSpec(ask(), (LaneSettings(ConversionPlan(layers)),))


def begin_anew(*layers: int) -> Command:
    return Command("lane", lane=1, settings=LaneSettings(ConversionPlan(layers)))


def anything(_spec: RunSpec) -> None:
    """Refuses nothing."""


def test_a_run_whose_lane_is_begun_anew_is_the_run_of_the_new_spec(book: RunBook, submitted: list[Run]) -> None:
    token = book.start(comparison(1), submitted.append).token
    book.command(token, begin_anew(2, 3), anything)
    assert submitted[0].take_commands(last=True) == [begin_anew(2, 3)]
    book.start(comparison(2, 3), submitted.append)
    assert len(submitted) == 1, "it is joined under what it has become"
    book.start(comparison(1), submitted.append)
    assert len(submitted) == 2, "and no longer under what it was"
    end(book, submitted[0])
    assert book.find(token).status().state == "done"
    assert book.start(comparison(2, 3), submitted.append).state == "done"


def test_becoming_what_another_run_is_leaves_both_alone(book: RunBook, submitted: list[Run]) -> None:
    other, mine = (book.start(comparison(layer), submitted.append).token for layer in (1, 2))
    book.command(mine, begin_anew(1), anything)
    book.start(comparison(1), submitted.append)
    assert len(submitted[0].tokens) == 2
    for token in (mine, other):
        end(book, book.find(token).run)
        assert book.find(token).status().state == "done"
    assert book.live_runs == []


def test_nobody_changes_a_run_that_others_follow(book: RunBook, submitted: list[Run]) -> None:
    mine, other = (book.start(comparison(1), submitted.append).token for _ in range(2))
    with pytest.raises(SharedRunError, match="a copy of your own"):
        book.command(mine, Command("pause"), anything)
    assert submitted[0].take_commands(last=False) == []
    book.leave(other)
    book.find(other, peek=True)
    book.command(mine, Command("pause"), anything)
    book.find(other)
    with pytest.raises(SharedRunError):
        book.command(mine, Command("speed", tokens_per_s=1.0), anything)
    book.cancel(other)
    book.command(mine, Command("speed", tokens_per_s=1.0), anything)


def test_a_paused_run_is_let_go_on_by_anyone_who_follows_it(book: RunBook, submitted: list[Run]) -> None:
    mine = book.start(comparison(1), submitted.append).token
    book.command(mine, Command("pause"), anything)
    other = book.start(comparison(1), submitted.append).token
    for token in (mine, other):
        book.command(token, Command("step"), anything)
        with pytest.raises(SharedRunError):
            book.command(token, Command("pause"), anything)
    for token in (other, mine):
        book.command(token, Command("continue"), anything)  # both press at once: the second changes nothing
    with pytest.raises(SharedRunError):
        book.command(mine, Command("step"), anything)
    assert [command.action for command in submitted[0].take_commands(last=False)] == [
        "pause",
        "step",
        "step",
        "continue",
        "continue",
    ]


def test_a_refused_command_changes_nothing(book: RunBook, submitted: list[Run]) -> None:
    def refuse(_spec: RunSpec) -> None:
        raise InvalidPlanError("no such layer")

    token = book.start(comparison(1), submitted.append).token
    for command, check, expected in (
        (begin_anew(99), refuse, InvalidPlanError),
        (Command("lane", lane=3, settings=LaneSettings()), anything, InvalidInputError),
        (Command("lane"), anything, InvalidInputError),
    ):
        with pytest.raises(expected):
            book.command(token, command, check)
    assert submitted[0].spec == comparison(1)
    assert submitted[0].take_commands(last=False) == []
    with pytest.raises(InvalidInputError, match="takes no commands"):
        book.command(book.start(ask(), submitted.append).token, Command("pause"), anything)


def test_after_the_last_look_no_command_is_taken_in(book: RunBook, submitted: list[Run]) -> None:
    token = book.start(comparison(1), submitted.append).token
    book.command(token, Command("pause"), anything)
    assert submitted[0].take_commands(last=True) == [Command("pause")]
    book.command(token, Command("continue"), anything)
    assert submitted[0].take_commands(last=True) == [Command("continue")]
    assert submitted[0].take_commands(last=True) == []
    with pytest.raises(InvalidInputError, match="is over"):
        book.command(token, begin_anew(2), anything)
    assert submitted[0].spec == comparison(1)


def test_a_request_whose_page_was_closed_is_given_up_unless_it_comes_back(book: RunBook, submitted: list[Run]) -> None:
    first, second = (book.start(ask(), submitted.append).token for _ in range(2))
    book.leave(first)
    book.leave(second)
    assert book.find(second).status().state == "waiting"
    book.drop_left(first)
    book.drop_left(second)
    assert not submitted[0].unwanted.is_set()
    assert (book.find(first).status().state, book.find(first).status().reason) == ("cancelled", LEFT)
    book.leave(second)
    book.drop_left(second)
    assert submitted[0].unwanted.is_set()
    book.drop_left("never made")


def test_a_visitors_newer_run_takes_the_place_of_the_older(book: RunBook, submitted: list[Run]) -> None:
    load = book.start(LoadSpec("m"), submitted.append, client="one").token
    first = book.start(ask(), submitted.append, client="one").token
    others = [book.start(ask(), submitted.append, client=name).token for name in ("two", "")]
    second = book.start(comparison(1), submitted.append, client="one").token
    assert (book.find(first).status().state, book.find(first).status().reason) == ("cancelled", REPLACED)
    assert not submitted[1].unwanted.is_set(), "others ask for it too"
    for token in (load, second, *others):
        assert book.find(token).status().state == "waiting"
    book.start(comparison(1), submitted.append, client="one")
    assert book.find(second).status().state == "waiting", "the same run again takes nobody's place"
    end(book, submitted[1])
    book.start(ask(), submitted.append, client="one")
    assert book.find(second).status().state == "waiting", "nor does looking at what is over"
