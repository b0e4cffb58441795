"""The record of one prompt's forward pass, which everything else is a function of.

The prompt runs once, with full attention, in chunks of bounded memory. Because LightTransfer cuts a layer only after
its attention was computed, the states of every hybrid's prompt equal the full model's, so one prefill serves every
plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lighttransfer_core.attention import (
    LayerAttention,
    LayerRecord,
    attention_layers,
    check_supported,
    input_device,
    one_pass,
)
from lighttransfer_core.cache import FullLayer, HybridCache
from lighttransfer_core.errors import (
    InvalidInputError,
    InvalidPromptError,
    PrefillMismatchError,
    UnsupportedModelError,
)
from lighttransfer_core.keep import Keep
from lighttransfer_core.models import LoadedModel, describe
from lighttransfer_core.recording import PromptRecorder
from lighttransfer_core.steps import finished
from lighttransfer_core.token_ids import check_token_ids, shared_tokens
from lighttransfer_core.types import ModelSpec, Window, is_integer

DEFAULT_CHUNK_TOKENS = 1024
_CHUNK_STEP = 64
_FIRST_TIMED_CHUNK = 256


@dataclass(frozen=True)
class PrefillProgress:
    """How far a prefill has come."""

    tokens_done: int
    num_tokens: int


@dataclass(frozen=True, eq=False)
class Prefill:
    """One prompt's pass through one model; immutable.

    Attributes
    ----------
    lm
        The model that it belongs to.
    input_ids
        `[1, T]`, on the host.
    records
        One per layer.
    logits
        `[V]` float32; of the token after the prompt.
    seconds
        Compute time of the pass, capture included.
    taken_over
        Tokens that were copied from an earlier prefill; the seconds are those of the others.
    """

    lm: LoadedModel
    input_ids: Tensor
    records: tuple[LayerRecord, ...]
    logits: Tensor
    seconds: float
    keep: Keep
    taken_over: int = 0

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[1]

    @property
    def spec(self) -> ModelSpec:
        return self.lm.spec

    @property
    def prompt_tokens(self) -> int:
        """All of them: nothing was decoded."""
        return self.num_tokens

    @property
    def nbytes(self) -> int:
        """Bytes of everything kept on the devices of its layers."""
        small = sum(t.untyped_storage().nbytes() for t in (self.input_ids, self.logits))
        return small + sum(record.nbytes for record in self.records)

    def attention(
        self, layer: int, head: int, rows: tuple[int, int] | None = None, cols: tuple[int, int] | None = None
    ) -> npt.NDArray[np.float32]:
        """Exact attention weights of a rectangle, `[rows, cols]` in float32; 0 above the diagonal.

        `rows` and `cols` are half-open ranges of prompt tokens; None: all.

        Raises
        ------
        InvalidInputError
            A layer, head or range that does not exist.
        PrefillMismatchError
            Rows whose queries were not kept.
        """
        everything = (0, self.num_tokens)
        return self._record(layer).weights(head, rows or everything, cols or everything)

    def pooled(self, layer: int, head: int, bins: int = 256, reduce: str = "max") -> npt.NDArray[np.float32]:
        """The whole map in `[bins, bins]` cells: the maximum or mean over the causal token pairs of a cell.

        Bin `i` covers tokens `floor(i T / bins)` to `floor((i + 1) T / bins) - 1`; nan where a cell has no pair.
        """
        return self._record(layer).pooled(head, bins, reduce)

    def _record(self, layer: int) -> LayerRecord:
        if not 0 <= layer < len(self.records):
            raise InvalidInputError(f"layer {layer} is out of range: there are layers 0 to {len(self.records) - 1}.")
        return self.records[layer]


def run_prefill(
    lm: LoadedModel | PreTrainedModel,
    input_ids: Tensor,
    keep: Keep | None = None,
    chunk_tokens: int | None = None,
    earlier: Prefill | None = None,
) -> Prefill:
    """Runs a prompt through the model with full attention and keeps what its attention computed.

    Parameters
    ----------
    lm
        A loaded model, or a bare transformers model.
    input_ids
        `[1, T]` token ids.
    keep
        What to keep; by default everything that attention maps need.
    chunk_tokens
        Prompt tokens per forward pass; any value gives the same result.
    earlier
        A prefill of the same model: the tokens that both prompts begin with are copied from it, not computed again.

    Raises
    ------
    InvalidPromptError
        Ids that are empty, of another shape, outside the vocabulary, or more than the model's positions.
    PrefillMismatchError
        `earlier` belongs to another model.
    UnsupportedModelError
        A model whose attention cannot be captured exactly.
    """
    return finished(prefill_steps(lm, input_ids, keep, chunk_tokens, earlier=earlier))


@torch.no_grad()
def prefill_steps(
    lm: LoadedModel | PreTrainedModel,
    input_ids: Tensor,
    keep: Keep | None = None,
    chunk_tokens: int | None = None,
    chunk_s: float | Callable[[], float] | None = None,
    earlier: Prefill | None = None,
) -> Generator[PrefillProgress, None, Prefill]:
    """`run_prefill`, one chunk at a time; closing the generator cancels it.

    With `chunk_s`, chunks are sized to take about that many seconds each; called anew for each where it is a function.
    """
    loaded = as_loaded(lm)
    keep = Keep() if keep is None else keep
    if not isinstance(keep, Keep):
        raise InvalidInputError(f"keep={keep!r} says not what to keep: give a Keep, or None.")
    if chunk_tokens is not None and (not is_integer(chunk_tokens) or chunk_tokens < 1):
        raise InvalidInputError(f"chunk_tokens={chunk_tokens!r} is not a chunk: give at least 1 token, or None.")
    kinds = attention_layers(loaded.model.config)
    _check_prompt(loaded, input_ids, kinds)
    num_tokens = input_ids.shape[1]
    shared = 0 if earlier is None else _shared_tokens(loaded, earlier, input_ids, keep)
    recorder = PromptRecorder(keep, num_tokens, earlier.records if earlier is not None else (), shared)
    # The prefill keeps whole prompts in all layers, so that every kind of branch can be cut from it.
    whole = [LayerAttention("full")] * len(kinds)
    begun = (
        [_begun(record, shared, num_tokens) for record in earlier.records] if earlier is not None and shared else None
    )
    cache = HybridCache(whole, Window(), recorder, prompt_tokens=num_tokens, layers=begun)
    device = input_device(loaded.model)
    done, seconds, logits = shared, 0.0, torch.empty(0)
    chunk = chunk_tokens or (_FIRST_TIMED_CHUNK if chunk_s else DEFAULT_CHUNK_TOKENS)
    while done < num_tokens:
        ids = input_ids[:, done : done + chunk].to(device)
        began = time.perf_counter()
        with one_pass(loaded.model):
            output = loaded.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = output.logits[0, -1].float().cpu()
        elapsed = time.perf_counter() - began
        done, seconds = done + ids.shape[1], seconds + elapsed
        if chunk_s and not chunk_tokens:
            chunk = _timed_chunk(ids.shape[1], elapsed, chunk_s() if callable(chunk_s) else chunk_s)
        yield PrefillProgress(done, num_tokens)
    records = tuple(recorder.record(layer, cache, kinds[layer].window) for layer in range(len(kinds)))
    return Prefill(loaded, input_ids.cpu().clone(), records, logits.clone(), seconds, keep, shared)


def _shared_tokens(lm: LoadedModel, earlier: Prefill, input_ids: Tensor, keep: Keep) -> int:
    """How many of an earlier prefill's tokens can be taken over: all but the last, whose logits are not kept, and none
    whose queries are wanted and were not kept; none at all of a text that was turned by other frequencies."""
    if earlier.lm.model is not lm.model:
        raise PrefillMismatchError(
            f"the earlier prefill was made with {earlier.spec.name}, and this model is {lm.spec.name}: only a prefill "
            "of the same loaded model can be gone on from."
        )
    num_tokens, turn = input_ids.shape[1], lm.spec.turning_point
    if turn is not None and (earlier.num_tokens > turn) != (num_tokens > turn):
        return 0
    shared = min(shared_tokens(earlier.input_ids, input_ids.cpu()), num_tokens - 1)
    for record in earlier.records:
        wanted = num_tokens - keep.rows_of(num_tokens, record.layer)
        if wanted < record.first_row:
            shared = min(shared, wanted)
    return shared


def _begun(record: LayerRecord, shared: int, num_tokens: int) -> FullLayer:
    key, value = (tensor[None, :, :shared] for tensor in (record.key, record.value))
    return FullLayer.begun(key, value, num_tokens)


def as_loaded(lm: LoadedModel | PreTrainedModel) -> LoadedModel:
    """The loaded model itself, or a bare model with its description, once it has proved that it can be captured."""
    if isinstance(lm, LoadedModel):
        return lm
    if not isinstance(lm, PreTrainedModel):
        raise InvalidInputError(
            f"a prefill needs a model from load_model or a transformers model, not a {type(lm).__name__}."
        )
    check_supported(lm)
    return LoadedModel(lm, None, describe(lm))


def _timed_chunk(tokens: int, elapsed: float, target: float) -> int:
    wanted = int(tokens * target / max(elapsed, 1e-4)) // _CHUNK_STEP * _CHUNK_STEP
    return min(max(wanted, _CHUNK_STEP), DEFAULT_CHUNK_TOKENS)


def _check_prompt(lm: LoadedModel, input_ids: Tensor, kinds: list[LayerAttention]) -> None:
    if any(not kind.is_attention for kind in kinds):
        raise UnsupportedModelError(
            f"{lm.spec.name} has layers without attention, whose running state branches cannot share."
        )
    check_token_ids(input_ids, lm.spec, "prompt")
    if input_ids.shape[1] > lm.spec.max_positions:
        raise InvalidPromptError(
            f"the prompt has {input_ids.shape[1]} tokens and {lm.spec.name} has {lm.spec.max_positions} positions: "
            "shorten it."
        )
