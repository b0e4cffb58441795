"""Counters and gauges of the backend as Prometheus text."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from lighttransfer_core.service.run_log import new_tokens
from lighttransfer_core.service.runs import Run

_HELP = {
    "runs_ended_total": "Runs that have ended, by kind and outcome.",
    "tokens_decoded_total": "Tokens that comparisons have decoded, all lanes together.",
    "prompt_tokens_total": "Prompt tokens of the runs that are done.",
    "runs_live": "Runs that have not ended.",
    "runs_waiting": "Runs that wait in line for their first turn.",
    "event_readers": "Event streams that are open.",
    "records_bytes": "Bytes that the events and results of ended runs hold.",
    "prompts_bytes": "Bytes that stored prompts hold.",
    "results_bytes": "Bytes that kept prefills and lanes hold.",
    "weights_bytes": "Bytes that the weights of loaded models hold.",
    "budget_bytes": "Bytes that weights, kept results and live runs may come to.",
    "process_bytes": "Resident set of the process.",
}


class Metrics:
    """Counts ended runs; gauges are handed in when the text is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: Counter[tuple[str, str]] = Counter()
        self._tokens = self._prompt_tokens = 0

    def ended(self, run: Run) -> None:
        result = run.result or {}
        with self._lock:
            self._ended[run.spec.kind, run.state] += 1
            self._prompt_tokens += result.get("num_tokens", 0)
            self._tokens += new_tokens(result)

    def text(self, gauges: Mapping[str, float]) -> str:
        """The exposition format, one family after the other."""
        with self._lock:
            ended = {f'{{kind="{kind}",state="{state}"}}': n for (kind, state), n in sorted(self._ended.items())}
            counters = {
                "runs_ended_total": ended,
                "tokens_decoded_total": {"": self._tokens},
                "prompt_tokens_total": {"": self._prompt_tokens},
            }
        families = [_family(name, "counter", samples) for name, samples in counters.items()]
        return "".join(families + [_family(name, "gauge", {"": value}) for name, value in gauges.items()])


def _family(name: str, kind: str, samples: Mapping[str, float]) -> str:
    full = f"lighttransfer_{name}"
    lines = [f"# HELP {full} {_HELP[name]}", f"# TYPE {full} {kind}"]
    return "\n".join([*lines, *(f"{full}{labels} {value:.17g}" for labels, value in samples.items())]) + "\n"
