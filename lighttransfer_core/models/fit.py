"""Whether a plan fits a model."""

from __future__ import annotations

from lighttransfer_core.errors import InvalidInputError, InvalidPlanError
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
