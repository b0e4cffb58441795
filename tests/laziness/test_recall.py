"""Recall: echo, and an answer to a question about the text."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import lighttransfer_core as lt
from lighttransfer_core.errors import ShortPromptWarning
from lighttransfer_core.keep import Keep
from lighttransfer_core.laziness import recall
from lighttransfer_core.laziness.metric import layer_views
from lighttransfer_core.laziness.reach_effect import FLOOR, Witnesses, witnesses
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.prefill import as_loaded
from lighttransfer_core.steps import finished
from lighttransfer_core.types import Float64Array
from tests.conftest import make_tiny, tokens

WINDOW = lt.Window(3, 24)
WIDE = lt.Window(3, 200)


def with_words(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """The model, able to read the question."""
    return LoadedModel(model, tokenizer, as_loaded(model).spec)


def behind(lm: LoadedModel, ids: Tensor, read: list[int], window: lt.Window) -> list[Witnesses]:
    """What tokens say of each layer when they are a part of the prompt: the last ones, of half a window at most."""
    longer = lt.run_prefill(lm, torch.cat([ids, torch.tensor([read])], dim=1))
    asked = min(len(read), window.recent // 2)
    return [witnesses(view, window, asked, "") for view in layer_views(longer)]


def against(score: Float64Array) -> Float64Array:
    """What is lost, as a multiple of what stays."""
    return (1 - score) / score


def tenth(change: Tensor) -> Tensor:
    return change.sort(dim=-1, descending=True).values[..., : max(1, round(change.shape[-1] / 10))].mean(dim=-1)


@pytest.mark.parametrize("window", [WINDOW, WIDE])
def test_it_weighs_echo_against_what_is_told(
    tiny: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast, window: lt.Window
) -> None:
    """Held against question and answer as parts of the prompt; the answer is what the model says by itself."""
    lm, ids = with_words(tiny, byte_tokenizer), tokens(260)
    prefill = lt.run_prefill(lm, ids, chunk_tokens=90)
    scores = lt.score_layers(prefill, window, last=20, metric="recall")
    question = byte_tokenizer(f"\n\n{recall.QUESTION}\n", add_special_tokens=False).input_ids
    told = list(question)
    for _ in range(recall.ANSWER_TOKENS):
        told.append(int(lt.run_prefill(lm, torch.cat([ids, torch.tensor([told])], dim=1)).logits.argmax()))
    assert finished(recall.told_steps(prefill)) == told
    echo = lt.score_layers(prefill, window, last=20, metric="echo")
    for layer, one in enumerate(behind(lm, ids, told, window)):
        ratio = float(tenth(one.change)) / (float(one.mass.min()) + FLOOR)
        squared = against(echo.values[layer]) * ratio
        assert against(scores.values[layer]) ** 2 == pytest.approx(squared, rel=1e-4, abs=1e-5)
        ratios = tenth(one.head_change).clamp_min(0) / (one.mass.amin(dim=1) + FLOOR)
        squared = against(echo.per_head[layer]) * ratios.numpy()
        np.testing.assert_allclose(against(scores.per_head[layer]) ** 2, squared, rtol=1e-4, atol=1e-5)
    of_prompt = lt.score_layers(prefill, window, last=20, metric="reach_effect").per_query
    np.testing.assert_allclose(scores.per_query, of_prompt, atol=1e-5)
    assert scores.num_tokens == 260


def same_answer(_prefill: lt.Prefill) -> Generator[str, None, list[int]]:
    yield from ()
    return list(range(10, 40))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_the_same_in_half_precision(
    dtype: torch.dtype, byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same answer, which rounding could change."""
    monkeypatch.setattr(recall, "told_steps", same_answer)
    exact, rough = (
        lt.score_layers(lt.run_prefill(with_words(model, byte_tokenizer), tokens(120)), WINDOW, metric="recall")
        for model in (make_tiny("llama"), make_tiny("llama", dtype))
    )
    np.testing.assert_allclose(rough.values, exact.values, atol=0.05)


def test_it_needs_the_last_queries_only(llama: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast) -> None:
    lm, ids = with_words(llama, byte_tokenizer), tokens(120)
    whole, few = lt.run_prefill(lm, ids), lt.run_prefill(lm, ids, keep=Keep(query_rows=9))
    scores = [lt.score_layers(prefill, WINDOW, last=9, metric="recall").values for prefill in (whole, few)]
    np.testing.assert_array_equal(*scores)


def test_a_beginning_is_asked_as_though_the_prompt_ended_there(
    llama: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    lm, ids = with_words(llama, byte_tokenizer), tokens(160)
    scores = lt.score_layers(lt.run_prefill(lm, ids), WINDOW, metric="recall", tokens=120)
    alone = lt.score_layers(lt.run_prefill(lm, ids[:, :120]), WINDOW, metric="recall")
    np.testing.assert_allclose(scores.values, alone.values, atol=1e-5)


def test_another_window_asks_the_model_nothing_again(
    llama: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefill = lt.run_prefill(with_words(llama, byte_tokenizer), tokens(260))
    first = finished(recall.told_steps(prefill))
    monkeypatch.delattr(recall, "decode_plans_steps")
    assert finished(recall.told_steps(prefill)) == first
    with pytest.raises(NameError):
        finished(recall.told_steps(lt.run_prefill(prefill.lm, tokens(261))))
    recall.forget_answers(prefill.lm.model)
    with pytest.raises(NameError):
        finished(recall.told_steps(prefill))


def test_answers_that_are_kept_are_few(
    llama: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "_KEPT", 2)
    lm = with_words(llama, byte_tokenizer)
    prefills = [lt.run_prefill(lm, tokens(50 + number)) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda prefill: finished(recall.told_steps(prefill)), prefills * 3))
    assert told[:4] == told[4:8] == told[8:]
    assert len(recall._kept[llama]) == 2


@pytest.mark.parametrize("left", [0, 1, 40, 70])
def test_no_more_is_said_than_there_are_positions(
    llama: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast, left: int
) -> None:
    lm = with_words(llama, byte_tokenizer)
    prefill = lt.run_prefill(lm, tokens(llama.config.max_position_embeddings - left))
    question = len(recall.QUESTION) + 3
    assert len(finished(recall.told_steps(prefill))) == (left if left > question else 0)
    assert np.isfinite(lt.score_layers(prefill, WINDOW, last=6, metric="recall").values).all()


def test_without_words_it_is_echo(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(120))
    scores, echo = (lt.score_layers(prefill, WINDOW, metric=name) for name in ("recall", "echo"))
    np.testing.assert_array_equal(scores.values, echo.values)
    np.testing.assert_array_equal(scores.per_head, echo.per_head)


def test_where_the_window_holds_everything_no_layer_would_lose_anything(
    llama: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.warns(ShortPromptWarning):
        scores = lt.score_layers(lt.run_prefill(with_words(llama, byte_tokenizer), tokens(27)), WINDOW, metric="recall")
    np.testing.assert_allclose(scores.values, 1.0, atol=1e-5)


def test_the_question_is_a_turn_of_the_chat_where_the_model_knows_one(
    llama: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    monkeypatch.setattr(byte_tokenizer, "chat_template", template)
    told = finished(recall.told_steps(lt.run_prefill(with_words(llama, byte_tokenizer), tokens(120))))
    assert byte_tokenizer.decode(told).startswith(f"[user]{recall.QUESTION}[assistant]")
