"""The demo prompts: long enough to tell layers apart, and each with one answer that its text really holds."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lighttransfer_core.models import prepare_embedded, render_prompt
from lighttransfer_core.types import Window

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "prompts"
DEMOS = ("policy", "needle", "dialogue", "code")
FIELDS = {
    "id": str,
    "title": str,
    "description": str,
    "rendering": str,
    "question": str,
    "expected": list,
    "fact": str,
    "depth": float,
    "text": str,
}


@cache
def demo(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def rendered_text(name: str) -> str:
    return f"{demo(name)['text'].strip()}\n\n{demo(name)['question'].strip()}"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(prepare_embedded(), local_files_only=True)
    return loaded


def test_all_demos_are_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(DEMOS)


@pytest.mark.parametrize("name", DEMOS)
def test_fields(name: str) -> None:
    data = demo(name)
    assert {key: type(value) for key, value in data.items()} == FIELDS
    assert data["id"] == name
    assert data["rendering"] in ("chat", "raw")
    for key in ("title", "description", "fact"):
        assert data[key].strip() == data[key] != ""
        assert "\n" not in data[key]


@pytest.mark.parametrize("name", DEMOS)
def test_token_count(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = render_prompt(tokenizer, rendered_text(name), demo(name)["rendering"])
    assert 2_000 <= prompt.num_tokens <= 6_000
    assert prompt.num_tokens > 2 * Window().size


@pytest.mark.parametrize("name", DEMOS)
def test_the_fact_stands_once_in_the_text_and_holds_the_answer(name: str) -> None:
    data = demo(name)
    text, fact = data["text"].strip(), data["fact"]
    assert text.count(fact) == 1
    assert data["depth"] == pytest.approx(text.index(fact) / len(text), abs=0.01)
    assert 0.25 <= data["depth"] <= 0.75
    assert any(answer in fact for answer in data["expected"])
    assert not any(answer in data["question"] for answer in data["expected"])


@pytest.mark.parametrize("name", DEMOS)
def test_the_answer_lies_outside_of_the_default_window(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Otherwise every plan would answer right and the demo would show nothing."""
    prompt = render_prompt(tokenizer, rendered_text(name), demo(name)["rendering"])
    start = prompt.text.index(demo(name)["fact"])
    before = len(tokenizer(prompt.text[:start], add_special_tokens=False)["input_ids"])
    through = len(tokenizer(prompt.text[: start + len(demo(name)["fact"])], add_special_tokens=False)["input_ids"])
    assert Window().sink < before
    assert through < prompt.num_tokens - Window().recent


def test_the_needle_is_the_only_place_with_its_answer() -> None:
    data = demo("needle")
    assert data["text"].count("48213") == 1
    assert not any(letter.isdigit() for letter in data["text"].replace("48213", ""))


@pytest.mark.parametrize("name", DEMOS)
def test_no_sentence_is_repeated(name: str) -> None:
    lines = [line for line in demo(name)["text"].splitlines() if len(line) > 60]
    assert len(lines) == len(set(lines))
