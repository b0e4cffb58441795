"""The plain data of the project: frozen dataclasses without tensors, each with a JSON round trip.

Everything here may be imported by the page process. It knows numpy, and neither torch nor transformers.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import numpy.typing as npt

from lighttransfer_core.errors import (
    InvalidInputError,
    InvalidPlanError,
    InvalidWindowError,
    LightTransferError,
    UninformativeScoresError,
)
from lighttransfer_core.layer_sets import laziest_first

Float64Array = npt.NDArray[np.float64]
LayerKind = Literal["full", "sliding", "other"]
Rendering = Literal["chat", "raw"]


def is_integer(value: object) -> bool:
    """Whether a value counts something: Python's or numpy's integers, and no booleans."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


class JsonRecord:
    """Adds a JSON round trip to a dataclass of numbers, strings, tuples, arrays and other records."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    """A request with a misspelt name is refused, where a default would be used in its place."""

    def to_dict(self) -> dict[str, Any]:
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(cast(Any, self))}

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        names = {f.name for f in dataclasses.fields(cast(Any, cls))}
        return cls(**{name: value for name, value in data.items() if name in names})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises InvalidInputError for a text that is no such record."""
        try:
            return cls.from_dict(json.loads(text))
        except LightTransferError:
            raise
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInputError(f"The text is no {cls.__name__} in JSON: {error}.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, JsonRecord):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True)
class Window(JsonRecord):
    """What a streaming layer keeps: the first `sink` tokens and the last `recent` ones, the current one included.

    Source: LightTransfer (arXiv 2410.13846), section 4: 4 sinks and 1020 recent tokens.
    """

    sink: int = 4
    recent: int = 1020

    def __post_init__(self) -> None:
        for name, value, least in (("sink", self.sink, 0), ("recent", self.recent, 1)):
            if not is_integer(value) or value < least:
                raise InvalidWindowError(f"{name}={value!r} is not a window size: give an integer of at least {least}.")
            object.__setattr__(self, name, int(value))

    @property
    def size(self) -> int:
        """Tokens that a streaming layer holds at most."""
        return self.sink + self.recent


@dataclass(frozen=True)
class ModelIdentity(JsonRecord):
    """Which model something was made with: its name, its resolved commit, and the shape of its attention."""

    name: str
    revision: str | None
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Layers, query heads, key-value heads and head dimension."""
        return self.num_layers, self.num_heads, self.num_kv_heads, self.head_dim


@dataclass(frozen=True)
class ConversionPlan(JsonRecord):
    """Which layers become streaming layers, and their window.

    Parameters
    ----------
    lazy_layers
        Indices of the layers to convert; sorted and without repeats once stored.
    window
        What those layers keep.
    model
        The model that the plan was made for; applying it to a model of another shape is refused. None: any model.
    """

    lazy_layers: tuple[int, ...] = ()
    window: Window = field(default_factory=Window)
    model: ModelIdentity | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.lazy_layers, tuple | list) or not isinstance(self.window, Window):
            raise InvalidPlanError("A plan is a tuple of layer indices and a Window.")
        for layer in self.lazy_layers:
            if not is_integer(layer) or layer < 0:
                raise InvalidPlanError(f"lazy layer {layer!r} is not a layer index: give integers from 0 up.")
        object.__setattr__(self, "lazy_layers", tuple(sorted({int(layer) for layer in self.lazy_layers})))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        try:
            layers, sizes = data["lazy_layers"], data["window"]
            window = Window(sink=sizes["sink"], recent=sizes["recent"])
            model = None if data.get("model") is None else ModelIdentity(**data["model"])
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidPlanError(
                'A plan file is a JSON object like {"lazy_layers": [3, 5], "window": {"sink": 4, "recent": 1020}}; '
                f"this one lacks or mistypes {error}."
            ) from error
        return cls(lazy_layers=layers, window=window, model=model)

    @classmethod
    def from_json(cls, text: str) -> Self:
        try:
            data = json.loads(text.removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:  # also a number of too many digits, or lists too deep
            raise InvalidPlanError(f"The plan file is not JSON ({error}); download a plan to see its form.") from error
        if not isinstance(data, dict):
            raise InvalidPlanError("The plan file is not a JSON object; download a plan to see its form.")
        return cls.from_dict(data)


@dataclass(frozen=True)
class ModelSpec(JsonRecord):
    """The facts of a model that cost formulas and pages need.

    `layer_kinds[i]` is "full", "sliding" (the model's own window, `native_windows[i]` tokens) or "other" (no
    attention). `not_convertible` says, by layer, why a layer cannot be converted. A text of more than `turning_point`
    tokens is turned by other rotary frequencies, from its beginning on.
    """

    name: str
    family: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    vocab_size: int
    dtype: str
    dtype_bytes: int
    device: str
    revision: str | None
    parameters: int
    weight_bytes: int
    layer_kinds: tuple[LayerKind, ...]
    native_windows: tuple[int | None, ...]
    not_convertible: dict[int, str] = field(default_factory=dict)
    has_chat_template: bool = False
    notes: str = ""
    turning_point: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer_kinds", tuple(self.layer_kinds))
        object.__setattr__(self, "native_windows", tuple(self.native_windows))
        object.__setattr__(self, "not_convertible", {int(k): v for k, v in self.not_convertible.items()})

    @property
    def identity(self) -> ModelIdentity:
        """What plans and scores remember of the model."""
        shape = (self.num_layers, self.num_heads, self.num_kv_heads, self.head_dim)
        return ModelIdentity(self.name, self.revision, *shape)

    @property
    def convertible_layers(self) -> tuple[int, ...]:
        return tuple(layer for layer in range(self.num_layers) if layer not in self.not_convertible)

    def room(self, num_tokens: int) -> int:
        """How many tokens can follow a text of so many, whose keys and values are kept."""
        most = self.max_positions
        if self.turning_point is not None and num_tokens <= self.turning_point:
            most = min(most, self.turning_point)
        return max(most - num_tokens, 0)

    @property
    def kv_bytes_per_token_per_layer(self) -> int:
        """Bytes that one token's key and value take in one layer."""
        return 2 * self.num_kv_heads * self.head_dim * self.dtype_bytes


@dataclass(frozen=True, eq=False)
class LayerScores(JsonRecord):
    """How lazy each layer is on one prompt, or on the average of several.

    Attributes
    ----------
    values
        `[L]`; higher is lazier, for every metric.
    sink, recent, rest
        `[L]`; shares of the attention mass of the last queries on the first tokens, on the most recent ones and on
        all others, averaged over heads and queries.
    learned_sink
        `[L]` or None; the share that a model's learned sink takes. The shares sum to 1.
    per_head
        `[L, H]`; the metric for each query head. None where it has no such parts.
    per_query
        `[L, last]` or None; the metric for each of the last queries; the last column is the last token.
    convertible
        Layers that may be ranked.
    informative
        False where the prompt fits the window and every layer scores alike.
    """

    metric: str
    window: Window
    last: int
    num_tokens: int
    values: Float64Array
    sink: Float64Array
    recent: Float64Array
    rest: Float64Array
    per_head: Float64Array | None
    per_query: Float64Array | None
    convertible: tuple[int, ...]
    informative: bool
    learned_sink: Float64Array | None = None
    num_prompts: int = 1
    model: ModelIdentity | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model, dict):
            object.__setattr__(self, "model", ModelIdentity.from_dict(self.model))
        if isinstance(self.window, dict):
            object.__setattr__(self, "window", Window.from_dict(self.window))
        object.__setattr__(self, "convertible", tuple(self.convertible))
        for name in ("values", "sink", "recent", "rest", "per_head", "per_query", "learned_sink"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, np.asarray(value, dtype=np.float64))

    def ranking(self) -> list[int]:
        """The convertible layers, laziest first; of equal ones the higher index first."""
        if not self.informative:
            raise UninformativeScoresError(
                f"The prompt has {self.num_tokens} tokens and the window keeps {self.window.size}: no layer would lose "
                "anything, so there is no ranking. Use a longer prompt or a smaller window."
            )
        return list(laziest_first(self.values.tolist(), self.convertible))
