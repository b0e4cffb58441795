"""The options of the command line, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="Catalogue name, hub id, folder or GGUF file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda:0 ...")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16, int8 (linear weights in 8 bits).")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
Prompt = Annotated[str | None, typer.Option(help="The prompt itself.")]
PromptFiles = Annotated[list[Path] | None, typer.Option("--prompt-file", help="A text file; - for standard input.")]
Raw = Annotated[bool, typer.Option("--raw", help="Without the chat template.")]
System = Annotated[str | None, typer.Option(help="System prompt in place of the template's own.")]
Sink = Annotated[int, typer.Option(help="First tokens that a streaming layer keeps.")]
Recent = Annotated[int, typer.Option(help="Most recent tokens that a streaming layer keeps.")]
Last = Annotated[int, typer.Option(help="Last queries that the metric averages over.")]
Metric = Annotated[str | None, typer.Option(help="Laziness metric; the recommended one if not given.")]
KeepFull = Annotated[float, typer.Option(help="Share of the convertible layers that stay full.")]
ScoresOutput = Annotated[Path | None, typer.Option("--output", help="Write the scores to this file too.")]
ScoresFiles = Annotated[
    list[Path] | None, typer.Option("--scores", help="Scores that `score --output` wrote, in place of a prompt.")
]
PlanOrder = Annotated[
    Path | None, typer.Option("--order", help="A ranking that `calibrate` wrote, in place of a prompt.")
]
ByVotes = Annotated[bool, typer.Option("--votes", help="The layers that most prompts convert, not the laziest mean.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="A plan file; without one the unmodified model answers.")]
PlanOrScores = Annotated[
    Path | None, typer.Option("--plan", help="A plan file; without one, one is made from the scores.")
]
NewTokens = Annotated[int, typer.Option(help="Tokens to generate at most.")]
Output = Annotated[Path | None, typer.Option(help="Where to write the plan; standard output if not given.")]
Temperature = Annotated[float, typer.Option(help="0 for greedy.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the sampler.")]
Compiled = Annotated[bool, typer.Option("--compiled", help="The decode step as one CUDA graph, where there is CUDA.")]
FetchedTask = Annotated[str | None, typer.Option("--fetch", help="Bring the texts of this task onto this disk first.")]
FetchedModel = Annotated[str, typer.Argument(help="Catalogue name, hub id, folder or GGUF file.")]
Host = Annotated[str, typer.Option(help="Address to listen on; outside loopback LIGHTTRANSFER_TOKEN must be set.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 for any free port.")]
MaxPromptTokens = Annotated[int | None, typer.Option(min=1, help="Longest prompt; positions and memory bound it.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, max=4096, help="Longest answer that a client may ask for.")]
MaxSeconds = Annotated[float, typer.Option(min=1, help="Longest time that a run may take, pauses included.")]
MaxSweepSeconds = Annotated[float, typer.Option(min=1, help="The same of a sweep, which can be gone on with.")]
Budget = Annotated[float | None, typer.Option(min=0.01, help="GB for weights and results; 70% of what is free.")]
ReadyFile = Annotated[Path | None, typer.Option(help="Where to write the address once everything is imported.")]
ExitWithStdin = Annotated[bool, typer.Option("--exit-with-stdin", help="End when standard input ends.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]
Tasks = Annotated[list[str], typer.Option("--task", help="A task's name, or a .jsonl file of questions; repeatable.")]
Lengths = Annotated[list[int], typer.Option("--length", help="Tokens of a prompt, as often as there are lengths.")]
Windows = Annotated[list[str], typer.Option("--window", help="Sink and recent tokens, such as 4+252.")]
Shares = Annotated[list[float], typer.Option("--share", help="Share of the layers that stream, such as 0.5.")]
Rankings = Annotated[list[str], typer.Option("--ranking", help="A metric that ranks every prompt's layers.")]
Trials = Annotated[list[str] | None, typer.Option("--trial", help="A metric that tries layers out, on some prompts.")]
TrialExamples = Annotated[int, typer.Option(min=0, help="Prompts of a task that --trial ranks; needed with it.")]
Orders = Annotated[list[Path] | None, typer.Option("--order", help="A ranking that `calibrate` wrote.")]
Questions = Annotated[list[str], typer.Option("--question", help="aware: it is in the prompt; agnostic: asked later.")]
Examples = Annotated[int, typer.Option(min=1, help="Prompts of each task and length.")]
FirstSeed = Annotated[int, typer.Option(min=0, help="Seed of the first prompt; further ones count up.")]
AnswerLimit = Annotated[int | None, typer.Option("--max-new-tokens", min=1, help="Cut answers shorter than tasks do.")]
ResultsFiles = Annotated[list[Path], typer.Argument(help="Results of `sweep`, or folders of them.")]
Beside = Annotated[
    str | None,
    typer.Option(help="Also how far each ranking is ahead of this one on the same prompts; random: of chance."),
]
Together = Annotated[
    bool, typer.Option("--together", help="Results of the same tasks on the same model as one, over all prompts.")
]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Tables to read, a row per ranking.")]
ResultsOutput = Annotated[
    Path | None,
    typer.Option("--output", help="File of results, gone on with if it exists; the backend's if not given."),
]
OrderOutput = Annotated[Path, typer.Option("--output", help="Where to write the ranking.")]
OrderName = Annotated[
    str | None,
    typer.Option("--name", help="What the ranking is called after calibrated_; as the metric if not given."),
]
TrialMetric = Annotated[str, typer.Option("--metric", help="Metric whose mean over the prompts becomes the ranking.")]
