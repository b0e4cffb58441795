from __future__ import annotations

import pytest
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.maps.view import Source, View
from tests.conftest import tokens


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("3.2", View(Source(3, 2))),
        ("3.*", View(Source(3, None))),
        ("*.0", View(Source(None, 0))),
        ("3.2-*.*", View(Source(3, 2), Source(None, None))),
    ],
)
def test_a_view_is_a_text_and_back(text: str, view: View) -> None:
    assert View.parse(text) == view
    assert str(view) == text


@pytest.mark.parametrize("text", ["", "3", "3.2.1", "-1.2", "3.2-", "a.b", "3.2-4", "99999.0", "3.2 "])
def test_texts_that_are_no_view_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"layer\.head"):
        View.parse(text)


@pytest.mark.parametrize("text", ["4.0", "0.6", "0.0-9.0"])
def test_layers_and_heads_that_do_not_exist_are_refused(llama: PreTrainedModel, text: str) -> None:
    with pytest.raises(InvalidInputError, match="out of range"):
        View.parse(text).check(lt.run_prefill(llama, tokens(4)).spec)
