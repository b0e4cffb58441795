"""BertViz on the embedded model: seconds and bytes of its HTML at each length. Called by `bench_attention`.

`python -m benchmarks.bertviz_side FOLDER LENGTH...`, where FOLDER holds the package; the last line is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from benchmarks.prompt import demo_text
from lighttransfer_core.models import prepare_embedded


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    disable_progress_bar()
    from bertviz import head_view, model_view

    folder = prepare_embedded()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", local_files_only=True).eval()
    found: dict[str, dict[str, float]] = {}
    for length in map(int, sys.argv[2:]):
        ids = torch.tensor([tokenizer(demo_text()).input_ids[:length]])
        tokens = tokenizer.convert_ids_to_tokens(ids[0].tolist())
        found[str(length)] = {}
        for name, build in (("head", head_view), ("model", model_view)):
            began = time.perf_counter()
            found[str(length)] |= {f"{name}_bytes": html_bytes(model, ids, tokens, build)}
            found[str(length)] |= {f"{name}_s": time.perf_counter() - began}
    print(json.dumps(found))


@torch.no_grad()
def html_bytes(model: Any, ids: torch.Tensor, tokens: list[str], build: Any) -> int:
    attention = model(input_ids=ids, output_attentions=True).attentions
    return len(build(attention, tokens, html_action="return").data.encode())


if __name__ == "__main__":
    main()
