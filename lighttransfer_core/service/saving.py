"""A run that is over as a session file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from platform import python_version

from lighttransfer_core.service.runs import Run
from lighttransfer_core.session import Session
from lighttransfer_core.version import __version__


def saved(run: Run, texts: Sequence[str]) -> Session:
    """`texts` are the prompt and the further questions of the run, which is done."""
    return Session(
        made=run.begun.isoformat(timespec="seconds"),
        versions={
            "lighttransfer": __version__,
            "torch": version("torch"),
            "transformers": version("transformers"),
            "python": python_version(),
        },
        spec=run.spec.to_dict(),
        texts=tuple(texts),
        events=tuple(json.loads(event) for event in run.events()),
        result=dict(run.result or {}),
    )
