from __future__ import annotations

import warnings

import pytest
import torch
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core import compiled
from lighttransfer_core.compiled import CompiledBranch, compiled_branch
from lighttransfer_core.decoding import Branch
from lighttransfer_core.errors import CompiledStepWarning, InvalidPromptError, UnsupportedRequestError
from lighttransfer_core.prefill import as_loaded
from tests.conftest import make_tiny, tokens

WINDOW = lt.Window(3, 8)
NEW = 24


@pytest.mark.parametrize("prompt", [50, 9, 2])
@pytest.mark.parametrize("every", [False, True])
def test_its_step_is_the_ordinary_branchs(architecture: str, prompt: int, every: bool) -> None:
    """Also where the window fills only while decoding, and where the prompt is shorter than the sinks."""
    prefill = lt.run_prefill(make_tiny(architecture), tokens(prompt))
    convertible = prefill.spec.convertible_layers
    plan = lt.ConversionPlan(convertible if every else convertible[:1], WINDOW)
    ordinary, fixed = Branch(prefill, plan), CompiledBranch(prefill, plan, NEW)
    for token in tokens(NEW, seed=4)[0]:
        expected, found = (branch.forward(token.reshape(1, 1)) for branch in (ordinary, fixed))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
        assert fixed.cache.seen_tokens == ordinary.cache.seen_tokens
        assert fixed.cache.layer_nbytes() == ordinary.cache.layer_nbytes()
        assert fixed.cache.layer_own_nbytes() == ordinary.cache.layer_own_nbytes()


def test_no_tensor_of_it_moves_or_grows(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(50))
    branch = CompiledBranch(prefill, lt.ConversionPlan((0, 2), WINDOW), NEW)

    def places() -> list[int]:
        return [t.data_ptr() for layer in branch.cache.layers for s in layer.segments for t in s.buffers]

    before, reserved = places(), branch.cache.layer_allocated_nbytes()
    for token in tokens(NEW, seed=4)[0]:
        branch.forward(token.reshape(1, 1))
    assert places() == before
    assert branch.cache.layer_allocated_nbytes() == reserved
    assert prefill.records[1].key.data_ptr() in before, "the prompt is shared"


def test_what_a_warm_up_writes_is_overwritten(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(50))
    plan = lt.ConversionPlan((0, 2), WINDOW)
    cold, warm = (CompiledBranch(prefill, plan, NEW) for _ in range(2))
    for _ in range(3):
        warm._run(torch.zeros(1, 1, dtype=torch.long))
    for token in tokens(NEW, seed=4)[0]:
        expected, found = (branch.forward(token.reshape(1, 1)) for branch in (cold, warm))
        torch.testing.assert_close(found, expected)


def test_without_a_graph_it_decodes_as_ever_and_says_so(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(50))
    plan = lt.ConversionPlan((1,), WINDOW)
    with pytest.warns(CompiledStepWarning, match="on cpu: decoding step by step"):
        found = [event.token_id for event in lt.decode_compiled(prefill, plan, 8)]
    assert found == [event.token_id for event in lt.decode(prefill, plan, 8)]


def test_a_capture_that_fails_falls_back(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_branch: CompiledBranch) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(compiled, "input_device", lambda _model: torch.device("cuda"))
    monkeypatch.setattr(CompiledBranch, "__init__", lambda *_: None)
    monkeypatch.setattr(CompiledBranch, "capture", fail)
    with pytest.warns(CompiledStepWarning, match="could not be captured .operation not permitted"):
        branch = compiled_branch(lt.run_prefill(llama, tokens(20)), None, 8)
    assert type(branch) is Branch


def test_a_captured_step_decodes_the_same_text(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The capture itself stood in for by doing nothing: the step then runs kernel by kernel."""
    prefill = lt.run_prefill(as_loaded(llama), tokens(50))
    plan = lt.ConversionPlan((1, 3), WINDOW)
    monkeypatch.setattr(compiled, "compiled_branch", lambda *given: CompiledBranch(*given))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(lt.decode_compiled(prefill, plan, NEW, temperature=0.7, seed=3))
    expected = list(lt.decode(prefill, plan, NEW, temperature=0.7, seed=3))
    assert [one.token_id for one in found] == [one.token_id for one in expected]
    assert [one.kv_bytes for one in found] == [one.kv_bytes for one in expected]


def test_more_than_there_is_room_for_is_refused(llama: PreTrainedModel) -> None:
    branch = CompiledBranch(lt.run_prefill(llama, tokens(20)), None, 2)
    with pytest.raises(InvalidPromptError, match="one token at a time"):
        branch.forward(tokens(2))
    branch.forward(tokens(1))
    branch.forward(tokens(1))
    with pytest.raises(InvalidPromptError, match="2 in all, and 2 were fed"):
        branch.forward(tokens(1))
    with pytest.raises(UnsupportedRequestError, match="ordinary branch"):
        branch.fork()
