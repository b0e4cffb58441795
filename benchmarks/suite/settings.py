"""What the suite measures: sizes, and how often."""

from __future__ import annotations

from dataclasses import dataclass, field

from lighttransfer_core.types import Window

BARS_FROM_TOKENS = 8000
"""What we hold ourselves to is said of prompts of 8k tokens."""


@dataclass(frozen=True)
class Settings:
    """The full suite.

    Attributes
    ----------
    contexts, batches, dtypes
        Of prefills and decode steps.
    prefills, prefill_budget_s
        Rounds at each context; no further one begins once the seconds are spent.
    peers_once_from
        From so many tokens on a peer that no bar is about runs in the first round only.
    rounds, steps, warmup
        Of each decoding cell: a turn is `steps` steps, and `warmup` steps come first.
    turn_budget_s, decode_budget_s
        A turn ends early, and no further round begins, once these seconds are spent.
    rounds_alone
        Rounds where the caches of all sides do not fit the memory together.
    page_contexts, repeats
        Of scoring, tiles and a new choice of layers.
    captures
        Prompt tokens of a capture of all attention weights.
    long_tokens, long_layers, long_chunk
        Of the chunked prefill, on a random model of so many layers.
    throughputs, kv_nbytes, throughput_dtype, throughput_budget_s
        Contexts, the KV memory that each side's largest batch has to fit, and the seconds after which no further round
        of one of them begins.
    profiles
        Tokens and batch of the steps whose parts are timed.
    """

    contexts: tuple[int, ...] = (1024, 4096, 8128)
    batches: tuple[int, ...] = (1, 8, 32)
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    window: Window = field(default_factory=Window)
    prefills: int = 3
    prefill_budget_s: float = 300.0
    peers_once_from: int = 8000
    rounds: int = 6
    steps: int = 4
    warmup: int = 2
    turn_budget_s: float = 2.0
    decode_budget_s: float = 30.0
    rounds_alone: int = 2
    page_contexts: tuple[int, ...] = (2048, 4096, 8128)
    repeats: int = 9
    captures: tuple[int, ...] = (512, 1024, 2048)
    capture_rounds: int = 2
    long_tokens: int = 32_768
    long_layers: int = 4
    long_chunk: int = 1024
    throughputs: tuple[int, ...] = (4096, 8192, 16_384, 32_768)
    kv_nbytes: int = 6 << 30
    throughput_dtype: str = "float32"
    throughput_budget_s: float = 60.0
    profiles: tuple[tuple[int, int], ...] = ((8128, 1), (8128, 8))
    quick: bool = False


QUICK = Settings(
    contexts=(128, 384),
    batches=(1, 2),
    window=Window(4, 60),
    prefills=2,
    rounds=2,
    steps=2,
    warmup=1,
    rounds_alone=1,
    page_contexts=(128, 384),
    repeats=2,
    captures=(128,),
    capture_rounds=1,
    long_tokens=2048,
    long_layers=2,
    long_chunk=512,
    throughputs=(256, 512),
    kv_nbytes=96 << 20,
    profiles=((384, 1),),
    quick=True,
)
"""Shows that everything runs; its numbers say nothing about long prompts."""
