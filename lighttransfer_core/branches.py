"""Many plans of one prompt at once: a batch whose row `b` decodes under plan `b`, over one shared prompt.

It says what each plan would answer, exactly as its own branch would, at a fraction of the time; it says nothing of
memory or latency, since the batch keeps the whole prompt for every row.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lighttransfer_core.attention import LayerAttention, LayerRecord, attention_layers, input_device, one_pass
from lighttransfer_core.cache import HybridCache, Segment, StaticPolicy
from lighttransfer_core.cache.branches import BranchesLayer
from lighttransfer_core.decoding import check_new_tokens, stop_token_ids
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.models.fit import check_plan, check_room
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.steps import finished
from lighttransfer_core.token_ids import check_token_ids, likeliest
from lighttransfer_core.types import ConversionPlan, Float64Array, Window

Plan = ConversionPlan | None

_NO_PLAN = ConversionPlan()
MOST_LOGITS = 1 << 26
"""Logits that are held at a time: 256 MB of float32."""


class Branches:
    """Continuations of one prefill under several plans, one per row.

    Parameters
    ----------
    plans
        None is the unmodified model. Their windows may differ.

    Raises
    ------
    InvalidPlanError, InvalidInputError
    """

    def __init__(self, prefill: Prefill, plans: Sequence[Plan]) -> None:
        if not plans:
            raise InvalidInputError("there is no plan to decode: give at least one, or None for the full model.")
        for plan in plans:
            check_plan(plan or _NO_PLAN, prefill.spec)
        kinds = attention_layers(prefill.lm.model.config)
        layers = [_layer(record, kind, plans) for record, kind in zip(prefill.records, kinds, strict=True)]
        self.prefill = prefill
        self.cache = HybridCache(kinds, Window(), StaticPolicy(_NO_PLAN), layers=layers)
        self.rows = len(plans)

    @torch.no_grad()
    def forward(self, token_ids: Tensor, last: int | None = None) -> Tensor:
        """Appends `[B, m]` tokens and returns the logits after the last so many, or after each: `[B, m, V]` float32.

        Raises
        ------
        InvalidPromptError
            The texts would outgrow the model's positions.
        """
        model = self.prefill.lm.model
        check_room(self.prefill.spec, self.cache.seen_tokens, token_ids.shape[1])
        with one_pass(model):
            output = model(
                input_ids=token_ids.to(input_device(model)),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=last or 0,
            )
        logits: Tensor = output.logits.float()
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with some of the rows only."""
        self.cache.reorder_cache(torch.tensor(rows, dtype=torch.long))
        self.rows = len(rows)


def decode_plans(
    prefill: Prefill, plans: Sequence[Plan], max_new_tokens: int, question: Sequence[int] = ()
) -> list[list[int]]:
    """The greedy answer of each plan, as token ids; the token that ends a text is left out.

    Parameters
    ----------
    question
        Token ids that every plan reads after the prompt, through its cut cache, before it answers.
    """
    return finished(decode_plans_steps(prefill, plans, max_new_tokens, question))


@torch.no_grad()
def decode_plans_steps(
    prefill: Prefill,
    plans: Sequence[Plan],
    max_new_tokens: int,
    question: Sequence[int] = (),
    turn_tokens: int | None = None,
) -> Generator[None, None, list[list[int]]]:
    """`decode_plans`, a forward pass at a time: one token of every row, or a part of the question.

    Parameters
    ----------
    turn_tokens
        Tokens of all rows together that a pass takes from the question at most, one of each row at least; None: all.
    """
    check_new_tokens(max_new_tokens)
    stops = stop_token_ids(prefill)
    answers: list[list[int]] = [[] for _ in plans]
    branches = Branches(prefill, plans)
    running = list(range(len(plans)))
    logits = prefill.logits.expand(len(plans), -1)
    part = max(len(question) if turn_tokens is None else turn_tokens // len(plans), 1)
    for start in range(0, len(question), part):
        asked = torch.tensor([list(question[start : start + part])]).expand(len(plans), -1)
        logits = branches.forward(asked, last=1)[:, -1]
        yield
    for step in range(max_new_tokens):
        chosen: list[int] = likeliest(logits).tolist()
        going = [row for row, token in enumerate(chosen) if token not in stops]
        for row in going:
            answers[running[row]].append(chosen[row])
        if not going or step + 1 == max_new_tokens:
            break
        if len(going) < len(running):
            branches.keep(going)
            running = [running[row] for row in going]
        logits = branches.forward(torch.tensor([[chosen[row]] for row in going]))[:, -1]
        yield
    return answers


@dataclass(frozen=True, eq=False)
class Forced:
    """How plans read one text that was given: `nll` and `kl` are `[B, m]`, in nats per token.

    `kl` is KL(full model || plan). The first token is the prefill's own where no question came before it, so it is
    alike for all.
    """

    nll: Float64Array
    kl: Float64Array


def force_plans(
    prefill: Prefill, plans: Sequence[Plan], continuation: Sequence[int], question: Sequence[int] = ()
) -> Forced:
    """Each plan's NLL of a given continuation, and its KL from the full model on it, token by token.

    Raises
    ------
    InvalidPlanError, InvalidInputError, InvalidPromptError
    """
    return finished(force_plans_steps(prefill, plans, continuation, question))


@torch.no_grad()
def force_plans_steps(
    prefill: Prefill,
    plans: Sequence[Plan],
    continuation: Sequence[int],
    question: Sequence[int] = (),
    turn_tokens: int | None = None,
) -> Generator[None, None, Forced]:
    """`force_plans`, some of the plans at a time.

    Parameters
    ----------
    turn_tokens
        Tokens of all rows together that a pass takes at most, one row at least; None: as many as memory allows.
    """
    check_token_ids(torch.tensor([list(continuation)], dtype=torch.long), prefill.spec, "continuation")
    full = _forced_logits(prefill, [None], continuation, question)[0].log_softmax(dim=-1)
    targets = torch.tensor(list(continuation), device=full.device)
    size = MOST_LOGITS // (prefill.spec.vocab_size * len(continuation))
    if turn_tokens is not None:
        size = min(size, turn_tokens // (len(question) + len(continuation)))
    size, nll, kl = max(size, 1), [], []
    for start in range(0, len(plans), size):
        yield
        for row in _forced_logits(prefill, plans[start : start + size], continuation, question):
            logs = row.log_softmax(dim=-1)
            nll.append(-logs.gather(-1, targets[:, None])[:, 0])
            kl.append(torch.where(full == -torch.inf, 0.0, full.exp() * (full - logs)).sum(dim=-1).clamp_min(0.0))
    return Forced(*(np.asarray(torch.stack(one).cpu().double()) for one in (nll, kl)))


def _forced_logits(
    prefill: Prefill, plans: Sequence[Plan], continuation: Sequence[int], question: Sequence[int]
) -> Tensor:
    """`[b, m, V]` before each token of the continuation."""
    fed = [*question, *continuation[:-1]]
    first = [] if question else [prefill.logits.to(input_device(prefill.lm.model)).expand(len(plans), 1, -1)]
    if fed:
        last = len(continuation) - len(first)
        first.append(Branches(prefill, plans).forward(torch.tensor([fed]).expand(len(plans), -1), last=last))
    return torch.cat(first, dim=1)


def _layer(record: LayerRecord, kind: LayerAttention, plans: Sequence[Plan]) -> BranchesLayer:
    prompt = Segment(record.key.unsqueeze(0), record.value.unsqueeze(0), record.num_tokens)
    if kind.window is not None:
        return BranchesLayer(prompt, [Window(sink=0, recent=kind.window)] * len(plans))
    lazy = [plan.window if plan is not None and record.layer in plan.lazy_layers else None for plan in plans]
    return BranchesLayer(prompt, lazy)
