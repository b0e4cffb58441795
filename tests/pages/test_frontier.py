"""The Frontier page: verdicts from evidence, none without, and files that are no evidence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lighttransfer_core.frontier.files import ResultsFile
from lighttransfer_core.frontier.results import ExampleResult, Outcome
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader, SweepSpec
from lighttransfer_core.types import ModelSpec, Window
from pages.parts import evidence
from tests.pages.conftest import OpenPage, words
from tests.pages.fake_backend import FakeBackend
from tests.pages.test_pages import components

MODEL = ModelSpec(
    "tiny", "llama", 4, 6, 2, 8, 512, 97, "float32", 4, "cpu", None, 1000, 4000, ("full",) * 4, (None,) * 4
)
WINDOWS = (Window(4, 60), Window(4, 124))
SPEC = SweepSpec(tasks=("needle", "passkey"), lengths=(700, 900), windows=WINDOWS, shares=(0.25, 0.5), examples=24)
ORDERS = {"residual_change_worst": (0, 1, 2, 3), "lazy_ratio": (3, 2, 1, 0), "random_0": (2, 0, 3, 1)}


def outcome(order: tuple[int, ...], lazy: int, rng: np.random.Generator) -> Outcome:
    """Layer 3 holds everything: whoever converts it is right one time in ten."""
    return Outcome(float(rng.random() < (0.1 if 3 in order[:lazy] else 0.97)))


def write(file: Path, examples: int = 24) -> None:
    results, rng = ResultsFile(file, SweepHeader(SPEC, MODEL, "torch 2", "2026-11-24")), np.random.default_rng(0)
    for key in SPEC.keys:
        if key.seed >= examples:
            continue
        outcomes = {
            tuple(sorted(order[:lazy])): outcome(order, lazy, rng) for order in ORDERS.values() for lazy in (1, 2, 4)
        }
        orders, found = dict.fromkeys(WINDOWS, ORDERS), dict.fromkeys(WINDOWS, outcomes)
        results.add(ExampleResult(key, key.length, "said", Outcome(1.0), orders, found))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(evidence, "SHIPPED", tmp_path / "none")
    monkeypatch.setenv(evidence.VARIABLE, str(tmp_path))
    return tmp_path


def test_the_ranking_that_holds_is_named_and_the_paper_s_beside_it(
    open_page: OpenPage, fake: FakeBackend, folder: Path
) -> None:
    fake.up = False
    write(folder / "tiny.jsonl")
    app = open_page("frontier")
    said = words(app)
    assert "For **tiny**: **Residual change, worst query**" in said
    assert "up to 50% of the layers streaming" in said
    assert "The paper’s **lazy ratio**. It loses more than 10%" in said
    (chart,) = components(app, "chart")
    traces = {trace.get("name"): trace for trace in json.loads(chart["figure"])["data"]}
    assert {"residual_change_worst", "lazy_ratio"} <= set(traces)
    assert "Random orders (1), lowest to highest mean" in traces
    (frame,) = app.dataframe
    table = frame.value.set_index("ranking")
    assert table.loc["residual_change_worst", "over the paper, 50% lazy"].endswith("●")


def test_choices_are_in_the_address_and_what_is_not_there_gives_way(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    app = open_page("frontier", task="passkey", length="900", window="4 + 124")
    assert "passkey, 900 tokens, window 4 + 124" in components(app, "chart")[0]["title"]
    app = open_page("frontier", task="made up", length="7", evidence="nothing", asked="maybe")
    assert "all tasks, 700 tokens" in components(app, "chart")[0]["title"]


def test_too_few_prompts_say_nothing(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl", examples=5)
    assert "not enough prompts" in words(open_page("frontier"))


def test_no_evidence_says_how_to_get_some(open_page: OpenPage, folder: Path) -> None:
    app = open_page("frontier")
    assert "There is no evidence yet" in words(app)
    assert "lighttransfer_core sweep" in app.code[0].value


def test_a_file_that_is_no_evidence_is_named_and_the_rest_stays(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    (folder / "broken.jsonl").write_text("nonsense\n", encoding="utf-8")
    app = open_page("frontier")
    assert "broken.jsonl is not JSON" in app.error[0].value.replace("\\", "")
    assert components(app, "chart")


def test_no_chosen_ranking_is_said(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    app = open_page("frontier")
    app.multiselect(key="frontier_rankings").set_value([]).run()
    assert "No ranking is chosen" in words(app)


def test_results_are_addressed_by_key() -> None:
    assert ExampleKey("needle", 700, 0, "aware") in SPEC.keys
