"""Work that is too small to share: waking a second thread for it takes longer than doing it.

The number that is changed is OpenMP's for the calling thread, so other threads keep theirs; torch's own setting would
be taken over by every thread that begins meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import torch  # noqa: F401 - brings the OpenMP runtime that is looked for
from threadpoolctl import ThreadpoolController

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_RUNTIMES: Final = ThreadpoolController().select(user_api="openmp").lib_controllers


def alone(work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """What `work` returns, computed by the calling thread alone."""
    before = [runtime.get_num_threads() for runtime in _RUNTIMES]
    for runtime in _RUNTIMES:
        runtime.set_num_threads(1)
    try:
        return work(*args, **kwargs)
    finally:
        for runtime, threads in zip(_RUNTIMES, before, strict=True):
            runtime.set_num_threads(threads)
