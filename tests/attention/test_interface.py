"""Our attention inside transformers' models, against their own eager attention."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    PreTrainedModel,
    StableLmConfig,
    StableLmForCausalLM,
)

from lighttransfer_core.attention import IMPLEMENTATION, attached, check_supported, use_lighttransfer_attention
from lighttransfer_core.attention.interface import lighttransfer_attention
from lighttransfer_core.errors import CacheMisuseError, UnsupportedModelError, UnsupportedRequestError
from tests.conftest import ARCHITECTURES, SHARED, make_tiny, tokens


@torch.no_grad()
def logits_of(model: PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
    return model(**inputs, use_cache=False).logits


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_eager_attention(architecture: str, dtype: torch.dtype, padded: bool, batch: int) -> None:
    model = make_tiny(architecture, dtype)
    ids = tokens(40, batch=batch)
    mask = torch.ones_like(ids)
    if padded:
        mask[-1, :13] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    expected = logits_of(model, **inputs)
    with attached(model):
        actual = logits_of(model, **inputs)
    real = mask.bool()
    if dtype == torch.float32:
        torch.testing.assert_close(actual[real], expected[real], atol=2e-5, rtol=0)
    else:
        # Both round to bfloat16 along the way; they may differ by what rounding alone does to the float32 answer.
        truth = logits_of(make_tiny(architecture).to(dtype).float(), **inputs)[real]
        ours, theirs = ((x[real].float() - truth).abs().mean() for x in (actual, expected))
        assert ours <= 1.5 * theirs + 1e-3


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_the_context_restores_the_model(architecture: str) -> None:
    model = make_tiny(architecture)
    with attached(model):
        assert model.config._attn_implementation == IMPLEMENTATION
        assert model._forward_pre_hooks
    assert model.config._attn_implementation == "eager"
    assert not model._forward_pre_hooks
    assert not model._forward_hooks


def test_the_context_restores_the_model_after_an_error(llama: PreTrainedModel) -> None:
    with pytest.raises(RuntimeError, match="boom"), attached(llama):
        raise RuntimeError("boom")
    assert llama.config._attn_implementation == "eager"
    assert not llama._forward_pre_hooks


def test_permanent_attention_is_set_once_and_stays(llama: PreTrainedModel) -> None:
    use_lighttransfer_attention(llama)
    use_lighttransfer_attention(llama)
    assert len(llama._forward_pre_hooks) == 1
    with attached(llama):
        assert len(llama._forward_pre_hooks) == 1
    assert llama.config._attn_implementation == IMPLEMENTATION


def test_soft_cap_is_reproduced() -> None:
    torch.manual_seed(3)
    config = Gemma2Config(**SHARED, head_dim=16, sliding_window=11, attn_logit_softcapping=2.0)
    config._attn_implementation = "eager"
    model = Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(12.0)
    ids = tokens(40)
    expected = logits_of(model, input_ids=ids)
    with attached(model):
        actual = logits_of(model, input_ids=ids)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0)
    model.config.attn_logit_softcapping = None
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert (logits_of(model, input_ids=ids) - expected).abs().max() > 1e-3


def test_learned_sinks_are_reproduced() -> None:
    torch.manual_seed(3)
    config = GptOssConfig(**SHARED, head_dim=16, sliding_window=11, num_local_experts=2, num_experts_per_tok=1)
    config._attn_implementation = "eager"
    model = GptOssForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(12.0)
            if name.endswith("sinks"):
                weight.normal_()
    ids = tokens(40)
    expected = logits_of(model, input_ids=ids)
    with attached(model):
        actual = logits_of(model, input_ids=ids)
    torch.testing.assert_close(actual, expected, atol=5e-5, rtol=0)


def test_every_family_passes_the_probe() -> None:
    for architecture in ARCHITECTURES:
        check_supported(make_tiny(architecture))


def test_a_model_is_checked_once() -> None:
    model, passes = make_tiny("llama"), []
    model.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(3):
        check_supported(model)
    assert passes == [1]


def test_models_that_attend_by_themselves_are_refused_by_name() -> None:
    bloom = BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=48, n_layer=2, n_head=4)).eval()
    with pytest.raises(UnsupportedModelError, match="BloomForCausalLM"):
        check_supported(bloom)


def test_models_that_drop_the_request_are_refused_by_name() -> None:
    shared = {**SHARED, "num_attention_heads": 6, "num_key_value_heads": 6}
    model = StableLmForCausalLM(StableLmConfig(**shared)).eval()
    with pytest.raises(UnsupportedModelError, match="StableLmForCausalLM"):
        check_supported(model)


@pytest.mark.parametrize("name", ["position_bias", "cu_seq_lens_q", "indices", "sinks"])
def test_an_unknown_keyword_is_refused_by_name(name: str) -> None:
    query, key, value = (torch.zeros(1, heads, 3, 8) for heads in (2, 1, 1))
    with pytest.raises(UnsupportedRequestError, match=name):
        lighttransfer_attention(SimpleNamespace(layer_idx=0), query, key, value, None, **{name: 1})


def test_output_attentions_is_refused(llama: PreTrainedModel) -> None:
    with attached(llama), pytest.raises(UnsupportedRequestError, match="run_prefill"):
        llama(tokens(8), output_attentions=True)


def test_training_dropout_is_refused() -> None:
    query, key, value = (torch.zeros(1, heads, 3, 8) for heads in (2, 1, 1))
    with pytest.raises(UnsupportedRequestError, match="eval"):
        lighttransfer_attention(SimpleNamespace(layer_idx=0), query, key, value, None, dropout=0.1)


def test_keys_that_do_not_match_the_mask_are_refused() -> None:
    from lighttransfer_core.attention.masks import AttentionMask

    query, key, value = (torch.zeros(1, heads, 1, 8) for heads in (2, 1, 1))
    with pytest.raises(CacheMisuseError, match="1 keys where its mask expects 9"):
        lighttransfer_attention(SimpleNamespace(layer_idx=0), query, key, value, AttentionMask(1, 9))


def test_a_custom_4d_mask_is_honoured(llama: PreTrainedModel) -> None:
    ids = tokens(12)
    mask = torch.ones(12, 12).tril().bool()
    mask[6:, :3] = False
    additive = torch.zeros(1, 1, 12, 12).masked_fill(~mask, torch.finfo(torch.float32).min)
    expected = logits_of(llama, input_ids=ids, attention_mask=additive)
    with attached(llama):
        actual = logits_of(llama, input_ids=ids, attention_mask=additive)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0)


def test_a_mask_with_a_bias_is_refused(llama: PreTrainedModel) -> None:
    additive = torch.zeros(1, 1, 12, 12).masked_fill(~torch.ones(12, 12).tril().bool(), torch.finfo(torch.float32).min)
    additive[..., 2] -= 1.0
    with attached(llama), pytest.raises(UnsupportedRequestError, match="bias"):
        logits_of(llama, input_ids=tokens(12), attention_mask=additive)
