"""Models whose weights are written by hand, so that it is known which layer retrieves and which may stream.

The vocabulary is names, values, filler, and nothing else. Somewhere in the filler a name stands before its value; the
prompt ends with that name, and the model answers with the value. The heads of one layer copy each token's predecessor,
one head of a later layer looks for the token whose predecessor is the current name, and all others either look at
themselves or at everything alike; what they write is read by nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedModel, Qwen2Config

NAMES: Final = 6
VALUES: Final = 6
FILLER: Final = 20
TOKENS: Final = 420
CONFIGS: Final = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}

_HIDDEN, _HEADS, _KV_HEADS, _DIM = 48, 4, 2, 16
_HALF = _DIM // 2
_ONE, _NAME, _BEFORE, _VALUE, _ANSWER, _REST = 0, 1, 1 + NAMES, 1 + 2 * NAMES, 1 + 2 * NAMES + VALUES, 25
_NEAR = (0, 1, 2, 3)
"""Rotary pairs that turn fast, by which a head finds a distance."""
_SLOW = _HALF - 1
"""The rotary pair that hardly turns within a prompt, by which a head finds a content."""
_NEAR_SCORE, _CONTENT_SCORE = 60.0, 400.0


@dataclass(frozen=True)
class Planted:
    """A model of `layers` layers: `retrieving` holds the one head that looks far, at index `head`, and `copying` the
    heads that look one token back. Layers in `diffuse` look at everything alike; all other heads look at themselves."""

    family: str
    layers: int
    copying: int
    retrieving: int
    head: int
    diffuse: tuple[int, ...]

    def build(self) -> PreTrainedModel:
        config = CONFIGS[self.family](
            vocab_size=NAMES + VALUES + FILLER,
            hidden_size=_HIDDEN,
            intermediate_size=16,
            num_hidden_layers=self.layers,
            num_attention_heads=_HEADS,
            num_key_value_heads=_KV_HEADS,
            head_dim=_DIM,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        if self.family == "mistral":
            config.sliding_window = None
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            self._write(model)
        return model

    @torch.no_grad()
    def _write(self, model: PreTrainedModel) -> None:
        model.get_input_embeddings().weight.copy_(_embeddings())
        head = model.get_output_embeddings().weight
        head.zero_()
        for value in range(VALUES):
            head[NAMES + value, _ANSWER + value] = 10.0
        for index, layer in enumerate(model.model.layers):
            layer.mlp.down_proj.weight.zero_()
            attention = layer.self_attn
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
                _clear(projection)
            if index not in self.diffuse:
                _look_back(attention, distance=int(index == self.copying))
            if index == self.copying:
                _copy_names(attention)
            elif index == self.retrieving:
                _retrieve(attention, self.head)
            else:
                _write_what_nobody_reads(attention)


def prompt(seed: int) -> tuple[Tensor, int]:
    """`[1, TOKENS]` ids and the value that answers: the fact stands in the first third."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(NAMES + VALUES, NAMES + VALUES + FILLER, (TOKENS,), generator=random)
    name, value, place = (int(torch.randint(n, (1,), generator=random)) for n in (NAMES, VALUES, TOKENS // 3 - 10))
    ids[place + 10], ids[place + 11], ids[-1] = name, NAMES + value, name
    return ids[None], NAMES + value


def _embeddings() -> Tensor:
    """One row per token, all of the same length, so that the norms before attention change nothing but a factor."""
    random = torch.Generator().manual_seed(5)
    rows = torch.zeros(NAMES + VALUES + FILLER, _HIDDEN)
    rows[:, _ONE] = 1.0
    rows[:NAMES, _NAME : _NAME + NAMES] = 2.0 * torch.eye(NAMES)
    rows[NAMES : NAMES + VALUES, _VALUE : _VALUE + VALUES] = 2.0 * torch.eye(VALUES)
    rest = torch.randn(len(rows), _HIDDEN - _REST, generator=random)
    missing = (_HIDDEN - rows.square().sum(dim=1)).sqrt()
    rows[:, _REST:] = rest / rest.norm(dim=1, keepdim=True) * missing[:, None]
    return rows


def _clear(projection: nn.Linear) -> None:
    projection.weight.zero_()
    if projection.bias is not None:
        projection.bias.zero_()


def _look_back(attention: nn.Module, distance: int) -> None:
    """Every head attends to the token so many places back, by the constant that all embeddings hold."""
    strength = (_NEAR_SCORE * _DIM**0.5) ** 0.5
    for pair in _NEAR:
        angle = torch.tensor(distance * 10_000.0 ** (-pair / _HALF))
        for head in range(_KV_HEADS):
            attention.k_proj.weight[head * _DIM + pair, _ONE] = strength
        for head in range(_HEADS):
            attention.q_proj.weight[head * _DIM + pair, _ONE] = strength * torch.cos(angle)
            attention.q_proj.weight[head * _DIM + pair + _HALF, _ONE] = -strength * torch.sin(angle)


def _copy_names(attention: nn.Module) -> None:
    """The first head writes the name that it sees into the place of the predecessor's name."""
    for name in range(NAMES):
        attention.v_proj.weight[name, _NAME + name] = 1.0
        attention.o_proj.weight[_BEFORE + name, name] = 1.0


def _retrieve(attention: nn.Module, head: int) -> None:
    """One head looks for the token whose predecessor is the current name, and writes that token's value."""
    strength = (_CONTENT_SCORE * _DIM**0.5) ** 0.5
    kv_head = head // (_HEADS // _KV_HEADS)
    # as many dimensions as there are names would not all turn slowly: two codes on a circle, in the one that does
    for name in range(NAMES):
        angle = torch.tensor(2 * torch.pi * name / NAMES)
        code = strength / 2 * torch.stack([torch.cos(angle), torch.sin(angle)])
        for part, value in zip((_SLOW, _SLOW + _HALF), code, strict=True):
            attention.q_proj.weight[head * _DIM + part, _NAME + name] = value
            attention.k_proj.weight[kv_head * _DIM + part, _BEFORE + name] = value
    for value in range(VALUES):
        attention.v_proj.weight[kv_head * _DIM + value, _VALUE + value] = 1.0
        attention.o_proj.weight[_ANSWER + value, head * _DIM + value] = 4.0


def _write_what_nobody_reads(attention: nn.Module) -> None:
    for head in range(_HEADS):
        attention.o_proj.weight[_REST + head, head * _DIM] = 0.2
    for head in range(_KV_HEADS):
        attention.v_proj.weight[head * _DIM, _REST + 4 + head] = 1.0
