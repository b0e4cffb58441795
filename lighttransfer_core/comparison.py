"""Two plans on one prompt: where their texts part, and how far apart their distributions are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lighttransfer_core.decoding import Branch
from lighttransfer_core.events import Comparison, DecodeEvent, LaneSettings, LaneStep
from lighttransfer_core.lanes import Lanes
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.token_ids import check_token_ids
from lighttransfer_core.types import ConversionPlan

_NLL_CHUNK = 256
_NO_PLAN = ConversionPlan()


def compare(
    prefill: Prefill,
    plan_a: ConversionPlan | None = None,
    plan_b: ConversionPlan | None = None,
    max_new_tokens: int = 64,
) -> Comparison:
    """Decodes both plans greedily after the same prefill, one lane at a time, and aligns them."""
    return summarize(compare_steps(prefill, plan_a, plan_b, max_new_tokens))


def compare_steps(
    prefill: Prefill,
    plan_a: ConversionPlan | None = None,
    plan_b: ConversionPlan | None = None,
    max_new_tokens: int = 64,
) -> Iterator[LaneStep]:
    """`compare`, step by step: lane 0 is plan a, lane 1 plan b."""
    settings = [LaneSettings(_NO_PLAN if plan is None else plan) for plan in (plan_a, plan_b)]
    return _steps(Lanes(prefill, settings, max_new_tokens))


def _steps(lanes: Lanes) -> Iterator[LaneStep]:
    while not lanes.done:
        yield from lanes.advance()


def summarize(steps: Iterable[LaneStep], lane: int = 1, turn: int = 0, follows: bool = False) -> Comparison:
    """What the steps of the reference and of another lane amount to, in one answer.

    Of a lane that follows the reference's text its own choices count, the likeliest of its candidates at each step,
    beside the reference's likeliest: a token that was drawn would say more of the draw than of the lane. So its lanes
    must have been asked for candidates.
    """

    def choice(one: LaneStep, event: DecodeEvent) -> int:
        return one.candidates[0].token_id if follows else event.token_id

    reference, other = {}, {}
    kl: list[float] = []
    for one in steps:
        if one.turn != turn:
            continue
        if one.lane == 0 and one.event is not None:
            reference[one.step] = choice(one, one.event)
        elif one.lane == lane:
            if one.event is not None:
                other[one.step] = choice(one, one.event)
            if one.kl is not None:
                kl.append(one.kl)
    tokens_a, tokens_b = tuple(reference.values()), tuple(other.values())
    return Comparison(tokens_a, tokens_b, kl, _first_difference(reference, other))  # type: ignore[arg-type]


def _first_difference(a: dict[int, int], b: dict[int, int]) -> int | None:
    """The first step at which the lanes chose differently, or only one of them had ended."""
    return next((step for step in range(max(len(a), len(b))) if a.get(step) != b.get(step)), None)


@torch.no_grad()
def continuation_nll(prefill: Prefill, plan: ConversionPlan | None, continuation: Tensor) -> Tensor:
    """Negative log-likelihood `[m]`, in nats, of each token of a given continuation `[1, m]` under a plan.

    The prefill holds the prefix; the continuation is scored through the hybrid cache. Its first token is scored by the
    prefill's logits, so it is the same for every plan.
    """
    check_token_ids(continuation, prefill.spec, "continuation")
    continuation = continuation.cpu().long()
    branch, inputs, targets = Branch(prefill, plan), continuation[:, :-1], continuation[0, 1:]
    scored = [_nll(prefill.logits[None], continuation[0, :1])]
    for ids, wanted in zip(inputs.split(_NLL_CHUNK, dim=1), targets.split(_NLL_CHUNK), strict=True):
        if ids.shape[1]:
            scored.append(_nll(branch.forward(ids), wanted))
    return torch.cat(scored)


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Of `[m]` targets under `[m, V]` logits."""
    return torch.nn.functional.cross_entropy(logits, targets.to(logits.device), reduction="none").cpu()
