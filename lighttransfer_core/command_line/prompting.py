"""What the commands on prompts do with the library, and how every command loads a model and writes a file."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from lighttransfer_core.command_line import console
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidPromptError, InvalidScoresError
from lighttransfer_core.keep import Keep
from lighttransfer_core.laziness import RECOMMENDED_METRIC, get_metric, score_layers
from lighttransfer_core.models import LoadedModel, load_model, render_prompt
from lighttransfer_core.prefill import Prefill, prefill_steps
from lighttransfer_core.score_sets import ScoreSet
from lighttransfer_core.selection import aggregate_scores, plan_from_scores, plan_from_votes
from lighttransfer_core.types import ConversionPlan, LayerScores, Window
from lighttransfer_core.version import __version__

_LONGEST_NOTE = 200


def load(model: str, device: str, dtype: str, revision: str | None) -> LoadedModel:
    with console.progress() as report:
        return load_model(model, device, dtype, revision, report)


def read_prompts(prompt: str | None, files: list[Path] | None) -> list[str]:
    """The prompt, or the files' texts; "-" is standard input. Raises InvalidPromptError where there is none."""
    if (prompt is None) == (not files):
        both = "" if prompt is None else ", not both"
        raise InvalidPromptError(f"Give a prompt: --prompt TEXT, or --prompt-file PATH (- for standard input){both}.")
    return [prompt] if prompt is not None else [_read_text(file) for file in files or []]


def read_prompt(prompt: str | None, files: list[Path] | None) -> str:
    texts = read_prompts(prompt, files)
    if len(texts) > 1:
        raise InvalidPromptError(f"This command takes one prompt, not {len(texts)}: give one --prompt-file.")
    return texts[0]


def read_plan(file: Path | None) -> ConversionPlan | None:
    if file is None:
        return None
    try:
        return ConversionPlan.from_json(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPlanError(f"Cannot read the plan {file}: {error}.") from error


def prefill(lm: LoadedModel, text: str, raw: bool, system: str | None, query_rows: int | None = None) -> Prefill:
    """Run a prompt, with its progress shown; `query_rows` keeps the queries of the last rows only."""
    prompt = render_prompt(lm.tokenizer, text, "raw" if raw else "chat", system, lm.spec.max_positions)
    steps = prefill_steps(lm, prompt.input_ids, Keep(query_rows))
    with console.progress() as report:
        while True:
            try:
                done = next(steps)
            except StopIteration as end:
                made: Prefill = end.value
                return made
            report(f"Prefill: {done.tokens_done:,} of {done.num_tokens:,} tokens", done.tokens_done / done.num_tokens)


def score(prefill: Prefill, window: Window, last: int, metric: str | None) -> LayerScores:
    return score_layers(prefill, window, last, metric or RECOMMENDED_METRIC)


def score_each(
    lm: LoadedModel, texts: list[str], raw: bool, system: str | None, window: Window, last: int, metric: str | None
) -> list[LayerScores]:
    """The scores on every prompt."""
    if last < 1:
        raise InvalidInputError(f"--last {last} is not a number of queries: give at least 1.")
    rows = get_metric(metric or RECOMMENDED_METRIC).query_rows(last)
    return [score(prefill(lm, text, raw, system, rows), window, last, metric) for text in texts]


def averaged(scores: list[LayerScores]) -> LayerScores:
    """The scores on one prompt, or the average over several."""
    return scores[0] if len(scores) == 1 else aggregate_scores(scores)


def score_set(scores: LayerScores, files: list[Path] | None, raw: bool) -> ScoreSet:
    """The scores as a file keeps them."""
    prompts = ", ".join(file.name for file in files or []) or "given on the command line"
    made = {
        "prompt": prompts if len(prompts) <= _LONGEST_NOTE else f"{prompts[:_LONGEST_NOTE]}…",
        "rendering": "raw" if raw else "chat",
        "made": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "version": __version__,
    }
    model = scores.model.name if scores.model is not None else "a model"
    return ScoreSet(f"{model}, {scores.num_prompts} prompt{'' if scores.num_prompts == 1 else 's'}", scores, made=made)


def read_scores(files: list[Path]) -> list[LayerScores]:
    """What `score --output` wrote."""
    found = []
    for file in files:
        try:
            found.append(ScoreSet.from_bytes(file.read_bytes()).scores)
        except OSError as error:
            raise InvalidScoresError(f"Cannot read the scores {file}: {error}.") from error
        except InvalidScoresError as error:
            raise InvalidScoresError(f"{file}: {error}") from error
    return found


def make_plan(scores: list[LayerScores], keep_full: float, by_votes: bool) -> ConversionPlan:
    """By the mean over the prompts, or by their votes."""
    return plan_from_votes(scores, keep_full) if by_votes else plan_from_scores(averaged(scores), keep_full)


def write_text(file: Path | None, text: str) -> None:
    if file is None:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"Cannot write {file}: {error}.") from error


def check_writable(file: Path) -> None:
    """Refuses before long work what `write_text` would refuse after it."""
    known = file.exists()
    try:
        with file.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise InvalidInputError(f"Cannot write {file}: {error}.") from error
    if not known:
        file.unlink()


def _read_text(file: Path) -> str:
    try:
        return sys.stdin.read().removeprefix("\ufeff") if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPromptError(f"Cannot read the prompt {file}: {error}.") from error
