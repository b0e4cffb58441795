"""Putting our attention function on a model: for good on models that we load, inside a context on a user's own."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from lighttransfer_core.attention.interface import (
    IMPLEMENTATION,
    STATE_KEYWORD,
    AttentionCall,
    RequestState,
    plain_attention,
)
from lighttransfer_core.attention.layers import attention_layers
from lighttransfer_core.attention.projection import attention_modules, decoder_blocks
from lighttransfer_core.attention.rotary import begin_pass, show_whole_texts
from lighttransfer_core.errors import UnsupportedModelError, UnsupportedRequestError

_PASSED: WeakSet[nn.Module] = WeakSet()
"""Models that were found to ask us for all of their attention."""


class _Attachment:
    """Our attention on one model, shared by everyone who asked for it, and undone by the last to leave."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.users = 0
        self._before = [(config, config._attn_implementation) for config in _configs(model)]
        self._handles: list[Any] = []
        try:
            _set_implementation(model)
            self._handles = _add_hooks(model)
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        for handle in self._handles:
            handle.remove()
        for config, implementation in self._before:
            config._attn_implementation = implementation


_attachments: WeakKeyDictionary[nn.Module, _Attachment] = WeakKeyDictionary()
_permanent: WeakSet[nn.Module] = WeakSet()
_turns: WeakKeyDictionary[nn.Module, threading.Lock] = WeakKeyDictionary()
_lock = threading.RLock()


def use_lighttransfer_attention(model: PreTrainedModel) -> None:
    """Sets our attention on the model for good. Without a hybrid cache in a call it is plain attention."""
    with _lock:
        if model not in _permanent:
            _join(model)
            _permanent.add(model)


@contextmanager
def attached(model: PreTrainedModel) -> Iterator[None]:
    """Sets our attention on the model; the last of several overlapping contexts to end undoes it."""
    if model in _permanent:
        yield
        return
    with _lock:
        _join(model)
    try:
        yield
    finally:
        with _lock:
            _leave(model)


@contextmanager
def one_pass(model: PreTrainedModel) -> Iterator[None]:
    """Around a forward pass of ours: our attention is on the model, and no other such pass of it is under way.

    Threads may ask for passes of one model at once, and some rotary embeddings keep in the model what depends on a
    pass's length.
    """
    with _lock:
        turn = _turns.setdefault(model, threading.Lock())
    with attached(model), turn:
        yield


def _join(model: PreTrainedModel) -> None:
    if model not in _attachments:
        _attachments[model] = _Attachment(model)
    _attachments[model].users += 1


def _leave(model: PreTrainedModel) -> None:
    attachment = _attachments[model]
    attachment.users -= 1
    if not attachment.users:
        del _attachments[model]
        attachment.undo()


def check_supported(model: PreTrainedModel) -> None:
    """Runs three tokens through the model and checks that every attention layer asks us once, with the request's state.

    A model that has passed is not asked again.

    Raises
    ------
    UnsupportedModelError
        The model computes attention by itself, or drops the keyword that carries the request's state.
    """
    expected = [layer for layer, kind in enumerate(attention_layers(model.config)) if kind.is_attention]
    if model in _PASSED:
        return
    probe = _Probe()
    ids = torch.tensor([[0, 1, 2]], device=input_device(model))
    try:
        with attached(model), torch.no_grad():
            model(input_ids=ids, use_cache=False, **{STATE_KEYWORD: probe})
    except (UnsupportedRequestError, TypeError) as error:
        raise UnsupportedModelError(f"{type(model).__name__} cannot be captured: {error}") from error
    if sorted(probe.layers) != expected:
        raise UnsupportedModelError(
            f"{type(model).__name__} has {len(expected)} attention layers but asked our attention function for "
            f"{len(probe.layers)} of them with its request's state: it does not go through transformers' attention "
            "interface, so its attention can be neither shown nor converted."
        )
    _PASSED.add(model)


def input_device(model: PreTrainedModel) -> torch.device:
    """Where the model takes its token ids: the device of its embeddings, also when it spans several devices."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight.device


class _Probe(RequestState):
    """Counts the layers that call us."""

    def __init__(self) -> None:
        self.layers: list[int] = []

    def begin_forward(self, model: nn.Module, given: Mapping[str, Any]) -> int:
        """The probe needs nothing."""
        return 0

    def see_residual(self, layer: int, hidden: Tensor) -> None:
        """The probe needs nothing."""

    def see_output(self, layer: int, output: Tensor) -> None:
        """The probe needs nothing."""

    def attend(self, call: AttentionCall) -> Tensor:
        self.layers.append(call.layer)
        return plain_attention(call)[0]

    def end_forward(self) -> None:
        """The probe needs nothing."""


def _configs(model: PreTrainedModel) -> list[Any]:
    """The distinct configurations that say which attention the model's parts use."""
    found: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            for config in (module.config, module.config.get_text_config()):
                found[id(config)] = config
    return list(found.values())


def _set_implementation(model: PreTrainedModel) -> None:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        model.set_attn_implementation(IMPLEMENTATION)
    finally:
        transformers_logging.set_verbosity(level)
    if model.config._attn_implementation != IMPLEMENTATION:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not let its attention function be chosen, so its attention can be neither "
            "shown nor converted."
        )


def _add_hooks(model: PreTrainedModel) -> list[Any]:
    signature = inspect.signature(model.forward)

    def arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return signature.bind_partial(*args, **kwargs).arguments if args else kwargs

    def before(
        called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = arguments(args, kwargs)
        state = given.get("past_key_values")
        # A deep copy of an attached model carries its hooks, and is given more when it is attached itself.
        if isinstance(state, RequestState) and STATE_KEYWORD not in kwargs:
            if torch.is_autocast_enabled(input_device(model).type):
                raise UnsupportedRequestError(
                    "autocast may give keys and values another precision than the model has: leave it, and load the "
                    "model in the precision that you want."
                )
            begin_pass(state.begin_forward(called, given))
            kwargs = {**kwargs, STATE_KEYWORD: state}
        elif STATE_KEYWORD not in kwargs:
            begin_pass(0)  # an interrupt may have left another's
        return args, kwargs

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        begin_pass(0)
        state = kwargs.get(STATE_KEYWORD)
        if isinstance(state, RequestState):
            state.end_forward()

    return [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, with_kwargs=True, always_call=True),
        *show_whole_texts(model),
        *(
            block.register_forward_pre_hook(partial(_show_residual, layer), with_kwargs=True)
            for layer, block in decoder_blocks(model).items()
        ),
        *(
            attention.register_forward_hook(partial(_show_output, layer), with_kwargs=True)
            for layer, attention in attention_modules(model).items()
        ),
    ]


def _show_residual(layer: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    state, hidden = kwargs.get(STATE_KEYWORD), args[0] if args else kwargs.get("hidden_states")
    if isinstance(state, RequestState) and isinstance(hidden, Tensor):
        state.see_residual(layer, hidden)


def _show_output(
    layer: int, _attention: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> None:
    state, added = kwargs.get(STATE_KEYWORD), output[0] if isinstance(output, tuple) else output
    if isinstance(state, RequestState) and isinstance(added, Tensor):
        state.see_output(layer, added)
