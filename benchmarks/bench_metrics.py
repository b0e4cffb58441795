"""What each laziness metric costs, as a share of the prefill that it reads: `python -m benchmarks.bench_metrics`.

On the embedded model in float32. Metrics take turns in one run; the prefill is the one whose queries they need. What a
metric costs on the fly, within a prefill, is in `benchmarks.bench`.

Writes `bench_metrics.json` and `bench_metrics.md` into `results/`. `--quick` is a small version that shows that
everything runs; its shares say nothing about long prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from benchmarks import single
from benchmarks.prompt import prompt_ids
from benchmarks.timing import interleaved
from lighttransfer_core.attention import input_device
from lighttransfer_core.cost.bench_rows import Bar, Row, Spread
from lighttransfer_core.laziness import list_metrics, score_layers
from lighttransfer_core.laziness.recall import forget_answers
from lighttransfer_core.models import LoadedModel, load_model
from lighttransfer_core.prefill import Prefill, run_prefill
from lighttransfer_core.types import LayerScores, Window


@dataclass(frozen=True)
class Settings:
    """Prompt lengths, the window, and how often each kind of metric is measured."""

    contexts: tuple[int, ...] = (2048, 8128)
    window: Window = field(default_factory=lambda: Window(4, 1020))
    repeats: int = 7
    trial_repeats: int = 1


QUICK = Settings((384,), Window(4, 60), repeats=2)


def rows(lm: LoadedModel, settings: Settings) -> Iterator[Row]:
    assert lm.tokenizer is not None
    device = input_device(lm.model)
    run_prefill(lm, prompt_ids(lm.tokenizer, 384))  # the first pass of a process starts threads and fills caches
    for tokens in settings.contexts:
        began = time.perf_counter()
        prefill = run_prefill(lm, prompt_ids(lm.tokenizer, tokens))
        prefill_s = time.perf_counter() - began
        yield Row("prefill", lm.spec.dtype, tokens, 1, seconds=Spread.of([prefill_s]))
        cheap, costly = [*list_metrics("prompt"), *list_metrics("probe")], list_metrics("trial")
        for names, repeats in ((cheap, settings.repeats), (costly, settings.trial_repeats)):
            sides: dict[str, Callable[[], LayerScores]] = {
                name: partial(_score, prefill, settings.window, name) for name in names
            }
            measured = interleaved(sides, repeats, device, warmup=int(names is cheap))
            for name in sides:
                shares = [seconds / prefill_s for [seconds] in measured.seconds[name]]
                yield Row(
                    name,
                    lm.spec.dtype,
                    tokens,
                    1,
                    seconds=measured.time(name),
                    ratio=Spread.of(shares),
                    ratio_of="of the prefill’s time",
                    bars=(Bar("ratio", at_most=0.03),) if names is cheap else (),
                )


def _score(prefill: Prefill, window: Window, metric: str) -> LayerScores:
    forget_answers(prefill.lm.model)
    return score_layers(prefill, window, metric=metric)


def main() -> None:
    parser = single.parser(__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 ...")
    given = parser.parse_args()
    settings = QUICK if given.quick else Settings()
    lm = load_model("smollm2", device=given.device, dtype="float32")
    about = f"Each metric on a finished prefill, window {settings.window.sink} + {settings.window.recent:,}."
    single.measure("metrics", about, rows(lm, settings), input_device(lm.model), given)


if __name__ == "__main__":
    main()
