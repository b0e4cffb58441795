from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lighttransfer_core.cost import benchmark
from lighttransfer_core.cost.bench_rows import Bar, Growth, Row, Spread
from lighttransfer_core.cost.benchmark import Benchmark, benchmark_file, read_benchmark
from lighttransfer_core.errors import InvalidInputError
from tests.made_benchmark import made_benchmark

MADE = made_benchmark()


def written(folder: Path, text: str) -> Path:
    file = folder / "bench.json"
    file.write_text(text, encoding="utf-8")
    return file


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    assert read_benchmark(written(tmp_path, MADE.to_json())) == MADE
    assert read_benchmark(tmp_path / "none.json") is None


def damaged(change: Any) -> str:
    data = json.loads(MADE.to_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"parts": 5}',
        '{"parts": [1]}',
        damaged(lambda data: data["parts"][0].pop("machine")),
        damaged(lambda data: data["parts"][0].update(rows={"side": 1})),
        damaged(lambda data: data["parts"][1]["rows"][0].update(tokens="many")),
        damaged(lambda data: data["parts"][1]["rows"][0]["seconds"].update(median=[1])),
        damaged(lambda data: data["parts"][1]["rows"][0].update(seconds={"median": float("nan")})),
        damaged(lambda data: data["parts"][1]["rows"][0].update(seconds=3.0)),
        damaged(lambda data: data["parts"][1]["rows"][0]["seconds"].update(median=0)),
        damaged(lambda data: data["parts"][1]["rows"][0].update(bars=[{"quantity": "luck"}])),
        damaged(lambda data: data["parts"][1]["growths"][0].update(slope=None)),
    ],
)
def test_what_is_no_results_file_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"bench\.json holds no results"):
        read_benchmark(written(tmp_path, text))


def test_a_file_that_cannot_be_read_or_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="Cannot read"):
        read_benchmark(tmp_path)
    monkeypatch.setattr(benchmark, "_MOST_BYTES", 10)
    with pytest.raises(InvalidInputError, match="larger than"):
        read_benchmark(written(tmp_path, MADE.to_json()))


def test_the_file_is_the_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(benchmark.FILE_VARIABLE, raising=False)
    assert benchmark_file() == Path("results/bench.json")
    monkeypatch.setenv(benchmark.FILE_VARIABLE, "/else/where.json")
    assert benchmark_file() == Path("/else/where.json")


def test_a_part_that_is_measured_again_takes_the_place_of_its_older_self() -> None:
    again = replace(MADE.parts[0], made="later", rows=())
    found = MADE.with_part(again)
    assert [part.name for part in found.parts] == ["prefill", "decode"]
    assert (found.part("prefill"), found.part("decode")) == (again, MADE.part("decode"))
    assert Benchmark().with_part(again).parts == (again,)
    assert found.part("other") is None


def test_the_line_is_the_least_squares_one() -> None:
    line = Growth.fitted("step", "token", [0.0, 1.0, 2.0], [1.0, 2.0, 6.0])
    assert (line.slope, line.intercept) == (pytest.approx(2.5), pytest.approx(0.5))
    assert line.r2 == pytest.approx(1 - (0.25 + 1 + 0.25) / 14)
    assert (line.first, line.last, line.count) == (0.0, 2.0, 3)
    assert line.times == pytest.approx(5.5 / 0.5)


def test_points_that_do_not_vary_lie_on_their_line() -> None:
    line = Growth.fitted("tile", "token", [1.0, 2.0], [3.0, 3.0])
    assert (line.slope, line.r2, line.times) == (0.0, 1.0, 1.0)
    assert Growth("tile", "token", 0.0, 1.0, 1.0, 0.0, 1.0, 2).times == float("inf")


ROW = Row("ours", "float32", 8128, seconds=Spread(0.1, 0.1, 0.1, 1), ratio=Spread(1.5, 1.4, 1.6, 5), extra_bytes=100)


@pytest.mark.parametrize(
    ("bar", "met"),
    [
        (Bar("ratio", at_least=1.5), True),
        (Bar("ratio", at_least=1.51), False),
        (Bar("ratio", at_most=1.49), False),
        (Bar("seconds", at_most=0.1), True),
        (Bar("seconds", at_most=0.09), False),
        (Bar("extra_bytes", at_most=100), True),
        (Bar("extra_bytes", at_most=99), False),
    ],
)
def test_a_bar_is_met_by_the_median(bar: Bar, met: bool) -> None:
    assert bar.met(ROW) is met
    assert bar.met(Row("ours", "float32", 8128)) is None


def test_a_peer_is_ahead_beyond_the_quartiles_only() -> None:
    peer = replace(ROW, peer=True)
    assert not peer.ahead
    assert not replace(peer, ratio=Spread(0.98, 0.95, 1.01, 5)).ahead
    assert replace(peer, ratio=Spread(0.98, 0.95, 0.99, 5)).ahead
    assert not replace(peer, ratio=None).ahead
    assert not replace(ROW, ratio=Spread(0.5, 0.5, 0.5, 5)).ahead, "ours is no peer"
    assert {row.side for _, row in MADE.ahead()} == {"kvpress, SimLayerKVPress"}
    assert len(list(MADE.held())) == 4


def test_a_spread_is_median_and_quartiles() -> None:
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0, 1)
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert ROW.tokens_per_s == pytest.approx(10.0)
