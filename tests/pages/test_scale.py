from __future__ import annotations

import ast
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.cost.measured import BatchRun, Latency, MeasuredThroughput
from lighttransfer_core.cost.roofline import DeviceSpeed, largest_batch, predicted_throughput
from lighttransfer_core.models.catalogue import catalogue, find
from lighttransfer_core.service.specs import MeasureSpec, ThroughputSpec
from lighttransfer_core.types import ConversionPlan, ModelSpec, Window
from pages.parts import scale_runs, scaling, snippets
from pages.parts.address import HALF
from pages.parts.defaults import default_recipe
from pages.parts.results import record
from pages.parts.scaling import Question
from tests.pages.conftest import OpenPage, words
from tests.pages.fake_backend import FakeBackend
from tests.pages.test_pages import components


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec.from_dict(record()["prefill"]["spec"])


def question(spec: ModelSpec, **facts: Any) -> Question:
    plan = scaling.plan_by_count(HALF, spec, Window(4, 252))
    given = {"longest": 8192, "batch": 1, "kv_nbytes": 2**30, "speed": None, "measurement": None, **facts}
    return Question(spec=spec, plan=plan, **given)


def figures(app: AppTest) -> dict[str, dict[str, Any]]:
    """The charts by name."""
    return {chart["name"]: chart for chart in components(app, "chart")}


def test_bytes_and_batches_stand_before_anything_is_measured(
    open_page: OpenPage, fake: FakeBackend, spec: ModelSpec
) -> None:
    app = open_page("scale", context="4096", memory="512")
    assert list(figures(app)) == ["kv-over-context"]
    plan = scaling.plan_by_count(HALF, spec, Window(4, 252))
    batches = [largest_batch(spec, one, 4096, 512 * 2**20) for one in (None, plan)]
    assert [metric.value for metric in app.metric][2:] == [f"{batch:,}" for batch in batches]
    assert "needs the speed" in words(app) or "need the speed" in words(app)
    assert not app.error
    assert not any(isinstance(started, MeasureSpec | ThroughputSpec) for started in fake.started)


def test_measuring_draws_lines_and_marks(open_page: OpenPage, fake: FakeBackend, spec: ModelSpec) -> None:
    app = open_page("scale", context="4096", batch="8", memory="512", plan="1-10")
    app.button(key="measure").click().run()
    asked = fake.started[-1]
    assert isinstance(asked, MeasureSpec)
    assert (asked.contexts, asked.batches, asked.plan.lazy_layers) == ((1024, 2048, 4096), (8,), tuple(range(1, 11)))
    shown = figures(app)
    assert list(shown) == ["kv-over-context", "latency-over-context", "throughput-over-context"]
    rows = {row[0]: row for row in shown["latency-over-context"]["rows"]}
    assert rows[2048][3:] == [0.02, 0.01], "the medians measured, full model and plan"
    assert rows[2048][1] == pytest.approx(0.02 + spec.weight_bytes / 1e10 + kv_bytes(spec, None, 2048, 8) / 8e9)
    speed = scaling.measurements()["smollm2", "auto"].speed
    pair = [predicted_throughput(speed, spec, one, 4096, 512 * 2**20) for one in (None, asked.plan)]
    assert pair[0] is not None
    assert pair[1] is not None
    assert f"{pair[1].tokens_per_s / pair[0].tokens_per_s:.2f} times" in words(app)
    assert "memory is read at 10\\.0 GB" in words(app)


def test_the_page_says_how_far_lines_and_marks_are_apart(
    open_page: OpenPage, fake: FakeBackend, spec: ModelSpec
) -> None:
    app = open_page("scale", context="1024")
    assert "Lines and marks" not in words(app)
    app.button(key="measure").click().run()
    predicted_s = 0.01 + spec.weight_bytes / 1e10 + kv_bytes(spec, None, 1024) / 5e9
    plan = scaling.plan_by_count(HALF, spec, Window(4, 252))
    with_plan_s = 0.01 + spec.weight_bytes / 1e10 + kv_bytes(spec, plan, 1024) / 5e9
    misses = sorted([abs(predicted_s / 0.02 - 1), abs(with_plan_s / 0.01 - 1)])
    assert f"{misses[1]:.0%} at most" in words(app)
    assert "measure again when it is quiet" in words(app)


def test_a_model_loaded_in_another_precision_is_measured_in_it(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("scale", keep="all in bfloat16")
    app.button(key="measure").click().run()
    assert fake.started[-1].dtype == "bfloat16"
    app = open_page("scale", keep="all in bfloat16", ask="qwen3-0.6b")
    app.button(key="measure").click().run()
    assert fake.started[-1].dtype == "auto"


def test_other_sizes_keep_the_lines_and_say_that_marks_are_missing(open_page: OpenPage, fake: FakeBackend) -> None:
    open_page("scale").button(key="measure").click().run()
    app = open_page("scale", batch="3")
    assert len(figures(app)) == 3
    assert "not measured yet" in words(app)
    assert all(row[3] is None for row in figures(app)["latency-over-context"]["rows"])
    assert "not measured yet" not in words(open_page("scale"))


def test_any_model_is_asked_without_loading_it(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("scale", ask="llama-3.3-70b", context="32768", memory="65536")
    spec = find("llama-3.3-70b").spec()  # type: ignore[union-attr]
    assert app.metric[2].value == f"{largest_batch(spec, None, 32768, 2**36):,}"
    assert "131 GiB" in words(app)
    assert "Only the sidebar’s model" in words(app)
    assert "published sizes" in words(app)
    assert fake.loaded == {"smollm2"}


def test_layers_that_slide_are_said_to_and_counted_on_both_sides(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("scale", ask="gemma-3-4b", context="16384")
    entry = find("gemma-3-4b")
    assert entry is not None
    assert "29 layers slide by themselves" in words(app)
    assert "the totals are exact" in words(app)
    row = figures(app)["kv-over-context"]["rows"][-1]
    assert row[:2] == [16384, entry.kv_bytes(16384)]
    assert row[2] == kv_bytes(entry.spec(), ConversionPlan(entry.spec().convertible_layers[-2:], Window(4, 252)), 16384)


def test_another_device_is_a_best_case_and_never_called_measured(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("scale", ask="mistral-7b", context="32768", memory="40960", bandwidth="2039", recent="1020")
    assert "Best case for a device of 2,039 GB/s" in words(app)
    assert len(figures(app)) == 3
    spec, ideal = find("mistral-7b").spec(), DeviceSpeed.ideal(2039e9)  # type: ignore[union-attr]
    plan = scaling.plan_by_count(HALF, spec, Window(4, 1020))
    pair = [predicted_throughput(ideal, spec, one, 32768, 40960 * 2**20) for one in (None, plan)]
    assert pair[0] is not None
    assert pair[1] is not None
    ratio = f"{pair[1].tokens_per_s / pair[0].tokens_per_s:.2f}"
    assert f"{ratio} times" in words(app)
    table = app.table[0].value
    assert list(table["Times, predicted"])[3] == ratio
    assert list(table["Times, measured in the paper"]) == ["1.44", "1.78", "2.17", "1.75"]
    assert not any(button.key == "measure" for button in app.button)


def test_the_paper_s_lengths_past_the_last_position_or_the_memory_are_named(
    open_page: OpenPage, fake: FakeBackend
) -> None:
    app = open_page("scale", memory="1024")
    app.button(key="measure").click().run()
    table = app.table[0].value
    assert ["past this model" in cell for cell in table["Context (tokens)"]] == [False, False, True, True]
    assert list(table["Full model, predicted"])[3] == "no sequence fits"
    assert list(table["Times, predicted"])[3] == "–"


def test_batches_are_decoded_and_stand_beside_their_prediction(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("scale", memory="700")
    app.button(key="measure").click().run()
    app.button(key="decode_batches").click().run()
    asked = fake.started[-1]
    assert isinstance(asked, ThroughputSpec)
    assert asked.kv_nbytes == 700 * 2**20
    assert asked.prefill == default_recipe().prefill_spec()
    assert default_recipe().prompt.hash in fake.prompts
    assert "1.50 times" in words(app)
    assert "**Predicted** at these sizes" in words(app)
    table = app.table[1].value
    assert list(table["Full model"])[:2] == ["2", "10.0 tokens/s"]
    assert list(table["Plan"])[:2] == ["3", "15.0 tokens/s"]
    marks = [row for row in figures(app)["throughput-over-context"]["rows"] if row[3] is not None]
    assert [row[0:1] + row[3:5] for row in marks] == [[3019, 10.0, 15.0]]


def test_the_page_says_how_far_decoded_batches_are_from_their_prediction(
    open_page: OpenPage, fake: FakeBackend, spec: ModelSpec
) -> None:
    app = open_page("scale", memory="700")
    app.button(key="measure").click().run()
    app.button(key="decode_batches").click().run()
    speed = scaling.measurements()["smollm2", "auto"].speed
    plan = scaling.plan_by_count(HALF, spec, Window(4, 252))
    full, lazy = (predicted_throughput(speed, spec, one, 3019, 700 * 2**20) for one in (None, plan))
    assert full is not None
    assert lazy is not None
    gaps = f"by {10 / full.tokens_per_s - 1:+.0%} for the full model and by {15 / lazy.tokens_per_s - 1:+.0%} for the"
    (said,) = [one.value for one in app.markdown if "differ from the predicted ones" in one.value]
    assert gaps in said
    assert said.endswith("measure again when it is quiet.")
    assert "Batch of the curves" not in said, "the device was measured with more than these at once"


@pytest.mark.parametrize(
    ("near", "batch", "quiet", "other_batch"), [(1.1, 20, False, False), (0.3, 20, True, True), (0.3, 8, True, False)]
)
def test_a_far_prediction_is_explained(
    spec: ModelSpec, near: float, batch: int, quiet: bool, other_batch: bool
) -> None:
    speed = DeviceSpeed(1e10, ((1, 5e9), (8, 8e9)), ((1, 0.01), (8, 0.02)))
    asked = question(spec, speed=speed)
    pair = scaling.throughputs(asked, speed, 3000)
    runs = [
        BatchRun(batch, 3000, Latency(s := batch / (near * one.tokens_per_s), s, s, 9), 1, 1, 1, 1)
        for one in pair
        if one is not None
    ]
    found = MeasuredThroughput(spec, asked.plan, asked.kv_nbytes, 2980, *runs)
    said = scale_runs.decoded_agreement(found, asked, speed)
    assert f"by {near - 1:+.0%} for the full model and by {near - 1:+.0%} for the plan" in said
    assert ("when it is quiet" in said) == quiet
    assert ("set “Batch of the curves” to 20" in said) == other_batch


def test_where_nothing_fits_that_is_said_in_place_of_an_empty_chart(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("scale", context="1048576", batch="1024", memory="1", bandwidth="2039")
    assert list(figures(app)) == ["kv-over-context", "latency-over-context"]
    said = words(app)
    assert "at 1,048,576 tokens not one sequence fits 1.00 MiB, with the plan or without it" in said
    assert "there is nothing to draw" in said
    app = open_page("scale", context="16384", memory="500", bandwidth="2039")
    assert "not one sequence of the full model fits 500 MiB; with the plan 1 fit" in words(app)
    assert "throughput-over-context" in figures(app)
    assert "there is nothing to draw" not in words(app)


def test_a_run_under_way_shows_its_progress(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish = lambda spec: "running"
    app = open_page("scale")
    app.button(key="measure").click().run()
    app.button(key="decode_batches").click().run()
    assert [progress["label"] for progress in components(app, "run_progress")] == [
        "Measuring: starting",
        "Decoding in batches: starting",
    ]


def test_a_failed_run_stays_on_the_screen(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish = lambda spec: "failed"
    app = open_page("scale")
    app.button(key="measure").click().run()
    assert "It broke" in app.error[0].value
    assert list(figures(app)) == ["kv-over-context"]


def test_an_absurd_plan_is_answered_with_an_error(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("scale", plan="99")
    assert "What to do" in app.error[0].value


def test_the_page_stands_while_the_backend_starts(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.up = False
    app = open_page("scale")
    assert list(figures(app)) == ["kv-over-context"]
    assert app.button(key="measure").disabled
    assert not app.error


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (8192, (1024, 2048, 4096, 8192)),
        (6000, (1024, 2048, 4096, 6000)),
        (131_072, (1024, 2048, 4096, 8192)),
        (1024, (1024,)),
        (100, (100,)),
    ],
)
def test_what_is_measured_ends_where_lines_or_positions_do(
    spec: ModelSpec, longest: int, expected: tuple[int, ...]
) -> None:
    asked = question(spec, longest=longest)
    assert asked.measured_contexts == expected
    assert asked.contexts == sorted(set(asked.contexts))
    assert asked.contexts[-1] == longest
    assert set(expected) <= {*asked.contexts, 8192}


def test_half_is_the_library_s_half_by_count() -> None:
    for entry in catalogue():
        spec = entry.spec()
        lazy = scaling.plan_by_count(HALF, spec, Window(4, 252)).lazy_layers
        assert set(lazy) <= set(spec.convertible_layers)
        assert len(spec.convertible_layers) - len(lazy) == int(len(spec.convertible_layers) / 2 + 0.5)


@pytest.mark.parametrize("model", ["smollm2", "qwen3-8b"])
def test_the_snippet_is_python(spec: ModelSpec, model: str) -> None:
    code = snippets.scale_snippet(default_recipe(), model, question(spec))
    names = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    assert ("prefill" in names) is (model == "smollm2")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module != "lighttransfer_core.models":
            module = __import__(str(node.module), fromlist=["x"])
            assert all(hasattr(module, alias.name) for alias in node.names)
