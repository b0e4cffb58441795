"""What transformers says of each layer of a model: full attention, a sliding window of its own, or none at all."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lighttransfer_core.errors import UnsupportedModelError
from lighttransfer_core.types import LayerKind


@dataclass(frozen=True)
class LayerAttention:
    """The kind of one layer, and its native window where it slides."""

    kind: LayerKind
    window: int | None = None

    @property
    def is_attention(self) -> bool:
        return self.kind != "other"


def attention_layers(config: PreTrainedConfig) -> list[LayerAttention]:
    """One entry per layer. A native window that no prompt can exceed counts as full attention.

    Raises
    ------
    UnsupportedModelError
        Layers that share another layer's keys, or attend in chunks.
    """
    text = config.get_text_config(decoder=True)
    if getattr(text, "num_kv_shared_layers", 0):
        raise UnsupportedModelError(
            "layers of this model reuse the keys of earlier layers, which conversion would cut."
        )
    if "chunked_attention" in (getattr(text, "layer_types", None) or ()) or getattr(text, "attention_chunk_size", None):
        raise UnsupportedModelError("layers of this model attend in chunks, which a streaming cache cannot reproduce.")
    positions = getattr(text, "max_position_embeddings", None) or 0
    found = [_describe(layer, positions) for layer in DynamicCache(config=config).layers]
    return found or [LayerAttention("full")] * text.num_hidden_layers


def _describe(layer: object, max_positions: int) -> LayerAttention:
    if type(layer) is DynamicSlidingWindowLayer:
        window = int(layer.sliding_window)
        return LayerAttention("full") if window >= max_positions > 0 else LayerAttention("sliding", window)
    return LayerAttention("full") if type(layer) is DynamicLayer else LayerAttention("other")
