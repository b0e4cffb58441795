"""The prompts of a calibration set: demo documents, this visit's own texts, and texts from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, Protocol

import streamlit as st

from lighttransfer_core.errors import InvalidPromptError
from lighttransfer_core.service.specs import prompt_hash
from pages.parts.prompts import LONGEST_CHARS, Prompt, decode_upload, demo_prompts, find_prompt

MOST_PROMPTS: Final = 64
_TEXTS: Final = "calibration_texts"
_PROBLEMS: Final = "calibration_problems"


class Upload(Protocol):
    """A file that was uploaded."""

    name: str

    def getvalue(self) -> bytes: ...


def names() -> list[str]:
    """What can be chosen: the demo documents, then the texts of this visit, by name."""
    return [*demo_prompts(), *_texts()]


def chosen(keys: Sequence[str]) -> list[Prompt]:
    """The prompts of these names."""
    return [_texts().get(key) or find_prompt(key) for key in keys]


def problems() -> list[InvalidPromptError]:
    """What was wrong with the files that were uploaded last."""
    found: list[InvalidPromptError] = st.session_state.get(_PROBLEMS, [])
    return found


def take(files: Sequence[Upload]) -> list[str]:
    """Remember the texts of files for this visit; their names. What is wrong with one is kept for `problems`."""
    added: dict[str, Prompt] = {}
    wrong: list[InvalidPromptError] = []
    for file in files:
        try:
            for label, text in read_texts(file.name, file.getvalue()):
                added[label] = Prompt(label, label, "From a file.", text)
        except InvalidPromptError as error:
            wrong.append(InvalidPromptError(f"In {file.name[:60]}: {error}"))
    st.session_state[_TEXTS] = dict(list({**_texts(), **added}.items())[-MOST_PROMPTS:])
    st.session_state[_PROBLEMS] = wrong
    return list(added)


def read_texts(name: str, data: bytes) -> list[tuple[str, str]]:
    """The texts of a file with a name each: one of a text file, one a line of a JSONL file with a "text" each.

    Raises
    ------
    InvalidPromptError
        The file holds no text, or a line that is none.
    """
    text, short = decode_upload(data), name[:60]
    if not name.lower().endswith(".jsonl"):
        return [(_label(short, text), _checked(text))]
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > MOST_PROMPTS:
        raise InvalidPromptError(f"The file has {len(lines):,} lines; at most {MOST_PROMPTS} texts are taken.")
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidPromptError(f"Line {number} is not JSON: {error}.") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
            raise InvalidPromptError(f'Line {number} has no text: write lines like {{"text": "..."}}.')
        found.append((_label(f"{short} {number}", entry["text"]), _checked(entry["text"])))
    if not found:
        raise InvalidPromptError("The file is empty.")
    return found


def _checked(text: str) -> str:
    if not text.strip():
        raise InvalidPromptError("A text is empty.")
    if len(text) > LONGEST_CHARS:
        raise InvalidPromptError(f"A text has {len(text):,} characters; at most {LONGEST_CHARS:,} are taken.")
    return text


def _label(name: str, text: str) -> str:
    """A name that no other text has."""
    return f"{name} ({prompt_hash(text)[:4]})"


def _texts() -> dict[str, Prompt]:
    found: dict[str, Prompt] = st.session_state.get(_TEXTS, {})
    return found
