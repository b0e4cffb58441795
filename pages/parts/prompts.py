"""Prompts: the demo documents in `assets/prompts`, and the texts that a visitor brings."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import streamlit as st

from lighttransfer_core.errors import InvalidPromptError
from lighttransfer_core.service.specs import prompt_hash
from pages.parts.address import is_hash
from viz.units import count_text

FOLDER: Final = Path(__file__).resolve().parents[2] / "assets" / "prompts"
ORDER: Final = ("policy", "needle", "dialogue", "code")
LONGEST_CHARS: Final = 1_000_000
_KEPT_TEXTS: Final = 3
_STATE: Final = "own_texts"


@dataclass(frozen=True)
class Prompt:
    """A prompt that can be chosen.

    Attributes
    ----------
    key
        How the address names it: a demo's file stem, or the hash of a visitor's text.
    text
        What is sent, or None where only its hash is known here.
    expected
        Answers that count as right; empty where none is known.
    """

    key: str
    title: str
    description: str
    text: str | None
    rendering: Literal["chat", "raw"] = "chat"
    question: str = ""
    expected: tuple[str, ...] = ()

    @property
    def short_name(self) -> str:
        """For files and figures: a demo's key, or the beginning of a text's hash."""
        return f"text {self.key[:8]}" if is_hash(self.key) else self.key

    @property
    def hash(self) -> str:
        return self.key if self.text is None else prompt_hash(self.text)

    def answered(self, answer: str) -> bool:
        """Whether an answer holds one of the expected texts."""
        return any(text.casefold() in answer.casefold() for text in self.expected)


@cache
def demo_prompts() -> dict[str, Prompt]:
    """The documents of `assets/prompts`, the default first."""
    found = {path.stem: _read(path) for path in sorted(FOLDER.glob("*.toml"))}
    return {key: found[key] for key in (*ORDER, *sorted(set(found).difference(ORDER))) if key in found}


def _read(path: Path) -> Prompt:
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    return Prompt(
        key=path.stem,
        title=data["title"],
        description=data["description"],
        text=f"{data['text'].strip()}\n\n{data['question'].strip()}",
        rendering=data["rendering"],
        question=data["question"],
        expected=tuple(data["expected"]),
    )


def find_prompt(key: str) -> Prompt:
    """The prompt of a key."""
    demos = demo_prompts()
    if key in demos:
        return demos[key]
    text: str | None = st.session_state.get(_STATE, {}).get(key)
    if text is None:
        return Prompt(key, f"Text {key[:8]}…", "A visitor’s text, known by its hash.", None)
    words = count_text(len(text.split()), "word")
    return Prompt(key, f"Your text, {words}", "The text that you gave in this session.", text)


def prompt_keys(*named: str | None) -> list[str]:
    """What can be chosen now: the demos, this session's own texts, and those of the named that are hashes of texts."""
    keys = [*demo_prompts(), *st.session_state.get(_STATE, {}), *(name for name in named if name and is_hash(name))]
    return list(dict.fromkeys(keys))


def keep_own_text(text: str) -> str:
    """Remember a visitor's text for this session; returns its key.

    Raises
    ------
    InvalidPromptError
        It is empty or longer than a million characters.
    """
    if not text.strip():
        raise InvalidPromptError("The text is empty.")
    if len(text) > LONGEST_CHARS:
        raise InvalidPromptError(f"The text has {len(text):,} characters; at most {LONGEST_CHARS:,} are taken.")
    key = prompt_hash(text)
    kept = {**st.session_state.get(_STATE, {}), key: text}
    st.session_state[_STATE] = dict(list(kept.items())[-_KEPT_TEXTS:])
    return key


def decode_upload(data: bytes) -> str:
    """The text of an uploaded file; raises InvalidPromptError where it is not UTF-8 text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidPromptError(
            "The file is not UTF-8 text. Save it as UTF-8 .txt or .md and upload it again."
        ) from error
    if "\x00" in text:
        raise InvalidPromptError("The file holds binary data. Upload a .txt or .md file.")
    return text
