"""The Frontier page: verdicts from evidence, none without, sweeps of one's own, and one's own plan beside them."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from lighttransfer_core import command_line
from lighttransfer_core.errors import TaskDataError
from lighttransfer_core.frontier.files import ResultsFile
from lighttransfer_core.frontier.orders import StaticOrder
from lighttransfer_core.frontier.results import ExampleResult, Outcome
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader, SweepSpec
from lighttransfer_core.layer_sets import layers_lazy
from lighttransfer_core.selection import RECOMMENDED_METRIC
from lighttransfer_core.service.specs import PrefillSpec, SweepRunSpec
from lighttransfer_core.types import ModelSpec, Window
from pages.parts import evidence, results, sweep_controls
from tests.pages.conftest import OpenPage, words
from tests.pages.fake_backend import FakeBackend
from tests.pages.test_pages import components

MODEL = replace(
    ModelSpec.from_dict(results.record()["prefill"]["spec"]),
    num_layers=4,
    layer_kinds=("full",) * 4,
    native_windows=(None,) * 4,
)
WINDOWS = (Window(4, 60), Window(4, 124))
SPEC = SweepSpec(
    tasks=("niah_single_1", "passkey"), lengths=(700, 900), windows=WINDOWS, shares=(0.25, 0.5), examples=24
)
ORDERS = {"residual_change_worst": (0, 1, 2, 3), "lazy_ratio": (3, 2, 1, 0), "random_0": (3, 0, 2, 1)}
OTHERS = {"lazy_ratio": (3, 2, 1, 0), "random_1": (2, 3, 1, 0)}


def outcome(order: tuple[int, ...], lazy: int, rng: np.random.Generator) -> Outcome:
    """Layer 3 holds everything: whoever converts it is right one time in ten."""
    return Outcome(float(rng.random() < (0.1 if 3 in order[:lazy] else 0.97)))


def write(
    file: Path,
    examples: int = 24,
    spec: SweepSpec = SPEC,
    model: ModelSpec = MODEL,
    made: dict[str, tuple[int, ...]] = ORDERS,
    keys: list[ExampleKey] | None = None,
) -> None:
    """What a sweep of these rankings would have found."""
    found, rng = ResultsFile(file, SweepHeader(spec, model, "torch 2", "2026-11-24")), np.random.default_rng(0)
    tried = {*spec.rankings, *(one.name for one in spec.orders)}
    asked = {layers_lazy(share, 4) for share in (*spec.shares, 1.0)}
    names = {name: order for name, order in made.items() if name in tried or spec is SPEC}
    for key in spec.keys if keys is None else keys:
        if key.seed >= spec.first_seed + examples:
            continue
        outcomes = {tuple(sorted(order[:lazy])): outcome(order, lazy, rng) for order in made.values() for lazy in asked}
        orders, by_window = dict.fromkeys(spec.windows, names), dict.fromkeys(spec.windows, outcomes)
        found.add(ExampleResult(key, key.length, "said", Outcome(1.0), orders, by_window, seconds=2.0))


@pytest.fixture
def folder(fake: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The backend's folder of results; nothing comes with the app."""
    monkeypatch.setattr(evidence, "SHIPPED", tmp_path / "none")
    made = tmp_path / "results"
    made.mkdir()
    return made


def traces(app: AppTest) -> dict[str, Any]:
    (chart,) = components(app, "chart")
    return {trace.get("name"): trace for trace in json.loads(chart["figure"])["data"]}


def test_questions_of_a_file_are_left_to_the_command_line(open_page: OpenPage, folder: Path) -> None:
    """The backend does not know them."""
    write(folder / "a.jsonl", examples=3, spec=replace(SPEC, tasks=("mine@12345678",), rankings=tuple(ORDERS)))
    app = open_page("frontier", plan="0")
    assert "Measure more of them on the command line, which knows their file." in words(app)
    assert "only the command line asks" in words(app)
    assert not [button for button in app.button if button.label.startswith("Try my plan")]


def test_the_ranking_that_holds_is_named_and_the_paper_s_beside_it(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    app = open_page("frontier")
    said = words(app)
    assert "For **smollm2**, by these results: **Residual change, worst query**" in said
    assert "up to 50% of the layers streaming" in said
    assert "*Measured*" not in said, "it is made anew for each prompt"
    assert "every share tried: with 1 lazy layer it kept " in said.partition("The paper’s: **Lazy ratio**.")[2]
    assert "Other results" not in said
    assert {"residual_change_worst", "lazy_ratio", "One random order"} <= set(traces(app))
    (frame,) = app.dataframe
    table = frame.value.set_index("ranking")
    assert table.loc["residual_change_worst", "over lazy_ratio, 50% lazy"].endswith("●")


def test_what_all_results_on_the_model_say_is_told_beside_each(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    write(folder / "more.jsonl", spec=replace(SPEC, first_seed=500, rankings=("lazy_ratio",)))
    write(folder / "else.jsonl", spec=replace(SPEC, first_seed=900), model=replace(MODEL, name="someone/else"))
    app = open_page("frontier")
    for chosen in ("seeds from 0", "seeds from 500"):
        choose_results(app, chosen)
        (told,) = (one.value for one in app.caption if "sweeps together" in one.value)
        assert "90% of every task is kept by Residual change, worst query, up to 50% (" in told
        assert "24 prompts); Lazy ratio, at no share (" in told
        assert told.endswith("48 prompts).")


def test_all_results_on_the_model_are_a_choice_of_their_own(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    write(folder / "more.jsonl", spec=replace(SPEC, first_seed=500, rankings=tuple(OTHERS), shares=(0.5,)), made=OTHERS)
    app = open_page("frontier")
    choose_results(app, "several sweeps together")
    assert not app.exception
    (frame,) = app.dataframe
    assert dict(zip(frame.value["ranking"], frame.value["prompts"], strict=True)) == {
        "lazy_ratio": 96,
        "residual_change_worst": 48,
    }
    columns = frame.value.set_index("ranking")
    assert columns.loc["lazy_ratio", "25% lazy"].endswith("], 48 prompts"), "one sweep has no such share"
    assert columns.loc["lazy_ratio", "50% lazy"].endswith("]")
    assert any("Chance is one random order." in one.value for one in app.caption)
    told = words(app)
    assert "For **smollm2**, by these results: **Residual change, worst query**" in told
    assert "By 2 sweeps together, of other" not in told, "that is what is shown"
    assert "Your own plan can be put beside one sweep" in told
    assert "192 prompts, 2 sweeps together, last 32 queries" in told.replace("\\", "")


def test_a_choice_of_all_results_is_of_those_at_hand(open_page: OpenPage, folder: Path) -> None:
    """One that is exchanged for another of equal size is not taken for it."""
    write(folder / "tiny.jsonl")
    for name, seed, made in (("more", 500, ORDERS), ("other", 700, {**ORDERS, "lazy_ratio": (0, 1, 2, 3)})):
        write(folder / f"{name}.jsonl", spec=replace(SPEC, first_seed=seed, rankings=("lazy_ratio",)), made=made)
        app = open_page("frontier")
        choose_results(app, "several sweeps together")
        (frame,) = app.dataframe
        kept = frame.value.set_index("ranking").loc["lazy_ratio", "50% lazy"]
        assert (float(kept[:4]) < 0.3) == (name == "more"), kept
        (folder / f"{name}.jsonl").unlink()


def test_results_of_other_tasks_are_not_told_beside(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    for seed in (500, 700):
        write(
            folder / f"{seed}.jsonl", spec=replace(SPEC, tasks=("passkey",), first_seed=seed, rankings=("lazy_ratio",))
        )
    app = open_page("frontier")
    choose_results(app, "seeds from 0")
    assert not any("sweeps together, of other" in one.value for one in app.caption)
    choose_results(app, "seeds from 500")
    assert any("By 2 sweeps together, of other" in one.value for one in app.caption)


def choose_results(app: AppTest, ending: str) -> None:
    titles = app.selectbox(key="evidence").options
    app.selectbox(key="evidence").set_value(next(one for one in titles if one.endswith(ending))).run()


def test_any_ranking_can_be_held_against_any_other_at_any_share(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    app = open_page("frontier", beside="residual_change_worst", beside_at="25%")
    lead = leads(app, "over residual_change_worst, 25% lazy")
    assert lead["residual_change_worst"] == "", "not ahead of itself"
    assert lead["lazy_ratio"].startswith("-")
    assert lead["lazy_ratio"].endswith("●")
    app.selectbox(key="beside_at").set_value("50%").run()
    assert leads(app, "over chance, 50% lazy")["residual_change_worst"].endswith("●")
    app.selectbox(key="beside").set_value("lazy_ratio").run()
    assert leads(app, "over lazy_ratio, 50% lazy")["residual_change_worst"].startswith("+0.88 [")


def leads(app: AppTest, column: str) -> dict[str, str]:
    (frame,) = app.dataframe
    return dict(frame.value.set_index("ranking")[column])


def test_an_order_for_all_prompts_says_where_it_is_applied(open_page: OpenPage, folder: Path) -> None:
    orders = tuple(StaticOrder("calibrated_echo", window, (0, 1, 2, 3)) for window in WINDOWS)
    spec = replace(SPEC, orders=orders, rankings=("lazy_ratio", "random_0"))
    write(folder / "tiny.jsonl", spec=spec, made={"calibrated_echo": (0, 1, 2, 3), **ORDERS})
    applied = "On the page **Convert** the rule *Measured* has it: "
    assert applied in words(open_page("frontier"))
    assert applied not in words(open_page("frontier", model="smollm3-3b")), "there it has not been measured"


def test_choices_are_in_the_address_and_what_is_not_there_gives_way(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    app = open_page("frontier", task="passkey", length="900", window="4 + 124")
    assert "passkey, 900 tokens, window 4 + 124" in components(app, "chart")[0]["title"]
    app = open_page("frontier", task="made up", length="7", evidence="nothing", asked="maybe")
    assert "all tasks, 700 tokens" in components(app, "chart")[0]["title"]


def test_another_sweep_brings_choices_of_its_own(open_page: OpenPage, folder: Path) -> None:
    write(folder / "a.jsonl")
    write(folder / "b.jsonl", spec=replace(SPEC, tasks=("niah_single_1",), lengths=(1400,), rankings=tuple(ORDERS)))
    app = open_page("frontier", length="900")
    box = app.selectbox(key="evidence")
    assert len(box.options) == 2
    box.set_value(box.options[1]).run()
    assert not app.exception
    assert app.selectbox(key="length").value == "1400"
    assert "all tasks, 1,400 tokens" in components(app, "chart")[0]["title"]


def test_what_tried_the_recommended_ranking_is_shown_first(open_page: OpenPage, folder: Path) -> None:
    write(folder / "a.jsonl")
    orders = {**ORDERS, RECOMMENDED_METRIC: (0, 1, 2, 3)}
    write(folder / "b.jsonl", spec=replace(SPEC, first_seed=5000, rankings=tuple(orders)), made=orders)
    app = open_page("frontier")
    assert "seeds from 5,000" in app.selectbox(key="evidence").value
    assert RECOMMENDED_METRIC in app.multiselect[0].value


def test_only_what_holds_prompts_is_offered(open_page: OpenPage, folder: Path) -> None:
    spec = replace(SPEC, lengths=(700, 900, 1400), questions=("aware", "agnostic"), rankings=tuple(ORDERS))
    partial = [key for key in spec.keys if (key.length, key.question) in {(900, "aware"), (1400, "agnostic")}]
    write(folder / "tiny.jsonl", spec=spec, keys=partial)
    app = open_page("frontier")
    assert app.selectbox(key="length").options == ["900", "1400"]
    assert app.selectbox(key="asked").options == ["aware"]
    app.selectbox(key="length").set_value("1400").run()
    assert app.selectbox(key="asked").options == ["agnostic"]
    assert "1,400 tokens" in components(app, "chart")[0]["title"]


def test_too_few_prompts_say_nothing(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl", examples=5)
    assert "not enough prompts" in words(open_page("frontier"))


def test_no_evidence_says_how_to_get_some(open_page: OpenPage, folder: Path) -> None:
    app = open_page("frontier")
    assert "There is no evidence for smollm2 yet: **measure it below**." in words(app)
    assert app.button(key="sweep").label == "Run the sweep"
    assert not components(app, "chart")


def test_evidence_of_another_model_is_said_to_be_that(open_page: OpenPage, folder: Path) -> None:
    write(folder / "other.jsonl", model=replace(MODEL, name="someone/else"))
    app = open_page("frontier")
    assert "measured on another model" in words(app)
    assert "For **someone\\/else**" in words(app)
    assert "Your plan" not in words(app)
    write(folder / "mine.jsonl")
    app.run()
    assert "measured on another model" not in words(app)
    assert app.selectbox(key="evidence").options[0].startswith("smollm2")


def test_what_comes_with_the_app_is_shown_while_the_backend_is_away(
    open_page: OpenPage, fake: FakeBackend, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.up = False
    write(folder / "tiny.jsonl")
    app = open_page("frontier")
    assert "There is no evidence" in words(app), "the backend's is not here"
    assert app.button(key="sweep").disabled
    monkeypatch.setattr(evidence, "SHIPPED", folder)
    app = open_page("frontier")
    assert "Residual change" in words(app)
    fake.up = True
    app.run()
    assert len(app.selectbox(key="evidence").options) == 1, "the same question is one sweep"


def test_the_results_of_an_address_are_shown_once_the_backend_has_come(
    open_page: OpenPage, fake: FakeBackend, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    write(shipped / "a.jsonl")
    write(folder / "b.jsonl", spec=replace(SPEC, tasks=("niah_single_1",), rankings=tuple(ORDERS)))
    monkeypatch.setattr(evidence, "SHIPPED", shipped)
    fake.up = False
    title = "smollm2, niah_single_1, 700, 900 tokens, seeds from 0"
    app = open_page("frontier", evidence=title)
    assert app.selectbox(key="evidence").value == "smollm2, niah_single_1, passkey, 700, 900 tokens, seeds from 0"
    fake.up = True
    app.run()
    assert app.selectbox(key="evidence").value == title
    app.selectbox(key="evidence").set_value(app.selectbox(key="evidence").options[0]).run()
    assert app.selectbox(key="evidence").value != title, "said once"


def test_texts_that_are_read_have_no_verdict_by_score(open_page: OpenPage, folder: Path) -> None:
    spec = replace(SPEC, tasks=("text",), lengths=(700,), windows=WINDOWS[:1], rankings=("lazy_ratio",))
    found = ResultsFile(folder / "read.jsonl", SweepHeader(spec, MODEL))
    for key in spec.keys:
        outcomes = {WINDOWS[0]: {layers: Outcome(None, 2.5, 0.1) for layers in ((3,), (2, 3), (0, 1, 2, 3))}}
        orders = {WINDOWS[0]: {"lazy_ratio": (3, 2, 1, 0)}}
        found.add(ExampleResult(key, 700, "", Outcome(None, 2.0, 0.0), orders, outcomes))
    app = open_page("frontier")
    assert "there is no score to keep" in words(app)
    (chart,) = components(app, "chart")
    assert chart["title"].startswith("Minus NLL")


def test_a_file_that_is_no_evidence_is_named_and_the_rest_stays(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    (folder / "broken.jsonl").write_text("nonsense\n", encoding="utf-8")
    header = (folder / "tiny.jsonl").read_text(encoding="utf-8").splitlines()[0]
    (folder / "torn.jsonl").write_text(f"{header}\nnonsense\n{header}\n", encoding="utf-8")
    app = open_page("frontier")
    said = [error.value.replace("\\", "") for error in app.error]
    assert any("The file broken.jsonl begins with no header" in text for text in said)
    assert any("Line 2 of torn.jsonl" in text for text in said)
    assert components(app, "chart")


def test_no_chosen_ranking_is_said(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    app = open_page("frontier")
    (box,) = [one for one in app.multiselect if one.label == "Rankings"]
    box.set_value([]).run()
    assert "No ranking is chosen" in words(app)


def test_results_are_addressed_by_key() -> None:
    assert ExampleKey("niah_single_1", 700, 0, "aware") in SPEC.keys


def test_a_sweep_is_started_with_the_choices_of_the_page_and_the_sidebar(
    open_page: OpenPage, fake: FakeBackend, folder: Path
) -> None:
    app = open_page("frontier", tasks="passkey", lengths="2048", prompts="7", chance="1", recent="124", last="16")
    app.multiselect(key="shares").set_value(["30%", "60%"]).run()
    app.multiselect(key="windows").set_value([sweep_controls.address.SIDEBAR, "4 + 508"]).run()
    app.button(key="sweep").click().run()
    spec = fake.started[-1]
    assert isinstance(spec, SweepRunSpec)
    assert (spec.model, spec.sweep.tasks, spec.sweep.lengths, spec.sweep.examples) == (
        "smollm2",
        ("passkey",),
        (2048,),
        7,
    )
    assert spec.sweep.windows == (Window(4, 124), Window(4, 508))
    assert spec.sweep.shares == (0.3, 0.6)
    assert spec.sweep.rankings[-1] == "random_0"
    assert "random_1" not in spec.sweep.rankings
    assert (spec.sweep.first_seed, spec.sweep.last, spec.sweep.rendering) == (100_000, 16, "chat")


def test_the_command_line_asks_the_same(
    open_page: OpenPage, fake: FakeBackend, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page("frontier", rendering="raw", prompts="7")
    app.button(key="sweep").click().run()
    app.session_state["snippet"] = True
    app.run()
    arguments = shlex.split(app.code[0].value)
    assert arguments[:4] == ["python", "-m", "lighttransfer_core", "sweep"]
    asked: list[Any] = []
    monkeypatch.setattr("lighttransfer_core.command_line.sweeping.run", lambda *given: asked.extend(given))
    monkeypatch.setattr(sys, "argv", ["lighttransfer", *arguments[3:]])
    with pytest.raises(SystemExit):
        command_line.main()
    started = fake.started[-1]
    assert isinstance(started, SweepRunSpec)
    model, device, dtype, revision, spec, output = asked
    assert (model, device, dtype, revision, output) == (started.model, started.device, started.dtype, None, None)
    assert spec == started.sweep


def test_a_sweep_is_followed_stopped_and_gone_on_with(open_page: OpenPage, fake: FakeBackend, folder: Path) -> None:
    fake.finish = lambda spec: "running"
    app = open_page("frontier")
    app.button(key="sweep").click().run()
    (progress,) = components(app, "run_progress")
    assert (progress["token"], progress["news"]) == ("token-1", "example")
    spec = fake.started[-1]
    assert isinstance(spec, SweepRunSpec)
    write(folder / "mine.jsonl", examples=3, spec=spec.sweep)
    app.run()
    assert "each for the full model and up to 22 plans, 3 of them measured already." in words(app).replace("\\", "")
    assert "The rest takes" not in words(app), "the progress says how long that takes"
    assert app.selectbox(key="evidence").value == "smollm2, niah_single_1, 1,024 tokens, seeds from 100,000"
    fake.cancel("token-1")
    app.run()
    assert "The sweep was stopped" in words(app)
    assert app.button(key="sweep").label == "Go on: run the sweep"
    assert "3 of them measured already. The rest takes about 34 s" in words(app).replace("\\", "")
    assert "Measure more of them below" in words(app), "whether or not the sweep has ended"
    write(folder / "mine.jsonl", examples=20, spec=spec.sweep)
    app.run()
    assert "All measured: 20 prompts." in words(app)


def test_a_sweep_with_other_choices_stays_in_sight(open_page: OpenPage, fake: FakeBackend, folder: Path) -> None:
    fake.finish = lambda spec: "running"
    app = open_page("frontier")
    app.button(key="sweep").click().run()
    app.number_input(key="prompts").set_value(5).run()
    assert "A sweep with other choices is running" in words(app)
    assert [one["token"] for one in components(app, "run_progress")] == ["token-1"]
    assert app.button(key="sweep").label == "Run the sweep"
    fake.end("done")
    app.run()
    assert not components(app, "run_progress")


def test_a_refused_sweep_says_why(open_page: OpenPage, fake: FakeBackend, folder: Path) -> None:
    fake.refusal = TaskDataError("The texts of qa_1 are not on this machine yet.")
    fake.missing = {"qa_1"}
    app = open_page("frontier", tasks="qa_1")
    assert "tasks \\-\\-fetch qa\\_1" in words(app)
    app.button(key="sweep").click().run()
    assert "The texts of qa" in app.error[0].value


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("tasks", [], "needs tasks"),
        ("lengths", [], "needs lengths"),
        ("windows", [], "needs windows"),
        ("shares", [], "needs shares"),
        ("ways", [], "needs questions"),
        ("rank", [], "needs rankings"),
        ("windows", ["4 + 1020"], "loses nothing"),
    ],
)
def test_choices_that_make_no_sweep_are_named(
    open_page: OpenPage, folder: Path, key: str, value: list[str], said: str
) -> None:
    app = open_page("frontier", chance="0")
    app.multiselect(key=key).set_value(value).run()
    assert said in app.error[0].value
    assert not [button for button in app.button if button.key == "sweep"]


@pytest.mark.parametrize("name", ["prompts", "first_seed", "answer_tokens", "chance", "check_tokens"])
def test_absurd_numbers_in_the_address_are_named(open_page: OpenPage, folder: Path, name: str) -> None:
    app = open_page("frontier", **{name: "-7"})
    assert name in app.warning[0].value.replace("\\", "")
    assert not app.exception


def test_one_s_own_plan_is_tried_on_the_same_prompts_and_drawn(
    open_page: OpenPage, fake: FakeBackend, folder: Path
) -> None:
    write(folder / "tiny.jsonl")
    app = open_page("frontier", plan="1-2", recent="60", window="4 + 60")
    assert "**Your plan**: 2 of 4 layers (1\\-2), window 4 + 60. It was not tried" in words(app)
    app.number_input(key="own_prompts_24").set_value(24).run()
    app.button(key="own_plan").click().run()
    spec = fake.started[-1]
    assert isinstance(spec, SweepRunSpec)
    (chosen,) = spec.sweep.orders
    assert (chosen.order, chosen.lazy, chosen.window) == ((1, 2, 0, 3), 2, Window(4, 60))
    assert (spec.sweep.tasks, spec.sweep.lengths, spec.sweep.rankings) == (SPEC.tasks, (700,), ())
    assert (spec.sweep.first_seed, spec.sweep.examples) == (SPEC.first_seed, 24)
    found = ResultsFile(folder / "own.jsonl", SweepHeader(spec.sweep, MODEL))
    for key in spec.sweep.keys:
        outcomes = {(1, 2): Outcome(float(key.seed < 18)), (0, 1, 2, 3): Outcome(0.0)}
        orders = {chosen.window: {chosen.name: chosen.order}}
        found.add(ExampleResult(key, 700, "", Outcome(1.0), orders, {chosen.window: outcomes}))
    app.run()
    assert "It scores 0.75 [0." in words(app)
    assert "on 48 prompts, where the full model scores 1.00" in words(app)
    assert "Against `residual_change_worst` with as many layers, on the same prompts: -0." in words(app)
    dot = traces(app)["Your plan"]
    assert dot["y"] == [0.75]
    (line,) = [trace for name, trace in traces(app).items() if name == "residual_change_worst"]
    assert dot["x"] == [line["x"][2]], "as many layers take as many bytes"
    assert app.selectbox(key="evidence").options == [app.selectbox(key="evidence").value], "one plan is no ranking"
    assert "It was tried on all of these." in words(app)


@pytest.mark.parametrize(("recent", "name"), [(60, "Your plan"), (124, "Your plan, window 4 + 124")])
def test_one_s_own_plan_names_its_window_where_the_chart_has_another(
    open_page: OpenPage, fake: FakeBackend, folder: Path, recent: int, name: str
) -> None:
    write(folder / "tiny.jsonl")
    app = open_page("frontier", plan="1-2", recent=str(recent), window="4 + 60")
    app.button(key="own_plan").click().run()
    spec = fake.started[-1]
    assert isinstance(spec, SweepRunSpec)
    (chosen,) = spec.sweep.orders
    found = ResultsFile(folder / "own.jsonl", SweepHeader(spec.sweep, MODEL))
    for key in spec.sweep.keys:
        outcomes = {layers: Outcome(1.0) for layers in ((1, 2), (0, 1, 2, 3))}
        orders = {chosen.window: {chosen.name: chosen.order}}
        found.add(ExampleResult(key, 700, "", Outcome(1.0), orders, {chosen.window: outcomes}))
    app.run()
    assert [one for one in traces(app) if one.startswith("Your plan")] == [name]
    assert "window 4 + 60" in components(app, "chart")[0]["title"]


def test_a_plan_that_is_none_is_said_and_the_page_stands(open_page: OpenPage, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    app = open_page("frontier", plan="77")
    assert "Your plan is not drawn" in words(app)
    assert components(app, "chart")
    app = open_page("frontier", plan="none")
    assert "0 of 4 layers" in words(app)
    assert not [button for button in app.button if button.key == "own_plan"]


def test_looking_starts_nothing(open_page: OpenPage, fake: FakeBackend, folder: Path) -> None:
    write(folder / "tiny.jsonl")
    open_page("frontier").run()
    assert not any(isinstance(spec, SweepRunSpec | PrefillSpec) for spec in fake.started)
