"""Records what the bare address of the app shows, by running it: `python -m benchmarks.record_default_run`.

Writes `assets/recorded/default_run.json` (the default recipe's prefill, and its comparison as a session file) and
`assets/recorded/metrics.json` (what the registry says of its metrics). `--metrics-only` writes the second alone. The
pages paint the first at once, labelled as recorded, while the model loads.
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import UTC, datetime
from pathlib import Path

from lighttransfer_core.laziness import RECOMMENDED_METRIC, list_metrics, metric_info
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.version import __version__
from pages.parts import metrics, results
from pages.parts.backend import backend
from pages.parts.defaults import DEFAULT_NEW_TOKENS, default_recipe
from pages.parts.recipe import resolve_plan
from pages.parts.results import Summary

STARTING_S = 120.0


def record_metrics() -> None:
    """The registry's own texts, the recommended metric first."""
    kinds = ("prompt", "probe", "trial", "control")
    infos = [metric_info(name) for name in list_metrics()]
    infos.sort(key=lambda info: (info.name != RECOMMENDED_METRIC, kinds.index(info.kind), info.name))
    _write(metrics.FILE, [info.to_dict() for info in infos])


def record_run(client: BackendClient) -> None:
    """The default recipe, prefill and comparison."""
    recipe = default_recipe()
    client.put_prompt(recipe.prompt.text or "")
    prefill_spec = recipe.prefill_spec()
    prefill = client.wait(client.start(prefill_spec).token)
    summary = Summary.of(prefill)
    plan = resolve_plan(recipe, summary.spec, summary.scores)
    compare_spec = recipe.compare_spec(plan, DEFAULT_NEW_TOKENS)
    token = client.start(compare_spec).token
    client.wait(token)
    session = client.session(token)
    _write(
        results.RECORD,
        {
            "made": _made(summary),
            "prefill_spec": prefill_spec.to_dict(),
            "prefill": prefill,
            "session": session.to_dict(),
        },
    )


def _made(summary: Summary) -> str:
    when = datetime.now(tz=UTC).strftime("%Y-%m-%d")
    spec = summary.spec
    return f"{when}, version {__version__}, {spec.device} ({platform.machine()}), {spec.dtype}"


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics-only", action="store_true", help="write only what the registry says of its metrics")
    metrics_only = parser.parse_args().metrics_only
    record_metrics()
    if metrics_only:
        return
    recorded = backend()
    recorded.start()
    try:
        record_run(recorded.client(STARTING_S))
    finally:
        recorded.stop()


if __name__ == "__main__":
    main()
