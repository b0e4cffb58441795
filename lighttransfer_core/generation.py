"""`hybrid(...)`: a user's own transformers model, generating with a hybrid cache, and restored on exit.

Inside the context every `generate` call gets a hybrid cache, given or made, so pipelines and evaluation harnesses work
unchanged. What would be silently wrong is refused by name before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any, cast
from weakref import WeakKeyDictionary

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from lighttransfer_core.attention import LayerAttention, attached, attention_layers, check_supported
from lighttransfer_core.attention.projection import output_projections
from lighttransfer_core.cache import FullLayer, HybridCache, NativeLayer, PromptObserver, StaticPolicy
from lighttransfer_core.errors import (
    CacheMisuseError,
    InvalidInputError,
    InvalidPromptError,
    UnsupportedRequestError,
)
from lighttransfer_core.laziness import HeapPolicy, OnTheFly
from lighttransfer_core.models import describe
from lighttransfer_core.models.fit import check_plan
from lighttransfer_core.types import ConversionPlan, ModelSpec

_REFUSED = {
    "cache_implementation": "another cache was asked for",
    "assistant_model": "assisted decoding takes tokens back, which streaming layers have dropped",
    "prompt_lookup_num_tokens": "prompt lookup takes tokens back, which streaming layers have dropped",
    "guidance_scale": "its second, unconditional pass would run without the hybrid cache",
    "assistant_early_exit": "assisted decoding takes tokens back, which streaming layers have dropped",
}


@contextmanager
def hybrid(
    model: PreTrainedModel, plan: ConversionPlan | OnTheFly, prompt_tokens: int | None = None
) -> Iterator[HybridCache]:
    """Lets `model` generate with a hybrid cache, chosen by a plan or on the fly.

    Parameters
    ----------
    plan
        Which layers stream, or how to choose them while the prompt runs.
    prompt_tokens
        Length of the prompt where you call the model yourself and pass the prompt in chunks; `generate` states it.

    Yields
    ------
    A cache for one prompt and its follow-ups: pass it as `past_key_values`. Calls of `generate` without it get a fresh
    one each.

    Raises
    ------
    InvalidPlanError
        The plan names a layer that the model lacks or that cannot be converted.
    UnsupportedModelError
        The model's attention does not go through transformers' attention interface.
    UnsupportedRequestError
        `generate` was asked for something that a hybrid cache cannot do exactly.
    """
    if not isinstance(model, PreTrainedModel):
        raise InvalidInputError(
            f"hybrid(...) takes a transformers model, not a {type(model).__name__}: of a model from load_model, give "
            "its .model."
        )
    check_supported(model)
    spec = describe(model)
    if not isinstance(plan, OnTheFly):
        check_plan(plan, spec)

    def new_cache() -> HybridCache:
        return make_cache(model, plan, spec, prompt_tokens)

    with attached(model), _generating(model, _Active(new_cache, prompt_tokens)):
        yield new_cache()


def make_cache(
    model: PreTrainedModel, plan: ConversionPlan | OnTheFly, spec: ModelSpec, prompt_tokens: int | None = None
) -> HybridCache:
    """A hybrid cache whose prompt is still to come."""
    kinds = attention_layers(model.config)
    if isinstance(plan, ConversionPlan):
        policy: PromptObserver = StaticPolicy(plan)
    else:
        policy = HeapPolicy(plan, spec.convertible_layers, output_projections(model))
    layers = _empty_layers(model, kinds, prompt_tokens)
    return HybridCache(kinds, plan.window, policy, prompt_tokens, layers, spec.turning_point)


def _empty_layers(model: PreTrainedModel, kinds: list[LayerAttention], prompt_tokens: int | None) -> list[NativeLayer]:
    """Ours for attention; transformers' own for layers that keep a running state instead of keys."""
    native = DynamicCache(config=model.config).layers
    return [FullLayer(prompt_tokens=prompt_tokens) if kind.is_attention else native[i] for i, kind in enumerate(kinds)]


@dataclass(frozen=True)
class _Active:
    """One `hybrid(...)` context: how it makes a cache, and the prompt length that its user stated."""

    new_cache: Callable[[], HybridCache]
    prompt_tokens: int | None


_active: WeakKeyDictionary[PreTrainedModel, list[_Active]] = WeakKeyDictionary()
"""The contexts that each model is in, the newest last. They may end in any order."""


@contextmanager
def _generating(model: PreTrainedModel, context: _Active) -> Iterator[None]:
    """Gives every `generate` call of the model a hybrid cache that knows its prompt's length."""
    contexts = _active.setdefault(model, [])
    contexts.append(context)
    if len(contexts) == 1:
        # Bound to the model, so that a deep copy's generates with the copy.
        cast(Any, model).generate = MethodType(_hybrid_generate, model)
    try:
        yield
    finally:
        contexts.remove(context)
        if not contexts:
            del model.generate


def _hybrid_generate(model: PreTrainedModel, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
    original = cast(Any, type(model)).generate
    contexts = _active.get(model)
    if not contexts:  # a deep copy of a model that was in a context
        return original(model, inputs, *args, **kwargs)
    _refuse(model, args, kwargs)
    given = (kwargs.get("inputs_embeds"), inputs, kwargs.get("input_ids"))
    prompt = next((tensor for tensor in given if tensor is not None), None)
    if prompt is None:
        raise UnsupportedRequestError("generate got no prompt: pass input_ids or inputs_embeds.")
    cache = kwargs.get("past_key_values")
    if cache is None:
        cache = contexts[-1].new_cache()
    _check_cache(cache, prompt)
    if cache.seen_tokens == 0:
        _state_prompt(cache, prompt.shape[1], contexts[-1].prompt_tokens)
    return original(model, inputs, *args, **{**kwargs, "past_key_values": cache})


def _state_prompt(cache: HybridCache, actual: int, stated: int | None) -> None:
    if stated is not None and stated != actual:
        raise InvalidPromptError(
            f"hybrid(...) was told of a prompt of {stated} tokens and generate got {actual}: leave prompt_tokens out, "
            "since generate states it."
        )
    cache.expect_prompt(actual)


def _refuse(model: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    config = kwargs.get("generation_config") or (args[0] if args else None) or model.generation_config
    for name, reason in _REFUSED.items():
        if kwargs.get(name) is not None or getattr(config, name, None) is not None:
            raise UnsupportedRequestError(f"generate with {name} cannot use a hybrid cache: {reason}. Drop it.")
    use_cache = kwargs.get("use_cache", getattr(config, "use_cache", True))
    if use_cache is False:
        raise UnsupportedRequestError("use_cache=False would run the unmodified model: drop it inside hybrid(...).")


def _check_cache(cache: object, prompt: Tensor) -> None:
    if not isinstance(cache, HybridCache):
        raise UnsupportedRequestError(
            f"a {type(cache).__name__} was passed inside hybrid(...): pass the cache that it yields, or none."
        )
    cache.check_whole()
    if not cache.seen_tokens:
        return
    if cache.batch_size != prompt.shape[0]:
        raise CacheMisuseError(
            f"this cache holds {cache.batch_size} rows and the prompt has {prompt.shape[0]}: after a search with beams "
            "or several returned sequences it cannot be continued, so call generate without past_key_values."
        )
    if prompt.is_floating_point() or not cache.starts_with(prompt):
        raise CacheMisuseError(
            f"this cache holds {cache.seen_tokens} tokens of another prompt: a follow-up must begin with exactly "
            "those; for a new prompt call generate without past_key_values, or enter hybrid(...) again."
        )
