from __future__ import annotations

from dataclasses import replace
from typing import Any

from streamlit.testing.v1 import AppTest

from lighttransfer_core.cost.benchmark import Benchmark
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.service.answers import BenchmarkReport
from tests.made_benchmark import DYNAMIC, FULL, HALF, KVPRESS, MACHINE, QUANTO, made_benchmark
from tests.pages.conftest import OpenPage, words
from tests.pages.fake_backend import FakeBackend
from tests.pages.test_pages import components

MEASURED = BenchmarkReport(MACHINE.processor, made_benchmark())


def step_chart(app: AppTest) -> dict[str, Any]:
    [chart] = [one for one in components(app, "chart") if one["name"] == "decode-step-by-side"]
    return dict(chart)


def test_without_results_the_page_says_how_to_have_some(open_page: OpenPage, fake: FakeBackend) -> None:
    for nothing in (None, Benchmark(), Benchmark((replace(made_benchmark().parts[0], rows=()),))):
        fake.measured = BenchmarkReport("A processor", nothing)
        app = open_page("scale")
        assert [header.value for header in app.header][-1] == "Measured on this machine"
        assert "make bench" in app.info[-1].value
        assert not app.error


def test_steps_of_the_first_precision_and_batch_are_drawn_and_tabled(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.measured = MEASURED
    app = open_page("scale")
    rows = step_chart(app)["rows"]
    assert {row[0] for row in rows} == {FULL, HALF, DYNAMIC, KVPRESS}
    assert [row[1] for row in rows][:3] == [1024, 4096, 8128]
    table = app.table[0].value
    assert [side.replace("\\", "") for side in table["Side"]] == [FULL, HALF, DYNAMIC, KVPRESS]
    assert list(table["8,128 tokens"])[:2] == ["77\\.5 ms", "62\\.0 ms"]
    assert ["2\\.00" in text for text in table["Compared, at 8,128"]] == [True, False, True, False]
    told = words(app).replace("\\", "")
    assert f"{QUANTO}: its package is not installed (quanto) (at every size)" in told
    assert "Made 2026-11-25 12:00 UTC" in told
    assert "load average 0.2 before" in told
    assert not app.warning


def test_precision_and_batch_are_in_the_address(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.measured = MEASURED
    app = open_page("scale", bench_dtype="bfloat16", bench_batch="8")
    assert "bfloat16, batch 8" in step_chart(app)["title"]
    app = open_page("scale", bench_dtype="float3", bench_batch="-1")
    assert "float32, batch 1" in step_chart(app)["title"]
    app.selectbox(key="bench_batch").select("8").run()
    assert "float32, batch 8" in step_chart(app)["title"]


def test_bars_are_held_against_what_was_measured(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.measured = MEASURED
    table = open_page("scale").table[1].value
    assert list(table["Verdict"]) == ["missed", "met", "met", "met"]
    assert [bar.replace("\\", "") for bar in table["Bar"]][:2] == ["at most 1.10", "at most 252 MiB"]


def test_other_libraries_that_are_faster_are_counted_and_named(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.measured = MEASURED
    told = words(open_page("scale")).replace("\\", "")
    assert "of 24 measurements of theirs, 12 are faster" in told
    assert f"{KVPRESS}, bfloat16, 8,128 tokens, batch 8" in told


def test_results_of_another_machine_or_of_a_quick_run_are_called_so(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.measured = BenchmarkReport("Another", made_benchmark())
    assert "Measured on another machine" in open_page("scale").warning[0].value
    quick = Benchmark(tuple(replace(part, quick=True) for part in made_benchmark().parts))
    fake.measured = BenchmarkReport(MACHINE.processor, quick)
    assert "quick run" in open_page("scale").warning[0].value


def test_a_damaged_file_is_an_error_that_stays(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.measured = InvalidInputError("results/bench.json holds no results of the benchmark.")
    app = open_page("scale")
    assert "holds no results" in app.error[-1].value
    assert "move the file away" in app.error[-1].value
    assert [chart["name"] for chart in components(app, "chart")] == ["kv-over-context"]


def test_what_a_file_says_is_text(open_page: OpenPage, fake: FakeBackend) -> None:
    part = replace(made_benchmark().parts[1], about="<b>**bold**</b>", machine=replace(MACHINE, processor="<i>x</i>"))
    fake.measured = BenchmarkReport("<i>x</i>", Benchmark((part,)))
    told = words(open_page("scale"))
    assert "<b>" not in told
    assert "**bold**" not in told
    assert "<i>" not in told


def test_results_without_decode_steps_show_the_other_parts(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.measured = BenchmarkReport(MACHINE.processor, Benchmark(made_benchmark().parts[:1]))
    app = open_page("scale")
    assert [chart["name"] for chart in components(app, "chart")] == ["kv-over-context"]
    assert "One prompt" in words(app)


def test_nothing_is_read_while_the_backend_starts(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.up = False
    app = open_page("scale")
    assert "once the backend answers" in words(app)
    assert not app.error
