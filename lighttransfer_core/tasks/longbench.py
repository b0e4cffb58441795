"""LongBench from one's own download: its JSON lines with its metrics, the prompts in our wording.

A file holds one data set, such as `hotpotqa.jsonl`, with the fields `input`, `context`, `answers`, `dataset`, and
`all_classes` for classification. The sixteen English and code sets are known; scores are LongBench-style, since the
prompts are not LongBench's. A context longer than the length asked for loses its middle, as in the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lighttransfer_core.errors import TaskFileError, TaskLengthError
from lighttransfer_core.tasks.jsonl import read_lines, strings
from lighttransfer_core.tasks.lengths import largest
from lighttransfer_core.tasks.scorers import Scorer, classification, edit_similarity, f1, rouge_l, share_of_numbers
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo


@dataclass(frozen=True)
class Kind:
    """How the sets of one kind are asked and scored; `question` has a place for the set's own input."""

    intro: str
    question: str
    answer_prefix: str = ""
    first_line_only: bool = False


_ASK = Kind(
    "Read the text below. A question follows; answer it from the text, in as few words as you can.\n\n",
    "\n\nQuestion: {input}\n",
    "Answer:",
)
_SUM_UP = Kind(
    "Read the text below. You will be asked to sum it up.\n\n",
    "\n\n{input}\nSum up the text in a few sentences.\n",
)
_LIKE_EXAMPLES = Kind(
    "Below are examples of a task. You will be given one more case; answer it as the examples do.\n\n",
    "\n\n{input}",
    first_line_only=True,
)
_COUNT = Kind(
    "Below are numbered paragraphs, some of them repeated.\n\n",
    "\n\nHow many different paragraphs are there, each counted once? Give the number alone.\n",
)
_RETRIEVE = Kind(
    "Below are numbered paragraphs. You will be given a summary of one of them.\n\n",
    "\n\nSummary: {input}\nWhich paragraph is it of? Answer like 'Paragraph 1'.\n",
)
_CODE = Kind("Complete the code below.\n", "{input}\nNext line of code:\n")

_METRICS: dict[str, tuple[Scorer | None, str]] = {
    "f1": (f1, "F1 of the answer's words with those of the best reference."),
    "rouge_l": (rouge_l, "ROUGE-L F1 of the answer with the best reference."),
    "class": (None, "One over the number of classes that the answer names, if the right one is among them; else 0."),
    "number": (share_of_numbers, "The share of the answer's numbers that are the reference."),
    "edit": (edit_similarity, "How alike the answer's first line of code and the reference are, by characters."),
}
_DATASETS: dict[str, tuple[Kind, str, int]] = {
    "narrativeqa": (_ASK, "f1", 128),
    "qasper": (_ASK, "f1", 128),
    "multifieldqa_en": (_ASK, "f1", 64),
    "hotpotqa": (_ASK, "f1", 32),
    "2wikimqa": (_ASK, "f1", 32),
    "musique": (_ASK, "f1", 32),
    "gov_report": (_SUM_UP, "rouge_l", 512),
    "qmsum": (_SUM_UP, "rouge_l", 512),
    "multi_news": (_SUM_UP, "rouge_l", 512),
    "trec": (_LIKE_EXAMPLES, "class", 64),
    "triviaqa": (_LIKE_EXAMPLES, "f1", 32),
    "samsum": (_LIKE_EXAMPLES, "rouge_l", 128),
    "passage_count": (_COUNT, "number", 32),
    "passage_retrieval_en": (_RETRIEVE, "number", 32),
    "lcc": (_CODE, "edit", 64),
    "repobench-p": (_CODE, "edit", 64),
}
"""By data set: how it is asked, its metric, and how long an answer may become."""


@dataclass(frozen=True)
class Item:
    """A question of a data set, checked."""

    context: str
    question: str
    answers: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LongBench(Task):
    """The questions of one LongBench file. The seed is the question's number, and begins again where they end."""

    dataset: str
    items: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Questions that there are."""
        return len(self.items)

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        """The question of that number, with at most `num_tokens` tokens: a longer context loses its middle."""
        item, kind = self.items[seed % len(self.items)], _DATASETS[self.dataset][0]

        def build(characters: int) -> Example:
            kept = _without_middle(item.context, characters)
            question = kind.question.replace("{input}", item.question)
            return Example(self.info.name, seed, f"{kind.intro}{kept}", question, kind.answer_prefix, item.answers)

        whole = build(len(item.context))
        if count(whole.text) <= num_tokens:
            return whole
        least = count(build(0).text)
        if least > num_tokens:
            raise TaskLengthError(
                f"Question {seed} of {self.info.name} needs at least {least:,} tokens with this tokenizer without any "
                f"context, not {num_tokens:,}: ask for a longer context."
            )
        return build(largest(lambda n: count(build(n).text), num_tokens, len(item.context), least))

    def score(self, answer: str, example: Example) -> float:
        kind, metric, _ = _DATASETS[self.dataset]
        scorer = _METRICS[metric][0]
        if kind.first_line_only:
            answer = answer.lstrip("\n").split("\n")[0]
        if scorer is None:
            return classification(answer, example.answers, self.items[example.seed % len(self.items)].classes)
        return scorer(answer, example.answers)


def _without_middle(text: str, characters: int) -> str:
    if characters >= len(text):
        return text
    front = (characters + 1) // 2
    return text[:front] + text[len(text) - (characters - front) :]


def read_longbench(path: Path) -> LongBench:
    """The task of a LongBench file; its name is `longbench_` and the data set's.

    Raises
    ------
    TaskFileError
        The file is missing, too large or empty, or a line is not of one of the known data sets; the line is named.
    """
    items: list[Item] = []
    dataset = ""
    for number, data in read_lines(path):
        dataset = _dataset(number, data, dataset)
        items.append(_item(number, data, dataset))
    _, metric, max_new_tokens = _DATASETS[dataset]
    info = TaskInfo(
        f"longbench_{dataset}",
        f"LongBench: {dataset}",
        f"The {len(items):,} questions of {path.name}.",
        "LongBench (arXiv 2308.14508); our wording of the prompts",
        _METRICS[metric][1],
    )
    return LongBench(info=info, max_new_tokens=max_new_tokens, dataset=dataset, items=tuple(items))


def _dataset(number: int, data: dict[str, Any], before: str) -> str:
    dataset = data.get("dataset")
    known = ", ".join(_DATASETS)
    if not isinstance(dataset, str) or dataset.removesuffix("_e") not in _DATASETS:
        raise TaskFileError(f"Line {number}: {dataset!r} is not a data set of LongBench known here: {known}.")
    if before and dataset.removesuffix("_e") != before:
        raise TaskFileError(f"Line {number} is of {dataset!r}, those before of {before!r}: a file holds one data set.")
    return dataset.removesuffix("_e")


def _item(number: int, data: dict[str, Any], dataset: str) -> Item:
    for name in ("input", "context"):
        if not isinstance(data.get(name), str):
            raise TaskFileError(f"Line {number}: {name!r} is not a string. LongBench's lines have input and context.")
    classes = strings(number, data, "all_classes") if _DATASETS[dataset][1] == "class" else ()
    return Item(data["context"], data["input"], strings(number, data, "answers"), classes)
