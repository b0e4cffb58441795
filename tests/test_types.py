from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidWindowError
from lighttransfer_core.events import DecodeEvent
from lighttransfer_core.types import ConversionPlan, ModelIdentity, Window


@pytest.mark.parametrize(("sink", "recent"), [(-1, 5), (4, 0), (4, -2), (4.0, 5), (True, 5), (4, None)])
def test_windows_that_make_no_sense_are_refused(sink: object, recent: object) -> None:
    with pytest.raises(InvalidWindowError, match="integer of at least"):
        Window(sink, recent)


def test_the_default_window_is_the_papers() -> None:
    assert (Window().sink, Window().recent, Window().size) == (4, 1020, 1024)


def test_numpys_integers_are_integers() -> None:
    plan = ConversionPlan(tuple(np.argsort([0.3, 0.1, 0.2])[:2]), Window(np.int64(2), np.int32(9)))
    assert ConversionPlan.from_json(plan.to_json()) == ConversionPlan((1, 2), Window(2, 9))


def test_a_plan_sorts_its_layers_and_round_trips() -> None:
    plan = ConversionPlan((5, 3, 5), Window(2, 9), model=ModelIdentity("smollm2", "abc", 30, 9, 3, 64))
    assert plan.lazy_layers == (3, 5)
    assert ConversionPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "{}",
        '{"lazy_layers": [1]}',
        '{"lazy_layers": 3, "window": {"sink": 4, "recent": 8}}',
        '{"lazy_layers": "", "window": {"sink": 4, "recent": 8}}',
        '{"lazy_layers": {}, "window": {"sink": 4, "recent": 8}}',
        '{"lazy_layers": ["a"], "window": {"sink": 4, "recent": 8}}',
        '{"lazy_layers": [-1], "window": {"sink": 4, "recent": 8}}',
        '{"lazy_layers": [1], "window": 7}',
        '{"lazy_layers": [1], "window": {"sinks": 4, "recent": 8}}',
        '{"lazy_layers": [1], "window": {"sink": 4, "recent": 8}, "model": "llama"}',
        "[" * 100_000,
        f'{{"lazy_layers": [{"1" * 5000}], "window": {{"sink": 4, "recent": 8}}}}',
    ],
    ids=lambda text: text[:40],
)
def test_files_that_are_not_plans_are_refused(text: str) -> None:
    with pytest.raises(InvalidPlanError):
        ConversionPlan.from_json(text)


def test_a_plan_file_with_an_impossible_window_says_so() -> None:
    with pytest.raises(InvalidWindowError, match="recent=0"):
        ConversionPlan.from_json('{"lazy_layers": [1], "window": {"sink": 4, "recent": 0}}')


def test_events_round_trip() -> None:
    event = DecodeEvent(3, 17, "a", -0.5, 0.01, (4, 5), 43)
    assert DecodeEvent.from_json(event.to_json()) == event


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": 1}'])
def test_a_text_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="DecodeEvent"):
        DecodeEvent.from_json(text)


def test_the_package_and_its_types_do_not_import_torch() -> None:
    code = (
        "import sys, lighttransfer_core, lighttransfer_core.types, lighttransfer_core.errors;"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_what_they_say_even_after_their_modules_are_imported() -> None:
    code = (
        "import lighttransfer_core.comparison, lighttransfer_core.generation;"
        "import lighttransfer_core as lt;"
        "assert all(callable(getattr(lt, n)) or n == 'RECOMMENDED_METRIC' for n in lt.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
