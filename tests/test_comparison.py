from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.comparison import compare_steps, continuation_nll
from lighttransfer_core.errors import InvalidPromptError
from lighttransfer_core.events import Comparison, LaneStep
from lighttransfer_core.lanes import kl_divergence
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import tokens
from tests.reference import masked_logits

WINDOW = Window(2, 5)
PLAN = ConversionPlan((0, 1, 2), WINDOW)


def test_kl_and_divergence_equal_the_reference(llama: PreTrainedModel) -> None:
    ids = tokens(40)
    result = lt.compare(lt.run_prefill(llama, ids), None, PLAN, 16)
    assert result.tokens_a == tuple(e.token_id for e in lt.decode(lt.run_prefill(llama, ids), None, 16))
    assert result.tokens_b == tuple(e.token_id for e in lt.decode(lt.run_prefill(llama, ids), PLAN, 16))
    parts = [a != b for a, b in zip(result.tokens_a, result.tokens_b, strict=True)]
    assert result.first_divergence == parts.index(True)
    text = torch.cat([ids, torch.tensor([result.tokens_a])], dim=1)
    full = masked_logits(llama, text, 40, (), WINDOW)[0, 39:-1].double().log_softmax(-1)
    hybrid = masked_logits(llama, text, 40, PLAN.lazy_layers, WINDOW)[0, 39:-1].double().log_softmax(-1)
    np.testing.assert_allclose(result.kl, (full.exp() * (full - hybrid)).sum(-1).numpy(), atol=1e-5)
    assert result.kl[0] == 0.0
    assert result.kl.max() > 1e-3
    assert result.agreement == 1 - sum(parts) / 16


def test_equal_plans_never_diverge(llama: PreTrainedModel) -> None:
    result = lt.compare(lt.run_prefill(llama, tokens(40)), PLAN, PLAN, 12)
    assert result.first_divergence is None
    assert result.agreement == 1.0
    assert not result.kl.any()


def test_steps_carry_both_lanes_and_round_trip_as_json(llama: PreTrainedModel) -> None:
    steps = list(compare_steps(lt.run_prefill(llama, tokens(40)), None, PLAN, 5))
    assert [(one.step, one.lane) for one in steps] == [(step, lane) for step in range(5) for lane in (0, 1)]
    for a, b in zip(steps[::2], steps[1::2], strict=True):
        assert a.event is not None
        assert b.event is not None
        assert sum(b.event.kv_bytes) < sum(a.event.kv_bytes)
        assert LaneStep.from_json(b.to_json()) == b


def test_a_lane_that_ends_stops_while_the_other_goes_on(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(40))
    free = lt.compare(prefill, None, PLAN, 16)
    assert free.first_divergence is not None
    end = free.tokens_b[free.first_divergence]
    llama.generation_config.eos_token_id = [end]
    result = lt.compare(prefill, None, PLAN, 16)
    assert result.tokens_b == free.tokens_b[: free.tokens_b.index(end) + 1]
    expected_a = free.tokens_a[: free.tokens_a.index(end) + 1] if end in free.tokens_a else free.tokens_a
    assert result.tokens_a == expected_a
    assert len(result.kl) == len(result.tokens_a)


def test_comparison_round_trips_as_json(llama: PreTrainedModel) -> None:
    result = lt.compare(lt.run_prefill(llama, tokens(40)), None, PLAN, 8)
    again = Comparison.from_json(result.to_json())
    assert again.tokens_b == result.tokens_b
    np.testing.assert_array_equal(again.kl, result.kl)


def test_kl_is_nats_and_never_negative() -> None:
    p, q = torch.tensor([0.0, 0.0]), torch.tensor([np.log(3.0), 0.0])
    assert kl_divergence(p, q) == pytest.approx(0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25))
    assert kl_divergence(q, q) == 0.0
    hidden = torch.tensor([0.0, -torch.inf])
    assert kl_divergence(hidden, hidden) == 0.0


@pytest.mark.parametrize("length", [1, 2, 30])
def test_nll_of_a_continuation_equals_the_reference(llama: PreTrainedModel, length: int) -> None:
    ids = tokens(40 + length)
    actual = continuation_nll(lt.run_prefill(llama, ids[:, :40]), PLAN, ids[:, 40:])
    logits = masked_logits(llama, ids, 40, PLAN.lazy_layers, WINDOW)[0, 39:-1]
    expected = torch.nn.functional.cross_entropy(logits, ids[0, 40:], reduction="none")
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_a_long_continuation_is_scored_in_chunks(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prefill, rest = lt.run_prefill(llama, tokens(40)), tokens(30, seed=3)
    at_once = continuation_nll(prefill, PLAN, rest)
    monkeypatch.setattr("lighttransfer_core.comparison._NLL_CHUNK", 7)
    torch.testing.assert_close(continuation_nll(prefill, PLAN, rest), at_once, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "continuation",
    [torch.zeros(1, 0).long(), torch.tensor([[9999]]), torch.tensor([[1.5]]), torch.tensor([1, 2]), [1, 2]],
    ids=["empty", "outside the vocabulary", "floating", "one-dimensional", "a list"],
)
def test_what_is_no_continuation_is_refused(llama: PreTrainedModel, continuation: Tensor) -> None:
    with pytest.raises(InvalidPromptError, match="continuation"):
        continuation_nll(lt.run_prefill(llama, tokens(8)), None, continuation)
