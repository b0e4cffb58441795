"""What a page shows, as Python that does the same. Text in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lighttransfer_core.service.specs import CompareSpec
from lighttransfer_core.types import ConversionPlan, ModelSpec, Window
from pages.parts.recipe import Recipe
from pages.parts.scaling import Question


def prefill_snippet(recipe: Recipe) -> str:
    """Load, render, prefill."""
    return "\n".join(
        [
            *_imports(recipe),
            "import lighttransfer_core as lt",
            "from lighttransfer_core.models import render_prompt",
            "",
            *_text(recipe),
            f"lm = lt.load_model({recipe.model!r})",
            f"prompt = render_prompt(lm.tokenizer, text, {recipe.rendering!r})",
            "prefill = lt.run_prefill(lm, prompt.input_ids)",
            "print(prefill.num_tokens, prefill.nbytes)",
        ]
    )


def scores_snippet(recipe: Recipe) -> str:
    """The layers ranked by laziness."""
    call = f"window={_window(recipe.window)}, last={recipe.last}, metric={recipe.metric!r}"
    return "\n".join(
        [
            prefill_snippet(recipe),
            f"scores = lt.score_layers(prefill, {call})",
            "for layer in scores.ranking():",
            "    print(layer, scores.values[layer], scores.sink[layer], scores.recent[layer], scores.rest[layer])",
        ]
    )


def attention_snippet(recipe: Recipe, view: str, shape: ModelSpec | None = None) -> str:
    """Exact weights of the rectangle that the explorer's view names, and its whole head in cells; of an average or
    a difference, those of its first layer or head. What a model of this shape does not have gives way to its first."""
    seen = re.search(r"(?:^|_)view\.(\d+|\*)\.(\d+|\*)(-)?", view)
    layer, head, less = seen.groups() if seen else ("0", "0", None)
    if shape is not None and not (_among(layer, shape.num_layers) and _among(head, shape.num_heads)):
        layer, head, less = "0", "0", None
    box = re.search(r"(?:^|_)box\.(\d+)\.(\d+)\.(\d+)", view)
    row, column, size = box.groups() if box else ("0", "0", "256")
    of_head = ", ".join(f"{name}={0 if index == '*' else index}" for name, index in (("layer", layer), ("head", head)))
    rows, columns = (f"({start}, min({int(start) + int(size)}, prefill.num_tokens))" for start in (row, column))
    return "\n".join(
        [
            prefill_snippet(recipe),
            f"tile = prefill.attention({of_head}, rows={rows}, cols={columns})  # exact",
            f'whole = prefill.pooled({of_head}, bins=256, reduce="max")  # the whole map, [256, 256]',
            *(["# The page shows an average; this is one of what it averages."] if "*" in (layer, head) else []),
            *(["# The page shows a difference; this is what it takes from."] if less else []),
        ]
    )


def _among(index: str, count: int) -> bool:
    return index == "*" or int(index) < count


def plan_snippet(plan: ConversionPlan) -> str:
    """The two lines that apply a plan to a transformers model."""
    return "\n".join(
        [
            f"plan = lt.ConversionPlan(lazy_layers={plan.lazy_layers!r}, window={_window(plan.window)})",
            "with lt.hybrid(model, plan) as cache: model.generate(**inputs, past_key_values=cache)",
        ]
    )


def session_snippet() -> str:
    """A saved run, read back."""
    return "\n".join(
        [
            "from pathlib import Path",
            "from lighttransfer_core.session import Session",
            "",
            'session = Session.from_bytes(Path("session.json").read_bytes())',
            "print(session.model.name, session.plans)",
            'for name, lane in session.result["lanes"].items():',
            '    print(name, sum(lane["kv_bytes"]), lane["answers"][0]["text"])',
        ]
    )


def compare_snippet(recipe: Recipe, spec: CompareSpec, questions: Sequence[str]) -> str:
    """The lanes of a comparison, step by step, with the further questions that are asked of them."""
    lanes = [(f"lt.ConversionPlan({one.plan.lazy_layers!r}, window)", one.follow) for one in spec.lanes]
    follows = any(follow for _, follow in lanes)
    options = f", Sampling({spec.temperature}, {spec.seed})" if spec.temperature else ""
    options += ", candidates=1" if follows else ""
    summary = f"summarize(steps, lane, turn{', follows=one.follow' if follows else ''})"
    asking = [
        f"for question in {list(questions)!r}:",
        f"    lanes.ask(render_turn(lm.tokenizer, question, {recipe.rendering!r}))",
        "    while not lanes.done:",
        "        steps += lanes.advance()",
    ]
    return "\n".join(
        [
            prefill_snippet(recipe),
            "",
            "from lighttransfer_core.comparison import summarize",
            *(["from lighttransfer_core.lanes import Sampling"] if spec.temperature else []),
            *(["from lighttransfer_core.models.prompts import render_turn"] if questions else []),
            "",
            f"window = {_window(recipe.window)}",
            "settings = [",
            "    lt.LaneSettings(),  # A, the full model",
            *(f"    lt.LaneSettings({plan}{', follow=True' if follow else ''})," for plan, follow in lanes),
            "]",
            f"lanes = lt.Lanes(prefill, settings, {spec.max_new_tokens}{options})",
            "steps = []",
            "while not lanes.done:",
            "    steps += lanes.advance()",
            *(asking if questions else []),
            "for lane, one in enumerate(settings):",
            f"    for turn in range({len(questions) + 1}):",
            "        said = [s.event for s in steps if (s.lane, s.turn) == (lane, turn) and s.event is not None]",
            '        print("ABCD"[lane], "".join(event.text for event in said))',
            "        if lane:",
            f"            found = {summary}",
            "            print(found.first_divergence, found.agreement, found.kl.mean())",
        ]
    )


def scale_snippet(recipe: Recipe, model: str, asked: Question) -> str:
    """Bytes by formula, speed by measurement, and the batches of one prompt."""
    return "\n".join(
        [
            prefill_snippet(recipe)
            if model == recipe.model
            else f"import lighttransfer_core as lt\n\nlm = lt.load_model({model!r})",
            f"plan = lt.ConversionPlan(lazy_layers={asked.plan.lazy_layers!r}, window={_window(asked.plan.window)})",
            "",
            "from lighttransfer_core.cost.roofline import largest_batch, predicted_step_s, predicted_throughput",
            "from lighttransfer_core.speed import measure",
            "from lighttransfer_core.throughput import measure_throughput",
            "",
            f"print(largest_batch(lm.spec, plan, {asked.longest}, {asked.kv_nbytes}))",
            f"found = measure(lm, plan, contexts={asked.measured_contexts!r}, batches=({asked.batch},))",
            "for point in found.points:",
            "    one = plan if point.with_plan else None",
            "    predicted_s = predicted_step_s(found.speed, lm.spec, one, point.tokens, point.batch)",
            "    print(point.tokens, point.with_plan, point.latency.median_s, predicted_s)",
            f"print(predicted_throughput(found.speed, lm.spec, plan, {asked.longest}, {asked.kv_nbytes}))",
            *([f"print(measure_throughput(prefill, plan, {asked.kv_nbytes}).ratio)"] if model == recipe.model else []),
        ]
    )


def _imports(recipe: Recipe) -> list[str]:
    return ["import tomllib", ""] if recipe.prompt.question else []


def _text(recipe: Recipe) -> list[str]:
    if not recipe.prompt.question:
        return ['text = open("prompt.txt", encoding="utf-8").read()']
    return [
        f'demo = tomllib.load(open("assets/prompts/{recipe.prompt.key}.toml", "rb"))',
        "text = f\"{demo['text'].strip()}\\n\\n{demo['question'].strip()}\"",
    ]


def _window(window: Window) -> str:
    return f"lt.Window(sink={window.sink}, recent={window.recent})"
