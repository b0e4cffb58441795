"""What a sweep needs before it starts: names that exist, a model that it fits, and how many bytes it will hold."""

from __future__ import annotations

from lighttransfer_core.branches import MOST_LOGITS
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidPromptError
from lighttransfer_core.frontier.asking import answer_limit, turn_size
from lighttransfer_core.frontier.orders import window_text
from lighttransfer_core.frontier.spec import SweepSpec, check_room_outside
from lighttransfer_core.keep import Keep, prefill_nbytes
from lighttransfer_core.laziness.metric import get_metric
from lighttransfer_core.laziness.trials import AnswerMetric
from lighttransfer_core.models.fit import check_room
from lighttransfer_core.tasks import FileTask, get_task, is_ready
from lighttransfer_core.types import ModelIdentity, ModelSpec, Window

_TAIL_GROWTH = 1.25
_QUESTION_TOKENS = 128


def check_names(spec: SweepSpec) -> None:
    """Refuses tasks and rankings that there are not, and trials and orders with which nothing would be tried.

    Raises
    ------
    UnknownMetricError, UnknownTaskError, InvalidInputError
    """
    spec.check_once()
    for name in (*spec.rankings, *spec.trials):
        if not isinstance(get_metric(name), AnswerMetric) and name in spec.trials:
            raise InvalidInputError(f"{name} tries no layers out, so it is no trial: give it as a ranking.")
    if spec.trials and not spec.trial_examples:
        raise InvalidInputError(
            f"{', '.join(spec.trials)} would rank none of the prompts: say of how many of each task, with "
            "--trial-examples."
        )
    for name in spec.tasks:
        _check_questions(name, spec)
    windows = dict[str, list[Window]]()
    for static in spec.orders:
        windows.setdefault(static.name, []).append(static.window)
    for name, made in windows.items():
        if not set(made).intersection(spec.windows):
            asked, known = (", ".join(map(window_text, some)) for some in (spec.windows, made))
            raise InvalidInputError(
                f"No order of {name} is for the windows {asked}, but for {known}: give one of those as --window, or "
                "calibrate for the windows of the sweep."
            )


def _check_questions(name: str, spec: SweepSpec) -> None:
    """Refuses to ask a task more than it has, or the same at several lengths: both would count a prompt twice."""
    task = get_task(name)
    size = task.size if is_ready(name) else None
    if size is not None and spec.examples > size:
        raise InvalidInputError(f"{name} has {size:,} questions, and {spec.examples:,} are asked for: give {size:,}.")
    if isinstance(task, FileTask) and len(spec.lengths) > 1:
        raise InvalidInputError(
            f"The questions of {name} are as long as they are: give one length, which is the most that is taken."
        )


def check_sweep(model: ModelSpec, spec: SweepSpec) -> None:
    """Refuses what could not be run to the end on this model; where a model turns texts by their length, questions that
    are asked later can still cross that point, since they have lengths of their own.

    Raises
    ------
    InvalidPromptError
        Prompts with their answers would outgrow the model's positions.
    InvalidWindowError
        A window keeps the shortest prompt whole.
    InvalidPlanError
        An order is none of this model's layers, or was made for another model.
    """
    longest, shortest = max(spec.lengths), min(spec.lengths)
    answer = max(answer_limit(get_task(name), spec.max_new_tokens) for name in spec.tasks)
    if longest + answer > model.max_positions:
        raise InvalidPromptError(
            f"Prompts of {longest:,} tokens with answers of {answer:,} are asked for, and {model.name} has "
            f"{model.max_positions:,} positions: ask for at most {max(model.max_positions - answer, 0):,} tokens, or "
            "for shorter answers."
        )
    for length in spec.lengths:
        check_room(model, length, answer)
    for window in spec.windows:
        check_room_outside(window, shortest)
    layers = list(model.convertible_layers)
    for static in spec.orders:
        if static.model is not None and not _may_be(static.model, model.identity):
            raise InvalidPlanError(
                f"{static.name} was made for {_model_text(static.model)}, and this is {_model_text(model.identity)}: "
                "calibrate for this model."
            )
        if sorted(static.order) != layers or (static.lazy or 0) > len(layers):
            raise InvalidPlanError(
                f"{static.name} does not order the {len(layers)} layers of {model.name} that can be converted: make it "
                "for this model."
            )


def _may_be(one: ModelIdentity, other: ModelIdentity) -> bool:
    """Of the same shape, and of one name or one revision: copies of a folder have other revisions, and files other
    names."""
    same_revision = one.revision is not None and one.revision == other.revision
    return one.shape == other.shape and (one.name == other.name or same_revision)


def _model_text(model: ModelIdentity) -> str:
    return model.name if model.revision is None else f"{model.name} at {model.revision}"


def sweep_nbytes(model: ModelSpec, spec: SweepSpec, keep: Keep, length: int | None = None) -> int:
    """The most bytes that a sweep holds beside the weights, for prompts of `length` tokens (None: its longest).

    What is asked both ways is held twice while the second way takes over the prompt of the first.
    """
    answer = max(answer_limit(get_task(name), spec.max_new_tokens) for name in spec.tasks)
    longest = max(spec.lengths) if length is None else length
    earlier = prefill_nbytes(model, longest, keep) if len(spec.questions) > 1 else 0
    return earlier + asking_nbytes(model, longest, spec.plans + 1, answer, keep)


def asking_nbytes(model: ModelSpec, length: int, plans: int, answer_tokens: int, keep: Keep) -> int:
    """One prefill, the tails of a batch of plans, and its logits."""
    size = turn_size("cpu" if model.device == "cpu" else "accelerator")
    rows = min(plans, size.rows)
    tail = rows * (answer_tokens + _QUESTION_TOKENS) * model.num_layers * model.kv_bytes_per_token_per_layer
    logits = 4 * min(MOST_LOGITS, max(rows, size.tokens) * model.vocab_size)
    return prefill_nbytes(model, length, keep) + int(_TAIL_GROWTH * tail) + 3 * logits
