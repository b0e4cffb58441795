from __future__ import annotations

import ast
import dataclasses
import re

import pytest

import lighttransfer_core as lt
from lighttransfer_core import errors as core_errors
from lighttransfer_core.errors import InvalidPlanError, InvalidPromptError, InvalidWindowError
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.laziness import list_metrics, metric_info, plan_from_scores
from lighttransfer_core.service.specs import CompareSpec, RunStatus
from lighttransfer_core.types import ConversionPlan, LayerScores, Window
from pages.parts import errors, laziness_snippets, plans, prompts, snippets, view
from pages.parts.defaults import default_recipe
from pages.parts.metrics import metrics, order_title
from pages.parts.recipe import Recipe, laziest_half, resolve_plan
from pages.parts.results import Summary, record
from pages.parts.runs import RunBook
from tests.viz.conftest import make_scores


@pytest.fixture
def recipe() -> Recipe:
    return default_recipe()


@pytest.fixture
def summary() -> Summary:
    return Summary.of(record()["prefill"])


def test_the_metrics_on_the_pages_are_those_of_the_registry() -> None:
    assert {name: text.to_dict() for name, text in metrics().items()} == {
        name: metric_info(name).to_dict() for name in list_metrics()
    }, "the registry has changed: python -m benchmarks.record_default_run --metrics-only"
    assert next(iter(metrics())) == lt.RECOMMENDED_METRIC


@pytest.mark.parametrize("layers", [5, 6, 7, 30])
def test_half_is_the_library_s_half(layers: int) -> None:
    scores = make_scores(layers=layers)
    assert laziest_half(scores) == plan_from_scores(scores, keep_full=0.5).lazy_layers


def test_half_of_an_unranked_prompt_is_refused(recipe: Recipe, summary: Summary) -> None:
    unranked = dataclasses.replace(summary, scores=make_scores(tokens=100))
    with pytest.raises(InvalidPlanError):
        resolve_plan(recipe, unranked.spec, unranked.scores)
    assert view.plan_or_none(recipe, unranked) is None
    with pytest.raises(InvalidPlanError):
        view.plan_or_none(dataclasses.replace(recipe, plan="banana"), unranked)


def test_kv_bytes_of_the_page_are_the_run_s_own(summary: Summary) -> None:
    assert view.kv_now(summary, None)[0] == sum(summary.kv_bytes_per_layer)


def test_random_layers_are_the_seed_s() -> None:
    layers = tuple(range(30))
    assert plans.random_layers(layers, 15, 3) == plans.random_layers(layers, 15, 3)
    assert plans.random_layers(layers, 15, 3) != plans.random_layers(layers, 15, 4)
    assert len(set(plans.random_layers(layers, 15, 3))) == 15


def test_threshold_takes_convertible_layers_only() -> None:
    scores = make_scores()
    assert plans.at_least(scores, 0.0) == list(scores.convertible)
    assert plans.at_least(scores, 0.96) == [4]


def test_a_plan_file_reads_back(summary: Summary) -> None:
    plan = ConversionPlan((3, 5), Window(8, 64), summary.spec.identity)
    assert plans.read_plan(plan.to_json().encode(), summary.spec) == plan


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\xff\xfe\x00", InvalidPlanError),
        (b"", InvalidPlanError),
        (b"[1, 2]", InvalidPlanError),
        (b'{"lazy_layers": "35", "window": {}}', InvalidPlanError),
        (b'{"lazy_layers": [99], "window": {"sink": 4, "recent": 8}}', InvalidPlanError),
        (b'{"lazy_layers": [3], "window": {"sink": -4, "recent": 8}}', InvalidWindowError),
        (b'{"lazy_layers": [3], "window": {"sink": 4, "recent": "many"}}', InvalidWindowError),
    ],
)
def test_what_is_no_plan_is_refused(summary: Summary, data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        plans.read_plan(data, summary.spec)


def test_a_plan_of_another_shape_of_model_is_refused(summary: Summary) -> None:
    other = dataclasses.replace(summary.spec.identity, name="other", num_layers=99)
    with pytest.raises(InvalidPlanError, match="other"):
        plans.read_plan(ConversionPlan((3,), Window(4, 8), other).to_json().encode(), summary.spec)


def test_formula_and_chart_agree(summary: Summary) -> None:
    plan = ConversionPlan((0, 1), Window(4, 252))
    numbers = [int(text.replace(",", "")) for text in re.findall(r"\d[\d,]*", plans.formula(summary, plan))]
    full, lazy, size = numbers[0], numbers[1], numbers[2]
    row = plans.saving_chart(summary, plan, 8192).rows[-1]
    per_token = summary.spec.kv_bytes_per_token_per_layer
    assert row == (8192, 30 * 8192 * per_token, per_token * (full * 8192 + lazy * size))


def test_a_prompt_of_one_token_has_nothing_to_rank_in_words_for_one(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("streamlit.info", lambda text, icon: said.append(text))
    view.nothing_to_rank(dataclasses.replace(summary, scores=dataclasses.replace(summary.scores, num_tokens=1)))
    assert "the prompt has 1 token and" in said[0]


def test_the_curves_begin_where_the_window_or_the_prompt_ends(summary: Summary) -> None:
    rows = plans.saving_chart(summary, ConversionPlan((0, 1), Window(4, 252)), 131_072).rows
    assert [row[0] for row in rows[:3]] == [256, summary.num_tokens, 4096]
    assert rows[0][1] == rows[0][2], "a window that holds all loses nothing"
    short = plans.saving_chart(summary, ConversionPlan((0, 1), Window(4, 60_000)), 8192).rows
    assert [row[0] for row in short] == sorted({256 * point for point in range(1, 33)} | {summary.num_tokens})


@pytest.mark.parametrize("key", list(prompts.demo_prompts()))
def test_each_demo_prompt_holds_its_question_and_answer(key: str) -> None:
    prompt = prompts.demo_prompts()[key]
    assert prompt.text is not None
    assert prompt.text.endswith(prompt.question)
    assert prompt.answered(f"It is {prompt.expected[0].upper()}.")
    assert not prompt.answered("I do not know.")


@pytest.mark.parametrize("data", [b"\xff\xfeabc\x80", b"a\x00b"])
def test_binary_uploads_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidPromptError):
        prompts.decode_upload(data)


def test_texts_can_be_chosen_that_the_visit_has_and_that_the_address_names() -> None:
    """Going back in the browser brings the address of a text that is not the chosen one."""
    chosen, addressed = "a" * 64, "b" * 64
    assert prompts.prompt_keys(chosen, addressed) == [*prompts.ORDER, chosen, addressed]
    assert prompts.prompt_keys("code", chosen) == prompts.prompt_keys(chosen, chosen) == [*prompts.ORDER, chosen]
    assert prompts.prompt_keys(None, "no such prompt") == [*prompts.ORDER]


def test_files_and_figures_name_a_text_by_the_beginning_of_its_hash() -> None:
    assert prompts.find_prompt("code").short_name == "code"
    assert prompts.find_prompt("a" * 64).short_name == "text aaaaaaaa"


def test_uploads_lose_their_byte_order_mark() -> None:
    assert prompts.decode_upload("\ufeffnaïve".encode()) == "naïve"


@pytest.mark.parametrize("text", ["", "  \n ", "x" * 1_000_001])
def test_empty_and_endless_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidPromptError):
        prompts.keep_own_text(text)


def test_every_error_of_the_library_has_advice() -> None:
    kinds = [kind for kind in vars(core_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    shown = [kind for kind in kinds if issubclass(kind, core_errors.LightTransferError)]
    assert all(errors.advice(kind("x")).endswith(".") for kind in shown)


def test_an_offer_is_the_advice() -> None:
    assert "4,096 tokens" in errors.advice(core_errors.DoesNotFitError("Too much.", "a prompt of 4,096 tokens"))


def test_markup_is_shown_as_it_is() -> None:
    assert errors.plain("a*b <i> [x](y) `z`") == r"a\*b \<i\> \[x\]\(y\) \`z\`"


def test_snippets_are_python_that_names_what_exists(recipe: Recipe) -> None:
    plan = ConversionPlan((1, 2), Window(4, 60))
    own = dataclasses.replace(recipe, prompt=prompts.Prompt("a" * 64, "Your text", "", "words"))
    codes = [
        snippets.prefill_snippet(recipe),
        snippets.scores_snippet(own),
        snippets.plan_snippet(plan),
        snippets.compare_snippet(recipe, recipe.compare_spec(plan, 8), []),
        snippets.compare_snippet(recipe, _followed_and_drawn(recipe, plan), ["Who?"]),
        snippets.attention_snippet(recipe, ""),
        snippets.attention_snippet(recipe, "view.3.2-1.0"),
        snippets.attention_snippet(recipe, "view.3.*_box.100.0.512"),
        laziness_snippets.sensitivity_snippet(recipe, [Window(4, 60), Window(4, 252)]),
        laziness_snippets.heap_snippet(own, 0.5, on_the_fly=True),
        laziness_snippets.prompts_snippet(recipe, list(prompts.demo_prompts().values()), "votes", "aware"),
        laziness_snippets.prompts_snippet(recipe, [own.prompt], "mean", "agnostic"),
        laziness_snippets.beside_snippet(),
    ]
    for code in codes:
        tree = ast.parse(code)
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_lt(node.value)}
        assert used <= set(lt.__all__)
    assert len(snippets.plan_snippet(plan).splitlines()) == 2


def _followed_and_drawn(recipe: Recipe, plan: ConversionPlan) -> CompareSpec:
    """A comparison with all that can be asked of it."""
    spec = recipe.compare_spec(plan, 8)
    return dataclasses.replace(spec, lanes=(LaneSettings(plan, follow=True),), temperature=0.5, seed=3)


def test_the_snippet_of_a_comparison_gives_what_the_page_shows(recipe: Recipe) -> None:
    plan = ConversionPlan((1, 2), Window(4, 60))
    plain = snippets.compare_snippet(recipe, recipe.compare_spec(plan, 8), [])
    assert not any(word in plain for word in ("Sampling", "follow=True", "ask("))
    code = snippets.compare_snippet(recipe, _followed_and_drawn(recipe, plan), ["Who?"])
    assert "lt.LaneSettings(lt.ConversionPlan((1, 2), window), follow=True)," in code
    assert "Sampling(0.5, 3)" in code
    assert "for question in ['Who?']:" in code


def test_the_snippet_of_many_prompts_has_own_texts_and_says_where_they_end(recipe: Recipe) -> None:
    own = prompts.Prompt("tiny.txt (a948)", "tiny", "", "words")
    chosen = [*prompts.demo_prompts().values(), own]
    assert "tokens=" not in laziness_snippets.prompts_snippet(recipe, chosen, "mean", "aware")
    code = laziness_snippets.prompts_snippet(recipe, chosen, "votes", "agnostic")
    assert "['prompt-1.txt']" in code
    assert "'policy'" in code
    assert "tokens=before))" in code


def test_the_attention_snippet_names_a_head_that_there_is(recipe: Recipe, summary: Summary) -> None:
    shape, first = summary.spec, snippets.attention_snippet(recipe, "")
    assert "layer=29, head=8," in snippets.attention_snippet(recipe, "view.29.8", shape)
    for view_text in ("view.30.0", "view.0.9", "view.99.*-0.0"):
        assert snippets.attention_snippet(recipe, view_text, shape) == first


def _is_lt(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "lt"


def test_the_plan_snippet_rebuilds_the_plan() -> None:
    plan = ConversionPlan((1, 2), Window(4, 60))
    scope: dict[str, object] = {"lt": lt}
    exec(snippets.plan_snippet(plan).splitlines()[0], scope)
    assert scope["plan"] == plan


def test_the_book_forgets_the_least_recently_used() -> None:
    book = RunBook(size=2)
    for name in ("a", "b"):
        book.note(name, RunStatus(name, "prefill", "done", result={}))
    book.get("a")
    book.note("c", RunStatus("c", "prefill", "running"))
    assert book.get("b") is None
    assert book.get("a") is not None
    assert book.get("c") is not None


def test_the_recorded_run_s_bytes_are_the_formula_s() -> None:
    for lane in record()["session"]["result"]["lanes"].values():
        assert lane["kv_bytes"] == lane["kv_formula"]


def test_scores_survive_the_record(summary: Summary) -> None:
    assert isinstance(summary.scores, LayerScores)
    assert summary.scores.per_head.shape == (summary.spec.num_layers, summary.spec.num_heads)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("calibrated_recall", "Recall"),
        ("calibrated_recall_plain_text", "Recall, plain text"),
        ("calibrated_leave_one_out_nll_other_tasks", "Leave one out, NLL of the answer, other tasks"),
        ("calibrated_recallable", "recallable"),
        ("calibrated_mine", "mine"),
    ],
)
def test_an_order_is_called_after_the_metric_whose_mean_it_is(name: str, title: str) -> None:
    assert order_title(name) == title
