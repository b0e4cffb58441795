"""Scores of a finished prefill and of several prompts on a tiny model, through the application."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

import lighttransfer_core as lt
from lighttransfer_core import errors
from lighttransfer_core.keep import Keep, prefill_nbytes
from lighttransfer_core.laziness import recall
from lighttransfer_core.models import render_prompt
from lighttransfer_core.service import task as task_module
from lighttransfer_core.service.answers import BeforeQuestion, PromptScores, ScoreQuestion
from lighttransfer_core.service.app import create_app
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.jobs import JobEngine
from lighttransfer_core.service.specs import LoadSpec, ScoreSpec
from lighttransfer_core.types import LayerScores, ModelSpec, Window
from tests.service.conftest import speaking_to
from tests.service.in_process import serving
from tests.service.test_service_engine import TEXT, WINDOW, Loader, nothing_is_held, prefill_spec

ASKED = f"{TEXT}\n\nwho jumps?"
BEFORE = len(TEXT)


@pytest.fixture
def loader(byte_tokenizer: PreTrainedTokenizerFast) -> Loader:
    return Loader(byte_tokenizer)


@pytest.fixture
def spec(loader: Loader) -> ModelSpec:
    return loader("tiny", "cpu", "auto", None, lambda _message, _fraction: None).spec


@pytest.fixture
def budget() -> int:
    return 10**9


@pytest.fixture
def engine(loader: Loader, budget: int, monkeypatch: pytest.MonkeyPatch) -> JobEngine:
    for name in ("_CHUNK_S", "_SHARED_CHUNK_S"):
        monkeypatch.setattr(task_module, name, 1e-9)  # the smallest chunks: many turns
    return JobEngine(device="cpu", budget_nbytes=budget, loader=loader)


@pytest.fixture
def client(engine: JobEngine) -> Iterator[BackendClient]:
    with speaking_to(engine) as speaking:
        yield speaking


@pytest.fixture
def token(client: BackendClient) -> str:
    """A prefill that is done, of a prompt with a question."""
    made = client.start(prefill_spec(client.put_prompt(ASKED))).token
    client.wait(made)
    return made


def own_scores(engine: JobEngine, text: str, tokens: int | None = None, **asked: Any) -> LayerScores:
    """What the library says of a prompt, cut short where its beginning is meant."""
    lm = engine.find("tiny")
    ids = render_prompt(lm.tokenizer, text, "raw").input_ids[:, :tokens]
    return lt.score_layers(lt.run_prefill(lm, ids), **{"window": WINDOW, "last": 8, **asked})


def same(one: LayerScores, other: LayerScores) -> None:
    for name in ("values", "sink", "recent", "rest"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
    for name in ("metric", "window", "last", "num_tokens", "convertible", "informative", "model"):
        assert getattr(one, name) == getattr(other, name)


def test_a_prefill_says_what_it_shows_before_its_question(client: BackendClient, engine: JobEngine, token: str) -> None:
    before = BeforeQuestion.from_dict(client.status(token).result["before"])  # type: ignore[index]
    assert (before.tokens, before.reason) == (BEFORE, "")
    assert before.scores is not None
    same(before.scores.scores(), own_scores(engine, ASKED, BEFORE))


@pytest.mark.parametrize(
    ("text", "facts", "tokens", "reason"),
    [
        (TEXT, {}, None, "no blank line"),
        (ASKED, {"query_rows": 12}, BEFORE, "reads the queries of 19 rows and this prefill kept 12"),
        (ASKED, {"metric": "leave_one_out_kl"}, BEFORE, "tries out how the model goes on"),
    ],
)
def test_where_nothing_is_known_before_the_question_it_is_said_why(
    client: BackendClient, text: str, facts: dict[str, Any], tokens: int | None, reason: str
) -> None:
    found = client.wait(client.start(prefill_spec(client.put_prompt(text), **facts)).token)["before"]
    assert (found["tokens"], found["scores"]) == (tokens, None)
    assert reason in found["reason"]


def test_many_questions_about_a_kept_prefill_are_answered_at_once(
    client: BackendClient, engine: JobEngine, token: str
) -> None:
    asked = [
        ScoreQuestion(Window(2, 30), 4, "worst_head"),
        ScoreQuestion(Window(0, 9), 1, "residual_change_worst", "agnostic"),
        ScoreQuestion(WINDOW, 8, "depth_early", "agnostic"),
        ScoreQuestion(Window(4, 1020)),
    ]
    found = client.scores(token, asked)
    same(found[0], own_scores(engine, ASKED, window=Window(2, 30), last=4, metric="worst_head"))
    same(
        found[1],
        own_scores(engine, ASKED, BEFORE, window=Window(0, 9), last=1, metric="residual_change_worst"),
    )
    same(found[2], own_scores(engine, ASKED, BEFORE, metric="depth_early"))
    assert not found[3].informative
    assert found[0].per_head is None
    assert nothing_is_held(engine)


@pytest.mark.parametrize(
    ("text", "question", "error", "words"),
    [
        (ASKED, ScoreQuestion(metric="leave_one_out_kl"), errors.InvalidInputError, "leave_one_out_kl tries"),
        (ASKED, ScoreQuestion(metric="made_up"), errors.UnknownMetricError, "made_up"),
        (ASKED, ScoreQuestion(last=513), errors.InvalidInputError, "last"),
        (TEXT, ScoreQuestion(WINDOW, question="agnostic"), errors.InvalidPromptError, "no blank line"),
    ],
)
def test_a_question_that_has_no_answer_is_refused(
    client: BackendClient, text: str, question: ScoreQuestion, error: type[Exception], words: str
) -> None:
    token = client.start(prefill_spec(client.put_prompt(text))).token
    client.wait(token)
    with pytest.raises(error, match=words):
        client.scores(token, [question])


def test_scores_of_what_is_no_kept_prefill_are_refused(client: BackendClient, engine: JobEngine, token: str) -> None:
    load = client.start(LoadSpec("tiny")).token
    client.wait(load)
    with pytest.raises(errors.InvalidInputError, match="scores need a prefill"):
        client.scores(load, [ScoreQuestion()])
    engine.ledger.prefills.evict(10**12)
    with pytest.raises(errors.PrefillGoneError, match="run it again"):
        client.scores(token, [ScoreQuestion()])
    for wrong in ([], [ScoreQuestion()] * 65):
        with pytest.raises(errors.InvalidInputError, match="questions"):
            client.scores(token, wrong)


def score_spec(client: BackendClient, *texts: str, **facts: Any) -> ScoreSpec:
    names = tuple(client.put_prompt(text) for text in texts)
    return ScoreSpec("tiny", names, **{"rendering": "raw", "window": WINDOW, "last": 8, **facts})


def test_a_spec_survives_json() -> None:
    spec = ScoreSpec("m", ("a" * 64, "b" * 64), window=Window(1, 2))
    assert ScoreSpec.from_json(spec.to_json()) == spec
    assert spec.load_spec() == LoadSpec("m")


def test_several_prompts_are_scored_one_after_the_other_and_nothing_is_kept(
    client: BackendClient, engine: JobEngine
) -> None:
    texts = (ASKED, TEXT, "short")
    asked = score_spec(client, *texts)
    token = client.start(asked).token
    events = [event for event in client.events(token) if event["kind"] == "measuring"]
    result = client.wait(token)
    found = [PromptScores.from_dict(one) for one in result["prompts"]]
    assert tuple(one.prompt for one in found) == asked.prompts
    for one, text in zip(found[:2], texts, strict=False):
        same(one.aware.scores(), own_scores(engine, text))
    assert found[0].before.scores is not None
    same(found[0].before.scores.scores(), own_scores(engine, ASKED, BEFORE))
    assert "no blank line" in found[1].before.reason
    assert not found[2].aware.informative
    assert ModelSpec.from_dict(result["spec"]) == engine.find("tiny").spec
    messages = [event["message"] for event in events]
    assert messages[0] == f"Prompt 1 of 3: 0 of {len(ASKED) - 1} tokens"
    assert messages[-1] == "Prompt 3 of 3: scoring the layers"
    fractions = [event["fraction"] for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(engine.ledger.prefills) == 0
    assert nothing_is_held(engine)


def test_a_score_that_lets_the_model_answer_takes_a_turn_for_each_token(
    client: BackendClient, engine: JobEngine
) -> None:
    prompt = client.put_prompt(ASKED)
    run = client.start(prefill_spec(prompt, metric="recall")).token
    messages = [event["message"] for event in client.events(run) if event["kind"] == "scoring"]
    for told in ("Scoring the layers", "Scoring the layers before the question"):
        turns = messages.count(f"{told}: the model answers a question about the prompt")
        assert turns == recall.ANSWER_TOKENS
    result = client.wait(run)
    same(LayerScores.from_dict(result["scores"]), own_scores(engine, ASKED, metric="recall"))
    before = BeforeQuestion.from_dict(result["before"]).scores
    assert before is not None
    same(before.scores(), own_scores(engine, ASKED, BEFORE, metric="recall"))
    several = client.start(score_spec(client, ASKED, metric="recall")).token
    assert PromptScores.from_dict(client.wait(several)["prompts"][0]).aware.metric == "recall"


def test_a_kept_prefill_is_used_and_stays(client: BackendClient, engine: JobEngine, token: str) -> None:
    run = client.start(score_spec(client, ASKED)).token
    messages = [event["message"] for event in client.events(run) if event["kind"] == "measuring"]
    assert messages == ["Prompt 1 of 1: scoring the layers"]
    assert len(engine.ledger.prefills) == 1
    assert nothing_is_held(engine)


def test_a_cancelled_run_gives_everything_back(client: BackendClient, engine: JobEngine) -> None:
    token = client.start(score_spec(client, ASKED, TEXT)).token
    with closing(client.events(token)) as stream:
        next(event for event in stream if event["kind"] == "measuring")
        client.cancel(token)
    assert client.wait(client.start(prefill_spec(client.put_prompt(TEXT))).token)["num_tokens"] == len(TEXT)
    assert nothing_is_held(engine)


def test_a_prompt_that_cannot_be_read_is_named_before_any_runs(client: BackendClient, engine: JobEngine) -> None:
    token = client.start(score_spec(client, ASKED, " ")).token
    with pytest.raises(errors.InvalidPromptError, match="Prompt 2 of 2: The prompt is empty"):
        client.wait(token)
    assert not any(event["kind"] == "measuring" for event in client.events(token))
    with pytest.raises(errors.UnknownMetricError):
        client.wait(client.start(score_spec(client, ASKED, metric="made_up")).token)
    assert nothing_is_held(engine)


class TestSmallBudget:
    @pytest.fixture
    def budget(self, spec: ModelSpec) -> int:
        return spec.weight_bytes + prefill_nbytes(spec, len(TEXT), Keep(query_rows=8))

    def test_a_prompt_that_does_not_fit_is_named_and_answered_with_one_that_does(
        self, client: BackendClient, engine: JobEngine
    ) -> None:
        assert client.wait(client.start(score_spec(client, TEXT)).token)["prompts"]
        with pytest.raises(errors.DoesNotFitError, match="Prompt 2 of 2") as refused:
            client.wait(client.start(score_spec(client, TEXT, TEXT + TEXT[:100])).token)
        assert refused.value.offer == f"a prompt of {len(TEXT)} tokens instead of {len(TEXT) + 100}"
        assert nothing_is_held(engine)


def test_a_client_that_asks_too_often_is_told_so(engine: JobEngine) -> None:
    service = BackendService(lambda: engine)
    with serving(create_app(service)) as transport, httpx2.Client(transport=transport) as http:
        body = {"questions": [{}]}
        statuses = {http.post(f"http://backend/runs/{'x' * 32}/scores", json=body).status_code for _ in range(80)}
    assert statuses == {404, 429}
    assert service.close()
