"""Key-value retrieval: a JSON object of random identifiers, one of whose values is asked for."""

from __future__ import annotations

import random
from dataclasses import dataclass

from lighttransfer_core.tasks.lengths import grow
from lighttransfer_core.tasks.scorers import WORDS_ALL, words_all
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo, register
from lighttransfer_core.tasks.words import filler_words, uuids

INFO = TaskInfo(
    "key_value",
    "Key and value",
    "A JSON object of random identifiers; the value of one key is asked for.",
    "Lost in the Middle (arXiv 2307.03172); our wording",
    WORDS_ALL,
)
_INTRO = "The JSON object below maps keys to values. You will be asked for the value of one key.\n\n{\n"


@dataclass(frozen=True, kw_only=True)
class KeyValue(Task):
    """Gives the value of one key.

    Parameters
    ----------
    depth
        Where the pair asked for stands, 0 to 1; None: anywhere.
    """

    info: TaskInfo = INFO
    max_new_tokens: int = 64
    depth: float | None = None

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        rng = random.Random(f"{self.info.name} {seed}")
        share = rng.random() if self.depth is None else self.depth
        stream = uuids(rng)
        key, value = next(stream), next(stream)
        others: list[str] = []

        def build(pairs: int, filler: int) -> Example:
            while len(others) < pairs:
                others.append(_pair(next(stream), next(stream)))
            before = others[: round(share * pairs)]
            place = len(_INTRO) + sum(len(line) + 2 for line in before)
            lines = [*before, _pair(key, value), *others[len(before) : pairs]]
            # A last entry of plain words, shorter than a pair, brings the object to its length.
            lines += [_pair("note", filler_words(filler).strip())] if filler else []
            context = _INTRO + ",\n".join(lines) + "\n}"
            return Example(
                task=self.info.name,
                seed=seed,
                context=context,
                question=f'\n\nWhat is the value of the key "{key}"?\n',
                answer_prefix=f'The value of the key "{key}" is',
                answers=(value,),
                depths=(place / len(context),),
            )

        return grow(build, num_tokens, count)

    def score(self, answer: str, example: Example) -> float:
        return words_all(answer, example.answers)


def _pair(key: str, value: str) -> str:
    return f'"{key}": "{value}"'


register(KeyValue())
