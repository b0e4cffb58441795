"""The comparison as a run: lanes that decode side by side, and may be paused, slowed and begun anew meanwhile."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Iterable, Sequence
from itertools import groupby
from typing import Any

from lighttransfer_core.comparison import summarize
from lighttransfer_core.cost.device import memory_stats
from lighttransfer_core.cost.formulas import kept_tokens_caps, kv_bytes_per_layer
from lighttransfer_core.events import LANE_NAMES, LaneSettings, LaneStep
from lighttransfer_core.lanes import Lanes, Sampling
from lighttransfer_core.models.fit import check_plan, check_room
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.engine import KeptLanes
from lighttransfer_core.service.pace import Pace
from lighttransfer_core.service.runs import Event
from lighttransfer_core.service.specs import CompareSpec, spec_identity
from lighttransfer_core.service.task import Task, obtain_prefill
from lighttransfer_core.service.turns import Output, Steps
from lighttransfer_core.types import ModelSpec

_TAIL_GROWTH = 1.25
_CANDIDATES = 10
_MEMORY_EVERY_S = 0.5


def compare(task: Task, spec: CompareSpec, texts: Sequence[str]) -> Steps:
    """Decodes every lane's answer to the prompt and to each further question; `texts` are all of them.

    What an earlier run decoded for the beginning of the same conversation is taken over with its cache, if it is kept.
    """
    model = task.lm.spec
    for settings in spec.lanes:
        check_plan(settings.plan, model)
    prompt = task.engine.render(task.lm, texts[0], spec.prefill)
    asked = [task.engine.render_turn(task.lm, text, spec.prefill) for text in texts[1:]]
    new_tokens = spec.max_new_tokens * len(texts) + sum(map(len, asked))
    check_room(model, prompt.num_tokens, new_tokens)
    extra = lanes_nbytes(model, spec.settings, prompt.num_tokens, new_tokens)
    prefill, key, reused = yield from obtain_prefill(task, spec.prefill, prompt, extra)
    yield {
        "kind": "begin",
        "num_tokens": prompt.num_tokens,
        "input_ids": prompt.input_ids[0].tolist(),
        "prefill_s": prefill.seconds,
        "reused": reused,
        "max_new_tokens": spec.max_new_tokens,
        "model": model.to_dict(),
        "lanes": {name: _lane(model, one) for name, one in zip(LANE_NAMES, spec.settings, strict=False)},
    }
    earlier = _earlier(task, spec)
    lanes = earlier.lanes.fork() if earlier is not None else _new_lanes(prefill, spec)
    conversation = _Conversation(task, lanes, earlier.steps if earlier is not None else (), texts[1:], asked)
    yield from conversation.go_on()
    kept = _kept_identity(dataclasses.replace(spec, lanes=tuple(lanes.settings[1:])))
    task.engine.keep_lanes(task.load, kept, key, KeptLanes(lanes, tuple(conversation.steps)))
    return {
        "identity": key.identity,
        "kept": kept,
        "num_tokens": prompt.num_tokens,
        "prefill_s": prefill.seconds,
        "spec": model.to_dict(),
        "lanes": {name: _result(conversation.steps, index, lanes) for index, name in _named(lanes)},
    }


class _Conversation:
    """Lanes that answer one question after the other, and what is said of it in events."""

    def __init__(
        self, task: Task, lanes: Lanes, steps: Sequence[LaneStep], texts: Sequence[str], asked: list[list[int]]
    ) -> None:
        self.steps = list(steps)
        self._task = task
        self._lanes = lanes
        self._texts = texts
        self._asked = asked
        self._pace = Pace()
        self._memory_due = 0.0

    def go_on(self) -> Generator[Output, None, None]:
        """The answers that are there already, then those that are not."""
        answered = max((one.turn + 1 for one in self.steps), default=0)
        for turn in range(len(self._asked) + 1):
            if turn:
                yield {
                    "kind": "turn",
                    "turn": turn,
                    "text": self._texts[turn - 1],
                    "tokens": len(self._asked[turn - 1]),
                }
            if turn < answered:
                yield from self._replay(turn)
                continue
            if turn:
                self._lanes.ask(self._asked[turn - 1])
            yield from self._answer(last=turn == len(self._asked))

    def _replay(self, turn: int) -> Generator[Output, None, None]:
        by_step = sorted((one for one in self.steps if one.turn == turn), key=lambda one: (one.step, one.lane))
        for _step, together in groupby(by_step, key=lambda one: one.step):
            yield {**_told(list(together)), "replayed": True}

    def _answer(self, last: bool) -> Generator[Output, None, None]:
        while True:
            commands = self._task.turns.commands(last=last and self._lanes.done)
            for command in commands:
                yield self._obey(command)
            if self._lanes.done:
                if commands:
                    continue
                return
            in_step = self._lanes.level
            if in_step and (rest := self._pace.rest()) is not None:
                yield rest
                continue
            together = self._lanes.advance()
            if in_step:
                self._pace.advanced()
            self.steps += together
            yield {**_told(together), **self._memory()}

    def _obey(self, command: Command) -> Event:
        if command.action == "lane" and command.lane is not None and command.settings is not None:
            self._lanes.restart(command.lane, command.settings)
            self.steps = [one for one in self.steps if one.lane != command.lane]
            settings = _lane(self._lanes.prefill.spec, command.settings)
            return {"kind": "lane", "lane": LANE_NAMES[command.lane], **settings}
        self._pace.obey(command)
        return {"kind": "pace", "paused": self._pace.paused, "tokens_per_s": self._pace.tokens_per_s}

    def _memory(self) -> Event:
        """What the device holds, now and then."""
        if time.monotonic() < self._memory_due:
            return {}
        self._memory_due = time.monotonic() + _MEMORY_EVERY_S
        return {"memory": memory_stats(self._task.engine.device).to_dict()}


def _earlier(task: Task, spec: CompareSpec) -> KeptLanes | None:
    """The lanes at the end of the longest part of this conversation that is kept."""
    for turns in range(len(spec.turns) - 1, -1, -1):
        kept = task.engine.kept_lanes(task.load, _kept_identity(dataclasses.replace(spec, turns=spec.turns[:turns])))
        if kept is not None:
            return kept
    return None


def _kept_identity(spec: CompareSpec) -> str:
    return f"{spec_identity(spec)}.lanes"


def _new_lanes(prefill: Prefill, spec: CompareSpec) -> Lanes:
    return Lanes(
        prefill,
        spec.settings,
        spec.max_new_tokens,
        Sampling(spec.temperature, spec.seed),
        candidates=_CANDIDATES,
        record=True,
        restartable=True,
    )


def _named(lanes: Lanes) -> list[tuple[int, str]]:
    return list(enumerate(LANE_NAMES[: len(lanes.settings)]))


def _lane(spec: ModelSpec, settings: LaneSettings) -> Event:
    """What a lane is, and the formula of its bytes: a layer keeps `row_nbytes` a token, of so many tokens at most."""
    return {
        "settings": settings.to_dict(),
        "row_nbytes": spec.kv_bytes_per_token_per_layer,
        "caps": list(kept_tokens_caps(spec, settings.plan)),
    }


def _told(together: list[LaneStep]) -> Event:
    """Steps of several lanes at the same token, as one event."""
    first = together[0]
    return {
        "kind": "step",
        "turn": first.turn,
        "step": first.step,
        "lanes": {
            LANE_NAMES[one.lane]: {
                **one.event.to_dict(),
                "top": [[c.token_id, c.text, round(c.logprob, 5)] for c in one.candidates],
                "over": one.over,
            }
            for one in together
            if one.event is not None
        },
        "kl": {LANE_NAMES[one.lane]: one.kl for one in together if one.kl is not None},
    }


def _result(steps: Iterable[LaneStep], lane: int, lanes: Lanes) -> dict[str, Any]:
    spec, settings, seen = lanes.prefill.spec, lanes.settings[lane], lanes.seen_tokens[lane]
    steps = list(steps)
    answers = []
    for turn in range(max(one.turn for one in steps) + 1):
        events = [one.event for one in steps if one.lane == lane and one.turn == turn and one.event is not None]
        compared = summarize(steps, lane, turn, settings.follow)
        answers.append(
            {
                "tokens": [event.token_id for event in events],
                "text": "".join(event.text for event in events),
                "latency_s": [event.latency_s for event in events],
                "kl": compared.kl.tolist(),
                "first_divergence": compared.first_divergence if lane else None,
                "agreement": compared.agreement if lane else 1.0,
            }
        )
    return {
        "settings": settings.to_dict(),
        "answers": answers,
        "seen_tokens": seen,
        "kv_bytes": list(lanes.branch(lane).cache.layer_nbytes()),
        "kv_formula": list(kv_bytes_per_layer(spec, settings.plan, seen)),
    }


def lanes_nbytes(spec: ModelSpec, settings: Sequence[LaneSettings], num_tokens: int, new_tokens: int) -> int:
    """The most bytes that the lanes of a comparison hold beside their prefill.

    Each its tail and windows, all but the first once more on the first one's text; the queries, keys and log-sum-exp
    of what they decode; and the first one's logits, with which a lane that is begun anew is compared.
    """
    own = [_own_nbytes(spec, one, num_tokens, new_tokens) for one in settings]
    row = spec.num_heads * (spec.head_dim * spec.dtype_bytes + 4) + spec.kv_bytes_per_token_per_layer // 2
    recorded = len(settings) * new_tokens * spec.num_layers * row
    logits = new_tokens * spec.vocab_size * 4
    return int(_TAIL_GROWTH * (own[0] + 2 * sum(own[1:]))) + recorded + logits


def _own_nbytes(spec: ModelSpec, settings: LaneSettings, num_tokens: int, new_tokens: int) -> int:
    """Tails of full layers, whole windows of the others."""
    tail = spec.kv_bytes_per_token_per_layer * new_tokens
    whole = kv_bytes_per_layer(spec, settings.plan, num_tokens + new_tokens)
    caps = kept_tokens_caps(spec, settings.plan)
    return sum(tail if cap is None else kept for cap, kept in zip(caps, whole, strict=True))
