"""The facts of a model, read from its configuration and its weights: `ModelSpec`.

Knows which layers attend to everything, which slide by themselves, and which shapes of model the library would get
wrong. It computes nothing with the model.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import (
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

from lighttransfer_core.attention import LayerAttention, attention_layers, turning_point
from lighttransfer_core.errors import UnsupportedModelError
from lighttransfer_core.types import ModelSpec


def describe(
    model: PreTrainedModel,
    name: str | None = None,
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    notes: str = "",
) -> ModelSpec:
    """The spec of a loaded transformers model.

    Parameters
    ----------
    model
        Any decoder-only model with attention layers.
    name
        How people call it; the model's own `name_or_path` if None.
    revision
        What identifies the weights; the commit that transformers recorded if None.
    tokenizer
        Asked whether it has a chat template.
    notes
        What a reader of this model's numbers must know.

    Raises
    ------
    UnsupportedModelError
        The model has attention that the cache formulas or the conversion would get wrong.
    """
    check_config(model.config)
    config = model.config.get_text_config(decoder=True)
    layers = attention_layers(config)
    return ModelSpec(
        name=name or model.name_or_path or type(model).__name__,
        family=model.config.model_type,
        num_layers=len(layers),
        num_heads=config.num_attention_heads,
        num_kv_heads=num_kv_heads(config),
        head_dim=head_dim(config),
        max_positions=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        dtype=str(model.dtype).removeprefix("torch."),
        dtype_bytes=model.dtype.itemsize,
        device=_devices(model),
        revision=revision or getattr(model.config, "_commit_hash", None),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weight_bytes=sum(parameter.nbytes for parameter in model.parameters()),
        layer_kinds=tuple(layer.kind for layer in layers),
        native_windows=tuple(layer.window for layer in layers),
        not_convertible=_not_convertible(layers),
        has_chat_template=tokenizer is not None and bool(tokenizer.chat_template),
        notes=notes,
        turning_point=turning_point(config),
    )


def num_kv_heads(config: PreTrainedConfig) -> int:
    """Key and value heads of a layer; as many as query heads where the model does not group them."""
    grouped: int | None = getattr(config, "num_key_value_heads", None)
    return grouped or int(config.num_attention_heads)


def head_dim(config: PreTrainedConfig) -> int:
    """Entries of one head's key."""
    stated: int | None = getattr(config, "head_dim", None)
    return stated or int(config.hidden_size) // int(config.num_attention_heads)


def check_config(config: PreTrainedConfig) -> None:
    """Refuses, by name, the shapes of model that cannot be captured or converted exactly.

    Raises
    ------
    UnsupportedModelError
        Says what the model does.
    """
    for reason in _reasons_against(config):
        raise UnsupportedModelError(
            f"Models of type {config.model_type!r} are not supported: {reason}. "
            "Decoder-only models whose layers each keep their own keys and values work, such as Llama, Mistral, "
            "Qwen, Gemma 3 and SmolLM."
        )


def _reasons_against(config: PreTrainedConfig) -> Iterable[str]:
    text = config.get_text_config(decoder=True)
    if config.is_encoder_decoder:
        yield "it is an encoder-decoder model"
    if getattr(text, "num_attention_heads", None) is None or getattr(text, "max_position_embeddings", None) is None:
        yield "its configuration names no attention heads or no number of positions"
        return
    if getattr(text, "kv_lora_rank", None):
        yield "it stores keys and values compressed (multi-head latent attention)"
    if len({(num_kv_heads(layer), head_dim(layer)) for layer in text.per_layer_config}) > 1:
        yield "its layers differ in their number or size of heads"
        return
    exact = {DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer, DummyLayer}
    if unknown := {type(layer) for layer in DynamicCache(config=text).layers} - exact:
        yield f"its cache has layers of the kind {', '.join(sorted(kind.__name__ for kind in unknown))}"
    if not any(layer.is_attention for layer in attention_layers(text)):
        yield "none of its layers attends"


def _not_convertible(layers: list[LayerAttention]) -> dict[int, str]:
    reasons = {}
    for index, layer in enumerate(layers):
        if layer.kind == "sliding":
            reasons[index] = f"slides by itself: it sees only the last {layer.window:,} tokens"
        elif layer.kind == "other":
            reasons[index] = "has no attention"
    return reasons


def _devices(model: PreTrainedModel) -> str:
    devices: dict[torch.device, None] = dict.fromkeys(parameter.device for parameter in model.parameters())
    return ", ".join(str(device) for device in devices)
