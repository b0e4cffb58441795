"""Writes a tiny Llama as a GGUF file, the way llama.cpp's converter does."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from tokenizers import pre_tokenizers
from transformers import PreTrainedModel

_BLOCK_TENSORS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def write_gguf(file: Path, model: PreTrainedModel, pretokenizer: str) -> None:
    """Writes a Llama's float32 weights, with one token per byte and blanks merged in pairs."""
    config = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_vocabulary(writer, config.vocab_size, pretokenizer)
    for name, weight in _tensors(model).items():
        writer.add_tensor(f"{name}.weight", weight.detach().float().numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, size: int, pretokenizer: str) -> None:
    """The control tokens, printable bytes, and two blanks as one token, so that a split before digits shows."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [symbol for symbol in alphabet if symbol.isascii()] + ["Ġ"]
    tokens = (["<s>", "</s>", "ĠĠ", *symbols])[:size]
    tokens[-1] = "Ġ"
    tokens += [f"<unused{i}>" for i in range(size - len(tokens))]
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pretokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (size - 2))
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def _tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    state, config = model.state_dict(), model.config
    tensors = {
        "token_embd": state["model.embed_tokens.weight"],
        "output_norm": state["model.norm.weight"],
        "output": state["lm_head.weight"],
    }
    for layer in range(config.num_hidden_layers):
        for short, long in _BLOCK_TENSORS.items():
            tensors[f"blk.{layer}.{short}"] = state[f"model.layers.{layer}.{long}.weight"]
        tensors[f"blk.{layer}.attn_q"] = _rotary_pairs(tensors[f"blk.{layer}.attn_q"], config.num_attention_heads)
        tensors[f"blk.{layer}.attn_k"] = _rotary_pairs(tensors[f"blk.{layer}.attn_k"], config.num_key_value_heads)
    return tensors


def _rotary_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorders each head's rows from halves to neighbouring pairs, which is llama.cpp's order."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
