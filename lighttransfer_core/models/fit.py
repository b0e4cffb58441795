"""Whether a plan, or more tokens, fit a model."""

from __future__ import annotations

from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidPromptError
from lighttransfer_core.types import ConversionPlan, ModelSpec


def check_plan(plan: ConversionPlan, spec: ModelSpec) -> None:
    """Refuses a plan that names layers which the model lacks or which cannot be converted.

    Raises
    ------
    InvalidPlanError
    InvalidInputError
        It is no plan at all.
    """
    if not isinstance(plan, ConversionPlan):
        raise InvalidInputError(
            f"{type(plan).__name__} is not a plan: give a ConversionPlan (or, to hybrid(...), an OnTheFly)."
        )
    if plan.model is not None and plan.model.shape != spec.identity.shape:
        raise InvalidPlanError(
            f"the plan was made for {plan.model.name} with (layers, heads, KV heads, head dimension) = "
            f"{plan.model.shape}, and {spec.name} has {spec.identity.shape}: make a plan for this model."
        )
    for layer in plan.lazy_layers:
        if layer >= spec.num_layers:
            raise InvalidPlanError(
                f"the plan converts layer {layer}, and {spec.name} has layers 0 to {spec.num_layers - 1}."
            )
        if layer in spec.not_convertible:
            raise InvalidPlanError(f"layer {layer} of {spec.name} cannot be converted: {spec.not_convertible[layer]}.")


def check_room(spec: ModelSpec, num_tokens: int, new_tokens: int) -> None:
    """Refuses more new tokens than can follow a text of so many.

    Raises
    ------
    InvalidPromptError
    """
    room = spec.room(num_tokens)
    if new_tokens <= room:
        return
    turns = num_tokens + room < spec.max_positions
    why = (
        f"turns texts of more than {num_tokens + room:,} tokens by other rotary frequencies"
        if turns
        else f"has {spec.max_positions:,} positions"
    )
    fewer = f"at most {room:,}" if room else "fewer"
    raise InvalidPromptError(
        f"The text has {num_tokens:,} tokens and {new_tokens:,} more are asked for, but {spec.name} {why}: ask for "
        f"{fewer} new tokens, or use a {'shorter or a longer' if turns else 'shorter'} prompt."
    )
