"""What may be done to a comparison while it runs, and what its spec becomes by it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.events import LANE_NAMES, LaneSettings
from lighttransfer_core.service.specs import CompareSpec, RunSpec
from lighttransfer_core.types import JsonRecord

Action = Literal["pause", "continue", "step", "speed", "lane"]


@dataclass(frozen=True)
class Command(JsonRecord):
    """One thing to do.

    Attributes
    ----------
    action
        "pause"; "continue"; "step" (one token, then pause again); "speed" (at most `tokens_per_s`, None for as fast as
        it goes); "lane" (begin `lane` anew from the prefill under `settings`).
    """

    action: Action
    tokens_per_s: Annotated[float, Interval(ge=0.1, le=1000.0)] | None = None
    lane: Annotated[int, Interval(ge=1, le=len(LANE_NAMES) - 1)] | None = None
    settings: LaneSettings | None = None

    def __post_init__(self) -> None:
        if isinstance(self.settings, dict):
            object.__setattr__(self, "settings", LaneSettings.from_dict(self.settings))


def applied(command: Command, spec: RunSpec) -> RunSpec:
    """The spec whose run this becomes: a lane that is begun anew is what it would be had it begun so.

    Raises
    ------
    InvalidInputError
        The run is no comparison, or has no such lane.
    """
    if not isinstance(spec, CompareSpec):
        raise InvalidInputError(f"A {spec.kind} run takes no commands: only a comparison does.")
    if command.action != "lane":
        return spec
    if command.lane is None or command.settings is None or command.lane > len(spec.lanes):
        raise InvalidInputError(f"The command names no lane to begin anew: give lane 1 to {len(spec.lanes)}, settings.")
    lanes = list(spec.lanes)
    lanes[command.lane - 1] = command.settings
    return dataclasses.replace(spec, lanes=tuple(lanes))
