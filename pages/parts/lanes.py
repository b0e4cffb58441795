"""What a comparison is made of, as the Compare page has it: lanes, length, sampling, questions, and whose run it is."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

import streamlit as st

from lighttransfer_core.errors import InvalidInputError, LightTransferError
from lighttransfer_core.events import LANE_NAMES, LaneSettings
from lighttransfer_core.layer_sets import format_layers
from lighttransfer_core.service.specs import CompareSpec, prompt_hash
from lighttransfer_core.types import ConversionPlan
from pages.parts import address, backend, errors, own_address, runs
from pages.parts.defaults import DEFAULT_NEW_TOKENS
from pages.parts.prompts import is_hash
from pages.parts.recipe import Recipe, resolve_layers
from pages.parts.results import Summary

_TEXTS: Final = "question_texts"
_WISH: Final = "compare_wish"
_MOST_MORE: Final = 2
_MOST_QUESTIONS: Final = 16


@dataclass(frozen=True)
class _Wish:
    """What the page does in its next run: follow a run that has become another, or start what is chosen now."""

    adopt: str | None = None


def choices(recipe: Recipe, plan: ConversionPlan, summary: Summary) -> CompareSpec | None:
    """The widgets, and the comparison that they make; None after the error that stands in its place was shown."""
    count, more, sampled = st.columns([2, 4, 1.6], vertical_alignment="bottom")
    tokens = count.number_input(
        "New tokens, at most", *address.NEW_TOKENS_RANGE, value=DEFAULT_NEW_TOKENS, key="tokens", bind="query-params"
    )
    also = more.text_input(
        "More plans to compare, up to two",
        key="also",
        bind="query-params",
        max_chars=200,
        placeholder="such as all; random-1",
        help="Separate them by a semicolon. Each is a list like 3,5-9, or none, all, half, inverse (the least lazy "
        "half) or random-7 (a random half, with its seed). They have the window of the sidebar.",
    )
    try:
        lanes = [plan, *_more_plans(also, recipe, summary)]
    except InvalidInputError as error:
        errors.panel(error, "Change the further plans above; a semicolon parts them.")
        return None
    followers = _followers()
    with sampled:
        temperature, seed = _sampling()
    if temperature:
        st.caption(f"Tokens are drawn at temperature {temperature:g}, with seed {seed}.")
    return CompareSpec(
        recipe.prefill_spec(),
        tuple(LaneSettings(lane, follow=name in followers) for name, lane in zip(LANE_NAMES[1:], lanes, strict=False)),
        int(tokens),
        temperature,
        seed,
        turns=questions(),
        copy=_copy_name(),
    )


def _more_plans(text: str, recipe: Recipe, summary: Summary) -> list[ConversionPlan]:
    wanted = [part.strip() for part in (text or "").split(";") if part.strip()]
    if len(wanted) > _MOST_MORE:
        raise InvalidInputError(f"{len(wanted)} more plans are asked for; at most {_MOST_MORE} fit beside A and B.")
    return [
        ConversionPlan(resolve_layers(part, summary.spec, summary.scores), recipe.window, summary.spec.identity)
        for part in wanted
    ]


def _followers() -> set[str]:
    """The lanes that are given A's tokens in place of their own (teacher forcing), as the address names them."""
    return set(st.query_params.get("follow", "")).intersection(LANE_NAMES[1:])


def _sampling() -> tuple[float, int]:
    with st.popover("Sampling", width="stretch"):
        temperature = st.number_input(
            "Temperature",
            0.0,
            2.0,
            0.0,
            0.1,
            key="temperature",
            bind="query-params",
            help="0 takes the likeliest token.",
        )
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="sampling_seed", bind="query-params")
    # where nothing is drawn, the seed makes no other run
    return float(temperature), int(seed) if temperature else 0


def questions() -> tuple[str, ...]:
    """The hashes of the further questions, as the address has them."""
    named = st.query_params.get("questions", "").split(",")
    return tuple(name for name in named if is_hash(name))[:_MOST_QUESTIONS]


def texts(spec: CompareSpec) -> list[str]:
    """The further questions in words; one that neither this visit nor the backend knows is left out."""
    known: dict[str, str] = st.session_state.setdefault(_TEXTS, {})
    for name in spec.turns:
        if name not in known:
            found = backend.ask(lambda client, name=name: client.get_prompt(name))  # type: ignore[misc]
            if not isinstance(found, LightTransferError):
                known[name] = found
    return [known[name] for name in spec.turns if name in known]


def ask() -> None:
    """A further question goes into the address, and the conversation with it is started."""
    text = st.session_state.question.strip()
    if not text or len(questions()) >= _MOST_QUESTIONS:
        return
    name = prompt_hash(text)
    st.session_state.setdefault(_TEXTS, {})[name] = text
    own_address.write("questions", ",".join([*questions(), name]))
    st.session_state.question = ""
    st.session_state[_WISH] = _Wish()


def forget_questions() -> None:
    """Back to the prompt's own answers."""
    own_address.write("questions", None)


def _copy_name() -> str:
    name = st.query_params.get("copy", "")
    return name if name.isalnum() and len(name) <= 16 else ""


def take_copy() -> None:
    """A run of one's own, which may be paused and changed though others follow the first."""
    own_address.write("copy", secrets.token_hex(4))
    st.session_state[_WISH] = _Wish()


def take_lane() -> None:
    """A lane was changed in the panel: the address follows, and so does the run, or a new one is started."""
    told = st.session_state["lanes"].lane
    if not told:
        return
    place = LANE_NAMES.index(told["lane"]) - 1
    layers = format_layers(int(layer) for layer in told["layers"])
    if place == 0:
        st.session_state.plan = layers
    else:
        more = [part.strip() for part in st.session_state.also.split(";") if part.strip()]
        more[place - 1] = layers
        st.session_state.also = "; ".join(more)
    followers = _followers()
    (followers.add if told["follow"] else followers.discard)(told["lane"])
    own_address.write("follow", "".join(sorted(followers)) or None)
    st.session_state[_WISH] = _Wish(adopt=told["token"])


def fulfil(spec: CompareSpec, recipe: Recipe) -> None:
    """Does what the last change asked for, now that its spec is known."""
    wish: _Wish | None = st.session_state.pop(_WISH, None)
    if wish is None:
        return
    if wish.adopt is not None:
        runs.adopt(spec, wish.adopt)
    else:
        runs.start(spec, recipe.prompt, texts(spec))
