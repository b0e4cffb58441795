"""Where this library keeps what it stores for the user."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """The folder for everything this library stores: `LIGHTTRANSFER_CACHE`, or the user's cache folder."""
    if chosen := os.environ.get("LIGHTTRANSFER_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "lighttransfer"


def results_folder() -> Path:
    """The folder for results of sweeps: `LIGHTTRANSFER_RESULTS`, or `results/sweeps` where the process was started."""
    return Path(os.environ.get("LIGHTTRANSFER_RESULTS") or Path("results") / "sweeps").expanduser()
