"""The backend's log: one structured line for each run that has ended."""

from __future__ import annotations

import json
import logging
from typing import Any

from lighttransfer_core.service.runs import Run
from lighttransfer_core.service.specs import CompareSpec

_LOG = logging.getLogger("lighttransfer.runs")


def log_run(run: Run, compute_s: float, total_s: float) -> None:
    """Who asked is not told, nor any text."""
    result = run.result or {}
    lanes = run.spec.lanes if isinstance(run.spec, CompareSpec) else ()
    line: dict[str, Any] = {
        "run": run.identity[:12],
        "kind": run.spec.kind,
        "model": run.spec.model,
        "state": run.state,
        "requests": len(run.tokens),
        "prompt_tokens": result.get("num_tokens"),
        "new_tokens": new_tokens(result),
        "lazy_layers": [list(lane.plan.lazy_layers) for lane in lanes],
        "events": run.status("").events,
        "compute_s": round(compute_s, 3),
        "total_s": round(total_s, 3),
        "error": run.error.type if run.error else None,
    }
    _LOG.info(json.dumps(line))


def new_tokens(result: dict[str, Any]) -> int:
    """Tokens that a run has decoded, all lanes together."""
    return sum(len(answer["tokens"]) for lane in result.get("lanes", {}).values() for answer in lane["answers"])
