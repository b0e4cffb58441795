from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from lighttransfer_core import __main__ as command_line
from lighttransfer_core.events import DecodeEvent
from lighttransfer_core.models import embedded
from lighttransfer_core.models.catalogue import catalogue
from lighttransfer_core.types import ConversionPlan, LayerScores, Window
from lighttransfer_core.version import __version__
from tests.conftest import make_tiny

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


def test_generate_writes_the_text_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert run(monkeypatch, "generate", "--model", folder, "--prompt", TEXT, "--raw", "--max-new-tokens", 5) == 0
    assert len(capsys.readouterr().out.rstrip("\n")) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "--prompt", "x", "--sink", -1), "sink=-1 is not a window size"),
        (("score",), "Give a prompt"),
        (("score", "--prompt", "x", "--prompt-file", "y"), "Give a prompt"),
        (("score", "--prompt-file", "/nowhere"), "Cannot read the prompt /nowhere"),
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
