"""Token ids: what is refused of a prompt, what two prompts have in common, and which are the likeliest."""

from __future__ import annotations

import torch
from torch import Tensor

from lighttransfer_core.errors import InvalidPromptError
from lighttransfer_core.types import ModelSpec


def check_token_ids(ids: Tensor, spec: ModelSpec, what: str) -> None:
    """Refuses anything but at least one token `[1, T]` of the model's vocabulary."""
    if not isinstance(ids, Tensor):
        raise InvalidPromptError(f"the {what} is a {type(ids).__name__}: give a tensor of token ids, [1, T].")
    if ids.dim() != 2 or ids.shape[0] != 1 or ids.dtype not in (torch.long, torch.int):
        raise InvalidPromptError(
            f"the {what} is {ids.dtype} of shape {tuple(ids.shape)}: give token ids, integers of shape [1, T]."
        )
    if ids.shape[1] == 0:
        raise InvalidPromptError(f"the {what} is empty: give at least one token.")
    if int(ids.min()) < 0 or int(ids.max()) >= spec.vocab_size:
        raise InvalidPromptError(
            f"token ids must lie between 0 and {spec.vocab_size - 1}; those of the {what} go from {int(ids.min())} to "
            f"{int(ids.max())}. Were they made by another model's tokenizer?"
        )


def shared_tokens(first: Tensor, second: Tensor) -> int:
    """How many tokens two prompts `[1, T]` begin with alike."""
    most = min(first.shape[1], second.shape[1])
    differing = (first[0, :most] != second[0, :most]).nonzero()
    return int(differing[0]) if len(differing) else most


def likeliest(logits: Tensor) -> Tensor:
    """The likeliest token of each row of logits `[..., V]`, on the host; of equal ones the first."""
    if logits.device.type == "cpu":
        # by numpy, which does it many numbers at a time, and torch one by one
        wide = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
        return torch.as_tensor(wide.numpy().argmax(axis=-1))
    return logits.argmax(dim=-1).cpu()  # the copy to the host waits for the device
