"""Where the backend and the model stand, and what the chosen prompt comes to there: all before Run."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.errors import BackendUnavailableError, LightTransferError, ModelNotLoadedError
from lighttransfer_core.models.catalogue import catalogue
from lighttransfer_core.service.answers import KeepOffer, MemoryReport, Tokenized
from lighttransfer_core.service.specs import LoadSpec
from lighttransfer_core.types import ModelSpec
from pages.parts import backend, errors, runs
from pages.parts.prompts import Prompt
from pages.parts.recipe import Recipe
from viz.components.run_progress import run_progress
from viz.units import bytes_text, count_text


def model_line(model: str) -> None:
    """The backend and the model in a line: starting, loading, or loaded with its device and memory."""
    if not backend.is_up():
        run_progress(None, "The backend is starting", key="backend_wait")
    elif _loaded(model):
        _facts(model)


def _loaded(model: str) -> bool:
    """Whether the model is loaded; the embedded one is loaded unasked, others at a click or with the first run."""
    listed = backend.ask(lambda client: client.models())
    if isinstance(listed, LightTransferError):
        errors.panel(listed)
        return False
    if any(entry.name == model and entry.loaded for entry in listed):
        return True
    load, unasked = LoadSpec(model=model), model == catalogue()[0].name
    found = runs.outcome(load)
    if found.state == "failed" and found.error is not None:
        errors.panel(found.error)
    elif found.state != "running" and unasked:
        runs.start(load)
        found = runs.outcome(load)
    if found.state == "running":
        run_progress(found.token, f"Loading {model}", key="model_load", cancellable=not unasked, age_s=found.age_s)
    else:
        st.button(f"Load {model}", key="load_model", width="stretch", on_click=runs.start, args=(load,))
    return False


def _facts(model: str) -> None:
    spec = backend.ask(lambda client: client.spec(model))
    report = backend.ask(lambda client: client.memory())
    if isinstance(spec, ModelSpec) and isinstance(report, MemoryReport):
        st.caption(facts_text(spec, report))


def facts_text(spec: ModelSpec, report: MemoryReport) -> str:
    """The device, the number format, and the backend's memory there."""
    used = report.process if report.allocated is None else report.allocated
    lines = (
        f"On {errors.plain(spec.device)} in {spec.dtype}.",
        f"Memory {bytes_text(used)} of {bytes_text(report.total)}:",
        f"weights {bytes_text(report.weights_bytes)}, results {bytes_text(report.results_bytes)}.",
    )
    return "  \n".join(lines)  # each on a line of its own, so that longer numbers move nothing below


def tokenized(recipe: Recipe) -> Tokenized | LightTransferError:
    """The prompt as the model reads it, or why that is not known yet."""
    try:
        return _tokenized(recipe.model, recipe.prompt, recipe.rendering, runs.held().visitor)
    except LightTransferError as error:
        return error


@st.cache_data(show_spinner=False, max_entries=32, ttl=600)
def _tokenized(model: str, prompt: Prompt, rendering: str, _visitor: str) -> Tokenized:
    connection = backend.client()
    if prompt.text is not None:
        connection.put_prompt(prompt.text, _visitor)
    return connection.tokenize(model, prompt.hash, "raw" if rendering == "raw" else "chat")


def prompt_line(recipe: Recipe) -> None:
    """The prompt's tokens, and how many could be."""
    found = tokenized(recipe)
    if isinstance(found, BackendUnavailableError | ModelNotLoadedError):
        st.caption("The token count appears once the model has loaded.")
    elif isinstance(found, LightTransferError):
        errors.panel(found)
    else:
        st.markdown(f"**{count_text(found.num_tokens, 'token')}**, at most {found.max_tokens:,} fit")
        st.caption(
            f"A run keeps {bytes_text(found.kv_nbytes)} of keys and values and {bytes_text(found.query_nbytes)} of "
            f"queries, of {bytes_text(found.budget_nbytes)}."
        )
        if found.offers and not too_long(recipe):
            st.warning("All queries would be too much for this backend. Choose which of them to keep for the maps.")


def keep_offers(recipe: Recipe) -> tuple[KeepOffer, ...]:
    """What fits where all queries do not; empty where they do, where nothing does, or where that is not known yet."""
    found = tokenized(recipe)
    return found.offers if isinstance(found, Tokenized) and not too_long(recipe) else ()


def too_long(recipe: Recipe) -> bool:
    """Whether the prompt is known to be longer than model and machine can take."""
    found = tokenized(recipe)
    return isinstance(found, Tokenized) and found.num_tokens > found.max_tokens


def too_long_note(recipe: Recipe) -> None:
    """Says so, and by how much, where the prompt cannot be run."""
    found = tokenized(recipe)
    if isinstance(found, Tokenized) and too_long(recipe):
        st.warning(
            f"The prompt has {found.num_tokens:,} tokens, {found.num_tokens - found.max_tokens:,} more than this model "
            "and machine take. Shorten it, or choose another."
        )


def window_line(recipe: Recipe) -> None:
    """Says so where the prompt fits the window."""
    found = tokenized(recipe)
    if isinstance(found, Tokenized) and found.num_tokens <= recipe.window.size:
        st.warning(
            f"The window keeps {count_text(recipe.window.size, 'token')}, as many as the prompt has or more: nothing "
            "can be ranked. Choose a smaller window or a longer prompt."
        )
