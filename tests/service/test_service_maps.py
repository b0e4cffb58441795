"""The map routes on a tiny model, through the application."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import itertools
import random
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

import lighttransfer_core as lt
from lighttransfer_core.attention import use_lighttransfer_attention
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.keep import Keep, prefill_nbytes
from lighttransfer_core.maps import levels
from lighttransfer_core.maps.codes import encode, encode_signed
from lighttransfer_core.maps.levels import Pyramid
from lighttransfer_core.maps.view import View
from lighttransfer_core.models import LoadedModel, describe, render_prompt
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.service import maps
from lighttransfer_core.service.app import create_app
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.engine import keep_offers
from lighttransfer_core.service.jobs import JobEngine
from lighttransfer_core.service.maps import MapStore, PromptMap
from lighttransfer_core.service.specs import CompareSpec, LoadSpec, PrefillSpec
from lighttransfer_core.service.store import ByteStore
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import make_tiny
from tests.service.in_process import WAIT_S, InProcessTransport, serving

TEXT = "the quick brown fox jumps over the lazy dog; " * 8


@pytest.fixture
def engine(byte_tokenizer: PreTrainedTokenizerFast) -> JobEngine:
    def loader(name: str, *_: object) -> LoadedModel:
        model = make_tiny("llama")
        model.config.max_position_embeddings = 1024
        use_lighttransfer_attention(model)
        return LoadedModel(model, byte_tokenizer, describe(model, name, "r1", byte_tokenizer))

    return JobEngine(device="cpu", budget_nbytes=10**9, loader=loader)


@pytest.fixture
def transport(engine: JobEngine) -> Iterator[InProcessTransport]:
    service = BackendService(lambda: engine)
    with serving(create_app(service)) as in_process:
        yield in_process
    assert service.close()


@pytest.fixture
def client(transport: InProcessTransport) -> Iterator[BackendClient]:
    with BackendClient("http://backend", transport=transport) as speaking:
        yield speaking


@pytest.fixture
def run(client: BackendClient) -> str:
    """The token of a prefill that is done."""
    spec = PrefillSpec(model="tiny", prompt=client.put_prompt(TEXT), rendering="raw", window=Window(2, 50))
    token = client.start(spec).token
    client.wait(token)
    return token


@pytest.fixture
def http(transport: InProcessTransport) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url="http://backend", transport=transport) as speaking:
        yield speaking


@pytest.fixture
def prefill(engine: JobEngine, run: str) -> Prefill:
    lm = engine.find("tiny")
    return lt.run_prefill(lm, render_prompt(lm.tokenizer, TEXT, "raw").input_ids)


def get(http: httpx2.Client, run: str, what: str, **query: Any) -> httpx2.Response:
    answer = http.get(f"/runs/{run}/map{what}", params=query)
    assert answer.status_code == 200, answer.text
    return answer


def test_the_facts_and_the_tokens(http: httpx2.Client, run: str, prefill: Prefill) -> None:
    facts = get(http, run, "").json()
    assert (facts["num_tokens"], facts["num_layers"], facts["num_heads"]) == (prefill.num_tokens, 4, 6)
    assert (facts["tile"], facts["top_level"], facts["base_level"], facts["first_rows"]) == (256, 1, 0, [0] * 4)
    assert "".join(get(http, run, "/tokens").json()).endswith(TEXT)


@pytest.mark.parametrize("view", ["1.2", "1.2-3.0"])
def test_a_tile_is_the_codes_of_the_exact_weights(http: httpx2.Client, run: str, prefill: Prefill, view: str) -> None:
    answer = get(http, run, "/tile", view=view, level=0, row=1, col=0)
    total = prefill.num_tokens
    codes = np.frombuffer(answer.content, dtype=np.uint8).reshape(256, 256)
    exact = prefill.attention(1, 2, (256, total), (0, 256))
    if view == "1.2":
        expected = encode(exact)
    else:
        expected = encode_signed(exact - prefill.attention(3, 0, (256, total), (0, 256)))
    difference = np.abs(codes[: total - 256].astype(int) - expected)
    assert difference.max() <= 1, "at the edge of a step the last bit decides"
    assert (codes[total - 256 :] == 255).all()
    assert answer.headers["cache-control"] == "private, max-age=3600, immutable"
    assert answer.headers["content-encoding"] == "gzip"


def test_a_value_is_exact_and_says_what_streaming_keeps(http: httpx2.Client, run: str, prefill: Prefill) -> None:
    found = get(http, run, "/value", view="1.2", level=0, row=300, col=7, sink=2, recent=50).json()
    row = prefill.attention(1, 2, (300, 301))[0]
    assert found["value"] == pytest.approx(float(row[7]), abs=1e-6)
    assert found["kept"] == pytest.approx(float(row[:2].sum() + row[251:].sum()), abs=1e-5)
    assert (found["query"], found["key"]) == (300, 7)


def test_rows_columns_maxima_and_what_is_lost(http: httpx2.Client, run: str, prefill: Prefill) -> None:
    total = prefill.num_tokens

    def numbers(what: str, **query: Any) -> np.ndarray:
        return np.frombuffer(get(http, run, what, view="1.2", **query).content, dtype=np.float32)

    whole = prefill.attention(1, 2)
    np.testing.assert_allclose(numbers("/row", start=300, stop=301), whole[300], atol=1e-6)
    np.testing.assert_allclose(numbers("/column", key=9), whole[:, 9], atol=1e-6)
    np.testing.assert_allclose(numbers("/maxima", skip=0)[:total], whole.max(axis=1), atol=1e-6)
    lost = numbers("/lost", sink=2, recent=50)
    assert not lost[:52].any()
    assert lost[300] == pytest.approx(float(whole[300, 2:251].sum()), abs=1e-5)


def test_all_heads(http: httpx2.Client, run: str) -> None:
    facts = get(http, run, "/heads", sink=2, recent=50).json()
    side = facts["side"]
    assert np.shape(facts["characters"]["entropy"]) == (4, 6)
    assert len(get(http, run, "/thumbnails", sink=2, recent=50).content) == 4 * 6 * side * side


def test_a_rectangle_as_files(http: httpx2.Client, run: str, prefill: Prefill) -> None:
    place = {"view": "1.2", "level": 0, "top": 20, "bottom": 23, "left": 0, "right": 22}
    lines = get(http, run, "/rectangle", form="csv", **place).text.splitlines()
    assert len(lines) == 5
    last = lines[-1].split(",")
    assert last[0] == "22"
    assert float(last[2]) == pytest.approx(float(prefill.attention(1, 2, (22, 23))[0, 0]), rel=1e-4)
    assert lines[2].endswith(","), "a hidden pair is empty"
    archive = np.load(io.BytesIO(get(http, run, "/rectangle", form="npz", **place).content), allow_pickle=False)
    np.testing.assert_allclose(archive["values"][2], prefill.attention(1, 2, (22, 23), (0, 22))[0], atol=1e-6)
    assert (archive["queries"].tolist(), int(archive["cell_tokens"])) == ([20, 21, 22], 1)
    coarse = get(http, run, "/rectangle", form="npz", **{**place, "level": 1, "top": 0, "bottom": 10, "right": 10})
    assert np.load(io.BytesIO(coarse.content))["values"].shape == (10, 10)


@pytest.mark.parametrize(
    ("what", "query", "status", "words"),
    [
        ("/tile", {"view": "9.0", "level": 0, "row": 0, "col": 0}, 422, "layer 9 is out of range"),
        ("/tile", {"view": "x", "level": 0, "row": 0, "col": 0}, 422, "is not a map"),
        ("/tile", {"view": "0.0", "level": 9, "row": 0, "col": 0}, 422, "does not exist"),
        ("/tile", {"view": "0.0", "level": -1, "row": 0, "col": 0}, 422, "level"),
        ("/tile", {"view": "0.0", "level": 0, "row": 0, "col": 0, "reduce": "sum"}, 422, "reduce"),
        ("/value", {"view": "0.0", "level": 0, "row": 3, "col": 9}, 422, "future"),
        ("/value", {"view": "0.0", "level": 0, "row": 10**7, "col": 9}, 422, "do not exist"),
        ("/row", {"view": "0.0", "start": 5, "stop": 5}, 422, "do not exist"),
        ("/lost", {"view": "0.0", "recent": 0}, 422, "recent"),
        ("/rectangle", {"view": "0.0", "level": 0, "top": 0, "bottom": 2000, "left": 0, "right": 2000, "form": "csv"},
         422, "coarser"),
        ("/heads", {"sink": 10**30}, 422, "sink"),
        ("/thumbnails", {"recent": 10**30}, 422, "recent"),
        ("/rectangle", {"view": "0.0", "level": 16, "top": 0, "bottom": 1, "left": 0, "right": 1, "form": "npz"},
         422, "levels 0 to 1"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_exist_is_refused(
    http: httpx2.Client, run: str, what: str, query: dict[str, Any], status: int, words: str
) -> None:
    answer = http.get(f"/runs/{run}/map{what}", params=query)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_maps_of_other_runs_are_refused(client: BackendClient, http: httpx2.Client) -> None:
    load = client.start(LoadSpec(model="tiny")).token
    client.wait(load)
    assert "needs a prefill" in http.get(f"/runs/{load}/map").json()["error"]["message"]
    unknown = http.get(f"/runs/{'x' * 32}/map")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "RunNotFoundError")


def test_a_prefill_that_made_room_is_named_and_computed_again(
    client: BackendClient, http: httpx2.Client, engine: JobEngine, run: str
) -> None:
    engine.ledger.prefills.evict(10**12)
    gone = http.get(f"/runs/{run}/map")
    assert (gone.status_code, gone.json()["error"]["type"]) == (410, "PrefillGoneError")
    spec = PrefillSpec(model="tiny", prompt=client.put_prompt(TEXT), rendering="raw", window=Window(2, 50))
    again = client.start(spec).token
    assert not client.wait(again)["reused"]
    assert get(http, again, "").json()["num_tokens"]


def test_equal_prefills_share_their_coarse_levels(
    client: BackendClient, http: httpx2.Client, engine: JobEngine
) -> None:
    prompt = client.put_prompt(TEXT)
    for metric in ("lazy_ratio", "worst_head"):
        token = client.start(
            PrefillSpec(model="tiny", prompt=prompt, rendering="raw", window=Window(2, 50), metric=metric)
        ).token
        client.wait(token)
        get(http, token, "/tile", view="0.0", level=1, row=0, col=0)
    assert len(engine._maps.kept) == 1


def compare_spec(client: BackendClient, new_tokens: int) -> CompareSpec:
    prefill = PrefillSpec(model="tiny", prompt=client.put_prompt(TEXT), rendering="raw", window=Window(2, 50))
    lanes = (LaneSettings(ConversionPlan((1,), Window(2, 50))),)
    return CompareSpec(prefill=prefill, lanes=lanes, max_new_tokens=new_tokens)


def test_the_map_goes_on_into_what_a_lane_decoded(
    client: BackendClient, http: httpx2.Client, engine: JobEngine
) -> None:
    spec = compare_spec(client, 12)
    token = client.start(spec).token
    client.wait(token)
    prompt = get(http, token, "", lane="a").json()["prompt_tokens"]
    for lane, streaming in (("a", []), ("b", [1])):
        facts = get(http, token, "", lane=lane).json()
        assert facts["num_tokens"] == prompt + 11, "the last token was chosen and not fed back"
        assert facts["streaming"] == streaming
        assert len(get(http, token, "/tokens", lane=lane).json()) == prompt + 11
        row = np.frombuffer(
            get(http, token, "/row", lane=lane, view="1.2", start=prompt + 5, stop=prompt + 6).content, np.float32
        )
        assert row.sum() == pytest.approx(1.0, abs=1e-5)
        assert row[2 : prompt + 5 - 49].any() == (lane == "a")
    engine.ledger.prefills.evict(1)
    again = client.start(spec).token
    client.wait(again)
    assert get(http, again, "", lane="b").json()["prompt_tokens"] == prompt


def test_a_lane_of_one_token_has_no_rows(client: BackendClient, http: httpx2.Client) -> None:
    token = client.start(compare_spec(client, 1)).token
    client.wait(token)
    answer = http.get(f"/runs/{token}/map", params={"lane": "a"})
    assert "one token only" in answer.json()["error"]["message"]
    assert http.get(f"/runs/{token}/map").status_code == 422, "a comparison's map needs a lane"
    assert http.get(f"/runs/{token}/map", params={"lane": "c"}).status_code == 422


def test_a_reader_who_leaves_is_no_longer_computed_for(
    run: str, http: httpx2.Client, transport: InProcessTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, ended, strips = threading.Event(), threading.Event(), levels.strips

    class Endless(levels.Pyramid):
        def __init__(self, *arguments: Any) -> None:
            monkeypatch.setattr(levels, "strips", lambda rows, cell: itertools.repeat((0, 8)))
            started.set()
            try:
                super().__init__(*arguments)
            finally:
                monkeypatch.setattr(levels, "strips", strips)
                ended.set()

    monkeypatch.setattr(maps, "Pyramid", Endless)
    place = {"view": "0.0", "level": 1, "row": 0, "col": 0}
    asked = httpx2.Request("GET", f"http://backend/runs/{run}/map/tile", params=place)
    waiting = asyncio.run_coroutine_threadsafe(transport._inner.handle_async_request(asked), transport._loop)
    assert started.wait(WAIT_S)
    assert not ended.is_set()
    waiting.cancel()
    assert ended.wait(WAIT_S)
    monkeypatch.setattr(maps, "Pyramid", levels.Pyramid)
    assert len(get(http, run, "/tile", **place).content) == 256 * 256


def test_offers_fit_and_what_is_larger_does_not(engine: JobEngine, run: str, client: BackendClient) -> None:
    spec, tokens = engine.find("tiny").spec, 2000
    everything = prefill_nbytes(spec, tokens)
    room = everything - everything // 6
    assert keep_offers(spec, tokens, everything, 0) == ()
    half, layers, rows = keep_offers(spec, tokens, room, 10**12)
    assert (half.dtype, half.query_rows) == ("bfloat16", None)
    one_more = (Keep(layers.query_rows, tuple(range(layers.layers + 1))), Keep((rows.query_rows or 0) + 1))
    for offer, more in zip((layers, rows), one_more, strict=True):
        assert offer.nbytes <= room < prefill_nbytes(spec, tokens, more)
    on_device = dataclasses.replace(spec, device="cuda:0", dtype="bfloat16")
    assert [offer.host for offer in keep_offers(on_device, tokens, room, 10**12)] == [True, False, False]
    assert not any(offer.host for offer in keep_offers(on_device, tokens, room, 10**3))
    assert keep_offers(spec, tokens, 1000, 10**12) == ()
    told = client.tokenize("tiny", client.put_prompt(TEXT), "raw")
    assert told.kv_nbytes + told.query_nbytes == prefill_nbytes(spec, told.num_tokens)


def test_two_hundred_random_views_hold_no_more_than_the_store_may(engine: JobEngine, prefill: Prefill) -> None:
    one = Pyramid(prefill, View.parse("0.0")).nbytes
    store, chance = MapStore(ByteStore(3 * one)), random.Random(0)
    for _ in range(200):
        view = View.parse(f"{chance.randrange(4)}.{chance.randrange(6)}")
        PromptMap(prefill, "x", store).tile(view, chance.randrange(2), 0, 0, "max")
    assert store.kept.nbytes <= 3 * one
