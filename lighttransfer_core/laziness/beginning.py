"""The beginning of a prompt as though it were the whole of it: what layers show before the question is read.

No token looks ahead, so the queries, keys, values and log-sum-exp of a shorter prompt are the first rows of a longer
one's, but where the model turns longer texts otherwise. Nothing is computed and nothing is copied.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.laziness.metric import Metric
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import is_integer


def check_beginning(prefill: Prefill, num_tokens: int, metric: Metric) -> None:
    """Raises InvalidInputError for what is no beginning, and for a metric that goes on from where the prompt ends."""
    if not is_integer(num_tokens) or not 1 <= num_tokens <= prefill.num_tokens:
        raise InvalidInputError(
            f"tokens={num_tokens!r} is not a beginning of this prompt: give 1 to {prefill.num_tokens} tokens."
        )
    turn = prefill.spec.turning_point
    if turn is not None and num_tokens <= turn < prefill.num_tokens:
        raise InvalidInputError(
            f"{prefill.spec.name} turns texts of more than {turn:,} tokens by other rotary frequencies, so the first "
            f"{num_tokens:,} of this prompt are not what they would be alone: run the beginning as a prompt of its own."
        )
    if metric.info.kind == "trial":
        raise InvalidInputError(
            f"{metric.info.name} tries out how the model goes on, which a beginning does not tell: run the beginning "
            "as a prompt of its own."
        )


def beginning(prefill: Prefill, num_tokens: int) -> Prefill:
    """The first tokens of a prefill that kept queries of theirs; the logits of the token after them are unknown (nan).

    For metrics to look at; what decodes needs a prefill of its own.
    """
    behind = prefill.num_tokens - num_tokens
    if not behind:
        return prefill
    rows = prefill.keep.query_rows
    return replace(
        prefill,
        input_ids=prefill.input_ids[:, :num_tokens],
        records=tuple(_first_rows(record, num_tokens, behind) for record in prefill.records),
        logits=torch.full_like(prefill.logits, torch.nan),
        keep=replace(prefill.keep, query_rows=None if rows is None else rows - behind),
    )


def _first_rows(record: LayerRecord, num_tokens: int, behind: int) -> LayerRecord:
    rows = record.query.shape[1] - behind
    norm, cosine = record.residual_norm, record.residual_cosine
    return replace(
        record,
        query=record.query[:, :rows],
        key=record.key[:, :num_tokens],
        value=record.value[:, :num_tokens],
        lse=record.lse[:, :rows],
        residual_norm=None if norm is None else norm[:rows],
        residual_cosine=None if cosine is None else cosine[:num_tokens],
        output=None,
    )
