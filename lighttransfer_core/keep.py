"""What a prefill keeps, and the bytes that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.types import ModelSpec, is_integer

OUTPUT_ROWS: Final = 32
"""Of so many last rows the attention's outputs are kept, for metrics that ask what they would lose."""


@dataclass(frozen=True)
class Keep:
    """What a prefill keeps beside keys, values and log-sum-exp.

    Parameters
    ----------
    query_rows
        Queries of the last so many rows; None: of all rows, as attention maps need.
    layers
        In these layers the queries of all rows are kept whatever `query_rows` says.
    host
        Keep queries and log-sum-exp in the host's memory; what is looked at goes back to the device.
    """

    query_rows: int | None = None
    layers: tuple[int, ...] = ()
    host: bool = False

    def __post_init__(self) -> None:
        if self.query_rows is not None and (not is_integer(self.query_rows) or self.query_rows < 1):
            raise InvalidInputError(
                f"query_rows={self.query_rows!r} keeps no queries: give at least 1, or None for all."
            )

    def rows_of(self, num_tokens: int, layer: int | None = None) -> int:
        """How many rows' queries are kept, in a layer or at least in every one."""
        everything = self.query_rows is None or layer in self.layers
        return num_tokens if everything else min(self.query_rows or num_tokens, num_tokens)

    def outputs_of(self, num_tokens: int, layer: int, itemsize: int) -> int:
        """How many rows' attention outputs are kept in a layer."""
        return min(OUTPUT_ROWS, self.rows_of(num_tokens, layer)) if keeps_outputs(itemsize) else 0


def keeps_outputs(itemsize: int) -> bool:
    """Not in types of half precision, which round away what a small change of an output says."""
    return itemsize >= 4


def prefill_nbytes(spec: ModelSpec, num_tokens: int, keep: Keep | None = None) -> int:
    """Bytes that a prefill of that many tokens will keep on the model's device, before it is run."""
    keep = keep or Keep()
    queries = 0 if keep.host and spec.device != "cpu" else queries_nbytes(spec, num_tokens, keep)
    keys_and_values = spec.num_layers * num_tokens * spec.kv_bytes_per_token_per_layer
    return keys_and_values + queries + spec.vocab_size * 4 + num_tokens * 8


def queries_nbytes(spec: ModelSpec, num_tokens: int, keep: Keep) -> int:
    """Bytes of the kept queries with their log-sum-exp, outputs, and what is kept of the residual stream, wherever that
    is."""
    rows = sum(keep.rows_of(num_tokens, layer) for layer in range(spec.num_layers))
    outputs = sum(keep.outputs_of(num_tokens, layer, spec.dtype_bytes) for layer in range(spec.num_layers))
    cosines = spec.num_layers * num_tokens
    vectors = (rows + outputs) * spec.num_heads * spec.head_dim * spec.dtype_bytes
    return vectors + rows * 4 * (spec.num_heads + 1) + cosines * 4
