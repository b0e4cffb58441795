from __future__ import annotations

import re

import pytest

from viz.components import ASSETS
from viz.components.layer_grid import grid_props

SCRIPTS = sorted(ASSETS.glob("*.js"))
MODULES = sorted(path for folder in ("map", "live", "heap") for path in (ASSETS.parent / folder).glob("*.js"))


def test_grid_shades_follow_the_scores() -> None:
    props = grid_props([0.2, 0.9, 0.5], 3, [1], {2: "slides by itself"}, "Layers", readonly=False, toggles=4)
    fills = [layer["light"][0] for layer in props["layers"]]
    assert len(set(fills)) == 3
    assert props["range"] == [0.2, 0.9]
    assert props["layers"][2]["reason"] == "slides by itself"
    assert (props["lazy"], props["toggles"]) == ([1], 4)


def test_grid_without_scores_still_shows_every_layer() -> None:
    props = grid_props(None, 4, [], {}, "Layers", readonly=True)
    assert [layer["score"] for layer in props["layers"]] == [None] * 4
    assert props["range"] is None


@pytest.mark.parametrize("script", [*SCRIPTS, *MODULES], ids=lambda path: path.name)
def test_scripts_never_write_markup_or_load_from_elsewhere(script: object) -> None:
    text = script.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_scripts_are_small_enough_to_travel_with_every_message() -> None:
    assert all(script.stat().st_size < 15_000 for script in SCRIPTS)
