"""What decoding says, step by step: frozen dataclasses without tensors, each with a JSON round trip.

Everything here may be imported by the page process.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lighttransfer_core.types import ConversionPlan, Float64Array, JsonRecord

LANE_NAMES = ("a", "b", "c", "d")
"""Lanes of a comparison, the reference first."""


@dataclass(frozen=True)
class DecodeEvent(JsonRecord):
    """One decoded token.

    `latency_s` is the step's own synchronised compute; `kv_bytes` are the bytes kept per layer after the step, and
    `seen_tokens` the tokens that have passed through the layers by then: not yet the one that was just chosen.
    Step 0 comes from the prefill's own logits, so it is the same for every plan.
    """

    step: int
    token_id: int
    text: str
    logprob: float
    latency_s: float
    kv_bytes: tuple[int, ...]
    seen_tokens: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "kv_bytes", tuple(self.kv_bytes))


@dataclass(frozen=True)
class LaneSettings(JsonRecord):
    """How a lane decodes: under which plan, and on whose text.

    With `follow` it takes the tokens of the reference lane in place of its own (teacher forcing), so that both
    distributions are given the same text throughout.
    """

    plan: ConversionPlan = field(default_factory=ConversionPlan)
    follow: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.plan, dict):
            object.__setattr__(self, "plan", ConversionPlan.from_dict(self.plan))


@dataclass(frozen=True)
class Candidate(JsonRecord):
    """A token that could have come next, with the model's own log-probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class LaneStep(JsonRecord):
    """One step of one lane of a comparison.

    Attributes
    ----------
    lane
        Its index; 0 is the reference.
    turn
        Which answer: 0 is the one to the prompt.
    step
        Which token of the answer.
    event
        The lane's token; None where its own answer is over and only the distributions are compared.
    kl
        KL(reference || lane) in nats, both given the reference's own tokens; None past the reference's answer.
    candidates
        The likeliest tokens of the lane at this step, likeliest first.
    over
        Whether the lane's own answer ends with this step.
    """

    lane: int
    turn: int
    step: int
    event: DecodeEvent | None
    kl: float | None
    candidates: tuple[Candidate, ...] = ()
    over: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.event, dict):
            object.__setattr__(self, "event", DecodeEvent.from_dict(self.event))
        made = (Candidate.from_dict(one) if isinstance(one, dict) else one for one in self.candidates)
        object.__setattr__(self, "candidates", tuple(made))


@dataclass(frozen=True, eq=False)
class Comparison(JsonRecord):
    """Two lanes on one prompt: the tokens each chose, where they part, and how far apart their distributions are.

    `kl[i]` is KL(a || b) in nats at step i, both given lane a's tokens before i.
    `first_divergence` is the first step with different tokens, or None.
    """

    tokens_a: tuple[int, ...]
    tokens_b: tuple[int, ...]
    kl: Float64Array
    first_divergence: int | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens_a", tuple(self.tokens_a))
        object.__setattr__(self, "tokens_b", tuple(self.tokens_b))
        object.__setattr__(self, "kl", np.asarray(self.kl, dtype=np.float64))

    @property
    def agreement(self) -> float:
        """Share of steps with the same token, over the shorter lane."""
        pairs = list(zip(self.tokens_a, self.tokens_b, strict=False))
        return sum(a == b for a, b in pairs) / len(pairs) if pairs else 1.0
