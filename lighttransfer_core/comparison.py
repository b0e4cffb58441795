"""Two plans on one prompt: where their texts part, and how far apart their distributions are.

KL is measured on lane a's own text, teacher-forced through lane b, so it never compares texts that have diverged.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor

from lighttransfer_core.decoding import Branch, Lane, Sampler, check_new_tokens
from lighttransfer_core.prefill import Prefill, check_token_ids
from lighttransfer_core.transcript import Continuation
from lighttransfer_core.types import CompareEvent, Comparison, ConversionPlan, DecodeEvent

_NLL_CHUNK = 256


def compare(
    prefill: Prefill,
    plan_a: ConversionPlan | None = None,
    plan_b: ConversionPlan | None = None,
    max_new_tokens: int = 64,
) -> Comparison:
    """Decodes both plans greedily after the same prefill, one lane at a time, and aligns them."""
    events = list(compare_steps(prefill, plan_a, plan_b, max_new_tokens))
    return summarize(events)


def compare_steps(
    prefill: Prefill,
    plan_a: ConversionPlan | None = None,
    plan_b: ConversionPlan | None = None,
    max_new_tokens: int = 64,
    *,
    record: bool = False,
) -> Generator[CompareEvent, None, tuple[Continuation | None, Continuation | None]]:
    """`compare`, one event per step of both lanes; returns what each lane decoded, if `record`.

    While the lanes agree, lane b's own step is the teacher-forced one. Where they part, a fork of lane b goes on along
    lane a's text.
    """
    check_new_tokens(max_new_tokens)
    lane_a, lane_b = (Lane(Branch(prefill, plan, record=record), Sampler()) for plan in (plan_a, plan_b))
    return _compare_steps(lane_a, lane_b, max_new_tokens)


@torch.no_grad()
def _compare_steps(
    lane_a: Lane, lane_b: Lane, max_new_tokens: int
) -> Generator[CompareEvent, None, tuple[Continuation | None, Continuation | None]]:
    forced: Branch | None = None
    previous_a: int | None = None
    for step in range(max_new_tokens):
        event_a, logits_a = (None, None) if lane_a.ended else lane_a.step()
        event_b, logits_b = (None, None) if lane_b.ended else lane_b.step()
        kl = None
        if logits_a is not None:
            if forced is not None and previous_a is not None:
                kl = kl_divergence(logits_a, forced.forward(torch.tensor([[previous_a]]))[-1])
            elif logits_b is not None:
                kl = kl_divergence(logits_a, logits_b)
        if forced is None and event_a is not None and event_b is not None and event_a.token_id != event_b.token_id:
            forced = lane_b.branch.fork()
        previous_a = event_a.token_id if event_a is not None else None
        yield CompareEvent(step, event_a, event_b, kl)
        if lane_a.ended and lane_b.ended:
            break
    return lane_a.branch.continuation(), lane_b.branch.continuation()


def summarize(events: list[CompareEvent]) -> Comparison:
    """The comparison that a list of steps amounts to."""
    tokens_a = tuple(event.a.token_id for event in events if event.a is not None)
    tokens_b = tuple(event.b.token_id for event in events if event.b is not None)
    kl = [event.kl for event in events if event.kl is not None]
    return Comparison(tokens_a, tokens_b, kl, first_divergence(events))  # type: ignore[arg-type]


def first_divergence(events: list[CompareEvent]) -> int | None:
    """The first step at which the lanes chose differently, or only one of them had ended."""

    def token(event: DecodeEvent | None) -> int | None:
        return None if event is None else event.token_id

    return next((event.step for event in events if token(event.a) != token(event.b)), None)


def kl_divergence(logits_p: Tensor, logits_q: Tensor) -> float:
    """KL(p || q) in nats, of two `[V]` logits; computed in float64, since it is a small difference of large sums."""
    log_p, log_q = (torch.log_softmax(logits.double(), dim=-1) for logits in (logits_p, logits_q.to(logits_p.device)))
    terms = torch.where(log_p == -torch.inf, 0.0, log_p.exp() * (log_p - log_q))
    return max(float(terms.sum()), 0.0)


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
