"""What choosing the products of linear layers gains on this machine: `python -m benchmarks.bench_products`.

The same step of the embedded model, all layers full, with the products that were chosen when it was loaded and with the
library's own, by turns in one run. Run it with OMP_WAIT_POLICY=PASSIVE, as the backend runs.

Writes `bench_products.json` and `bench_products.md` into `results/`. `--quick` is a small version that shows that
everything runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks import single
from benchmarks.timing import take_turns
from lighttransfer_core.batches import Batch, made_up
from lighttransfer_core.cost.bench_rows import Row
from lighttransfer_core.models import LoadedModel, load_model
from lighttransfer_core.models.products import Product, QuickLinear
from lighttransfer_core.steps import finished

CHOSEN, LIBRARY = "products chosen by trying", "the library’s products"

Products = dict[QuickLinear, dict[int, Product]]


@dataclass(frozen=True)
class Settings:
    """Precisions, tokens before the step, batches, and how often each side has its turn of so many steps."""

    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    tokens: int = 1024
    batches: tuple[int, ...] = (1, 8, 32)
    rounds: int = 9
    steps: int = 8


QUICK = Settings(("float32",), 64, (1,), rounds=2, steps=2)


def rows(dtype: str, settings: Settings) -> Iterator[Row]:
    lm = load_model("smollm2", device="cpu", dtype=dtype)
    chosen: Products = {one: one.products for one in lm.model.modules() if isinstance(one, QuickLinear)}
    library: Products = {one: {} for one in chosen}
    for size in settings.batches:
        sides = {
            name: partial(_turn, _batch(lm, settings.tokens, size), products, settings.steps)
            for name, products in ((CHOSEN, chosen), (LIBRARY, library))
        }
        take_turns(sides, 1)  # the first steps start threads and fill caches
        measured = take_turns(sides, settings.rounds)
        size_of = (dtype, settings.tokens, size)
        ratio = measured.ratio(LIBRARY, CHOSEN)
        yield Row(CHOSEN, *size_of, seconds=measured.time(CHOSEN), ratio=ratio, ratio_of="times the library’s speed")
        yield Row(LIBRARY, *size_of, seconds=measured.time(LIBRARY))


def _batch(lm: LoadedModel, tokens: int, size: int) -> Batch:
    return finished(made_up(lm, None, tokens, size))


def _turn(batch: Batch, products: Products, steps: int) -> list[float]:
    for layer, chosen in products.items():
        layer.products = chosen
    return [batch.step().latency_s for _ in range(steps)]


def main() -> None:
    given = single.parser(__doc__).parse_args()
    settings = QUICK if given.quick else Settings()
    found = (row for dtype in settings.dtypes for row in rows(dtype, settings))
    about = f"A decode step after {settings.tokens:,} tokens, all layers full."
    single.measure("products", about, found, torch.device("cpu"), given)


if __name__ == "__main__":
    main()
