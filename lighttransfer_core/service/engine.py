"""The model side of the backend: loads models, renders prompts, keeps prefills, and counts the bytes of all that.

It knows the library and no HTTP. What it does in turns is in `jobs`.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lighttransfer_core.cost.device import available_bytes, memory_stats
from lighttransfer_core.errors import (
    InvalidInputError,
    InvalidPromptError,
    ModelDoesNotFitError,
    ModelNotLoadedError,
    PrefillGoneError,
)
from lighttransfer_core.events import LANE_NAMES, LaneStep
from lighttransfer_core.keep import Keep, prefill_nbytes, queries_nbytes
from lighttransfer_core.lanes import Lanes
from lighttransfer_core.laziness import list_metrics, metric_info
from lighttransfer_core.maps.levels import nothing_to_check
from lighttransfer_core.models import LoadedModel, RenderedPrompt, load_model, render_prompt
from lighttransfer_core.models.fit import check_plan
from lighttransfer_core.models.placement import choose_device
from lighttransfer_core.models.prompts import render_turn, tokens_before_question
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.service.admission import Ledger, PrefillKey
from lighttransfer_core.service.answers import (
    KeepOffer,
    LightScores,
    MemoryReport,
    MetricEntry,
    ScoreQuestion,
    Tokenized,
    TokenizeRequest,
)
from lighttransfer_core.service.maps import MapStore, PromptMap
from lighttransfer_core.service.runs import Event
from lighttransfer_core.service.scoring import answers
from lighttransfer_core.service.specs import CompareSpec, LoadSpec, PrefillSpec, RunSpec, ScoreSpec
from lighttransfer_core.token_ids import shared_tokens
from lighttransfer_core.transcript import Transcript
from lighttransfer_core.types import ModelSpec

Loader = Callable[..., LoadedModel]

_BUDGET_SHARE = 0.7
"""Of what the device has free at the start: the rest is for activations, other processes and the page server."""

_SHOWN_TOKENS = 32

_WORTH_TAKING_OVER = 64
"""Tokens that two prompts must begin with alike; templates alone share a few."""

SCORED_ROWS = 512
"""Rows whose queries every layer keeps in any case: as many as a page may ask a metric to look at."""


@dataclasses.dataclass(frozen=True)
class KeptLanes:
    """The lanes of a comparison that has ended, for maps and for further questions, and the steps that led there."""

    lanes: Lanes
    steps: tuple[LaneStep, ...]


class Engine:
    """What the backend's runs work on.

    Parameters
    ----------
    device
        What "auto" in a spec means here; itself "auto" for the accelerator, or the CPU where there is none.
    budget_nbytes
        What weights, kept prefills and live runs may come to; None for a share of what is free now.
    loader
        The library's `load_model`, or a stand-in with its signature.
    max_prompt_tokens
        Of one prompt; None: as many as positions and memory allow.
    """

    def __init__(
        self,
        device: str = "auto",
        budget_nbytes: int | None = None,
        loader: Loader = load_model,
        max_prompt_tokens: int | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.ledger = Ledger(budget_nbytes or int(_BUDGET_SHARE * available_bytes(self.device)))
        self.under_way: dict[PrefillKey, Event] = {}
        self._loader = loader
        self._max_prompt_tokens = max_prompt_tokens
        # from_pretrained changes torch's default dtype for the whole process while it runs: one load at a time
        self._loading = threading.Lock()
        self._rendering = threading.Lock()
        self._maps = MapStore()

    @property
    def device_name(self) -> str:
        return str(self.device)

    def worker_key(self, load: LoadSpec) -> str:
        """Runs with equal keys share a model, and so a worker."""
        return self.load_key(load).to_json()

    def load_key(self, load: LoadSpec) -> LoadSpec:
        """The load that a request means here: equal keys are one model in memory."""
        device = self.device if load.device == "auto" else choose_device(load.device)
        return dataclasses.replace(load, device=str(device))

    @contextmanager
    def model(self, load: LoadSpec, progress: Callable[[str, float], None]) -> Iterator[LoadedModel]:
        """The model, loaded first if need be; it stays in memory inside the context."""
        lm = self.ledger.pin_model(load)
        if lm is None:
            with self._loading:
                lm = self._load(load, progress)
                self.ledger.add_model(load, lm, lm.spec.weight_bytes)
        try:
            yield lm
        finally:
            self.ledger.unpin_model(load)

    def find(self, name: str) -> LoadedModel:
        """The model of that name that was used last. Raises ModelNotLoadedError where there is none."""
        found: list[LoadedModel] = [lm for load, lm in self.ledger.models.items() if load.model == name]
        if not found:
            raise ModelNotLoadedError(f"{name} is not loaded: start a load run first.")
        return found[-1]

    def model_spec(self, name: str) -> ModelSpec:
        return self.find(name).spec

    def loaded(self) -> list[ModelSpec]:
        return [lm.spec for _load, lm in self.ledger.models.items()]

    def render(self, lm: LoadedModel, text: str, spec: PrefillSpec | ScoreSpec | TokenizeRequest) -> RenderedPrompt:
        with self._rendering:  # a tokenizer is not safe to use from two threads at once
            return render_prompt(lm.tokenizer, text, spec.rendering, spec.system, self._max_prompt_tokens)

    def tokens_before_question(self, lm: LoadedModel, text: str, spec: PrefillSpec | ScoreSpec) -> int | None:
        """How many tokens come before a prompt's own question; None where it has none."""
        with self._rendering:
            return tokens_before_question(lm.tokenizer, text, spec.rendering, spec.system)

    def render_turn(self, lm: LoadedModel, text: str, spec: PrefillSpec) -> list[int]:
        """The token ids of a further question."""
        with self._rendering:
            return render_turn(lm.tokenizer, text, spec.rendering)

    def kept_lanes(self, load: LoadSpec, identity: str) -> KeptLanes | None:
        """The lanes of an ended comparison, if they are still in memory."""
        kept: KeptLanes | None = self.ledger.prefills.get(PrefillKey(load, identity))
        return kept

    def keep_lanes(self, load: LoadSpec, identity: str, prefill: PrefillKey, kept: KeptLanes) -> None:
        """Keeps lanes as long as there is room, and no longer than the prefill whose memory they share."""
        self.ledger.prefills.put(PrefillKey(load, identity), kept, kept.lanes.nbytes, needs=prefill)

    def tokenize(self, request: TokenizeRequest, text: str) -> Tokenized:
        lm = self.find(request.model)
        prompt = self.render(lm, text, request)
        room = self.ledger.budget_nbytes - lm.spec.weight_bytes
        keys_and_values = lm.spec.num_layers * prompt.num_tokens * lm.spec.kv_bytes_per_token_per_layer
        return Tokenized(
            num_tokens=prompt.num_tokens,
            max_tokens=max_tokens(lm.spec, room, Keep()),
            kv_nbytes=keys_and_values,
            query_nbytes=prefill_nbytes(lm.spec, prompt.num_tokens) - keys_and_values,
            budget_nbytes=room,
            offers=keep_offers(lm.spec, prompt.num_tokens, room, available_bytes(torch.device("cpu"))),
            rendered=prompt.text,
            head_tokens=tuple(prompt.tokens[:_SHOWN_TOKENS]),
            tail_tokens=tuple(prompt.tokens[-_SHOWN_TOKENS:]),
            input_ids=tuple(prompt.input_ids[0].tolist()),
        )

    def memory(self) -> MemoryReport:
        stats = memory_stats(self.device)
        return MemoryReport(
            device=stats.device,
            allocated=stats.allocated,
            reserved=stats.reserved,
            process=stats.process,
            total=stats.total,
            results_bytes=self.ledger.prefills.nbytes,
            weights_bytes=self.ledger.models.nbytes,
            budget_bytes=self.ledger.budget_nbytes,
        )

    def laziness_metrics(self) -> list[MetricEntry]:
        return [MetricEntry.from_dict(metric_info(name).to_dict()) for name in list_metrics()]

    def loaded_model(self, load: LoadSpec) -> LoadedModel | None:
        """The model of a load, where it is in memory; looking does not count as using."""
        return dict(self.ledger.models.items()).get(self.load_key(load))

    def check_length(self, num_tokens: int) -> None:
        """Raises InvalidPromptError for a prompt that is longer than this backend takes."""
        if self._max_prompt_tokens is not None and num_tokens > self._max_prompt_tokens:
            raise InvalidPromptError(
                f"Prompts of {num_tokens:,} tokens are asked for, and this backend takes {self._max_prompt_tokens:,}: "
                "ask for shorter ones, or start it with a larger --max-prompt-tokens."
            )

    def check(self, spec: RunSpec) -> None:
        """Refuses what could not run, as far as that is known: plans of a comparison that do not fit a loaded model."""
        loaded = self.loaded_model(spec.load_spec())
        if isinstance(spec, CompareSpec) and loaded is not None:
            for settings in spec.lanes:
                check_plan(settings.plan, loaded.spec)

    def longest_beginning(self, load: LoadSpec, input_ids: Tensor) -> PrefillKey | None:
        """The kept prefill that has most tokens in common with the beginning of a prompt, if they are worth a copy."""
        kept = [
            (key, one) for key, one in self.ledger.prefills.items() if key.load == load and isinstance(one, Prefill)
        ]
        shared = {key: shared_tokens(one.input_ids, input_ids) for key, one in kept}
        longest = max(shared, key=lambda key: shared[key], default=None)
        return longest if longest is not None and shared[longest] >= _WORTH_TAKING_OVER else None

    def keeps(self, load: LoadSpec, identity: str) -> bool:
        """Whether a prefill, or what a lane decoded, is still in memory."""
        return PrefillKey(self.load_key(load), identity) in self.ledger.prefills

    def prompt_map(
        self,
        load: LoadSpec,
        identity: str,
        lane: tuple[str, str] | None,
        check: Callable[[], None] = nothing_to_check,
    ) -> PromptMap:
        """The map of a kept prefill, perhaps with what a lane of a comparison decoded after it; both count as used now.

        `lane` is the identity of the kept lanes, and a lane's name. Raises PrefillGoneError for what has left, and
        InvalidInputError where a lane has no rows of its own.
        """
        key, prefill = self.load_key(load), self._kept_prefill(load, identity)
        if lane is None:
            return PromptMap(prefill, identity, self._maps, check)
        kept, name = self.kept_lanes(key, lane[0]), lane[1]
        if kept is None:
            raise PrefillGoneError("What this lane decoded has left the backend's memory: run the comparison again.")
        names = LANE_NAMES[: len(kept.lanes.settings)]
        decoded = kept.lanes.branch(names.index(name)).continuation() if name in names else None
        if decoded is None:
            raise InvalidInputError(f"Lane {name} decoded one token only, which has no row of its own: ask for more.")
        return PromptMap(Transcript(prefill, decoded), f"{lane[0]}.{name}", self._maps, check)

    def scores(
        self,
        load: LoadSpec,
        identity: str,
        before: int | None,
        questions: Sequence[ScoreQuestion],
        check: Callable[[], None] = nothing_to_check,
    ) -> list[LightScores]:
        """Scores of a kept prefill, which counts as used now; see `scoring.answers`. Raises PrefillGoneError too."""
        return answers(self._kept_prefill(load, identity), before, questions, check)

    def _kept_prefill(self, load: LoadSpec, identity: str) -> Prefill:
        prefill: Prefill | None = self.ledger.prefills.get(PrefillKey(self.load_key(load), identity))
        if prefill is None:
            raise PrefillGoneError("This prompt's prefill has left the backend's memory to make room: run it again.")
        return prefill

    def tidy(self) -> None:
        """Give memory that a failed or cancelled run has let go of back to the device."""
        gc.collect()
        if self.device.type != "cpu":
            torch.accelerator.empty_cache()

    def _load(self, load: LoadSpec, progress: Callable[[str, float], None]) -> LoadedModel:
        try:
            return self._loader(load.model, load.device, load.dtype, load.revision, progress)
        except ModelDoesNotFitError:
            if not self.ledger.make_all_room():
                raise
        self.tidy()
        return self._loader(load.model, load.device, load.dtype, load.revision, progress)


def prefill_key(load: LoadSpec, lm: LoadedModel, prompt: RenderedPrompt, keep: Keep) -> PrefillKey:
    """Equal keys are one prefill: the same weights, token ids, precision and captured rows."""
    facts = [lm.spec.name, lm.spec.revision, lm.spec.dtype, prompt.input_ids[0].tolist(), dataclasses.asdict(keep)]
    return PrefillKey(load, hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def keep_offers(spec: ModelSpec, num_tokens: int, nbytes: int, host_nbytes: int) -> tuple[KeepOffer, ...]:
    """What fits where all queries do not: all of them on the host or in half the bytes, or whole layers, or last rows.

    `nbytes` can be had on the device, `host_nbytes` in the host's memory.
    """

    def size(keep: Keep) -> int:
        return prefill_nbytes(spec, num_tokens, keep)

    least = min(SCORED_ROWS, num_tokens)
    if size(Keep()) <= nbytes:
        return ()
    offers = []
    on_host = Keep(host=True)
    if spec.device != "cpu" and size(on_host) <= nbytes and queries_nbytes(spec, num_tokens, on_host) <= host_nbytes:
        offers.append(KeepOffer(None, 0, size(on_host), host=True))
    halved = prefill_nbytes(dataclasses.replace(spec, dtype_bytes=2), num_tokens)
    if spec.dtype == "float32" and halved + spec.weight_bytes // 2 <= nbytes:
        offers.append(KeepOffer(None, 0, halved, dtype="bfloat16"))
    if size(Keep(least)) <= nbytes:
        layers = largest(spec.num_layers, lambda count: size(Keep(least, tuple(range(count)))) <= nbytes)
        rows = largest(num_tokens, lambda count: size(Keep(max(count, 1))) <= nbytes)
        if layers:
            offers.append(KeepOffer(least, layers, size(Keep(least, tuple(range(layers))))))
        offers.append(KeepOffer(rows, 0, size(Keep(rows))))
    return tuple(offers)


def max_tokens(spec: ModelSpec, nbytes: int, keep: Keep) -> int:
    """The longest prompt whose prefill fits positions and bytes."""
    return largest(spec.max_positions, lambda tokens: prefill_nbytes(spec, tokens, keep) <= nbytes)


def largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 0 to `most` that fits, where all smaller ones fit too."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
