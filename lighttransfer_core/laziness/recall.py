"""What the model can still tell of the prompt: beside reading passages again, it answers a question about the text.

Different layers serve the two. Repeating needs those that find where the same words stood before, telling those that
find what stood out. A layer that does both is worth its cache, whatever will be asked.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lighttransfer_core.branches import decode_plans_steps
from lighttransfer_core.errors import InvalidPromptError
from lighttransfer_core.laziness.echo import Echo, read_behind, worst
from lighttransfer_core.laziness.metric import Measured, Metric, MetricInfo, layer_views, register
from lighttransfer_core.models.prompts import render_turn
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.steps import finished, retold
from lighttransfer_core.types import Window

QUESTION: Final = "Which names, numbers and dates does the text above mention?"
ANSWER_TOKENS: Final = 24
"""How many tokens of its own answer the model reads at most."""

_KEPT: Final = 16
_lock = threading.Lock()
_kept: WeakKeyDictionary[PreTrainedModel, dict[tuple[bytes, tuple[int, ...]], list[int]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Recall(Metric):
    """Echo, weighed against what the model fetches when it tells of the prompt. 1: nothing is lost."""

    info = MetricInfo(
        name="recall",
        title="Recall",
        formula="o / (1 + o); o is the geometric mean of two odds s / (1 − s): in the first, s is the score by echo; "
        f"in the second, the same of the tokens of the question “{QUESTION}” and of up to {ANSWER_TOKENS} tokens that "
        "the model answers. Echo alone where the model came without a tokenizer",
        meaning="How little a layer fetches from far away when the model repeats what it has read and when it tells of "
        "it. Different layers do the two; those that do both count most.",
        source="this project; chosen on prompts apart from those that it is reported on",
        cost="echo’s, an answer of the model, and a forward pass of question and answer",
        kind="probe",
    )

    def measure(self, prefill: Prefill, window: Window, last: int) -> Measured:
        return finished(self.measure_steps(prefill, window, last))

    def measure_steps(self, prefill: Prefill, window: Window, last: int) -> Generator[str, None, Measured]:
        repeated = Echo().measure(prefill, window, last)
        token_ids = (yield from told_steps(prefill)) if prefill.num_tokens > window.size else []
        if not token_ids:
            return repeated
        seen = read_behind(prefill, layer_views(prefill), window, token_ids, self.info.name)
        values = torch.stack([worst([(one.mass.amin(dim=0), one.change)]) for one in seen])
        heads = torch.stack([worst([(one.mass, one.head_change)]) for one in seen])
        assert repeated.per_head is not None
        return Measured(_between(repeated.values, values), _between(repeated.per_head, heads), repeated.per_query)


def told_steps(prefill: Prefill) -> Generator[str, None, list[int]]:
    """The question and the beginning of the full model's greedy answer; nothing without a tokenizer, or where no
    position is left for an answer.

    No window changes it, so the last prompts' are kept for whoever scores them with another one.
    """
    tokenizer = prefill.lm.tokenizer
    if tokenizer is None:
        return []
    question = _question(tokenizer)
    room = prefill.spec.room(prefill.num_tokens) - len(question)
    if room < 1:
        return []
    prompt = prefill.input_ids.numpy().tobytes(), tuple(question)
    with _lock:
        answer = _kept.get(prefill.lm.model, {}).get(prompt)
    if answer is None:
        asking = decode_plans_steps(prefill, [None], min(ANSWER_TOKENS, room), question)
        (answer,) = yield from retold(asking, lambda _turn: "the model answers a question about the prompt")
    with _lock:
        kept = _kept.setdefault(prefill.lm.model, {})
        kept.pop(prompt, None)
        kept[prompt] = answer
        if len(kept) > _KEPT:
            del kept[next(iter(kept))]
    return question + answer


def forget_answers(model: PreTrainedModel) -> None:
    """For who measures what a prompt's first score costs."""
    with _lock:
        _kept.pop(model, None)


def _question(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """As a further turn of the chat, or as text where the model knows no such turn."""
    try:
        return render_turn(tokenizer, QUESTION, "chat")
    except InvalidPromptError:
        return render_turn(tokenizer, f"\n\n{QUESTION}\n", "raw")


def _between(one: Tensor, other: Tensor) -> Tensor:
    """The score whose odds are the geometric mean of two scores' odds: neither decides alone."""
    return ((torch.logit(one) + torch.logit(other)) / 2).sigmoid()


register(Recall())
