"""The views of the Laziness page as Python that does the same. Text in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from lighttransfer_core.types import Window
from pages.parts.prompts import Prompt
from pages.parts.recipe import Recipe
from pages.parts.snippets import prefill_snippet, scores_snippet


def sensitivity_snippet(recipe: Recipe, windows: Sequence[Window]) -> str:
    """The prompt scored under several windows, with the question and before it."""
    sizes = ", ".join(f"({one.sink}, {one.recent})" for one in windows)
    asked = f"last={recipe.last}, metric={recipe.metric!r}"
    return "\n".join(
        [
            prefill_snippet(recipe),
            "",
            "from lighttransfer_core.agreement import agreement",
            "from lighttransfer_core.models import tokens_before_question",
            "",
            f"before = tokens_before_question(lm.tokenizer, text, {recipe.rendering!r})",
            f"now = lt.score_layers(prefill, lt.Window({recipe.window.sink}, {recipe.window.recent}), {asked})",
            f"for sizes in [{sizes}]:",
            "    for tokens in (None, before):  # None: all of the prompt, its question included",
            f"        scores = lt.score_layers(prefill, lt.Window(*sizes), {asked}, tokens=tokens)",
            "        print(sizes, tokens, agreement(now, scores))",
        ]
    )


def heap_snippet(recipe: Recipe, keep_full: float, on_the_fly: bool) -> str:
    """The queue replayed from scores, and the real one where the metric can be read while the prompt passes."""
    window = f"lt.Window({recipe.window.sink}, {recipe.window.recent})"
    real = [
        "",
        f"choice = lt.OnTheFly({keep_full}, {window}, last={recipe.last}, metric={recipe.metric!r})",
        "with lt.hybrid(lm.model, choice) as cache:  # the same during a real prefill",
        "    lm.model.generate(prompt.input_ids, past_key_values=cache, max_new_tokens=1)",
        "print(cache.lazy_layers, cache.peak_nbytes)",
    ]
    return "\n".join(
        [
            scores_snippet(recipe),
            "",
            "from lighttransfer_core.heap import replay",
            "",
            f"for moment in replay(lm.spec, scores, keep_full={keep_full}):",
            "    print(moment.kind, moment.layer, moment.queue, sum(moment.kv_bytes))",
            *(real if on_the_fly else []),
        ]
    )


def prompts_snippet(recipe: Recipe, chosen: Sequence[Prompt], by: str, asked: str) -> str:
    """A static plan from several prompts; `asked`: whether their questions are in what is scored, aware or agnostic."""
    demos = [prompt.key for prompt in chosen if prompt.question]
    own = [f"prompt-{number}.txt" for number in range(1, len(chosen) - len(demos) + 1)]
    scoring = f"lt.Window({recipe.window.sink}, {recipe.window.recent}), {recipe.last}, {recipe.metric!r}"
    before = asked == "agnostic"
    make = "lt.plan_from_votes(scores)" if by == "votes" else "lt.plan_from_scores(lt.aggregate_scores(scores))"
    return "\n".join(
        [
            "import tomllib",
            "",
            "import lighttransfer_core as lt",
            "from lighttransfer_core.agreement import stability",
            f"from lighttransfer_core.models import render_prompt{', tokens_before_question' if before else ''}",
            "",
            f"lm = lt.load_model({recipe.model!r})",
            "texts = []",
            f"for name in {demos!r}:",
            '    demo = tomllib.load(open(f"assets/prompts/{name}.toml", "rb"))',
            "    texts.append(f\"{demo['text'].strip()}\\n\\n{demo['question'].strip()}\")",
            *([f"for name in {own!r}:  # your own texts, under these names"] if own else []),
            *(['    texts.append(open(name, encoding="utf-8").read())'] if own else []),
            "scores = []",
            "for text in texts:",
            f"    prompt = render_prompt(lm.tokenizer, text, {recipe.rendering!r})",
            "    prefill = lt.run_prefill(lm, prompt.input_ids)",
            *([f"    before = tokens_before_question(lm.tokenizer, text, {recipe.rendering!r})"] if before else []),
            f"    scores.append(lt.score_layers(prefill, {scoring}{', tokens=before' if before else ''}))",
            "print(stability(scores), lt.votes(scores))",
            f"plan = {make}",
            "print(plan.to_json())",
        ]
    )


def beside_snippet() -> str:
    """Files of scores, read back."""
    return "\n".join(
        [
            "from pathlib import Path",
            "",
            "from lighttransfer_core.agreement import agreement",
            "from lighttransfer_core.score_sets import ScoreSet",
            "",
            'first, second = (ScoreSet.from_bytes(Path(name).read_bytes()) for name in ("first.json", "second.json"))',
            "print(first.name, first.made, first.scores.ranking())",
            "print(agreement(first.scores, second.scores))",
        ]
    )
