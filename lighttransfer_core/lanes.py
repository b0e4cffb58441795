"""Several continuations of one prefill, advanced together, each compared with the first.

Lane 0 is the reference. KL is measured on the reference's own text, teacher-forced through the other lanes, so it
never compares texts that have diverged. It knows no page and no service.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lighttransfer_core.decoding import Branch, Lane, Sampler, check_new_tokens
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.events import LANE_NAMES, Candidate, DecodeEvent, LaneSettings, LaneStep
from lighttransfer_core.models.prompts import pieces
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.token_ids import check_token_ids
from lighttransfer_core.types import is_integer

Position = tuple[int, int]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: greedily at temperature 0, else by a draw that the seed fixes."""

    temperature: float = 0.0
    seed: int = 0

    def sampler(self) -> Sampler:
        return Sampler(self.temperature, self.seed)


@dataclass
class _Reference:
    """One step of lane 0: what it was fed, what it chose, and the logits `[V]`, as long as a lane may need them."""

    fed: list[int]
    token_id: int
    logits: Tensor | None


class Lanes:
    """Two to four lanes after one prompt, and after every further turn that is asked.

    Parameters
    ----------
    settings
        One per lane; the first is the reference, which follows nobody.
    max_new_tokens
        Of each answer.
    candidates
        How many of the likeliest tokens each step tells.
    record
        Keep what maps need of the decoded tokens; see `Branch`.
    restartable
        Keep the reference's logits, so that a lane that is started anew is still compared with it.

    Raises
    ------
    InvalidPlanError, InvalidInputError
    """

    def __init__(
        self,
        prefill: Prefill,
        settings: Sequence[LaneSettings],
        max_new_tokens: int,
        sampling: Sampling | None = None,
        *,
        candidates: int = 0,
        record: bool = False,
        restartable: bool = False,
    ) -> None:
        check_new_tokens(max_new_tokens)
        if not is_integer(candidates) or candidates < 0:
            raise InvalidInputError(f"candidates={candidates!r} is no number of tokens: give 0 or more.")
        if not 1 <= len(settings) <= len(LANE_NAMES):
            raise InvalidInputError(f"{len(settings)} lanes cannot be compared: give 1 to {len(LANE_NAMES)}.")
        for one in settings:
            if not isinstance(one, LaneSettings):
                raise InvalidInputError(
                    f"A lane is a LaneSettings, not a {type(one).__name__}: give LaneSettings(plan)."
                )
        if settings[0].follow:
            raise InvalidInputError("The first lane is the reference, so it cannot follow another one.")
        self.prefill = prefill
        self.settings = list(settings)
        self._sampling = sampling or Sampling()
        self._limit = max_new_tokens
        self._candidates = candidates
        self._record = record
        self._restartable = restartable
        self._asked: list[list[int]] = []
        self._reference: list[list[_Reference]] = [[]]
        self._lanes = [self._new_lane(one) for one in settings]

    @property
    def done(self) -> bool:
        """Whether every lane has answered all that was asked."""
        return all(lane.waits for lane in self._lanes)

    @property
    def level(self) -> bool:
        """Whether all lanes that have more to say stand at the same token; after a restart one is behind."""
        ahead = max(lane.position for lane in self._lanes)
        return all(lane.waits or lane.position == ahead for lane in self._lanes)

    @property
    def seen_tokens(self) -> list[int]:
        """Tokens that each lane's model has read: prompt, answers and questions."""
        return [lane.own.branch.cache.seen_tokens for lane in self._lanes]

    @property
    def nbytes(self) -> int:
        """What the lanes hold beside their prefill."""
        logits = sum(step.logits.nbytes for turn in self._reference for step in turn if step.logits is not None)
        return logits + sum(lane.nbytes for lane in self._lanes)

    def branch(self, index: int) -> Branch:
        """A lane's own text so far."""
        return self._lanes[index].own.branch

    @torch.no_grad()
    def advance(self) -> list[LaneStep]:
        """One step of every lane that stands furthest back; what is ahead waits.

        Raises
        ------
        InvalidInputError
            Every lane has answered.
        """
        if self.done:
            raise InvalidInputError("Every lane has answered: ask a further question, or begin a lane anew.")
        front = min(lane.position for lane in self._lanes if not lane.waits)
        return [
            self._step(index, lane)
            for index, lane in enumerate(self._lanes)
            if not lane.waits and lane.position == front
        ]

    def restart(self, index: int, settings: LaneSettings) -> None:
        """Begins a lane anew from the prefill, under other settings.

        Raises
        ------
        InvalidPlanError
        InvalidInputError
            There is no such lane, or it is the reference, or the lanes were not made to be restarted.
        """
        if not self._restartable or not 0 < index < len(self._lanes):
            raise InvalidInputError(f"Lane {index} cannot be started anew: it is the reference, or does not exist.")
        lane = self._new_lane(settings)
        self.settings[index], self._lanes[index] = settings, lane

    def ask(self, token_ids: Sequence[int]) -> None:
        """Puts a further turn to every lane: the tokens between its answer and its next one.

        Raises
        ------
        InvalidPromptError
            There is no token, or one that the model does not know.
        InvalidInputError
            Answers are not over yet.
        """
        asked = torch.as_tensor(token_ids)
        check_token_ids(asked[None], self.prefill.spec, "question")
        if not self.done:
            raise InvalidInputError("A further turn can be asked once all answers are over.")
        self._asked.append(asked.tolist())
        self._reference.append([])
        for lane in self._lanes:
            lane.enter_turn(self._asked)

    def fork(self) -> Lanes:
        """The same lanes once more, to go another way from here; the prompt stays shared."""
        twin = copy.copy(self)
        twin.settings, twin._asked = list(self.settings), list(self._asked)
        twin._reference = [list(turn) for turn in self._reference]
        twin._lanes = [lane.fork() for lane in self._lanes]
        return twin

    def _new_lane(self, settings: LaneSettings) -> _ComparedLane:
        branch = Branch(self.prefill, settings.plan, record=self._record)
        return _ComparedLane(Lane(branch, self._sampling.sampler()), settings.follow)

    def _step(self, index: int, lane: _ComparedLane) -> LaneStep:
        turn, step = lane.position
        said = self._reference[turn]
        reference = said[step] if index and step < len(said) else None
        fed, kl = list(lane.own.pending), None
        if index:
            lane.part_where_fed_differs(reference.fed if reference is not None else None)
        forced_logits = lane.forced_logits(reference.fed) if reference is not None else None
        event, logits = None, None
        if not lane.answered:
            event, logits = lane.own.step(reference.token_id if lane.follow and reference is not None else None)
            lane.answered = self._is_over(lane, step, event)
        if index == 0:
            assert event is not None
            assert logits is not None
            said.append(_Reference(fed, event.token_id, logits))
        elif reference is not None and reference.logits is not None:
            compared = logits if forced_logits is None else forced_logits
            kl = kl_divergence(reference.logits, compared) if compared is not None else None
        told = LaneStep(index, turn, step, event, kl, self._likeliest(logits), lane.answered)
        lane.position = (turn, step + 1)
        lane.waits = lane.answered and self._lanes[0].has_answered(turn) and step + 1 >= len(said)
        if lane.waits:
            lane.enter_turn(self._asked)
        if not self._restartable:
            self._forget_logits()
        return told

    def _is_over(self, lane: _ComparedLane, step: int, event: DecodeEvent) -> bool:
        if lane.follow:
            return self._lanes[0].has_answered(lane.position[0]) and step + 1 >= len(self._reference[lane.position[0]])
        return lane.own.ended or event.step + 1 >= self._limit

    def _likeliest(self, logits: Tensor | None) -> tuple[Candidate, ...]:
        if logits is None or not self._candidates:
            return ()
        top = torch.log_softmax(logits, dim=-1).topk(min(self._candidates, logits.shape[-1]))
        ids, tokenizer = top.indices.tolist(), self.prefill.lm.tokenizer
        texts = pieces(tokenizer, ids) if tokenizer is not None else [""] * len(ids)
        return tuple(Candidate(*one) for one in zip(ids, texts, top.values.tolist(), strict=True))

    def _forget_logits(self) -> None:
        """Lets go of the reference's logits that every lane has passed."""
        turn, step = min(lane.position for lane in self._lanes)
        for passed in self._reference[turn][:step] + [one for said in self._reference[:turn] for one in said]:
            passed.logits = None


class _ComparedLane:
    """One lane: its own text, and, once that has parted from the reference's, a branch that reads the reference's."""

    def __init__(self, own: Lane, follow: bool) -> None:
        self.own = own
        self.follow = follow
        self.forced: Branch | None = None
        self.position: Position = (0, 0)
        self.answered = False
        self.waits = False

    @property
    def nbytes(self) -> int:
        return self.own.branch.own_nbytes + (self.forced.own_nbytes if self.forced is not None else 0)

    def has_answered(self, turn: int) -> bool:
        return self.position[0] > turn or self.answered

    def enter_turn(self, asked: list[list[int]]) -> None:
        """Goes on to the next question, if there is one."""
        turn = self.position[0]
        if turn < len(asked):
            self.own.ask(asked[turn])
            self.position, self.answered, self.waits = (turn + 1, 0), False, False

    def part_where_fed_differs(self, fed: list[int] | None) -> None:
        """From the first step that is fed other tokens than the reference's (None: past its answer), a fork reads the
        reference's text."""
        if self.forced is None and (self.answered or self.own.pending != fed):
            self.forced = self.own.branch.fork()

    def forced_logits(self, fed: list[int]) -> Tensor | None:
        """Of the branch on the reference's text, once there is one."""
        return None if self.forced is None else self.forced.forward(torch.tensor([fed]), last=1)[0]

    def fork(self) -> _ComparedLane:
        twin = copy.copy(self)
        twin.own = self.own.fork()
        twin.forced = None if self.forced is None else self.forced.fork()
        return twin


def kl_divergence(logits_p: Tensor, logits_q: Tensor) -> float:
    """KL(p || q) in nats, of two `[V]` logits; computed in float64, since it is a small difference of large sums."""
    log_p, log_q = (torch.log_softmax(logits.double(), dim=-1) for logits in (logits_p, logits_q.to(logits_p.device)))
    terms = torch.where(log_p == -torch.inf, 0.0, log_p.exp() * (log_p - log_q))
    return max(float(terms.sum()), 0.0)
