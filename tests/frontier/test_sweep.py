from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import lighttransfer_core as lt
from lighttransfer_core.errors import (
    InvalidInputError,
    InvalidPlanError,
    InvalidPromptError,
    InvalidWindowError,
    ResultsInUseError,
    UnknownMetricError,
    UnknownTaskError,
)
from lighttransfer_core.frontier.bounds import check_names, check_sweep
from lighttransfer_core.frontier.calibration import calibration_steps
from lighttransfer_core.frontier.files import ResultsFile, adding_to, read_parts
from lighttransfer_core.frontier.orders import StaticOrder
from lighttransfer_core.frontier.render import render_example
from lighttransfer_core.frontier.results import ExampleResult, parse_sweep, read_folder, read_sweep
from lighttransfer_core.frontier.spec import ExampleKey, Question, SweepSpec
from lighttransfer_core.frontier.sweep import sweep_header, sweep_steps
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.steps import finished
from lighttransfer_core.tasks import Task, get_task
from lighttransfer_core.types import ConversionPlan, ModelIdentity, ModelSpec, Window
from tests.frontier.conftest import gibberish_task

SHIPPED = Path(__file__).resolve().parents[2] / "assets" / "recorded" / "sweeps"
SMALL, LARGE = Window(2, 9), Window(4, 60)
SPEC = SweepSpec(
    tasks=("gibberish", "niah_single_1"),
    lengths=(700,),
    windows=(SMALL, LARGE),
    shares=(0.25, 0.5),
    rankings=("lazy_ratio", "depth_early"),
    trials=("leave_one_out_nll",),
    trial_examples=1,
    orders=(StaticOrder("by_hand", SMALL, (2, 0, 1, 3)),),
    questions=("aware", "agnostic"),
    examples=2,
    first_seed=5,
    rendering="raw",
    max_new_tokens=8,
)


def results_of(lm: LoadedModel, spec: SweepSpec, done: set[ExampleKey] | None = None) -> list[ExampleResult]:
    return [at.result for at in sweep_steps(lm, spec, done or set()) if at.result is not None]


@pytest.fixture(scope="module")
def whole(reader: LoadedModel) -> list[ExampleResult]:
    """Every result of the spec, found in one go."""
    with gibberish_task():
        return results_of(reader, SPEC)


def without_time(result: ExampleResult) -> str:
    return replace(result, seconds=None).to_json()


def answer(prefill: Prefill, plan: ConversionPlan | None, question: list[int], lm: LoadedModel, limit: int) -> str:
    """What one plan says, decoded by itself."""
    if not question:
        ids = [event.token_id for event in lt.decode(prefill, plan, limit)]
    else:
        lanes = lt.Lanes(prefill, [lt.LaneSettings(plan or ConversionPlan())], 1)
        branch, ids = lanes.branch(0), []
        logits = branch.forward(torch.tensor([question]))[-1]
        while len(ids) < limit:
            ids.append(int(logits.argmax()))
            logits = branch.forward(torch.tensor([ids[-1:]]))[-1]
    return str(lm.tokenizer.decode(ids, skip_special_tokens=True))


def test_every_outcome_is_that_of_the_plan_alone(
    reader: LoadedModel, gibberish: Task, whole: list[ExampleResult]
) -> None:
    results = whole
    assert [result.key for result in results] == SPEC.keys
    scores = set()
    for result in results:
        if result.key.task != "gibberish":
            continue
        rendered = render_example(reader.tokenizer, gibberish, result.key.seed, 700, "raw")
        aware = result.key.question == "aware"
        ids = rendered.context + (rendered.question if aware else [])
        prefill, question = lt.run_prefill(reader, torch.tensor([ids])), [] if aware else rendered.question
        assert result.num_tokens == len(rendered.context) + len(rendered.question)
        assert result.answer == answer(prefill, None, question, reader, 8)
        assert result.full.score == gibberish.score(result.answer, rendered.example)
        for window in SPEC.windows:
            plan = lt.plan_from_scores(lt.score_layers(prefill, window, 32, "lazy_ratio"), 0.5)
            assert result.orders[window]["lazy_ratio"][:2] in (plan.lazy_layers, plan.lazy_layers[::-1])
            for ranking in result.orders[window]:
                for lazy in (1, 2):
                    outcome = result.outcome(ranking, window, lazy)
                    layers = result.orders[window][ranking][:lazy]
                    said = answer(prefill, ConversionPlan(layers, window), question, reader, 8)
                    assert outcome is not None
                    assert outcome.score == gibberish.score(said, rendered.example)
                    scores.add(outcome.score)
            assert result.outcome("lazy_ratio", window, 0) == result.full
            assert result.outcome("unheard_of", window, 1) is None
    assert len(scores) > 20, "plans must differ, or this test shows nothing"


@pytest.mark.parametrize("ways", [("aware", "agnostic"), ("agnostic", "aware")])
def test_what_is_asked_both_ways_reads_what_they_share_once(reader: LoadedModel, ways: tuple[Question, ...]) -> None:
    spec = replace(SPEC, tasks=("niah_single_1",), questions=ways, trials=())
    turns = list(sweep_steps(reader, spec))
    ends = [at.goes_on for at in turns if at.result is not None]
    assert ends == [True, False, True, False], "the prompt is kept for the other way of asking, and no longer"
    read = [int(found[1]) for at in turns if (found := re.search(r": (\d+) tokens to read", at.doing))]
    assert [tokens > 600 for tokens in read] == [True, False, True, False]
    alone = [result for one in spec.keys for result in results_of(reader, spec, set(spec.keys) - {one})]
    together = [at.result for at in turns if at.result is not None]
    assert list(map(without_time, together)) == list(map(without_time, alone))


def test_a_sweep_of_which_all_is_done_asks_nothing(reader: LoadedModel) -> None:
    assert list(sweep_steps(reader, SPEC, set(SPEC.keys))) == []


def test_who_ranks_which_example(whole: list[ExampleResult]) -> None:
    for result in whole:
        trials = {"leave_one_out_nll"} if result.key.seed == 5 else set()
        assert set(result.orders[SMALL]) == {"lazy_ratio", "depth_early", "by_hand"} | trials
        assert set(result.orders[LARGE]) == {"lazy_ratio", "depth_early"} | trials
        assert result.orders[SMALL]["by_hand"] == (2, 0, 1, 3)


def test_a_trial_reads_the_reference_answer(reader: LoadedModel, gibberish: Task) -> None:
    spec = replace(SPEC, tasks=("niah_single_1",), questions=("aware",), examples=1)
    (result,) = results_of(reader, spec)
    rendered = render_example(reader.tokenizer, get_task("niah_single_1"), 5, 700, "raw")
    prefill = lt.run_prefill(reader, torch.tensor([rendered.context + rendered.question]))
    reference = reader.tokenizer(" " + rendered.example.answers[0], add_special_tokens=False).input_ids
    rises = [
        float(lt.continuation_nll(prefill, ConversionPlan((layer,), SMALL), torch.tensor([reference])).mean())
        for layer in range(4)
    ]
    assert result.orders[SMALL]["leave_one_out_nll"] == tuple(sorted(range(4), key=lambda layer: rises[layer]))


def test_text_is_scored_by_likelihood(reader: LoadedModel) -> None:
    spec = replace(SPEC, tasks=("text",), questions=("aware",), examples=1, lengths=(1200,))
    (result,) = results_of(reader, spec)
    rendered = render_example(reader.tokenizer, get_task("text"), 5, 1200, "raw")
    prefill = lt.run_prefill(reader, torch.tensor([rendered.context + rendered.question]))
    reference = torch.tensor([reader.tokenizer(rendered.example.answers[0], add_special_tokens=False).input_ids])
    for lazy in (0, 2, 4):
        outcome = result.outcome("lazy_ratio", SMALL, lazy)
        plan = ConversionPlan(result.orders[SMALL]["lazy_ratio"][:lazy], SMALL)
        assert outcome is not None
        assert outcome.score is None
        assert outcome.nll == pytest.approx(float(lt.continuation_nll(prefill, plan, reference).mean()), abs=1e-4)
    assert result.full.kl == pytest.approx(0.0, abs=1e-6)


def test_results_go_on_where_they_stopped(
    reader: LoadedModel, gibberish: Task, whole: list[ExampleResult], tmp_path: Path
) -> None:
    header, file = sweep_header(reader, SPEC), tmp_path / "results.jsonl"
    first = ResultsFile(file, header)
    for result in whole[:3]:
        first.add(result)
    with file.open("a") as out:
        out.write(whole[3].to_json()[:40])  # a crash in the middle of a line
    again = ResultsFile(file, header)
    assert again.done == {result.key for result in whole[:3]}
    for result in results_of(reader, SPEC, again.done):
        again.add(result)
    read = read_sweep(file)
    assert list(map(without_time, read.results)) == list(map(without_time, whole))
    assert [result.seconds for result in read.results[:3]] == [result.seconds for result in whole[:3]]
    assert read.header.to_dict() == header.to_dict()
    assert [sweep.header.to_dict() for sweep in read_folder(tmp_path)] == [header.to_dict()]
    more = ResultsFile(file, sweep_header(reader, replace(SPEC, examples=3)))
    assert len(more.done) == len(whole)
    assert read_sweep(file).header.spec.examples == 3
    other = sweep_header(reader, replace(SPEC, shares=(0.3,), first_seed=6))
    with pytest.raises(InvalidInputError, match="another question or model, with other shares, first_seed: give"):
        ResultsFile(file, other)
    retyped = replace(header, model=replace(header.model, dtype="bfloat16"))
    with pytest.raises(InvalidInputError, match="with other dtype: give"):
        ResultsFile(file, retyped)


def test_a_file_that_holds_no_result_is_begun_anew(
    reader: LoadedModel, gibberish: Task, whole: list[ExampleResult], tmp_path: Path
) -> None:
    empty, failed = tmp_path / "empty.jsonl", tmp_path / "failed.jsonl"
    empty.write_text("", encoding="utf-8")
    ResultsFile(failed, sweep_header(reader, replace(SPEC, last=9)))
    header = sweep_header(reader, SPEC)
    for file in (empty, failed):
        ResultsFile(file, header).add(whole[0])
        assert read_sweep(file).header.to_dict() == header.to_dict()
        assert read_sweep(file).done == {whole[0].key}


def test_files_of_one_question_are_one_sweep(
    reader: LoadedModel, gibberish: Task, whole: list[ExampleResult], tmp_path: Path
) -> None:
    for rank in range(2):
        part = ResultsFile(tmp_path / f"results.{rank}.jsonl", sweep_header(reader, SPEC))
        for result in whole[rank::2]:
            part.add(result)
    other = ResultsFile(tmp_path / "z.jsonl", sweep_header(reader, replace(SPEC, shares=(0.5,))))
    other.add(whole[0])
    found = read_folder(tmp_path)
    assert [len(sweep.results) for sweep in found] == [len(whole), 1]
    assert found[0].done == set(SPEC.keys)


def test_a_file_is_read_with_its_parts(
    reader: LoadedModel, gibberish: Task, whole: list[ExampleResult], tmp_path: Path
) -> None:
    header, another = sweep_header(reader, SPEC), sweep_header(reader, replace(SPEC, shares=(0.5,)))
    names = ("results.0.jsonl", "results.1.jsonl", "results.old.jsonl", "results.0.1.jsonl", "results.0.2.jsonl")
    for name, result in zip(names, whole, strict=False):
        ResultsFile(tmp_path / name, header).add(result)
    file = tmp_path / "results.jsonl"
    (of_parts,) = read_parts(file)
    assert of_parts.done == {whole[0].key, whole[1].key}, "without a file of its own"
    ResultsFile(file, header).add(whole[5])
    ResultsFile(tmp_path / "results.7.jsonl", another).add(whole[6])
    (together,) = read_parts(file)
    assert together.done == {whole[number].key for number in (0, 1, 5)}
    (part,) = read_parts(tmp_path / "results.1.jsonl")
    assert part.done == {whole[1].key}
    with pytest.raises(InvalidInputError, match=r"Cannot read .*unheard_of\.jsonl"):
        read_parts(tmp_path / "unheard_of.jsonl")


def test_what_is_no_result_is_refused_with_its_line(reader: LoadedModel, gibberish: Task) -> None:
    header = sweep_header(reader, SPEC).to_json()
    for text, said in (
        ("", "is empty"),
        ("[]\n", "line 1|Line 1"),
        ('{"kind": "other"}\n', "first line"),
        ('{"kind": "sweep"}\n', "lacks"),
        (f"{header}\nnonsense\n", "Line 2"),
        (f'{header}\n{{"task": "gibberish"}}\n', "Line 2"),
        (json.dumps({**json.loads(header), "spec": {"tasks": []}}) + "\n", "lacks|needs"),
    ):
        with pytest.raises(InvalidInputError, match=said) as refused:
            parse_sweep(text, "one.jsonl")
        assert "one.jsonl" in str(refused.value)


def test_what_cannot_be_asked_is_refused(reader: LoadedModel) -> None:
    with pytest.raises(UnknownMetricError):
        sweep_header(reader, replace(SPEC, rankings=("made_up",)))
    with pytest.raises(UnknownTaskError):
        sweep_header(reader, SPEC)
    for change in ({"tasks": ()}, {"shares": (0.0,)}, {"shares": (1.5,)}, {"examples": 0}, {"questions": ("maybe",)}):
        with pytest.raises(InvalidInputError):
            replace(SPEC, **change)  # type: ignore[arg-type]


OTHER = ModelIdentity("another", "r2", num_layers=4, num_heads=4, num_kv_heads=2, head_dim=16)
BY_HAND = StaticOrder("by_hand", SMALL, (2, 0, 1, 3))


def test_results_that_counted_twice_are_still_read() -> None:
    """They were written before that was refused."""
    twice = replace(SPEC, tasks=("passkey", "passkey"))
    assert SweepSpec.from_json(twice.to_json()) == twice


def test_an_order_of_a_copy_of_the_model_is_taken(reader: LoadedModel) -> None:
    """Another folder has another revision, and a file of another name the same; two without one have none in common."""
    spec = replace(SPEC, tasks=("niah_single_1",), lengths=(700,))

    def made_for(model: ModelIdentity, used_on: ModelSpec) -> None:
        check_sweep(used_on, replace(spec, orders=(replace(BY_HAND, model=model),)))

    for used_on in (replace(reader.spec, revision="r1"), replace(reader.spec, revision=None)):
        mine = used_on.identity
        made_for(mine, used_on)
        made_for(replace(mine, revision="copied"), used_on)
        with pytest.raises(InvalidPlanError, match="was made for renamed"):
            made_for(replace(mine, name="renamed", revision="copied" if mine.revision else None), used_on)
    named = replace(reader.spec, revision="r1")
    made_for(replace(named.identity, name="renamed"), named)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lengths": (700, -5)}, r"lengths=\(700, -5\) are not numbers of tokens: give whole numbers"),
        ({"lengths": (700.5,)}, "are not numbers of tokens"),
        ({"last": 0}, "last=0 is not a number of queries: give at least 1"),
        ({"tasks": ("passkey", "passkey")}, "tasks hold passkey more than once"),
        ({"lengths": (700, 900, 700)}, "lengths hold 700 more than once"),
        ({"windows": (SMALL, LARGE, Window(2, 9))}, r"windows hold 2\+9 more than once"),
        ({"shares": (0.5, 1, 1.0)}, "shares hold 1.0 more than once"),
        ({"questions": ("aware", "aware")}, "questions hold aware more than once"),
        ({"rankings": ("lazy_ratio", "lazy_ratio")}, r"lazy_ratio would rank the window 2\+9 twice"),
        ({"trials": ("lazy_ratio",)}, "lazy_ratio would rank"),
        ({"orders": (BY_HAND, replace(BY_HAND, order=(0, 1, 2, 3)))}, r"by_hand would rank .* `calibrate --name`"),
        ({"orders": (replace(BY_HAND, name="depth_early"),)}, "depth_early would rank"),
    ],
)
def test_what_would_count_twice_or_counts_nothing_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        check_names(replace(SPEC, **change))
    assert len(replace(SPEC, orders=(BY_HAND, replace(BY_HAND, window=LARGE))).orders) == 2, "one for each window"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"lengths": (700, 2041)}, InvalidPromptError, "at most 2,040 tokens"),
        ({"lengths": (700, 60)}, InvalidWindowError, "4 \\+ 60 keeps 64 tokens"),
        ({"orders": (StaticOrder("mine", SMALL, (0, 1)),)}, InvalidPlanError, "mine does not order the 4 layers"),
        ({"orders": (StaticOrder("mine", SMALL, (0, 1, 2, 3), lazy=5),)}, InvalidPlanError, "mine"),
        ({"trials": ("echo",)}, InvalidInputError, "echo tries no layers out"),
        ({"trial_examples": 0}, InvalidInputError, "leave_one_out_nll would rank none of the prompts"),
        ({"windows": (LARGE,)}, InvalidInputError, r"No order of by_hand is for the windows 4\+60, but for 2\+9"),
        (
            {"orders": (replace(BY_HAND, model=OTHER),)},
            InvalidPlanError,
            "by_hand was made for another at r2, and this",
        ),
    ],
)
def test_what_this_model_cannot_do_to_the_end_is_refused_before_it_starts(
    reader: LoadedModel, gibberish: Task, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        sweep_header(reader, replace(SPEC, **change))


def test_a_set_of_layers_is_tried_as_it_is_and_at_no_share(reader: LoadedModel, gibberish: Task) -> None:
    chosen = StaticOrder("chosen", SMALL, (3, 1, 2, 0), lazy=3)
    spec = replace(
        SPEC, tasks=("gibberish",), windows=(SMALL,), rankings=(), trials=(), orders=(chosen,), questions=("aware",)
    )
    (result, _) = results_of(reader, spec)
    assert set(result.outcomes[SMALL]) == {(1, 2, 3), (0, 1, 2, 3)}
    assert result.outcome("chosen", SMALL, 3) == result.outcomes[SMALL][1, 2, 3]
    assert result.outcome("chosen", SMALL, 2) is None


def test_one_writer_at_a_time(reader: LoadedModel, gibberish: Task, tmp_path: Path) -> None:
    header, file = sweep_header(reader, SPEC), tmp_path / "new" / "results.jsonl"
    with adding_to(file, header) as results:
        assert results.done == set()
        with pytest.raises(ResultsInUseError, match=r"adds to results\.jsonl"), adding_to(file, header):
            pytest.fail("two writers")
        with adding_to(tmp_path / "other.jsonl", header):
            pass
    with adding_to(file, header):
        pass
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="Cannot write"), adding_to(tmp_path / "file" / "r.jsonl", header):
        pytest.fail("written")


def test_what_other_processes_found_is_done(
    reader: LoadedModel, gibberish: Task, whole: list[ExampleResult], tmp_path: Path
) -> None:
    header = sweep_header(reader, SPEC)
    for name, result in (("results.jsonl", whole[0]), ("results.1.jsonl", whole[1]), ("results.old.jsonl", whole[2])):
        ResultsFile(tmp_path / name, header).add(result)
    another = sweep_header(reader, replace(SPEC, shares=(0.3,)))
    ResultsFile(tmp_path / "results.2.jsonl", another).add(whole[3])
    for name in ("results.jsonl", "results.0.jsonl", "results.1.jsonl"):
        with adding_to(tmp_path / name, header) as results:
            assert results.done == {whole[0].key, whole[1].key}, name


def test_a_file_is_named_by_what_is_asked_of_which_model(reader: LoadedModel, gibberish: Task) -> None:
    header = sweep_header(reader, SPEC)
    more = sweep_header(reader, replace(SPEC, examples=9))
    assert header.file_name == more.file_name
    assert header.continues(more)
    for change in ({"shares": (0.3,)}, {"first_seed": 6}, {"orders": ()}, {"last": 16}):
        other = sweep_header(reader, replace(SPEC, **change))  # type: ignore[arg-type]
        assert other.file_name != header.file_name
        assert not header.continues(other)
    odd = replace(header, model=replace(header.model, name="../owner/Model 1"))
    assert re.fullmatch(r"owner-Model-1-[0-9a-f]{16}\.jsonl", odd.file_name)


def test_a_calibrated_order_is_that_of_the_mean(reader: LoadedModel, gibberish: Task) -> None:
    spec = replace(SPEC, tasks=("gibberish",), questions=("aware",), examples=3)
    orders = finished(calibration_steps(reader, spec, "lazy_ratio"))
    scores = []
    for seed in (5, 6, 7):
        rendered = render_example(reader.tokenizer, gibberish, seed, 700, "raw")
        prefill = lt.run_prefill(reader, torch.tensor([rendered.context + rendered.question]))
        scores.append(lt.score_layers(prefill, SMALL, 32, "lazy_ratio"))
    assert orders[0].window == SMALL
    assert list(orders[0].order) == lt.aggregate_scores(scores).ranking()
    assert "3 prompts" in orders[0].made
    assert {(order.name, order.model) for order in orders} == {("calibrated_lazy_ratio", reader.spec.identity)}
    (named, _) = finished(calibration_steps(reader, replace(spec, examples=1), "lazy_ratio", "short"))
    assert named.name == "calibrated_short"
    assert StaticOrder.from_json(named.to_json()) == named
    sweep_header(reader, replace(SPEC, tasks=("gibberish",), windows=(SMALL,), orders=(named,)))


def test_an_order_without_a_model_asks_what_it_asked_before_orders_had_one() -> None:
    """Or files of results that were begun then would be of another question."""
    with (SHIPPED / "smollm2_seeds_1000.jsonl").open(encoding="utf-8") as file:
        asked = json.loads(file.readline())["spec"]
    assert SweepSpec.from_dict(asked).to_dict() == asked


@pytest.mark.parametrize(("tasks", "questions"), [(3, 2), (3, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_processes_share_every_cell_alike(tasks: int, questions: int, processes: int) -> None:
    ways: tuple[Question, ...] = ("aware", "agnostic")
    names = ("niah_single_1", "niah_single_2", "passkey")[:tasks]
    spec = SweepSpec(tasks=names, lengths=(700, 900), windows=(Window(4, 60),), questions=ways[:questions], examples=30)
    shares = [spec.keys_of(rank, processes) for rank in range(processes)]
    assert sorted(key.text for share in shares for key in share) == sorted(key.text for key in spec.keys)
    for share in shares:
        counts = Counter((key.task, key.question, key.length) for key in share)
        assert set(counts.values()) == {30 // processes}, "no process is given the long prompts only"
        assert all(replace(key, question=way) in share for key in share for way in spec.questions), "read once"
