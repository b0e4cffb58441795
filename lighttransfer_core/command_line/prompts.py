"""The commands `score`, `plan`, `generate` and `compare`, on prompts of the user."""

from __future__ import annotations

import sys
from typing import Final

import typer

from lighttransfer_core.command_line import console
from lighttransfer_core.command_line.options import (
    AsJson,
    ByVotes,
    Compiled,
    Device,
    Dtype,
    KeepFull,
    Last,
    Metric,
    Model,
    NewTokens,
    Output,
    PlanFile,
    PlanOrder,
    PlanOrScores,
    Prompt,
    PromptFiles,
    Raw,
    Recent,
    Revision,
    ScoresFiles,
    ScoresOutput,
    Seed,
    Sink,
    System,
    Temperature,
)
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.types import Window

app = typer.Typer()

_SCORING: Final = ("sink", "recent", "last", "metric")
_LOADING: Final = ("model", "device", "dtype", "revision")


@app.command()
def score(
    model: Model = "smollm2",
    prompt: Prompt = None,
    prompt_file: PromptFiles = None,
    raw: Raw = False,
    system: System = None,
    sink: Sink = 4,
    recent: Recent = 1020,
    last: Last = 32,
    metric: Metric = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    output: ScoresOutput = None,
    as_json: AsJson = False,
) -> None:
    """Rank the layers by laziness, on one prompt or on the average of several."""
    from lighttransfer_core.command_line import prompting

    window, texts = Window(sink, recent), prompting.read_prompts(prompt, prompt_file)
    lm = prompting.load(model, device, dtype, revision)
    scores = prompting.averaged(prompting.score_each(lm, texts, raw, system, window, last, metric))
    if output is not None:
        prompting.write_text(output, prompting.score_set(scores, prompt_file, raw).to_json() + "\n")
    if as_json:
        console.print_json({**scores.to_dict(), "ranking": scores.ranking() if scores.informative else None})
    else:
        console.show_scores(scores, lm.spec)


@app.command()
def plan(
    context: typer.Context,
    model: Model = "smollm2",
    prompt: Prompt = None,
    prompt_file: PromptFiles = None,
    raw: Raw = False,
    system: System = None,
    sink: Sink = 4,
    recent: Recent = 1020,
    last: Last = 32,
    metric: Metric = None,
    scores: ScoresFiles = None,
    order: PlanOrder = None,
    keep_full: KeepFull = 0.5,
    votes: ByVotes = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    output: Output = None,
) -> None:
    """Make a plan: the laziest layers become streaming layers, by the scores of prompts, or of files, or by one order.

    An order is for one window: --sink and --recent choose it.
    """
    from lighttransfer_core.command_line import prompting
    from lighttransfer_core.frontier.orders import order_for, read_orders

    prompts = prompt is not None or prompt_file
    given = [name for name, one in (("scores", scores), ("an order", order), ("a prompt", prompts)) if one]
    if len(given) > 1:
        raise InvalidInputError(f"A plan is made from one of them, and {' and '.join(given)} were given: give one.")
    window = Window(sink, recent)
    if order is not None:
        _without(context, "orders", ("raw", "system", "last", "metric", "votes", *_LOADING))
        made = order_for(window, read_orders(order)).plan(keep_full)
    elif scores:
        _without(context, "scores", ("raw", "system", *_SCORING, *_LOADING))
        made = prompting.make_plan(prompting.read_scores(scores), keep_full, votes)
    else:
        texts = prompting.read_prompts(prompt, prompt_file)
        lm = prompting.load(model, device, dtype, revision)
        made = prompting.make_plan(prompting.score_each(lm, texts, raw, system, window, last, metric), keep_full, votes)
    prompting.write_text(output, made.to_json() + "\n")


@app.command()
def generate(
    model: Model = "smollm2",
    prompt: Prompt = None,
    prompt_file: PromptFiles = None,
    raw: Raw = False,
    system: System = None,
    plan_file: PlanFile = None,
    max_new_tokens: NewTokens = 64,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    compiled: Compiled = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Answer a prompt, by the unmodified model or under a plan; with --json one event a line."""
    from lighttransfer_core.command_line import prompting
    from lighttransfer_core.compiled import decode_compiled
    from lighttransfer_core.decoding import decode

    text, given = prompting.read_prompt(prompt, prompt_file), prompting.read_plan(plan_file)
    lm = prompting.load(model, device, dtype, revision)
    prefill = prompting.prefill(lm, text, raw, system, query_rows=1)
    answer = decode_compiled if compiled else decode
    for event in answer(prefill, given, max_new_tokens, temperature=temperature, seed=seed):
        sys.stdout.write(event.to_json() + "\n" if as_json else event.text)
        sys.stdout.flush()
    sys.stdout.write("" if as_json else "\n")


@app.command()
def compare(
    context: typer.Context,
    model: Model = "smollm2",
    prompt: Prompt = None,
    prompt_file: PromptFiles = None,
    raw: Raw = False,
    system: System = None,
    plan_file: PlanOrScores = None,
    sink: Sink = 4,
    recent: Recent = 1020,
    last: Last = 32,
    metric: Metric = None,
    keep_full: KeepFull = 0.5,
    max_new_tokens: NewTokens = 64,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """The full model beside a plan, after one prefill: texts, first divergence, KL, KV bytes, latency."""
    from lighttransfer_core.command_line import prompting
    from lighttransfer_core.comparison import compare_steps, summarize
    from lighttransfer_core.laziness import plan_from_scores

    if plan_file is not None:
        _without(context, "a plan’s window and layers", (*_SCORING, "keep_full"))
    window, text = Window(sink, recent), prompting.read_prompt(prompt, prompt_file)
    chosen = prompting.read_plan(plan_file)
    lm = prompting.load(model, device, dtype, revision)
    prefill = prompting.prefill(lm, text, raw, system)
    if chosen is None:
        chosen = plan_from_scores(prompting.score(prefill, window, last, metric), keep_full)
    steps = list(compare_steps(prefill, None, chosen, max_new_tokens))
    summary = summarize(steps)
    if as_json:
        console.print_json({**summary.to_dict(), "plan": chosen.to_dict(), "steps": [s.to_dict() for s in steps]})
    else:
        console.show_comparison(summary, steps, chosen)


def _without(context: typer.Context, given: str, names: tuple[str, ...]) -> None:
    """Refuses options that say what was given says by itself."""
    sources = {name: context.get_parameter_source(name) for name in names}
    asked = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if asked:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise InvalidInputError(
            f"{options} would change nothing, since {given} were given: leave out one or the other."
        )
