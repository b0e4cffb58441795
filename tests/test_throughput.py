from __future__ import annotations

import pytest
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidPromptError
from lighttransfer_core.throughput import final_tokens, measure_throughput, throughput_nbytes
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import tokens

STEPS = 5


def test_each_side_decodes_the_largest_batch_that_fits_one_memory(tiny: PreTrainedModel) -> None:
    prefill = lt.run_prefill(tiny, tokens(60))
    plan = ConversionPlan(prefill.spec.convertible_layers, Window(2, 9))
    last = final_tokens(prefill.spec, 60, STEPS)
    room = kv_bytes(prefill.spec, None, last, 3) + 1
    found = measure_throughput(prefill, plan, room, STEPS)
    assert found.full.batch == 3
    for side, one in ((found.full, None), (found.lazy, plan)):
        assert side.tokens == last == 68
        assert side.kv_bytes == side.kv_formula_bytes == kv_bytes(prefill.spec, one, last, side.batch) <= room
        assert kv_bytes(prefill.spec, one, last, side.batch + 1) > room
        assert side.kv_bytes <= side.allocated_bytes <= throughput_nbytes(room)
        assert side.latency.steps == STEPS
        assert side.device_bytes > 0
    assert found.lazy.batch >= found.full.batch
    assert found.ratio == pytest.approx(found.lazy.tokens_per_s / found.full.tokens_per_s)
    assert (found.device, found.prompt_tokens, found.kv_nbytes) == ("cpu", 60, room)


def test_what_cannot_run_is_refused_before_anything_is_copied(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(60))
    one = kv_bytes(prefill.spec, None, 68)
    with pytest.raises(InvalidInputError, match=f"at least {one:,}"):
        measure_throughput(prefill, ConversionPlan((1,), Window(2, 9)), one - 1, STEPS)
    with pytest.raises(InvalidPlanError):
        measure_throughput(prefill, ConversionPlan((9,)), one, STEPS)
    with pytest.raises(InvalidPromptError, match="512 positions"):
        measure_throughput(prefill, ConversionPlan((1,), Window(2, 9)), one, 450)
