"""The parts of the suite, on stages that are set when a part needs them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.suite import decode, growth, interaction, large, prefill
from benchmarks.suite.settings import Settings
from benchmarks.suite.stage import MakeWorker, Stage
from benchmarks.timing import memory_bandwidth
from benchmarks.workers.worker import ROOM
from lighttransfer_core.cost.bench_rows import Growth, Row

EMBEDDED = "the embedded model"


@dataclass(frozen=True)
class Found:
    """What a part measured."""

    model: str
    about: str
    rows: list[Row]
    growths: tuple[Growth, ...] = ()


class Bench:
    """One run of the suite.

    Parameters
    ----------
    make
        Makes the workers on a model's folder.
    folder
        The model that prompts are run on.
    ids
        The prompt, as long as the longest context.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device,
        make: Callable[[Path], MakeWorker],
        folder: Path,
        ids: list[int],
    ) -> None:
        self.settings, self.device = settings, device
        self._make, self._folder, self._ids = make, folder, ids

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second that the device's memory gives."""
        return memory_bandwidth(self.device)

    @cached_property
    def embedded(self) -> Stage:
        return Stage(self._make(self._folder), self._ids, EMBEDDED)

    def prefill(self) -> Found:
        rows = prefill.prefill_rows(self.embedded, self.settings)
        return Found(EMBEDDED, "One prompt, from its ids to a cache that can decode, in one process per party.", rows)

    def interaction(self) -> Found:
        rows = interaction.interaction_rows(self.embedded, self.settings)
        about = "What a page waits for after a prompt was run and recorded."
        return Found(EMBEDDED, about, rows, tuple(growth.interaction_growths(rows)))

    def decode(self) -> Found:
        rows = decode.decode_rows(self.embedded, self.settings, self.bandwidth)
        window = self.settings.window
        about = (
            "One token for every sequence of a batch, after the same prompt on every side. Lazy layers keep "
            f"{window.sink} + {window.recent:,} tokens; those of kvpress, as many layers by a threshold that was found "
            "for the prompt, begin with as many tokens and grow."
        )
        return Found(EMBEDDED, about, rows, tuple(growth.decode_growths(rows)))

    def profile(self) -> Found:
        rows = decode.profile_rows(self.embedded, self.settings)
        return Found(EMBEDDED, "Shares of the operations' own time in a step, by torch's profiler.", rows)

    def capture(self) -> Found:
        rows = prefill.capture_rows(self.embedded, self.settings)
        about = "All attention weights of a prompt at once, against the record from which any of them is computed."
        return Found(EMBEDDED, about, rows)

    def long(self) -> Found:
        settings = self.settings
        with self._random_stage(settings.long_tokens, settings.long_layers) as stage:
            rows = large.long_rows(stage, settings, self.bandwidth)
            return Found(stage.model, "A prompt longer than the embedded model's positions, and steps after it.", rows)

    def throughput(self) -> Found:
        settings = self.settings
        with self._random_stage(max(settings.throughputs), None) as stage:
            rows = large.throughput_rows(stage, settings, self.bandwidth)
        about = (
            f"The most sequences whose keys and values fit {settings.kv_nbytes / 2**30:.3g} GiB, decoding together "
            "after made-up prompts."
        )
        return Found(stage.model, about, rows)

    def close(self) -> None:
        self.embedded.close()

    @contextmanager
    def _random_stage(self, tokens: int, layers: int | None) -> Iterator[Stage]:
        """A model of the embedded one's shape that has positions for so many tokens. The other workers end first, since
        the memory is needed."""
        self.close()
        with tempfile.TemporaryDirectory() as name:
            model = large.random_model(self._folder, Path(name), tokens + ROOM, layers)
            ids = [self._ids[place % len(self._ids)] for place in range(tokens)]
            stage = Stage(self._make(Path(name)), ids, model)
            try:
                yield stage
            finally:
                stage.close()


PARTS: dict[str, Callable[[Bench], Found]] = {
    "prefill": Bench.prefill,
    "interaction": Bench.interaction,
    "decode": Bench.decode,
    "profile": Bench.profile,
    "capture": Bench.capture,
    "long": Bench.long,
    "throughput": Bench.throughput,
}
