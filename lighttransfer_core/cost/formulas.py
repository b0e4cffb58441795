"""KV cache sizes by formula: what a model's layers keep of a number of tokens, with and without a plan.

Knows specs and plans only. The cache counts the same bytes from its tensors; a test holds the two equal.
"""

from __future__ import annotations

from lighttransfer_core.errors import InvalidInputError, InvalidPlanError
from lighttransfer_core.types import ConversionPlan, ModelSpec


def kv_bytes_per_layer(
    spec: ModelSpec, plan: ConversionPlan | None, num_tokens: int, batch: int = 1
) -> tuple[int, ...]:
    """Bytes of keys and values that each layer keeps after `num_tokens` tokens.

    A full layer keeps every token, a streaming layer at most its window, a layer that slides by itself at most its
    own window; a layer without attention keeps none.

    Parameters
    ----------
    spec
        The model.
    plan
        Which layers stream; None: none.
    num_tokens
        Tokens of one sequence, prompt and generated ones together.
    batch
        Sequences of that length.

    Returns
    -------
    One number of bytes per layer, `[L]`.

    Raises
    ------
    InvalidPlanError
        The plan converts a layer that the model does not have or that cannot be converted.
    """
    for name, value, least in (("num_tokens", num_tokens, 0), ("batch", batch, 1)):
        if value < least:
            raise InvalidInputError(f"{name}={value} is out of range: give at least {least}.")
    row = spec.kv_bytes_per_token_per_layer * batch
    return tuple(row * (num_tokens if cap is None else min(num_tokens, cap)) for cap in kept_tokens_caps(spec, plan))


def kept_tokens_caps(spec: ModelSpec, plan: ConversionPlan | None) -> tuple[int | None, ...]:
    """The most tokens that each layer keeps, `[L]`; None: every token, 0: a layer without attention.

    Raises
    ------
    InvalidPlanError
        The plan converts a layer that the model does not have or that cannot be converted.
    """
    lazy = _lazy_layers(spec, plan)
    window = plan.window.size if plan is not None else None
    return tuple(
        0 if kind == "other" else window if layer in lazy else spec.native_windows[layer]
        for layer, kind in enumerate(spec.layer_kinds)
    )


def kv_bytes(spec: ModelSpec, plan: ConversionPlan | None, num_tokens: int, batch: int = 1) -> int:
    """Bytes of keys and values in all layers after `num_tokens` tokens; see `kv_bytes_per_layer`."""
    return sum(kv_bytes_per_layer(spec, plan, num_tokens, batch))


def _lazy_layers(spec: ModelSpec, plan: ConversionPlan | None) -> frozenset[int]:
    lazy = frozenset(plan.lazy_layers if plan is not None else ())
    if refused := sorted(lazy.difference(spec.convertible_layers)):
        reasons = [f"layer {layer} {spec.not_convertible.get(layer, 'does not exist')}" for layer in refused]
        raise InvalidPlanError(
            f"The plan cannot be applied to {spec.name} ({spec.num_layers} layers): {'; '.join(reasons)}."
        )
    return lazy
