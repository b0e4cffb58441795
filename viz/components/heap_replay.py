"""The replay of the paper's queue during a prefill: layers, queue and KV bytes, step by step, without script runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lighttransfer_core.heap import HeapMoment
from lighttransfer_core.types import LayerScores, ModelSpec
from viz import roles
from viz.components import MODULES_URL, component, source

_MODULE: Final = f"{MODULES_URL}/heap/replay.js"
_MARKS: Final = {"__FULL__": roles.FULL, "__LAZY__": roles.LAZY, "__REST__": roles.REST}


def _css() -> str:
    css = source("heap_replay.css")
    for mark, role in _MARKS.items():
        css = css.replace(mark, role.colour)
    return css


_MOUNT = component(
    "lighttransfer_heap_replay",
    html=source("heap_replay.html"),
    css=_css(),
    js=source("module_mount.js"),
)


def replay_props(
    spec: ModelSpec, scores: LayerScores, moments: Sequence[HeapMoment], full: Sequence[HeapMoment], room: int
) -> dict[str, Any]:
    """What the replay is told; `full` are the moments of the same prefill where every layer stays full."""
    held = {(moment.kind, moment.layer): sum(moment.kv_bytes) for moment in full}
    without = [0]
    for moment in moments:
        without.append(held.get((moment.kind, moment.layer), without[-1]))
    return {
        "room": room,
        "layers": [
            {
                "score": float(scores.values[layer]) if layer in scores.convertible else None,
                "reason": spec.not_convertible.get(layer, ""),
            }
            for layer in range(spec.num_layers)
        ],
        "moments": [moment.to_dict() for moment in moments],
        "full": without[1:],
    }


def heap_replay(
    spec: ModelSpec,
    scores: LayerScores,
    moments: Sequence[HeapMoment],
    full: Sequence[HeapMoment],
    room: int,
    key: str,
) -> None:
    """Show a replay, at its end; another one under the same key begins anew.

    Parameters
    ----------
    moments, full
        The prefill with the queue, and the same where every layer stays full.
    room
        How many layers may stay full.
    """
    colours = {"full": roles.FULL.colour, "held": roles.LAZY.colour}
    props = replay_props(spec, scores, moments, full, room)
    _MOUNT(key=key, data={**props, "colours": colours, "module": _MODULE})
