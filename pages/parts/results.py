"""A prefill's result as the pages use it, from a run of now or from the recorded default run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from lighttransfer_core.service.answers import BeforeQuestion
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec, spec_identity
from lighttransfer_core.session import Session
from lighttransfer_core.types import LayerScores, ModelSpec

RECORD: Final = Path(__file__).resolve().parents[2] / "assets" / "recorded" / "default_run.json"


@dataclass(frozen=True)
class Summary:
    """What a prefill gave.

    Attributes
    ----------
    taken_over
        Tokens that were copied from an earlier prefill of another prompt that begins alike.
    prefill_s, score_s
        Seconds of the model's own pass, and of the scoring after it.
    prefill_nbytes
        Bytes that the kept prefill holds (queries, keys, values).
    kv_bytes_per_layer
        `[L]`; keys and values of the prompt alone, full model.
    tokens_tail
        The texts of the prompt's last tokens.
    before
        What the prompt shows up to its question.
    identity
        What the backend keeps the prefill under.
    recorded
        Where and when it was recorded, or None for a run of now.
    """

    num_tokens: int
    prefill_s: float
    taken_over: int
    score_s: float
    prefill_nbytes: int
    kv_bytes_per_layer: tuple[int, ...]
    scores: LayerScores
    spec: ModelSpec
    tokens_tail: tuple[str, ...]
    before: BeforeQuestion
    identity: str
    recorded: str | None = None

    @classmethod
    def of(cls, result: dict[str, Any], recorded: str | None = None) -> Summary:
        return cls(
            num_tokens=result["num_tokens"],
            prefill_s=result["prefill_s"],
            taken_over=result["taken_over"],
            score_s=result["score_s"],
            prefill_nbytes=result["prefill_nbytes"],
            kv_bytes_per_layer=tuple(result["kv_bytes_per_layer"]),
            scores=LayerScores.from_dict(result["scores"]),
            spec=ModelSpec.from_dict(result["spec"]),
            tokens_tail=tuple(result["tokens_tail"]),
            before=BeforeQuestion.from_dict(result["before"]),
            identity=result["identity"],
            recorded=recorded,
        )


@cache
def record() -> dict[str, Any]:
    """The recorded default run, as `benchmarks/record_default_run.py` wrote it."""
    data: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return data


def recorded_summary(spec: PrefillSpec) -> Summary | None:
    """The recorded prefill, if it is one of exactly this recipe."""
    data = record()
    if spec_identity(PrefillSpec.from_dict(data["prefill_spec"])) != spec_identity(spec):
        return None
    return Summary.of(data["prefill"], recorded=data["made"])


def recorded_session(spec: CompareSpec) -> Session | None:
    """The recorded comparison, if it is one of exactly this recipe."""
    data = record()["session"]
    if spec_identity(CompareSpec.from_dict(data["spec"])) != spec_identity(spec):
        return None
    return Session.from_bytes(json.dumps(data).encode())
