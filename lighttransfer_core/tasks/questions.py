"""Questions whose documents stand among others: SQuAD with one document to find, HotpotQA with two.

RULER's recipe, with three restrictions so that a score means what it says: no document but the right ones has the
answer in it, no question is answered by yes or no, and no reference has fewer than three characters.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

from lighttransfer_core.tasks.lengths import Builder, grow
from lighttransfer_core.tasks.scorers import CONTAINS_ANY, contains_any
from lighttransfer_core.tasks.sources import LONG_CONTEXT, Wheel, fetch
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo, register

_INTRO = "Read the documents below. A question follows; answer it from them, in as few words as you can.\n\n"
_SHORTEST = 3
_ATTEMPTS = 100


@dataclass(frozen=True)
class Question:
    """A question, its accepted answers, and the documents that answer it and that come close, by index."""

    text: str
    answers: tuple[str, ...]
    right: tuple[int, ...]
    near: tuple[int, ...]


@dataclass(frozen=True)
class Library:
    documents: tuple[str, ...]
    questions: tuple[Question, ...]


@cache
def squad() -> Library:
    """Answerable questions of the SQuAD 2 development set; near documents are those of the same article."""
    articles = json.loads((fetch(LONG_CONTEXT) / "squad.json").read_text(encoding="utf-8"))["data"]
    documents: list[str] = []
    questions: list[Question] = []
    for article in articles:
        first = len(documents)
        documents += [paragraph["context"] for paragraph in article["paragraphs"]]
        for index, paragraph in enumerate(article["paragraphs"], start=first):
            near = tuple(i for i in range(first, len(documents)) if i != index)
            for asked in paragraph["qas"]:
                answers = tuple(dict.fromkeys(answer["text"] for answer in asked["answers"]))
                questions.append(Question(asked["question"].strip(), answers, (index,), near))
    return _library(documents, questions)


@cache
def hotpot() -> Library:
    """Questions of the HotpotQA development set, each with two right documents and eight near ones."""
    items = json.loads((fetch(LONG_CONTEXT) / "hotpotqa.json").read_text(encoding="utf-8"))
    known: dict[str, int] = {}
    questions: list[Question] = []
    for item in items:
        wanted = {title for title, _ in item["supporting_facts"]}
        own = {title: f"{title}\n{''.join(sentences)}" for title, sentences in item["context"]}
        index = {title: known.setdefault(text, len(known)) for title, text in own.items()}
        right = tuple(place for title, place in index.items() if title in wanted)
        near = tuple(place for title, place in index.items() if title not in wanted)
        questions.append(Question(item["question"].strip(), (item["answer"],), right, near))
    return _library(list(known), questions)


def _library(documents: list[str], questions: list[Question]) -> Library:
    return Library(tuple(documents), tuple(q for q in questions if _usable(q, documents)))


def _usable(question: Question, documents: list[str]) -> bool:
    right = " ".join(documents[index] for index in question.right).lower()
    return bool(question.answers) and all(
        len(answer) >= _SHORTEST and answer.lower() != "yes" and answer.lower() in right for answer in question.answers
    )


@dataclass(frozen=True, kw_only=True)
class DocumentQuestions(Task):
    """Answers a question from one or two documents among others.

    A context too short for the documents of the question drawn takes the next question drawn.
    """

    library: Callable[[], Library]
    max_new_tokens: int = 32

    @property
    def wheel(self) -> Wheel:
        return LONG_CONTEXT

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        rng, library = random.Random(f"{self.info.name} {seed}"), self.library()
        for _ in range(_ATTEMPTS):
            build = self._among_documents(seed, rng, library, rng.choice(library.questions))
            if count(build(0, 0).text) <= num_tokens:
                break
        return grow(build, num_tokens, count, len(library.documents))

    def score(self, answer: str, example: Example) -> float:
        return contains_any(answer, example.answers)

    def _among_documents(self, seed: int, rng: random.Random, library: Library, question: Question) -> Builder:
        shares = [rng.random() for _ in question.right]
        stream = _distractors(random.Random(rng.random()), library, question)
        others: list[str] = []

        def build(number: int, filler: int) -> Example:
            others.extend(islice(stream, max(0, number + 1 - len(others))))
            listed = [(text, False) for text in others[:number]]
            for share, index in zip(shares, question.right, strict=True):
                listed.insert(round(share * len(listed)), (library.documents[index], True))
            context, depths = _written(listed, others[number] if filler and number < len(others) else "", filler)
            return Example(
                task=self.info.name,
                seed=seed,
                context=context,
                question=f"\n\nQuestion: {question.text}\n",
                answer_prefix="Answer:",
                answers=question.answers,
                depths=depths,
            )

        return build


def _distractors(rng: random.Random, library: Library, question: Question) -> Iterator[str]:
    """Near documents first, then any, in random order, without those that have the answer in them."""
    wanted = [answer.lower() for answer in question.answers]
    for index in _order(rng, library, question):
        text = library.documents[index]
        if not any(answer in text.lower() for answer in wanted):
            yield text


def _order(rng: random.Random, library: Library, question: Question) -> Iterator[int]:
    yield from rng.sample(question.near, len(question.near))
    used = {*question.right, *question.near}
    everything = range(len(library.documents))
    yield from (index for index in rng.sample(everything, len(everything)) if index not in used)


def _written(listed: list[tuple[str, bool]], following: str, filler: int) -> tuple[str, tuple[float, ...]]:
    """The numbered documents, and of the one that follows so many characters as there is room for."""
    places: list[int] = []
    context = _INTRO.rstrip()
    for number, (text, right) in enumerate(listed, start=1):
        if right:
            places.append(len(context) + 2)
        context += _numbered(number, text)
    context += _numbered(len(listed) + 1, following)[:filler]
    return context, tuple(place / len(context) for place in places)


def _numbered(number: int, text: str) -> str:
    return f"\n\nDocument {number}\n{text}"


register(
    DocumentQuestions(
        info=TaskInfo(
            "qa_1",
            "Question with one document",
            "A question of SQuAD 2; one of the documents answers it.",
            "RULER (arXiv 2404.06654), appendix B; SQuAD 2.0 (arXiv 1806.03822); our wording",
            CONTAINS_ANY,
        ),
        library=squad,
    )
)
register(
    DocumentQuestions(
        info=TaskInfo(
            "qa_2",
            "Question with two documents",
            "A question of HotpotQA; two of the documents answer it together.",
            "RULER (arXiv 2404.06654), appendix B; HotpotQA (arXiv 1809.09600); our wording",
            CONTAINS_ANY,
        ),
        library=hotpot,
    )
)
