"""The route of scores: many questions about one finished prefill run at once, computed off the event loop."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Request

from lighttransfer_core.service.access import ClientName, client_of, refusals
from lighttransfer_core.service.answers import LightScores, ScoresRequest
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.desk import Desk

Token = Annotated[str, Path(min_length=16, max_length=64)]


def add_score_routes(app: FastAPI, service: BackendService, desk: Desk) -> None:
    @app.post("/runs/{token}/scores", responses=refusals(400, 404, 410, 429))
    async def scores(
        request: Request, token: Token, asked: ScoresRequest, client: ClientName = ""
    ) -> list[LightScores]:
        service.admit(client_of(request, client))
        return await desk.ask(request, lambda check: service.scores(token, asked.questions, check))
