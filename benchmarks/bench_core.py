"""What capture, scoring and decoding cost, against transformers' default: `python -m benchmarks.bench_core`.

Ratios of sides that take turns in one run, on the embedded model:

* prefill, in float32: recording q, k, v and the log-sum-exp, against `sdpa` with `DynamicCache`;
* scoring: of a finished prefill, as a share of that prefill; and during the prefill (the paper's heap), against the
  same hybrid prefill with a plan given;
* what a page waits for: an exact tile of the map, and the second token of a new choice of layers;
* decode, in float32 and bfloat16: half of the layers lazy against all full, and all full against `sdpa` with
  `DynamicCache`, beside the limit that the machine's memory bandwidth sets (a step reads the weights and the KV cache
  at least once).

Writes `bench_core.json` and `bench_core.md` into `results/`. `--quick` is a small version that shows that everything
runs; its ratios say nothing about long prompts. Run it on a quiet machine: beside another busy process the threads of
a step wait for one another, and every side slows down by its own factor.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from benchmarks.report import Machine, Row, write
from benchmarks.sides import (
    Stepper,
    load_theirs,
    prefill_hybrid,
    prefill_theirs,
    prompt_ids,
    recast,
    repeat_rows,
    their_cache,
)
from benchmarks.timing import Rounds, Spread, interleaved, memory_bandwidth
from lighttransfer_core.attention import input_device
from lighttransfer_core.decoding import Branch, Lane, Sampler
from lighttransfer_core.laziness import OnTheFly, plan_from_scores, score_layers
from lighttransfer_core.models import LoadedModel, load_model
from lighttransfer_core.prefill import Prefill, run_prefill
from lighttransfer_core.types import ConversionPlan, Window

THEIRS = "transformers (sdpa, DynamicCache)"
RECORDED = "recorded for maps, scores and branches"
PLANNED = "hybrid, plan given"
CHOSEN = "hybrid, lazy layers chosen on the fly"
FULL, HALF = "all layers full", "half of the layers lazy"
TILE = "exact tile of 256 x 256 token pairs"
SECOND_TOKEN = "new choice of layers, to its second token"

# What we hold ourselves to is said of prompts of 8k tokens.
BARS_FROM_TOKENS = 8000


@dataclass(frozen=True)
class Settings:
    """Prompt lengths, batch sizes, element types of decoding, the window, and how often each side is measured.

    No further round of a measurement begins once it has taken `budget_s`.
    """

    contexts: tuple[int, ...] = (4096, 8128)
    batches: tuple[int, ...] = (1, 8)
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    window: Window = field(default_factory=Window)
    prefills: int = 3
    repeats: int = 9
    steps: int = 24
    warmup: int = 3
    budget_s: float = 300.0


QUICK = Settings((384,), (1, 2), window=Window(4, 60), prefills=1, repeats=2, steps=4, warmup=1)


@dataclass(frozen=True)
class Sides:
    """The embedded model in one element type, ours and transformers'."""

    ours: LoadedModel
    theirs: PreTrainedModel

    @classmethod
    def load(cls, dtype: str, device: str) -> Sides:
        ours = load_model("smollm2", device=device, dtype=dtype)
        return cls(ours, load_theirs(dtype, input_device(ours.model)))

    @property
    def device(self) -> torch.device:
        return input_device(self.ours.model)


class Bench:
    """The rows of the report, prompt by prompt in float32, then decoding in each element type."""

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings = settings
        self._device = device
        self._sides = Sides.load("float32", device)
        self.bandwidth = memory_bandwidth(self._sides.device)
        self._prompts: list[tuple[Prefill, ConversionPlan]] = []
        # The first pass of a process starts threads and fills caches.
        self._run_prefills(settings.window.size + 64, rounds=1)

    @property
    def device(self) -> torch.device:
        return self._sides.device

    def rows(self) -> list[Row]:
        rows = [row for context in self._settings.contexts for row in self._prompt_rows(context)]
        for dtype in self._settings.dtypes:
            sides = self._sides if dtype == "float32" else Sides.load(dtype, self._device)
            for prefill, plan in self._prompts:
                for batch in self._settings.batches:
                    rows += self._decode_rows(sides, recast(prefill, sides.ours), plan, batch)
                    gc.collect()
        return [row if row.tokens >= BARS_FROM_TOKENS else replace(row, bar="") for row in rows]

    def _run_prefills(self, tokens: int, rounds: int) -> Rounds:
        window, model = self._settings.window, self._sides.ours.model
        assert self._sides.ours.tokenizer is not None
        ids = prompt_ids(self._sides.ours.tokenizer, tokens)
        plan = ConversionPlan(tuple(range(1, self._sides.ours.spec.num_layers, 2)), window)
        sides: dict[str, Callable[[], Any]] = {
            THEIRS: partial(prefill_theirs, self._sides.theirs, ids),
            RECORDED: partial(run_prefill, self._sides.ours, ids),
            PLANNED: partial(prefill_hybrid, model, ids, plan),
            CHOSEN: partial(prefill_hybrid, model, ids, OnTheFly(keep_full=0.5, window=window)),
        }
        return interleaved(sides, rounds, self.device, budget_s=self._settings.budget_s)

    def _prompt_rows(self, tokens: int) -> list[Row]:
        prefills = self._run_prefills(tokens, self._settings.prefills)
        prefill: Prefill = prefills.last[RECORDED]
        scores = score_layers(prefill, self._settings.window)
        plan = plan_from_scores(scores, keep_full=0.5)
        self._prompts.append((prefill, plan))
        waits = interleaved(
            {
                "score": partial(score_layers, prefill, self._settings.window),
                TILE: partial(prefill.attention, 3, 0, (tokens - 256, tokens), (0, 256)),
                SECOND_TOKEN: partial(second_token, prefill, plan),
            },
            self._settings.repeats,
            self.device,
            warmup=1,
        )
        row = partial(Row, dtype="float32", tokens=tokens, batch=1)
        seconds = prefills.time(RECORDED).median
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
                seconds=waits.time("score"),
                ratio=Spread.of([1 + scoring / seconds for scoring in waits.seconds["score"]]),
                ratio_of="of the prefill's time, the prefill included",
                bar="<= 1.03",
            ),
            row(TILE, seconds=waits.time(TILE), bar="<= 50 ms"),
            row(SECOND_TOKEN, seconds=waits.time(SECOND_TOKEN), bar="<= 150 ms"),
        ]

    def _decode_rows(self, used: Sides, prefill: Prefill, plan: ConversionPlan, batch: int) -> list[Row]:
        settings, spec = self._settings, used.ours.spec
        full, half = (repeat_rows(Branch(prefill, chosen).cache, batch) for chosen in (None, plan))
        sides: dict[str, Callable[[], Any]] = {
            THEIRS: Stepper(used.theirs, repeat_rows(their_cache(prefill), batch), batch),
            FULL: Stepper(used.ours.model, full, batch),
            HALF: Stepper(used.ours.model, half, batch),
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
                    limit_s=nbytes / self.bandwidth,
                )
            )
        return rows


def second_token(prefill: Prefill, plan: ConversionPlan) -> None:
    """What a page waits for after a change of the plan: a branch, its first token and its second."""
    lane = Lane(Branch(prefill, plan), Sampler())
    lane.step()
    lane.step()


def decode_bar(dtype: str, batch: int) -> str:
    """What all layers full are to reach against transformers' default at 8k tokens."""
    if dtype == "bfloat16":
        return ">= 2.5"
    return ">= 1.6" if batch == 1 else ">= 3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small version that shows that everything runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 ...")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the two files")
    given = parser.parse_args()
    settings = QUICK if given.quick else Settings()
    disable_progress_bar()
    load_average = os.getloadavg()[0]
    bench = Bench(settings, given.device)
    rows = bench.rows()
    machine = Machine.of(bench.device, bench.bandwidth, load_average)
    print(write(given.output, "bench_core_quick" if given.quick else "bench_core", machine, settings, rows))


if __name__ == "__main__":
    main()
