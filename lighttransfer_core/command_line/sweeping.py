"""The commands `sweep`, `calibrate` and `frontier`: from options to a results file, and from files to a table."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lighttransfer_core.command_line import console, prompting
from lighttransfer_core.errors import InvalidInputError, InvalidWindowError
from lighttransfer_core.folders import results_folder
from lighttransfer_core.frontier import tables
from lighttransfer_core.frontier.bounds import check_names
from lighttransfer_core.frontier.calibration import calibration_steps
from lighttransfer_core.frontier.files import adding_to, part_of, read_parts
from lighttransfer_core.frontier.kept_scores import KeptScores
from lighttransfer_core.frontier.orders import StaticOrder, read_orders
from lighttransfer_core.frontier.pooling import together
from lighttransfer_core.frontier.results import SUFFIX, Sweep, merged, read_folder
from lighttransfer_core.frontier.spec import SweepHeader, SweepSpec
from lighttransfer_core.frontier.summary import CHANCE, compared, random_orders
from lighttransfer_core.frontier.sweep import check_files, sweep_header, sweep_steps
from lighttransfer_core.tasks import register_file
from lighttransfer_core.types import Window


def read_spec(tasks: Sequence[str], windows: Sequence[str], orders: Sequence[Path] = (), **given: Any) -> SweepSpec:
    """The options as a checked spec; files of questions become tasks."""
    spec = SweepSpec(
        tasks=tuple(register_file(Path(name)) if name.endswith(SUFFIX) else name for name in tasks),
        windows=tuple(read_window(text) for text in windows),
        orders=tuple(order for file in orders for order in read_orders(file)),
        **given,
    )
    check_names(spec)  # before a model is loaded for it
    return spec


def read_window(text: str) -> Window:
    """`4+252`."""
    sink, plus, recent = text.replace(" ", "").partition("+")
    if not (plus and sink.isdecimal() and recent.isdecimal()):
        raise InvalidWindowError(f"{text!r} is not a window: write sink and recent tokens like 4+252.")
    return Window(int(sink), int(recent))


def run(model: str, device: str, dtype: str, revision: str | None, spec: SweepSpec, output: Path | None) -> Path:
    """Asks what is not in the file yet, which is the file's of the backend if none is named; returns it."""
    if output is not None and output.suffix != SUFFIX:
        raise InvalidInputError(
            f"--output {output} does not end in {SUFFIX}, and readers of a folder know results by that: give "
            f"{output.name}{SUFFIX}."
        )
    rank, processes, device = _place(device)
    lm = prompting.load(model, device, dtype, revision)
    header = sweep_header(lm, spec)
    file = output or results_folder() / header.file_name
    file = file if processes == 1 else part_of(file, rank)
    others = set(spec.keys).difference(spec.keys_of(rank, processes))
    with adding_to(file, header) as results, console.progress() as report:
        for at in sweep_steps(lm, spec, results.done | others):
            report(at.doing, at.done / at.total)
            if at.result is not None:
                results.add(at.result)
    return file


def calibrate(
    model: str,
    device: str,
    dtype: str,
    revision: str | None,
    spec: SweepSpec,
    metric: str,
    name: str | None,
    output: Path,
) -> None:
    """Writes one static ranking per window; the scores of each prompt are kept beside it as they are found."""
    prompting.check_writable(output)
    lm = prompting.load(model, device, dtype, revision)
    check_files(lm, spec)
    kept = KeptScores(scores_file(output), SweepHeader(spec, lm.spec), metric)
    with console.progress() as report:
        steps = calibration_steps(lm, spec, metric, name, kept.done)
        while True:
            try:
                at = next(steps)
            except StopIteration as end:
                orders: list[StaticOrder] = end.value
                break
            report(at.doing, at.done / at.total)
            if at.scored is not None:
                kept.add(*at.scored)
    prompting.write_text(output, json.dumps([order.to_dict() for order in orders]) + "\n")


def scores_file(output: Path) -> Path:
    """Where the scores of a calibration's prompts are kept."""
    return output.with_name(f"{output.name}.scores")


def read_results(paths: Sequence[Path], as_one: bool = False) -> list[Sweep]:
    """Files and folders of results; `as_one`: those of the same tasks on the same model together."""
    found = merged(sweep for path in paths for sweep in (read_folder(path) if path.is_dir() else read_parts(path)))
    if not found:
        raise InvalidInputError(f"There are no results in {', '.join(map(str, paths))}: `sweep` writes them.")
    return together(found) if as_one else found


def table(paths: Sequence[Path], beside: str | None, as_one: bool = False) -> list[tables.TableRow]:
    """A row per ranking, task, length, window, way to ask and share, with the lead over the ranking `beside`."""
    found = read_results(paths, as_one)
    if beside is not None:
        _check_ranked(found, beside)
    return [row for sweep in found for row in tables.table_rows(sweep, beside)]


def markdown(paths: Sequence[Path], as_one: bool = False) -> str:
    """The tables of each sweep, under its title."""
    told = ((sweep.title, tables.markdown(sweep)) for sweep in read_results(paths, as_one))
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in told if text)


def _check_ranked(sweeps: Sequence[Sweep], name: str) -> None:
    """That there is something to be ahead of; a set of layers is tried at one share only."""
    known = list(dict.fromkeys(ranking for sweep in sweeps for ranking in compared(sweep)))
    known += [CHANCE] if any(random_orders(sweep.results) for sweep in sweeps) else []
    if name not in known:
        raise InvalidInputError(f"{name!r} ranked nothing in these results: give one of {', '.join(known)}.")


def _place(device: str) -> tuple[int, int, str]:
    """Which process this is, of how many, and its device: one of its own each under `accelerate launch`.

    The launcher says so in the environment; the processes share nothing but the question, so they form no group.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return 0, 1, device
    accelerator = torch.accelerator.current_accelerator()
    if device == "auto" and accelerator is not None:
        device = f"{accelerator.type}:{os.environ['LOCAL_RANK']}"
    return int(os.environ["RANK"]), processes, device
