"""A tiny random model that reads characters, and a task whose score tells any two answers apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from lighttransfer_core.models import LoadedModel, describe
from lighttransfer_core.tasks import Example, Task, TaskInfo, get_task, register
from lighttransfer_core.tasks import task as registry
from tests.conftest import SHARED

INFO = TaskInfo("gibberish", "Gibberish", "Random letters.", "this test", "By its letters.")


@dataclass(frozen=True, kw_only=True)
class Gibberish(Task):
    """Any answer has a score of its own, since a random model says nothing right."""

    info: TaskInfo = INFO

    def example(self, seed: int, num_tokens: int, count: registry.Count) -> Example:
        made = get_task("niah_single_1").example(seed, num_tokens, count)
        return replace(made, task=self.info.name)

    def score(self, answer: str, example: Example) -> float:
        return sum(index * ord(letter) for index, letter in enumerate(answer, start=1)) % 1009 / 1009


@contextmanager
def gibberish_task(task: Task | None = None) -> Iterator[Task]:
    """The task is registered inside."""
    try:
        yield register(task or Gibberish())
    finally:
        del registry._registry["gibberish"]


@pytest.fixture
def gibberish() -> Iterator[Task]:
    with gibberish_task() as task:
        yield task


@pytest.fixture(scope="session")
def reader(byte_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    torch.manual_seed(7)
    config = LlamaConfig(**{**SHARED, "max_position_embeddings": 2048})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(12.0)
    return LoadedModel(model, byte_tokenizer, describe(model))
