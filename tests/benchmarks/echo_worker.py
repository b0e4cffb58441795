"""A worker without a model, for the tests of how workers are spoken to."""

from __future__ import annotations

import os
import sys

from benchmarks.workers.protocol import Unavailable, serve


class EchoWorker:
    def prompt(self, ids: list[int]) -> None:
        self.ids = ids

    def say(self, words: str) -> dict[str, object]:
        sys.stdout.write("what a library prints is no answer\n")
        sys.stdout.flush()
        return {"words": words, "ids": self.ids, "wait": os.environ["OMP_WAIT_POLICY"]}

    def lack(self) -> None:
        raise Unavailable("it is not here")

    def leave(self) -> None:
        os._exit(3)


if __name__ == "__main__":
    serve(EchoWorker())
