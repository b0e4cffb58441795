"""From a prompt's text to token ids, with nothing hidden: the exact string that the model reads is kept.

Two renderings: "chat" puts the text into the tokenizer's chat template as a user's message, "raw" takes it as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lighttransfer_core.errors import InvalidPromptError
from lighttransfer_core.types import Rendering

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_MARK = "\u241eSYSTEM\u241e"
_ANSWER = "\u241eANSWER\u241e"


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt as the model reads it.

    Attributes
    ----------
    text
        The whole string: template, system prompt and special tokens included.
    input_ids
        LongTensor `[1, T]`.
    tokens
        The `T` pieces of text that the ids stand for. A piece that is only part of a character is a replacement
        character.
    rendering
        "chat" or "raw".
    system
        The system prompt within `text`: the one given, else the template's own, else None.
    """

    text: str
    input_ids: torch.Tensor
    tokens: list[str]
    rendering: Rendering
    system: str | None

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[1]


def render_prompt(
    tokenizer: PreTrainedTokenizerBase | None,
    text: str,
    rendering: Rendering = "chat",
    system: str | None = None,
    max_tokens: int | None = None,
) -> RenderedPrompt:
    """Renders a prompt and turns it into token ids.

    Parameters
    ----------
    tokenizer
        The model's tokenizer.
    text
        What the user wrote.
    rendering
        "chat" for the chat template, with the turn handed to the model at the end; "raw" for the text alone, after
        the token that the tokenizer itself puts first, if any.
    system
        A system prompt in place of the template's own; "chat" only.
    max_tokens
        The most tokens that the model takes.

    Raises
    ------
    InvalidPromptError
        The text is empty or too long, or the tokenizer cannot render it that way.
    """
    if tokenizer is None:
        raise InvalidPromptError("This model has no tokenizer, so text cannot be turned into token ids: pass ids.")
    _check_text(text, system)
    if rendering == "chat":
        rendered, system = _render_chat(tokenizer, text, system)
        ids = tokenizer(rendered, add_special_tokens=False).input_ids
    elif rendering == "raw":
        if system is not None:
            raise InvalidPromptError("A raw prompt has no system prompt: write it into the text, or render as chat.")
        rendered, ids = _render_raw(tokenizer, text)
    else:
        raise InvalidPromptError(f"rendering={rendering!r} is not known: use 'chat' or 'raw'.")
    if max_tokens is not None and len(ids) > max_tokens:
        raise InvalidPromptError(
            f"The prompt has {len(ids):,} tokens and the model takes {max_tokens:,}: shorten it by "
            f"{len(ids) - max_tokens:,} tokens."
        )
    return RenderedPrompt(rendered, torch.tensor([ids], dtype=torch.long), pieces(tokenizer, ids), rendering, system)


def split_question(text: str) -> tuple[str, str] | None:
    """A text and the question after it: what follows the last blank line. None where there is no blank line."""
    ended = text.rstrip()
    breaks = list(_BLANK_LINE.finditer(ended))
    if not breaks or not ended[: breaks[-1].start()].strip():
        return None
    return ended[: breaks[-1].start()], ended[breaks[-1].end() :]


def tokens_before_question(
    tokenizer: PreTrainedTokenizerBase | None, text: str, rendering: Rendering = "chat", system: str | None = None
) -> int | None:
    """How many tokens a prompt begins with that it would begin with too if it had no question; None: it has none.

    Raises InvalidPromptError as `render_prompt`.
    """
    parts = split_question(text)
    if parts is None:
        return None
    whole, before = (render_prompt(tokenizer, one, rendering, system).input_ids[0] for one in (text, parts[0]))
    length = min(len(whole), len(before))
    parting = (whole[:length] != before[:length]).nonzero()
    return (int(parting[0]) if len(parting) else length) or None


def _check_text(text: str, system: str | None) -> None:
    if not text.strip():
        raise InvalidPromptError("The prompt is empty: write at least one word.")
    try:
        f"{text}{system or ''}".encode()
    except UnicodeEncodeError as error:
        raise InvalidPromptError(
            f"The prompt has half of a character at position {error.start:,} (a lone surrogate): remove it."
        ) from error


def pieces(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """The text of each token by itself; a part of a character becomes a replacement character."""
    known = {token_id: _piece(tokenizer, token_id) for token_id in set(ids)}
    return [known[token_id] for token_id in ids]


def _piece(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    stored = tokenizer.convert_ids_to_tokens(token_id)
    # A sentencepiece decoder drops the leading blank of a lone token, which its vocabulary writes as U+2581.
    if isinstance(stored, str) and "\u2581" in stored:
        return stored.replace("\u2581", " ")
    return str(tokenizer.decode([token_id], clean_up_tokenization_spaces=False))


def _render_chat(tokenizer: PreTrainedTokenizerBase, text: str, system: str | None) -> tuple[str, str | None]:
    if not tokenizer.chat_template:
        raise InvalidPromptError(
            "This model has no chat template: it is a base model, which continues text. Use the rendering 'raw'."
        )
    try:
        rendered = _apply_template(tokenizer, text, system)
    except TemplateError as error:
        remedy = "put the system prompt into the text" if system is not None else "use the rendering 'raw'"
        raise InvalidPromptError(f"This model's chat template refuses the prompt ({error}): {remedy}.") from error
    return rendered, system if system is not None else _default_system(tokenizer, text, rendered)


def _apply_template(tokenizer: PreTrainedTokenizerBase, text: str, system: str | None) -> str:
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _default_system(tokenizer: PreTrainedTokenizerBase, text: str, rendered: str) -> str | None:
    """What the template writes where a given system prompt would stand."""
    try:
        before, mark, after = _apply_template(tokenizer, text, _MARK).partition(_MARK)
    except TemplateError:
        return None
    if not mark or not rendered.startswith(before) or not rendered.endswith(after):
        return None
    return rendered[len(before) : len(rendered) - len(after)] or None


def _render_raw(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[str, list[int]]:
    ids: list[int] = tokenizer(text).input_ids
    bare: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    added = len(ids) - len(bare)
    start = next(start for start in range(added + 1) if ids[start : start + len(bare)] == bare)
    before, after = ids[:start], ids[start + len(bare) :]
    return f"{tokenizer.decode(before)}{text}{tokenizer.decode(after)}", ids


def render_turn(tokenizer: PreTrainedTokenizerBase | None, text: str, rendering: Rendering = "chat") -> list[int]:
    """The token ids of a further question: from the end of the model's answer to where its next one begins.

    "chat" ends the answer and wraps the question as the template does; "raw" appends the text as it is.

    Raises
    ------
    InvalidPromptError
        The text is empty, or the tokenizer cannot render it that way.
    """
    if tokenizer is None:
        raise InvalidPromptError("This model has no tokenizer, so text cannot be turned into token ids: pass ids.")
    _check_text(text, None)
    if rendering == "raw":
        between = text
    elif tokenizer.chat_template:
        between = _between(tokenizer, text)
    else:
        raise InvalidPromptError("This model has no chat template: ask on with the rendering 'raw'.")
    ids: list[int] = tokenizer(between, add_special_tokens=False).input_ids
    return ids


def _between(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """What the template writes between the end of an answer and the beginning of the next."""
    messages = [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": text},
    ]
    try:
        rendered = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise InvalidPromptError(f"This model's chat template refuses a further question ({error}).") from error
    _before, mark, after = rendered.partition(_ANSWER)
    if not mark:
        raise InvalidPromptError("This model's chat template drops earlier answers, so it takes one question only.")
    return after
