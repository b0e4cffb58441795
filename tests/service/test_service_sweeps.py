"""Sweeps and checks of a choice on a tiny model, through the application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from lighttransfer_core import errors
from lighttransfer_core.attention import use_lighttransfer_attention
from lighttransfer_core.frontier.bounds import sweep_nbytes
from lighttransfer_core.frontier.checking import check_nbytes, check_steps
from lighttransfer_core.frontier.choice import PASSAGES, CheckResult, ChoiceCheck
from lighttransfer_core.frontier.files import adding_to
from lighttransfer_core.frontier.orders import StaticOrder
from lighttransfer_core.frontier.results import ExampleResult, Sweep, parse_sweep
from lighttransfer_core.frontier.spec import SweepSpec
from lighttransfer_core.frontier.sweep import sweep_header, sweep_steps
from lighttransfer_core.keep import Keep, prefill_nbytes
from lighttransfer_core.models import LoadedModel, describe
from lighttransfer_core.service import sweep_files, sweep_jobs
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.jobs import JobEngine
from lighttransfer_core.service.limits import Limits
from lighttransfer_core.service.specs import CheckSpec, LoadSpec, RunSpec, SweepRunSpec
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import SHARED
from tests.service.conftest import speaking_to
from tests.service.test_service_engine import nothing_is_held, prefill_spec

WINDOW = Window(2, 20)
SWEEP = SweepSpec(
    tasks=("niah_single_1",),
    lengths=(500,),
    windows=(WINDOW,),
    shares=(0.5,),
    rankings=("lazy_ratio", "depth_early"),
    examples=3,
    rendering="raw",
    max_new_tokens=3,
)
SPEC = SweepRunSpec("tiny", SWEEP)
CHECK = ChoiceCheck(ConversionPlan((0, 2), WINDOW), 500, rendering="raw")
TEXT = " ".join(f"word{number}" for number in range(300))


@pytest.fixture(scope="module")
def tiny(byte_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    torch.manual_seed(7)
    config = LlamaConfig(**{**SHARED, "max_position_embeddings": 2048})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    use_lighttransfer_attention(model)
    return LoadedModel(model, byte_tokenizer, describe(model, "tiny", "r1", byte_tokenizer))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTTRANSFER_RESULTS", str(tmp_path / "results"))
    for name in ("_TURN_S", "_SHARED_TURN_S"):
        monkeypatch.setattr(sweep_jobs, name, 0.0)  # every step is a turn
    return tmp_path / "results"


@pytest.fixture
def budget() -> int:
    return 10**9


@pytest.fixture
def engine(tiny: LoadedModel, budget: int) -> JobEngine:
    return JobEngine(device="cpu", budget_nbytes=budget, loader=lambda *_: tiny, max_prompt_tokens=1000)


@pytest.fixture
def client(engine: JobEngine) -> Iterator[BackendClient]:
    with speaking_to(engine) as speaking:
        yield speaking


def kept(client: BackendClient) -> Sweep:
    """The only results that there are."""
    (entry,) = client.sweeps()
    return parse_sweep(client.sweep_text(entry.name))


def without_time(results: Any) -> list[str]:
    return [replace(result, seconds=None).to_json() for result in results]


def directly(tiny: LoadedModel, spec: SweepSpec) -> list[ExampleResult]:
    return [at.result for at in sweep_steps(tiny, spec) if at.result is not None]


def until_example(client: BackendClient, token: str) -> None:
    with closing(client.events(token)) as stream:
        next(event for event in stream if event["kind"] == "example")


@pytest.mark.parametrize(
    "spec",
    [
        SweepRunSpec("m", replace(SWEEP, orders=(StaticOrder("chosen", WINDOW, (1, 0), lazy=1),)), dtype="bfloat16"),
        CheckSpec("m", CHECK, "a" * 64),
    ],
)
def test_specs_survive_json(spec: RunSpec) -> None:
    assert type(spec).from_json(spec.to_json()) == spec
    assert spec.load_spec().model == spec.model


def test_a_sweep_finds_what_the_library_finds_and_keeps_it(
    client: BackendClient, engine: JobEngine, tiny: LoadedModel
) -> None:
    token = client.start(SPEC).token
    events = list(client.events(token))
    examples = [event for event in events if event["kind"] == "example"]
    assert [(event["seed"], event["done"], event["total"]) for event in examples] == [(0, 1, 3), (1, 2, 3), (2, 3, 3)]
    told = [event for event in events if event["kind"] == "measuring"]
    assert len(told) > 3 * 3, "a turn for each chunk, ranking and step"
    assert told[0]["message"].startswith("Prompt 1 of 3: niah_single_1, 500 tokens, seed 0")
    assert "Prompt 2 of 3, about" in told[-2]["message"] or "Prompt 3 of 3, about" in told[-1]["message"]
    (entry,) = client.sweeps()
    assert client.wait(token) == {"file": entry.name, "done": 3, "total": 3}
    assert (entry.prompts, entry.total, entry.problem) == (3, 3, "")
    assert entry.title == "tiny, niah_single_1, 500 tokens, seeds from 0"
    found = kept(client)
    assert without_time(found.results) == without_time(directly(tiny, SWEEP))
    assert all(result.seconds > 0 for result in found.results)  # type: ignore[operator]
    assert found.header.spec == SWEEP
    assert nothing_is_held(engine)


def test_a_cancelled_sweep_goes_on_where_it_stopped(
    client: BackendClient, engine: JobEngine, tiny: LoadedModel
) -> None:
    token = client.start(SPEC).token
    until_example(client, token)
    client.cancel(token)
    again = client.start(SPEC).token
    seeds = [event["seed"] for event in client.events(again) if event["kind"] == "example"]
    assert client.wait(again)["done"] == 3
    assert 0 not in seeds
    assert without_time(kept(client).results) == without_time(directly(tiny, SWEEP))
    assert nothing_is_held(engine)


def test_a_sweep_goes_on_in_another_backend_and_with_more_prompts(
    client: BackendClient, tiny: LoadedModel, budget: int
) -> None:
    client.wait(client.start(SPEC).token)
    restarted = JobEngine(device="cpu", budget_nbytes=budget, loader=lambda *_: tiny)
    with speaking_to(restarted) as other:
        token = other.start(replace(SPEC, sweep=replace(SWEEP, examples=5))).token
        seeds = [event["seed"] for event in other.events(token) if event["kind"] == "example"]
        assert seeds == [3, 4]
        assert other.wait(token)["done"] == 5
        assert other.sweeps()[0].total == 5
        assert not any(event["kind"] == "example" for event in other.events(other.start(SPEC).token)), "nothing to do"


def test_two_visitors_share_a_sweep_and_none_writes_into_another_s(client: BackendClient, engine: JobEngine) -> None:
    long = replace(SPEC, sweep=replace(SWEEP, examples=500))
    first, second = client.start(long, "one"), client.start(long, "two")
    until_example(client, first.token)
    client.cancel(first.token)
    until_example(client, second.token)
    assert client.status(second.token).state == "running", "the other visitor still follows it"
    with pytest.raises(errors.ResultsInUseError, match="Another run adds to tiny-"):
        client.wait(client.start(replace(SPEC, sweep=replace(SWEEP, examples=501)), "three").token)
    client.cancel(second.token)
    assert client.wait(client.start(SPEC).token)["done"] >= 3
    assert nothing_is_held(engine)


def test_others_have_their_turns_beside_a_sweep(client: BackendClient) -> None:
    sweep = client.start(replace(SPEC, sweep=replace(SWEEP, examples=500)), "one").token
    until_example(client, sweep)
    prompt = client.put_prompt("the quick brown fox " * 10)
    assert client.wait(client.start(prefill_spec(prompt), "two").token)["num_tokens"] == 200
    assert client.status(sweep).state == "running"
    client.cancel(sweep)


def test_who_starts_another_run_gives_up_the_sweep_and_its_results_stay(client: BackendClient) -> None:
    sweep = client.start(replace(SPEC, sweep=replace(SWEEP, examples=500)), "one").token
    until_example(client, sweep)
    client.wait(client.start(CheckSpec("tiny", CHECK), "one").token)
    status = client.status(sweep)
    assert (status.state, "took its place" in status.reason) == ("cancelled", True)
    assert kept(client).results


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"tasks": ("made_up",)}, errors.UnknownTaskError, "'made_up' is not a task"),
        ({"tasks": ("niah_single_2",)}, errors.TaskDataError, "tasks --fetch niah_single_2"),
        ({"rankings": ("made_up",)}, errors.UnknownMetricError, "'made_up' is not a laziness metric"),
        ({"rankings": ("greedy_kl",)}, errors.InvalidInputError, "on the command line"),
        ({"trials": ("leave_one_out_nll",), "trial_examples": 1}, errors.InvalidInputError, "on the command line"),
        ({"trials": ("leave_one_out_nll",)}, errors.InvalidInputError, "would rank none of the prompts"),
        ({"trials": ("echo",)}, errors.InvalidInputError, "tries no layers out"),
        ({"tasks": ("niah_single_1", "niah_single_1")}, errors.InvalidInputError, "tasks hold niah_single_1 more than"),
        ({"examples": 10_001}, errors.InvalidInputError, "10,001 prompts"),
        ({"lengths": (2000,)}, errors.InvalidPromptError, "this backend takes 1,000"),
        ({"lengths": (3000,)}, errors.InvalidPromptError, "2,048 positions"),
        ({"lengths": (0,)}, errors.InvalidInputError, "lengths"),
        ({"shares": (0.0,)}, errors.InvalidInputError, "shares"),
        ({"windows": (Window(4, 600),)}, errors.InvalidWindowError, "loses nothing"),
        ({"orders": (StaticOrder("mine", WINDOW, (0, 1)),)}, errors.InvalidPlanError, "mine does not order"),
    ],
)
def test_a_sweep_that_could_not_run_is_refused_and_leaves_no_file(
    client: BackendClient,
    engine: JobEngine,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    monkeypatch.setenv("LIGHTTRANSFER_CACHE", str(tmp_path / "cache"))
    spec = altered(SPEC, "sweep", change)
    with pytest.raises(error, match=said):
        client.wait(client.start(spec).token)
    client.wait(client.start(LoadSpec("tiny")).token)
    with pytest.raises(error, match=said):
        client.wait(client.start(spec).token)
    assert not folder.exists()
    assert nothing_is_held(engine)


def altered(spec: RunSpec, part: str, change: dict[str, Any]) -> Any:
    """As a client may send it: with values that the dataclasses would refuse."""
    data = spec.to_dict()
    data[part] |= json.loads(json.dumps(change, default=lambda value: value.to_dict()))
    return type("Sent", (), {"to_dict": lambda _self: data})()


@pytest.fixture
def granted(engine: JobEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whatever bytes are granted, one after the other."""
    found: list[int] = []
    grant = engine.ledger._grant
    monkeypatch.setattr(engine.ledger, "_grant", lambda nbytes, use: found.append(nbytes) or grant(nbytes, use))
    return found


def test_bytes_are_held_for_a_prompt_at_a_time(client: BackendClient, tiny: LoadedModel, granted: list[int]) -> None:
    client.wait(client.start(SPEC).token)
    assert granted == [sweep_nbytes(tiny.spec, SWEEP, Keep(query_rows=32))] * 3
    assert client.wait(client.start(SPEC).token)["done"] == 3, "where all is done nothing is asked, nor held"
    assert len(granted) == 3


def test_bytes_are_held_for_both_ways_of_asking(
    client: BackendClient, engine: JobEngine, tiny: LoadedModel, granted: list[int]
) -> None:
    both, keep = replace(SWEEP, questions=("aware", "agnostic")), Keep(query_rows=32)
    assert client.wait(client.start(replace(SPEC, sweep=both)).token)["done"] == 6
    one_way = sweep_nbytes(tiny.spec, SWEEP, keep)
    assert granted == [one_way + prefill_nbytes(tiny.spec, max(SWEEP.lengths), keep)] * 3
    assert nothing_is_held(engine)


class TestSmallBudget:
    @pytest.fixture
    def budget(self, tiny: LoadedModel) -> int:
        return tiny.spec.weight_bytes + sweep_nbytes(tiny.spec, SWEEP, Keep(query_rows=32))

    def test_who_needs_the_bytes_of_a_sweep_waits_for_a_prompt_and_not_for_its_end(self, client: BackendClient) -> None:
        sweep = client.start(replace(SPEC, sweep=replace(SWEEP, examples=500)), "one").token
        until_example(client, sweep)
        prompt = client.put_prompt("the quick brown fox " * 20)
        assert client.wait(client.start(prefill_spec(prompt), "two").token)["num_tokens"] == 400
        assert client.status(sweep).state in ("running", "waiting")
        until_example(client, sweep)
        client.cancel(sweep)

    def test_prompts_that_do_not_fit_are_answered_with_a_length_that_does(self, client: BackendClient) -> None:
        with pytest.raises(errors.DoesNotFitError) as refused:
            client.wait(client.start(replace(SPEC, sweep=replace(SWEEP, lengths=(600,)))).token)
        assert refused.value.offer == "prompts of up to 500 tokens"
        assert client.wait(client.start(SPEC).token)["done"] == 3

    def test_a_check_that_does_not_fit_is_too(self, client: BackendClient, budget: int, tiny: LoadedModel) -> None:
        with pytest.raises(errors.DoesNotFitError) as refused:
            client.wait(client.start(CheckSpec("tiny", replace(CHECK, length=900))).token)
        assert refused.value.offer is not None
        tokens = int(refused.value.offer.split()[-2])
        room = budget - tiny.spec.weight_bytes
        assert check_nbytes(tiny.spec, tokens) <= room < check_nbytes(tiny.spec, tokens + 1)


def test_a_folder_that_is_full_takes_no_further_sweep(
    client: BackendClient, engine: JobEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.wait(client.start(SPEC).token)
    with speaking_to(engine, Limits(results_nbytes=100)) as full:
        with pytest.raises(errors.DoesNotFitError, match="results of sweeps take"):
            full.start(SPEC)
        assert full.sweeps()[0].prompts == 3, "what is there is shown"


def test_a_sweep_has_a_clock_of_its_own(engine: JobEngine) -> None:
    with speaking_to(engine, Limits(wall_clock_s=1e-6, sweep_clock_s=1e9)) as client:
        assert client.wait(client.start(SPEC).token)["done"] == 3
    with (
        speaking_to(engine, Limits(sweep_clock_s=1e-6)) as client,
        pytest.raises(errors.DeadlineError, match="start it again to go on"),
    ):
        client.wait(client.start(replace(SPEC, sweep=replace(SWEEP, examples=4))).token)


def test_an_answer_is_no_longer_than_the_backend_gives(engine: JobEngine) -> None:
    with speaking_to(engine, Limits(max_new_tokens=20)) as client:
        for limit in (21, None):
            with pytest.raises(errors.InvalidInputError, match="this backend gives 20"):
                client.start(replace(SPEC, sweep=replace(SWEEP, max_new_tokens=limit)))
        assert client.wait(client.start(SPEC).token)["done"] == 3


def test_files_that_are_no_results_are_listed_with_what_is_wrong(client: BackendClient, folder: Path) -> None:
    assert client.sweeps() == []
    folder.mkdir()
    (folder / "a.jsonl").write_text("nonsense\n", encoding="utf-8")
    (folder / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    (folder / "c.jsonl").write_text("[1]\n", encoding="utf-8")
    (folder / "d.jsonl").write_text('{"kind": "sweep"}\n', encoding="utf-8")
    (folder / "e.jsonl").write_text("", encoding="utf-8")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    (folder / "f.jsonl").mkdir()
    assert [(entry.name, bool(entry.problem)) for entry in client.sweeps()] == [(f"{x}.jsonl", True) for x in "abcde"]
    assert client.sweep_text("a.jsonl") == "nonsense\n"


def test_only_the_files_of_the_folder_are_read(
    client: BackendClient, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    secret = tmp_path / "secret.jsonl"
    secret.write_text("secret", encoding="utf-8")
    (folder / "link.jsonl").symlink_to(secret)
    (folder / "notes.txt").write_text("secret", encoding="utf-8")
    names = ["../secret.jsonl", str(secret), "link.jsonl", "notes.txt", "..", "%2e%2e%2fsecret.jsonl", "x" * 255]
    for name in [*names, "x\0.jsonl", "\N{SNOWMAN}.jsonl", "new\nline.jsonl"]:
        with pytest.raises(errors.ServiceError):
            client.sweep_text(name)
    with pytest.raises(errors.SweepNotFoundError, match="no results 'link"):
        client.sweep_text("link.jsonl")
    assert client.sweeps() == []
    (folder / "large.jsonl").write_text("12345", encoding="utf-8")
    monkeypatch.setattr(sweep_files, "MOST_SENT_NBYTES", 4)
    with pytest.raises(errors.DoesNotFitError, match="5 bytes"):
        client.sweep_text("large.jsonl")


def test_tasks_say_whether_they_can_be_asked(
    client: BackendClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTTRANSFER_CACHE", str(tmp_path))
    found = {task.name: task for task in client.tasks()}
    assert (found["niah_single_1"].ready, found["niah_single_2"].ready) == (True, False)
    assert found["passkey"].title == "Pass key"


def ended_check(tiny: LoadedModel, text: str | None) -> CheckResult:
    steps = check_steps(tiny, CHECK, text)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("text", [None, TEXT])
def test_a_check_finds_what_the_library_finds(
    client: BackendClient, engine: JobEngine, tiny: LoadedModel, text: str | None
) -> None:
    spec = CheckSpec("tiny", CHECK, None if text is None else client.put_prompt(text))
    token = client.start(spec).token
    events = list(client.events(token))
    found, expected = CheckResult.from_dict(client.wait(token)), ended_check(tiny, text)
    assert found.ended == expected.ended == "unable"
    for one, other in zip(found.prompts, expected.prompts, strict=True):
        assert (one.task, one.seed, one.num_tokens, one.said) == (other.task, other.seed, other.num_tokens, other.said)
        assert one.plan.score == other.plan.score
        assert one.plan.nll == (None if other.plan.nll is None else pytest.approx(other.plan.nll, abs=1e-4))
    assert any(one.task == PASSAGES for one in found.prompts) == (text is not None)
    examples = [event for event in events if event["kind"] == "example"]
    told = [(one["task"], one["seed"], one["question"]) for event in examples for one in event["prompts"]]
    assert told == [(one.task, one.seed, one.question) for one in found.prompts]
    nothing = {"aware": None, "agnostic": None}
    assert all(event["kept"] == nothing for event in examples), "the full model has nothing right"
    assert any(event["message"].startswith("Prompt 2: Pass key") for event in events if event["kind"] == "measuring")
    assert nothing_is_held(engine)
    assert client.start(spec).state == "done", "it is not asked twice"


def test_a_cancelled_check_gives_everything_back(client: BackendClient, engine: JobEngine) -> None:
    token = client.start(CheckSpec("tiny", CHECK)).token
    until_example(client, token)
    client.cancel(token)
    client.wait(client.start(CheckSpec("tiny", replace(CHECK, length=501))).token)
    assert nothing_is_held(engine)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"plan": ConversionPlan((), WINDOW)}, errors.InvalidPlanError),
        ({"plan": ConversionPlan((9,), WINDOW)}, errors.InvalidPlanError),
        ({"length": 200}, errors.InvalidWindowError),
        ({"length": 20}, errors.InvalidWindowError),
        ({"length": 1001}, errors.InvalidPromptError),
        ({"length": 2000}, errors.InvalidPromptError),
        ({"length": -1}, errors.InvalidInputError),
        ({"seconds": 0}, errors.InvalidInputError),
        ({"width": 2.0}, errors.InvalidInputError),
    ],
)
def test_a_check_that_could_not_run_is_refused(
    client: BackendClient, engine: JobEngine, change: dict[str, Any], error: type[Exception]
) -> None:
    spec = altered(CheckSpec("tiny", CHECK), "check", change)
    with pytest.raises(error):
        client.wait(client.start(spec).token)
    assert nothing_is_held(engine)


def test_several_short_steps_are_one_turn(
    client: BackendClient, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_TURN_S", "_SHARED_TURN_S"):
        monkeypatch.setattr(sweep_jobs, name, 1e9)
    kinds = [event["kind"] for event in client.events(client.start(SPEC).token)]
    assert [kind for kind in kinds if kind not in ("loading", "waiting")] == ["example"] * 3 + ["done"]


def test_a_file_that_somebody_else_writes_is_left_alone(client: BackendClient, folder: Path, tiny: LoadedModel) -> None:
    header = sweep_header(tiny, SWEEP)
    with adding_to(folder / header.file_name, header), pytest.raises(errors.ResultsInUseError):
        client.wait(client.start(SPEC).token)
    assert client.wait(client.start(SPEC).token)["done"] == 3
