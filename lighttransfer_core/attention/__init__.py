"""Attention: the function registered with transformers, masks, kernels, and the record of one layer's attention."""

from lighttransfer_core.attention.attach import (
    attached,
    check_supported,
    input_device,
    one_pass,
    use_lighttransfer_attention,
)
from lighttransfer_core.attention.interface import IMPLEMENTATION, AttentionCall, RequestState, plain_attention
from lighttransfer_core.attention.layers import LayerAttention, attention_layers
from lighttransfer_core.attention.record import LayerRecord, causal_pairs
from lighttransfer_core.attention.rotary import turning_point

__all__ = [
    "IMPLEMENTATION",
    "AttentionCall",
    "LayerAttention",
    "LayerRecord",
    "RequestState",
    "attached",
    "attention_layers",
    "causal_pairs",
    "check_supported",
    "input_device",
    "one_pass",
    "plain_attention",
    "turning_point",
    "use_lighttransfer_attention",
]
