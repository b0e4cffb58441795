"""A backend in which comparisons of one seed raise in the middle of their decoding, for the load test:
`python -m benchmarks.failing_backend --port 8765`.
"""

from __future__ import annotations

import argparse
import logging

from lighttransfer_core.events import LaneStep
from lighttransfer_core.lanes import Lanes
from lighttransfer_core.service import compare_job
from lighttransfer_core.service.server import serve

FAILING_SEED = 666
FAILING_STEP = 4


class FailingLanes(Lanes):
    """Lanes whose memory breaks off after a few steps, where their seed says so."""

    _steps = 0

    def advance(self) -> list[LaneStep]:
        self._steps += 1
        if self._sampling.seed == FAILING_SEED and self._steps > FAILING_STEP:
            raise RuntimeError("made to raise in the middle of decoding")
        return super().advance()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    compare_job.Lanes = FailingLanes  # type: ignore[misc]
    serve("127.0.0.1", given.port)


if __name__ == "__main__":
    main()
