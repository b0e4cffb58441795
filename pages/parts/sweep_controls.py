"""The choices of a sweep of one's own, in the page's address, and what they come to."""

from __future__ import annotations

import shlex
from typing import Final, cast

import streamlit as st

from lighttransfer_core.errors import InvalidInputError, InvalidWindowError, LightTransferError
from lighttransfer_core.frontier.spec import Question, SweepSpec, check_room_outside
from lighttransfer_core.frontier.summary import is_random
from lighttransfer_core.frontier.verdict import ENOUGH
from lighttransfer_core.models.catalogue import find
from lighttransfer_core.selection import RECOMMENDED_METRIC
from lighttransfer_core.service.specs import SweepRunSpec
from lighttransfer_core.tasks import list_tasks, task_info
from lighttransfer_core.types import Window
from pages.parts import address, backend, errors, evidence, runs
from pages.parts.metrics import metrics, offered
from pages.parts.recipe import Recipe
from viz.units import about_text, count_text, seconds_text

LENGTHS: Final = (512, 1024, 1536, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072)
SHARES: Final = (10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90)
WINDOWS: Final = {"4 + 60": (4, 60), "4 + 252": (4, 252), "4 + 508": (4, 508), "4 + 1020": (4, 1020)}
RANKINGS: Final = (RECOMMENDED_METRIC, "worst_head", "lazy_ratio", "depth_early")
SEED: Final = 100_000
ANSWER_TOKENS: Final = 16


def controls(recipe: Recipe) -> SweepRunSpec | None:
    """Draw them; None after it was said what is missing or does not go together."""
    tasks = _tasks()
    boxes, offered_lengths = [*st.columns(2), *st.columns(2)], _lengths(recipe.model)
    lengths = boxes[0].multiselect(
        "Prompt tokens",
        offered_lengths,
        default=[length for length in offered_lengths if int(length) <= 1024][-1:],
        key="lengths",
        bind="query-params",
    )
    windows = boxes[1].multiselect(
        "Windows", [address.SIDEBAR, *WINDOWS], default=[address.SIDEBAR], key="windows", bind="query-params"
    )
    shares = boxes[2].multiselect(
        "Layers that stream",
        [f"{share}%" for share in SHARES],
        default=["25%", "50%", "70%"],
        key="shares",
        bind="query-params",
    )
    questions = boxes[3].multiselect(
        "Questions are",
        ["aware", "agnostic"],
        default=["aware"],
        key="ways",
        bind="query-params",
        help="aware: in the prompt that is scored and cut. agnostic: asked of the cut cache afterwards.",
    )
    rankings = _rankings()
    examples, seed, answer = _numbers()
    try:
        sweep = SweepSpec(
            tasks=tuple(tasks),
            lengths=tuple(map(int, lengths)),
            windows=tuple(dict.fromkeys(_window(recipe, name) for name in windows)),
            shares=tuple(int(share.rstrip("%")) / 100 for share in shares),
            rankings=tuple(rankings),
            questions=cast(tuple[Question, ...], tuple(questions)),
            examples=examples,
            first_seed=seed,
            last=recipe.last,
            rendering=recipe.rendering,
            max_new_tokens=answer,
        )
        for window in sweep.windows:
            check_room_outside(window, min(sweep.lengths))
        if not rankings:
            raise InvalidInputError("A sweep needs rankings: choose at least one.")
    except InvalidWindowError as error:
        errors.panel(error, "Choose longer prompts or a smaller window.")
        return None
    except InvalidInputError as error:
        errors.panel(error, "Choose at least one entry in every box.")
        return None
    return SweepRunSpec(recipe.model, sweep, recipe.prefill_spec().dtype)


def _window(recipe: Recipe, name: str) -> Window:
    return recipe.window if name == address.SIDEBAR else Window(*WINDOWS[name])


def _tasks() -> list[str]:
    """All can be chosen, since an address may name them before the backend is up; the chosen ones are explained."""
    chosen = st.multiselect("Tasks", list_tasks(), default=["niah_single_1"], key="tasks", bind="query-params")
    listed = backend.ask(lambda client: client.tasks())
    ready = None if isinstance(listed, LightTransferError) else {task.name for task in listed if task.ready}
    for name in chosen:
        info = task_info(name)
        text = f"{name}: {info.title}. {info.description}"
        if ready is not None and name not in ready:
            text += (
                " Its texts are not on the backend’s machine yet; there, `python -m lighttransfer_core tasks --fetch "
                f"{name}` brings them."
            )
        st.caption(errors.plain(text))
    return list(chosen)


def _lengths(model: str) -> list[str]:
    entry = find(model)
    most = LENGTHS[-1] if entry is None else entry.max_positions
    return [str(length) for length in LENGTHS if length < most]


def _rankings() -> list[str]:
    several, chance = st.columns([4, 1], vertical_alignment="top")
    named = [name for name in offered() if not is_random(name)]
    random = [name for name in metrics() if is_random(name)]
    chosen = several.multiselect(
        "Rankings and controls",
        named,
        default=[name for name in RANKINGS if name in named],
        key="rank",
        bind="query-params",
        help="The Laziness page explains each. Every one is tried on the same prompts.",
    )
    seeds = chance.number_input(
        "Random orders",
        *address.CHANCE_RANGE,
        value=3,
        key="chance",
        bind="query-params",
        help="The band of chance: what no knowledge of the model gives.",
    )
    return [*chosen, *random[: int(seeds)]]


def _numbers() -> tuple[int, int, int]:
    boxes = st.columns(3)
    examples = boxes[0].number_input(
        "Prompts of each task",
        *address.PROMPTS_RANGE,
        value=ENOUGH,
        key="prompts",
        bind="query-params",
        help=f"Of each task, length and way to ask. A verdict needs {ENOUGH}.",
    )
    seed = boxes[1].number_input(
        "First seed",
        *address.SEED_RANGE,
        value=SEED,
        key="first_seed",
        bind="query-params",
        help="Prompts are made from seeds. Those of the evidence that comes with the app begin at 0: other seeds are "
        "prompts that nobody has looked at.",
    )
    answer = boxes[2].number_input(
        "Answer tokens, at most",
        *address.ANSWER_RANGE,
        value=ANSWER_TOKENS,
        key="answer_tokens",
        bind="query-params",
        help="Wrong answers ramble on to this limit. Numbers need 12, identifiers 40, several values 64.",
    )
    return int(examples), int(seed), int(answer)


def cost_words(spec: SweepRunSpec, found: evidence.Evidence, held: int) -> str:
    """How many prompts and plans that is, and how long it takes where that is known."""
    sweep = spec.sweep
    size = f"{count_text(sweep.prompts, 'prompt')}, each for the full model and up to {count_text(sweep.plans, 'plan')}"
    kept = f", {held:,} of them measured already" if held else ""
    seconds = _prompt_s(spec, found)
    if held >= sweep.prompts:
        return f"{size}."
    if runs.outcome(spec).state == "running":  # its progress says how long that still takes
        return f"{size}{kept}."
    if seconds is None:
        return f"{size}{kept}. How long that takes is known once prompts of these lengths have been measured here."
    left = seconds * (sweep.prompts - held)
    return (
        f"{size}{kept}. {'The rest' if held else 'That'} takes {about_text(left)} if no other run shares the backend, "
        f"by prompts of these lengths that it has measured ({seconds_text(seconds)} each)."
    )


def _prompt_s(spec: SweepRunSpec, found: evidence.Evidence) -> float | None:
    """Seconds of a prompt, the mean over the sweep's lengths of the median that was measured on this backend."""
    medians = []
    for length in spec.sweep.lengths:
        taken = sorted(
            result.seconds
            for sweep in found.measured
            if evidence.is_of(sweep, spec.model) and 0.5 < sweep.header.spec.plans / spec.sweep.plans < 2
            for result in sweep.results
            if result.key.length == length and result.seconds is not None
        )
        if not taken:
            return None
        medians.append(taken[len(taken) // 2])
    return sum(medians) / len(medians)


def command(spec: SweepRunSpec) -> str:
    """The same sweep on the command line; it goes on with the same file."""
    sweep = spec.sweep
    parts = ["python", "-m", "lighttransfer_core", "sweep", "--model", spec.model]
    options = {
        "--task": sweep.tasks,
        "--length": sweep.lengths,
        "--window": [f"{window.sink}+{window.recent}" for window in sweep.windows],
        "--share": sweep.shares,
        "--ranking": sweep.rankings,
        "--question": sweep.questions,
    }
    for name, values in options.items():
        for value in values:
            parts += [name, str(value)]
    parts += ["--examples", str(sweep.examples), "--first-seed", str(sweep.first_seed), "--last", str(sweep.last)]
    parts += ["--max-new-tokens", str(sweep.max_new_tokens), "--dtype", spec.dtype]
    return shlex.join([*parts, *(["--raw"] if sweep.rendering == "raw" else [])])
