"""What every worker does: runs prompts, decodes after them, and says how long that took and what it held.

Imported in whatever environment a party needs, so it knows torch and transformers' model class, and nothing of ours.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.workers.memory import Peak

Finished = TypeVar("Finished")

ROOM = 64
"""Tokens that are decoded after a prompt at most."""


class Decoder(Protocol):
    """A batch that decodes greedily, one token for each sequence a step."""

    def step(self) -> float:
        """Takes a step; its seconds, synchronised."""

    def kv_bytes(self) -> int:
        """Bytes of the keys and values kept, counted from the tensors."""


@dataclass(frozen=True)
class Prompted(Generic[Finished]):
    """A prompt that was run: what it left, its bytes, and how many layers keep a window only."""

    finished: Finished
    kept_bytes: int
    lazy_layers: int | None = None


class Worker(ABC, Generic[Finished]):
    """One party.

    Parameters
    ----------
    folder
        The model, as safetensors.
    """

    def __init__(self, folder: str, device: str = "cpu") -> None:
        self.folder, self.device = Path(folder), torch.device(device)
        self.ids = torch.empty(1, 0, dtype=torch.long)
        self._models: dict[str, Any] = {}
        self._finished: dict[tuple[str, int], Prompted[Finished]] = {}
        self._decoding: dict[str, Decoder] = {}

    @abstractmethod
    def load(self, dtype: str) -> Any:
        """The model in a precision."""

    @abstractmethod
    def run(self, side: str, ids: Tensor, chunk: int) -> Prompted[Finished]:
        """Runs a prompt `[1, T]` in float32, `chunk` tokens at a time (0: all at once)."""

    @abstractmethod
    def decoder(self, side: str, finished: Finished, batch: int, dtype: str) -> Decoder:
        """`batch` copies of a prompt that was run, about to decode."""

    @abstractmethod
    def made_up(self, side: str, tokens: int, batch: int, dtype: str) -> Decoder:
        """`batch` sequences with random keys and values, which no prompt was run for."""

    def model(self, dtype: str) -> Any:
        """The model in a precision, loaded once."""
        if dtype not in self._models:
            self._models[dtype] = self.load(dtype)
        return self._models[dtype]

    def available(self, side: str) -> None:
        """Raises Unavailable where a side cannot be had here."""

    def prompt(self, ids: list[int]) -> None:
        """The longest prompt; shorter ones are its beginning."""
        self.ids = torch.tensor([ids])

    def prefill(self, side: str, tokens: int, chunk: int = 0) -> dict[str, Any]:
        """Runs the prompt's first tokens; what they leave is kept where some side decodes after it."""
        self._finished.pop((side, tokens), None)
        self.ready(side, tokens)
        peak = Peak(self.device)
        done, seconds = timed(lambda: self.run(side, self.ids[:, :tokens].to(self.device), chunk), self.device)
        if self.prompted_by(side) == side:
            self._finished[side, tokens] = done
        extra = peak.beyond(done.kept_bytes)
        kept = {"kept_bytes": done.kept_bytes, "extra_bytes": extra, "lazy_layers": done.lazy_layers}
        return {"seconds": seconds, **kept}

    def ready(self, side: str, tokens: int) -> None:
        """What has to be known or loaded before a prompt's time is taken."""

    def open(self, side: str, tokens: int, batch: int, dtype: str, made_up: bool = False) -> None:
        """Makes a batch that is about to decode after `tokens` tokens."""
        self._decoding.pop(side, None)
        if made_up:
            self._decoding[side] = self.made_up(side, tokens, batch, dtype)
        else:
            self._decoding[side] = self.decoder(side, self.prompted(side, tokens).finished, batch, dtype)

    def prompted(self, side: str, tokens: int) -> Prompted[Finished]:
        """The prompt that a side decodes after, run first where it was not."""
        by = self.prompted_by(side)
        if (by, tokens) not in self._finished:
            self.prefill(by, tokens)
        return self._finished[by, tokens]

    def lazy_layers(self, side: str, tokens: int) -> int | None:
        """How many layers keep a window only where a side decodes after a prompt; None: it has no such layers."""
        return self.prompted(side, tokens).lazy_layers

    def prompted_by(self, side: str) -> str:
        """The side of a prefill that a side of decoding goes on from."""
        return side

    def steps(self, side: str, count: int, budget_s: float = math.inf) -> dict[str, Any]:
        """Decodes `count` steps, or fewer where they have taken the budget; seconds of each, and the bytes of keys and
        values kept after the last."""
        decoder = self._decoding[side]
        seconds = [decoder.step()]
        while len(seconds) < count and sum(seconds) < budget_s:
            seconds.append(decoder.step())
        return {"seconds": seconds, "kv_bytes": decoder.kv_bytes()}

    def close(self, side: str) -> None:
        """Lets go of a batch, if there is one."""
        self._decoding.pop(side, None)


Result = TypeVar("Result")


def timed(work: Callable[[], Result], device: torch.device) -> tuple[Result, float]:
    """What some work gives, and its seconds to the end of all that it started on the device."""
    synchronize(device)
    began = time.perf_counter()
    result = work()
    synchronize(device)
    return result, time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def plain_model(folder: Path, dtype: str, device: torch.device) -> PreTrainedModel:
    """A model as transformers loads it, with its `sdpa` attention."""
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        attn_implementation="sdpa",
        device_map={"": device},
        local_files_only=True,
    )
    loaded: PreTrainedModel = model.eval()
    return loaded
