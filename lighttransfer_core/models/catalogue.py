"""The catalogue: models that are offered by name, with the sizes that matter before one is loaded.

Read from `catalogue.toml`, without torch.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lighttransfer_core.types import JsonRecord, LayerKind, ModelSpec

UNLOADED = "not loaded"
"""The device of a spec that was made without weights."""


@dataclass(frozen=True)
class CatalogueEntry(JsonRecord):
    """A model that can be loaded by its name.

    Attributes
    ----------
    name
        What `load_model` takes.
    hub_id
        Its place on the Hugging Face hub, or None for the embedded model.
    parameters
        Tied weights count once.
    full_layers
        Layers that keep every token; the others slide by themselves over `sliding_window` tokens.
    gated
        Whether the hub asks to accept a licence first.
    dtype_bytes
        Bytes of a number in the precision that the weights are published in; 4 for the embedded model, which runs in
        float32.
    notes
        What a reader of this model's numbers must know.
    """

    name: str
    title: str
    family: str
    hub_id: str | None
    parameters: int
    layers: int
    full_layers: int
    sliding_window: int | None
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    licence: str
    gated: bool
    dtype_bytes: int
    notes: str

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that each further token adds to the KV cache: those of the layers that keep every token."""
        return self.full_layers * 2 * self.kv_heads * self.head_dim * self.dtype_bytes

    def kv_bytes(self, num_tokens: int) -> int:
        """Bytes of the whole KV cache after `num_tokens` tokens of one sequence."""
        row = 2 * self.kv_heads * self.head_dim * self.dtype_bytes
        slid = min(num_tokens, self.sliding_window or num_tokens)
        return row * (self.full_layers * num_tokens + (self.layers - self.full_layers) * slid)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in the published precision."""
        return self.parameters * self.dtype_bytes

    def spec(self) -> ModelSpec:
        """The model's facts without its weights, for the cost formulas.

        The catalogue counts the layers that slide and does not name them: here the full ones are spread evenly, so
        totals over layers are exact and a single layer's kind is not. The vocabulary is unknown (0).
        """
        full = [
            (layer + 1) * self.full_layers // self.layers > layer * self.full_layers // self.layers
            for layer in range(self.layers)
        ]
        kinds: tuple[LayerKind, ...] = tuple("full" if keeps else "sliding" for keeps in full)
        reason = f"slides by itself: it sees only the last {self.sliding_window or 0:,} tokens"
        return ModelSpec(
            name=self.name,
            family=self.family,
            num_layers=self.layers,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            max_positions=self.max_positions,
            vocab_size=0,
            dtype="float32" if self.dtype_bytes == 4 else "bfloat16",
            dtype_bytes=self.dtype_bytes,
            device=UNLOADED,
            revision=None,
            parameters=self.parameters,
            weight_bytes=self.weight_bytes,
            layer_kinds=kinds,
            native_windows=tuple(None if keeps else self.sliding_window for keeps in full),
            not_convertible={layer: reason for layer, keeps in enumerate(full) if not keeps},
            notes=self.notes,
        )


@cache
def catalogue() -> tuple[CatalogueEntry, ...]:
    """All entries, the embedded model first."""
    text = Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8")
    return tuple(_entry(row) for row in tomllib.loads(text)["model"])


def find(name: str) -> CatalogueEntry | None:
    """The entry with that name or hub id, or None."""
    wanted = name.casefold()
    for entry in catalogue():
        if wanted == entry.name or (entry.hub_id is not None and wanted == entry.hub_id.casefold()):
            return entry
    return None


def _entry(row: dict[str, object]) -> CatalogueEntry:
    defaults = {"full_layers": row["layers"], "sliding_window": None, "gated": False, "dtype_bytes": 2, "notes": ""}
    return CatalogueEntry.from_dict({**defaults, **row, "hub_id": row["hub_id"] or None})
