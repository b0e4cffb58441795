"""What capture, scoring and decoding cost, against transformers' default: `python -m benchmarks.bench_core`.

Ratios of sides that take turns in one run, on the embedded model:

* prefill: recording q, k, v and the log-sum-exp, against `sdpa` with `DynamicCache`;
* scoring: of a finished prefill, as a share of that prefill; and during the prefill (the paper's heap), against the
  same hybrid prefill with a plan given;
* decode: half of the layers lazy against all full, and all full against `sdpa` with `DynamicCache`, beside the limit
  that the machine's memory bandwidth sets (a step reads the weights and the KV cache at least once).

Writes `bench_core.json` and `bench_core.md` into `results/`. `--quick` is a small version that shows that everything
runs; its ratios say nothing about long prompts. Run it on a quiet machine: beside another busy process the threads of
a step wait for one another, and every side slows down by its own factor.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.utils.logging import disable_progress_bar

from benchmarks.report import Machine, Row, write
from benchmarks.sides import (
    Stepper,
    load_theirs,
    prefill_hybrid,
    prefill_theirs,
    prompt_ids,
    repeat_rows,
)
from benchmarks.timing import Rounds, Spread, interleaved, memory_bandwidth
from lighttransfer_core.attention import input_device
from lighttransfer_core.decoding import Branch
from lighttransfer_core.laziness import OnTheFly, plan_from_scores, score_layers
from lighttransfer_core.models import load_model
from lighttransfer_core.prefill import Prefill, run_prefill
from lighttransfer_core.types import ConversionPlan, Window

THEIRS = "transformers (sdpa, DynamicCache)"
RECORDED = "recorded for maps, scores and branches"
PLANNED = "hybrid, plan given"
CHOSEN = "hybrid, lazy layers chosen on the fly"
FULL, HALF = "all layers full", "half of the layers lazy"

# What we hold ourselves to is said of prompts of 8k tokens.
BARS_FROM_TOKENS = 8000


@dataclass(frozen=True)
class Settings:
    """Prompt lengths, batch sizes, element types, the window, and how often each side is measured.

    No further round of a measurement begins once it has taken `budget_s`.
    """

    contexts: tuple[int, ...] = (4096, 8128)
    batches: tuple[int, ...] = (1, 8)
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    window: Window = field(default_factory=Window)
    prefills: int = 3
    scorings: int = 9
    steps: int = 24
    warmup: int = 3
    budget_s: float = 300.0


QUICK = Settings((384,), (1, 2), window=Window(4, 60), prefills=1, scorings=2, steps=4, warmup=1)


class Bench:
    """The embedded model in one element type, ours and transformers'."""

    def __init__(self, settings: Settings, dtype: str, device: str) -> None:
        self._settings = settings
        self._ours = load_model("smollm2", device=device, dtype=dtype)
        self.device = input_device(self._ours.model)
        self._theirs = load_theirs(dtype, self.device)
        assert self._ours.tokenizer is not None
        self._ids = prompt_ids(self._ours.tokenizer, max(settings.contexts))
        self._bandwidth = memory_bandwidth(self.device)
        # The first pass of a process starts threads and fills caches.
        self._run_prefills(self._ids[:, : settings.window.size + 64], rounds=1)

    @property
    def bandwidth(self) -> float:
        return self._bandwidth

    def rows(self) -> list[Row]:
        rows = [row for context in self._settings.contexts for row in self._rows_of(self._ids[:, :context])]
        return [row if row.tokens >= BARS_FROM_TOKENS else replace(row, bar="") for row in rows]

    def _rows_of(self, ids: Tensor) -> list[Row]:
        settings = self._settings
        prefills = self._run_prefills(ids, settings.prefills)
        prefill, theirs = prefills.last[RECORDED], prefills.last[THEIRS]
        score = {"score": partial(score_layers, prefill, settings.window)}
        scorings = interleaved(score, settings.scorings, self.device, warmup=1)
        rows = self._prefill_rows(prefills, scorings)
        plan = plan_from_scores(scorings.last["score"], keep_full=0.5)
        del prefills, scorings, score
        for batch in settings.batches:
            rows += self._decode_rows(prefill, plan, theirs, batch)
            gc.collect()
        return rows

    def _run_prefills(self, ids: Tensor, rounds: int) -> Rounds:
        window, model = self._settings.window, self._ours.model
        plan = ConversionPlan(tuple(range(1, self._ours.spec.num_layers, 2)), window)
        sides: dict[str, Callable[[], Any]] = {
            THEIRS: partial(prefill_theirs, self._theirs, ids),
            RECORDED: partial(run_prefill, self._ours, ids),
            PLANNED: partial(prefill_hybrid, model, ids, plan),
            CHOSEN: partial(prefill_hybrid, model, ids, OnTheFly(keep_full=0.5, window=window)),
        }
        return interleaved(sides, rounds, self.device, budget_s=self._settings.budget_s)

    def _prefill_rows(self, prefills: Rounds, scorings: Rounds) -> list[Row]:
        prefill: Prefill = prefills.last[RECORDED]
        row = partial(Row, dtype=self._ours.spec.dtype, tokens=prefill.num_tokens, batch=1)
        seconds = prefills.time(RECORDED).median
        added = Spread.of([1 + scoring / seconds for scoring in scorings.seconds["score"]])
        return [
            row(f"prefill, {THEIRS}", seconds=prefills.time(THEIRS)),
            row(
                f"prefill, {RECORDED}",
                seconds=prefills.time(RECORDED),
                ratio=prefills.ratio(RECORDED, THEIRS),
                ratio_of="of transformers' time",
                bar="<= 1.10",
                nbytes=prefill.nbytes,
                bytes_of="kept",
            ),
            row(f"prefill, {PLANNED}", seconds=prefills.time(PLANNED)),
            row(
                f"prefill, {CHOSEN}",
                seconds=prefills.time(CHOSEN),
                ratio=prefills.ratio(CHOSEN, PLANNED),
                ratio_of="of the time with a plan given",
                bar="<= 1.03",
            ),
            row(
                "scoring a finished prefill",
                seconds=scorings.time("score"),
                ratio=added,
                ratio_of="of the prefill's time, the prefill included",
                bar="<= 1.03",
            ),
        ]

    def _decode_rows(self, prefill: Prefill, plan: ConversionPlan, theirs: DynamicCache, batch: int) -> list[Row]:
        settings, spec = self._settings, self._ours.spec
        full, half = (repeat_rows(Branch(prefill, chosen).cache, batch) for chosen in (None, plan))
        sides: dict[str, Callable[[], Any]] = {
            THEIRS: Stepper(self._theirs, repeat_rows(copy.deepcopy(theirs), batch), batch),
            FULL: Stepper(self._ours.model, full, batch),
            HALF: Stepper(self._ours.model, half, batch),
        }
        measured = interleaved(sides, settings.steps, self.device, settings.warmup, settings.budget_s)
        read = {side: spec.weight_bytes + sum(cache.layer_nbytes()) for side, cache in ((FULL, full), (HALF, half))}
        bound = read[FULL] / read[HALF]
        claims = {
            FULL: (measured.ratio(THEIRS, FULL), "times transformers' speed", decode_bar(spec.dtype, batch)),
            HALF: (
                measured.ratio(FULL, HALF),
                "times the speed of all layers full",
                f">= {0.9 * bound:.2f}, 0.9 of the bytes' ratio {bound:.2f}",
            ),
            THEIRS: (None, "", ""),
        }
        rows = []
        for side, (ratio, ratio_of, bar) in claims.items():
            nbytes = read.get(side, read[FULL])
            rows.append(
                Row(
                    f"decode step, {side}",
                    spec.dtype,
                    prefill.num_tokens,
                    batch,
                    seconds=measured.time(side),
                    ratio=ratio,
                    ratio_of=ratio_of,
                    bar=bar,
                    nbytes=nbytes,
                    bytes_of="read",
                    limit_s=nbytes / self._bandwidth,
                )
            )
        return rows


def decode_bar(dtype: str, batch: int) -> str:
    """What all layers full are to reach against transformers' default at 8k tokens."""
    if dtype == "bfloat16":
        return ">= 2.5"
    return ">= 1.6" if batch == 1 else ">= 3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small version that shows that everything runs")
    parser.add_argument("--dtype", action="append", choices=Settings.dtypes, help="one element type instead of both")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 ...")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the two files")
    given = parser.parse_args()
    settings = QUICK if given.quick else Settings()
    disable_progress_bar()
    rows: list[Row] = []
    load_average = os.getloadavg()[0]
    for dtype in given.dtype or settings.dtypes:
        bench = Bench(settings, dtype, given.device)
        rows += bench.rows()
        machine = Machine.of(bench.device, bench.bandwidth, load_average)
        del bench
        gc.collect()
    print(write(given.output, "bench_core_quick" if given.quick else "bench_core", machine, settings, rows))


if __name__ == "__main__":
    main()
