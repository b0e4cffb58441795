"""How the pages say that something went wrong: what happened, and what to do about it, and it stays."""

from __future__ import annotations

import logging
import re
from typing import Final

import streamlit as st

from lighttransfer_core import errors

_LOG: Final = logging.getLogger("lighttransfer.pages")
_MARKUP: Final = re.compile(r"([!-/:-@\[-`{-~])")

_ADVICE: Final[tuple[tuple[type[errors.LightTransferError], str], ...]] = (
    (errors.BackendUnavailableError, "It is started again by itself; this page goes on once it answers."),
    (errors.RunNotFoundError, "Run it again; the same address gives the same result."),
    (errors.QueueFullError, "Wait until a run has ended, then run again."),
    (errors.ResultsInUseError, "Wait until the other run has ended, then go on."),
    (errors.SweepNotFoundError, "Reload the page: the file was moved or taken away."),
    (errors.DeadlineError, "Ask for less in one run."),
    (errors.TaskDataError, "Choose a task that makes its own texts, or bring its texts to the backend’s machine."),
    (errors.DoesNotFitError, "Choose a shorter prompt or a smaller model."),
    (errors.ModelDoesNotFitError, "Choose a smaller model, or point the app at a larger machine as its backend."),
    (errors.ModelNotFoundError, "Choose another model in the sidebar, or make this one available to the backend."),
    (errors.ModelError, "Choose another model in the sidebar."),
    (errors.UninformativeScoresError, "Choose a smaller window or a longer prompt in the sidebar."),
    (errors.InvalidWindowError, "Change the window in the sidebar."),
    (errors.InvalidPlanError, "Change the layers in the sidebar, or choose them on the Convert page."),
    (errors.InvalidPromptError, "Choose another prompt in the sidebar, or give a text under “Own text…”."),
    (errors.InvalidInputError, "Change what is named here."),
    (errors.RunFailedError, "Run it again; if it fails again, choose a shorter prompt or another model."),
)


def plain(text: str) -> str:
    """Text that Markdown shows as it is: a model's or a visitor's words are never markup."""
    return _MARKUP.sub(r"\\\1", text)


def advice(error: errors.LightTransferError) -> str:
    """What to do about an error."""
    if isinstance(error, errors.DoesNotFitError) and error.offer:
        return f"What fits: {error.offer}"
    return next((text for kind, text in _ADVICE if isinstance(error, kind)), "Run it again.")


def panel(error: errors.LightTransferError, what_to_do: str | None = None) -> None:
    """The error, in place, until its cause is gone; `what_to_do` replaces the usual advice."""
    happened = str(error)
    st.error(
        f"{plain(happened[:1].upper() + happened[1:])}\n\n**What to do:** {plain(what_to_do or advice(error))}",
        icon=":material/error:",
    )


def unexpected(error: BaseException) -> bool:
    """The page server's handler of whatever a page did not catch: no traceback in the browser, all of it in the log."""
    if isinstance(error, errors.LightTransferError):
        panel(error)
        return True
    _LOG.error("a page failed", exc_info=error)
    st.error(
        "This page failed in a way that was not foreseen. **What to do:** reload it; the server’s log says why.",
        icon=":material/error:",
    )
    return True
