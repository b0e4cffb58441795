"""The benchmark of speed and memory, all of it in one command: `python -m benchmarks.bench`.

Every party (ours, transformers' own caches, kvpress's SimLayerKV in an environment of its own, which is built on first
use) has a process, and the sides of a measurement take turns, so that ratios are paired. Parts:

prefill      time and memory of a prompt's pass, at each context
interaction  scoring, exact tiles, the second token of a new choice of layers
decode       a step at each context, batch and precision, beside the time that reading its bytes takes
profile      what such a step spends its time on
capture      a record for maps against `output_attentions=True`
long         32,768 tokens in chunks, on a random model with enough positions
throughput   the largest batches that fit one KV memory, beside the paper's table

Writes `bench.json` and `bench.md` into `results/` after each part; with `--only` the others stay as they were. The
Scale page shows the file. Run it on a quiet machine: beside another busy process the threads of a step wait for one
another, and every side slows down by its own factor.
"""

from __future__ import annotations

import argparse
import logging
import time
from datetime import UTC, datetime
from pathlib import Path

from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from benchmarks.prompt import prompt_ids
from benchmarks.report import machine_here, markdown, write
from benchmarks.suite.parties import processes
from benchmarks.suite.parts import PARTS, Bench
from benchmarks.suite.settings import QUICK, Settings
from lighttransfer_core.cost.benchmark import Benchmark, Part, read_benchmark
from lighttransfer_core.models import prepare_embedded
from lighttransfer_core.models.placement import choose_device

_LOG = logging.getLogger("benchmarks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small version that shows that everything runs")
    parser.add_argument("--only", type=parts, default=tuple(PARTS), help=f"some parts: {','.join(PARTS)}")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 ...")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the two files")
    parser.add_argument("--kvpress-python", type=Path, help="an interpreter that has kvpress, in place of building one")
    given = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    disable_progress_bar()
    settings = QUICK if given.quick else Settings()
    file = given.output / ("bench_quick.json" if given.quick else "bench.json")
    found = read_benchmark(file) or Benchmark()
    bench = made(settings, given.device, given.kvpress_python)
    try:
        for name in given.only:
            _LOG.info("%s", name)
            found = found.with_part(measured(bench, name))
            write(file, found)
    finally:
        bench.close()
    print(markdown(found))


def parts(text: str) -> tuple[str, ...]:
    """The parts that a comma-separated text names, in the order of the suite."""
    named = set(text.split(","))
    if unknown := named - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in named)


def made(settings: Settings, device: str, kvpress: Path | None) -> Bench:
    """The suite on the embedded model."""
    place, folder = choose_device(device), prepare_embedded()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    longest = max(*settings.contexts, *settings.page_contexts, *settings.captures)
    ids = prompt_ids(tokenizer, longest)[0].tolist()
    return Bench(settings, place, processes(settings.window, place, kvpress), folder, ids)


def measured(bench: Bench, name: str) -> Part:
    """One part, with when and where."""
    machine = machine_here(bench.device, bench.bandwidth)
    began = time.perf_counter()
    found = PARTS[name](bench)
    return Part(
        name=name,
        about=found.about,
        model=found.model,
        made=datetime.now(tz=UTC).isoformat(timespec="seconds"),
        took_s=time.perf_counter() - began,
        quick=bench.settings.quick,
        machine=machine,
        rows=tuple(found.rows),
        growths=found.growths,
    )


if __name__ == "__main__":
    main()
