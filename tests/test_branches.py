"""Many plans in one batch answer as each of them does alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lighttransfer_core.branches import (
    Branches,
    decode_plans,
    decode_plans_steps,
    force_plans,
    force_plans_steps,
)
from lighttransfer_core.comparison import continuation_nll
from lighttransfer_core.decoding import Branch, decode
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidPromptError
from lighttransfer_core.lanes import kl_divergence
from lighttransfer_core.prefill import Prefill, run_prefill
from lighttransfer_core.steps import finished
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import tokens

WINDOWS = (Window(2, 5), Window(0, 3), Window(4, 30), Window(60, 40))
"""Smaller than what is decoded, without sinks, larger than what is decoded, larger than the prompt."""


def plans_of(prefill: Prefill) -> list[ConversionPlan | None]:
    layers = prefill.spec.convertible_layers
    some = [ConversionPlan(layers[::2], window) for window in WINDOWS]
    return [None, *some, ConversionPlan(layers, WINDOWS[0]), ConversionPlan((), WINDOWS[1])]


def test_logits_equal_those_of_separate_branches(tiny: PreTrainedModel) -> None:
    prefill = run_prefill(tiny, tokens(61))
    plans = plans_of(prefill)
    fed = tokens(12, seed=1, batch=len(plans))
    together = Branches(prefill, plans)
    pieces = [together.forward(fed[:, start:stop]) for start, stop in ((0, 5), (5, 6), (6, 7), (7, 12))]
    for row, plan in enumerate(plans):
        alone = Branch(prefill, plan).forward(fed[row : row + 1])
        torch.testing.assert_close(torch.cat(pieces, dim=1)[row], alone, atol=1e-4, rtol=1e-4)


def test_rows_that_stay_go_on_as_before(tiny: PreTrainedModel) -> None:
    prefill = run_prefill(tiny, tokens(61))
    plans = plans_of(prefill)
    fed = tokens(6, seed=1, batch=len(plans))
    together, kept = Branches(prefill, plans), [4, 1, 0]
    together.forward(fed[:, :3])
    together.keep(kept)
    after = together.forward(fed[kept, 3:])
    for row, plan in enumerate(kept):
        alone = Branch(prefill, plans[plan]).forward(fed[plan : plan + 1])[3:]
        torch.testing.assert_close(after[row], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("asked", [0, 1, 9])
def test_answers_are_those_of_separate_branches(tiny: PreTrainedModel, asked: int) -> None:
    prefill = run_prefill(tiny, tokens(61))
    plans, question = plans_of(prefill), tokens(9, seed=2)[0, :asked].tolist()
    answers = decode_plans(prefill, plans, 7, question)
    for plan, answer in zip(plans, answers, strict=True):
        if question:
            assert answer == _greedy(Branch(prefill, plan), question, 7)
        else:
            assert answer == [event.token_id for event in decode(prefill, plan, 7)]


def test_an_answer_ends_before_the_token_that_ends_a_text(llama: PreTrainedModel) -> None:
    prefill = run_prefill(llama, tokens(61))
    plans = plans_of(prefill)
    untouched = decode_plans(prefill, plans, 12)
    assert llama.generation_config is not None
    llama.generation_config.eos_token_id = untouched[0][4]
    answers = decode_plans(prefill, plans, 12)
    for answer, whole in zip(answers, untouched, strict=True):
        end = whole.index(untouched[0][4]) if untouched[0][4] in whole else len(whole)
        assert answer == whole[:end]
    assert len(answers[0]) == 4


@pytest.mark.parametrize("asked", [0, 9])
def test_nll_and_kl_of_a_given_text(tiny: PreTrainedModel, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lighttransfer_core.branches.MOST_LOGITS", 97 * 10 * 2)  # two plans at a time
    prefill = run_prefill(tiny, tokens(61))
    plans, text = plans_of(prefill), tokens(10, seed=3)
    question = tokens(9, seed=2)[0, :asked].tolist()
    found = force_plans(prefill, plans, text[0].tolist(), question)
    assert found.nll.shape == found.kl.shape == (len(plans), 10)
    full = _logits(prefill, None, question, text)
    for row, plan in enumerate(plans):
        logits = _logits(prefill, plan, question, text)
        nll = torch.nn.functional.cross_entropy(logits, text[0], reduction="none")
        np.testing.assert_allclose(found.nll[row], nll, atol=1e-4)
        kl = [kl_divergence(a, b) for a, b in zip(full, logits, strict=True)]
        np.testing.assert_allclose(found.kl[row], kl, atol=1e-4)
        if not question:
            np.testing.assert_allclose(found.nll[row], continuation_nll(prefill, plan, text), atol=1e-4)
    assert found.kl[0].max() < 1e-6
    if prefill.spec.convertible_layers:
        assert found.kl[1].max() > 1e-3, "or this test shows nothing"


@pytest.mark.parametrize("turn_tokens", [1, 14, 1000])
def test_short_turns_find_the_same(llama: PreTrainedModel, turn_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prefill = run_prefill(llama, tokens(61))
    plans, text, question = plans_of(prefill), tokens(10, seed=3)[0].tolist(), tokens(9, seed=2)[0].tolist()
    whole, read = decode_plans(prefill, plans, 7, question), force_plans(prefill, plans, text, question)
    sizes: list[tuple[int, ...]] = []
    forward = Branches.forward
    monkeypatch.setattr(
        Branches, "forward", lambda self, ids, last=None: sizes.append(tuple(ids.shape)) or forward(self, ids, last)
    )
    assert finished(decode_plans_steps(prefill, plans, 7, question, turn_tokens)) == whole
    assert sum(length for _rows, length in sizes[:-6]) == len(question)
    assert all(rows * length <= max(turn_tokens, len(plans)) for rows, length in sizes)
    sizes.clear()
    forced = finished(force_plans_steps(prefill, plans, text, question, turn_tokens))
    np.testing.assert_allclose(forced.nll, read.nll, atol=1e-5)
    np.testing.assert_allclose(forced.kl, read.kl, atol=1e-5)
    assert all(rows == 1 or rows * length <= turn_tokens for rows, length in sizes)


def test_what_cannot_be_decoded_is_refused(llama: PreTrainedModel) -> None:
    prefill = run_prefill(llama, tokens(61))
    with pytest.raises(InvalidInputError, match="no plan"):
        decode_plans(prefill, [], 4)
    with pytest.raises(InvalidPlanError, match="layer 9"):
        decode_plans(prefill, [ConversionPlan((9,))], 4)
    with pytest.raises(InvalidInputError):
        decode_plans(prefill, [None], 0)
    with pytest.raises(InvalidPromptError, match="continuation"):
        force_plans(prefill, [None], [])
    with pytest.raises(InvalidPromptError, match="positions"):
        Branches(prefill, [None]).forward(tokens(500))


def _logits(prefill: Prefill, plan: ConversionPlan | None, question: list[int], text: torch.Tensor) -> torch.Tensor:
    """`[m, V]` before each token of a text, by a branch of its own."""
    branch, fed = Branch(prefill, plan), text[:, :-1]
    before = branch.forward(torch.tensor([question]))[-1] if question else prefill.logits
    return torch.cat([before[None], branch.forward(fed)])


def _greedy(branch: Branch, question: list[int], count: int) -> list[int]:
    answer = [int(branch.forward(torch.tensor([question]))[-1].argmax())]
    while len(answer) < count:
        answer.append(int(branch.forward(torch.tensor([answer[-1:]]))[-1].argmax()))
    return answer
