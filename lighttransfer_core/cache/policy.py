"""Who watches a prompt pass through a cache, and says which layers are cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from lighttransfer_core.attention import AttentionCall
from lighttransfer_core.cache.layer import Segment
from lighttransfer_core.cache.padding import Padding
from lighttransfer_core.types import ConversionPlan


class PromptObserver(Protocol):
    """Sees each layer's attention while the prompt passes, and decides which layers are cut."""

    def observe(
        self, call: AttentionCall, prompt: Segment, output: Tensor, lse: Tensor, padding: Padding | None
    ) -> None:
        """One chunk of the prompt in one layer: `prompt` holds its keys and values so far, `output` is `[B, H, Tq, Dv]`
        and `lse` `[B, H, Tq]`."""

    def cut(self, layer: int) -> Iterable[int]:
        """Layers to cut, now that the whole prompt has passed through `layer`."""

    def observe_output(self, layer: int, hidden: Tensor, output: Tensor) -> None:
        """The residual stream `[B, Tq, hidden]` that entered a layer with a chunk of the prompt, and what the layer's
        attention adds to it."""


class StaticPolicy:
    """Cuts the layers of a plan."""

    def __init__(self, plan: ConversionPlan) -> None:
        self._lazy = set(plan.lazy_layers)

    def observe(
        self, call: AttentionCall, prompt: Segment, output: Tensor, lse: Tensor, padding: Padding | None
    ) -> None:
        """A plan was made before the prompt."""

    def cut(self, layer: int) -> Iterable[int]:
        return [layer] if layer in self._lazy else []

    def observe_output(self, layer: int, hidden: Tensor, output: Tensor) -> None:
        """A plan was made before the prompt."""
