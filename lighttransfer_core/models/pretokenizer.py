"""The pre-tokenizers that a GGUF file may name and transformers does not map.

A byte-level vocabulary is used with the split of text that its merges were learned on. The file states that split by
a name only; transformers falls back to GPT-2's where it does not know the name.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.integrations.gguf.reader import read_gguf_metadata

_GPT2_NAMES = frozenset({"default", "gpt-2", "gpt2"})


def mend_pretokenizer(tokenizer: PreTrainedTokenizerBase, gguf: Path) -> None:
    """Gives the tokenizer read from the file the split of text that the file names, where transformers missed it."""
    if pretokenizer_name(gguf) != "smollm":
        return
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    # https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/blob/main/tokenizer.json
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def pretokenizer_name(gguf: Path) -> str | None:
    """The name that the file gives to its pre-tokenizer, for byte-level vocabularies; None for others."""
    metadata, _ = read_gguf_metadata(str(gguf))
    if metadata.get("tokenizer.ggml.model") != "gpt2":
        return None
    name = metadata.get("tokenizer.ggml.pre", "default")
    return str(name)


def is_known_pretokenizer(name: str | None) -> bool:
    """False where text would be split by GPT-2's rule although the file asks for another."""
    return name is None or name == "smollm" or name in _GPT2_NAMES or name in GGUF_PRE_TOKENIZER_SPLITS
