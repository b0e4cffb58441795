"""The routes of what sweeps need and leave: the tasks that can be asked here, the results that are kept."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Response

from lighttransfer_core.service.access import refusals
from lighttransfer_core.service.answers import SweepEntry, TaskEntry
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.tasks import is_ready, list_tasks, task_info


def add_sweep_routes(app: FastAPI, service: BackendService) -> None:
    @app.get("/tasks")
    def tasks() -> list[TaskEntry]:
        return [TaskEntry.from_dict({**task_info(name).to_dict(), "ready": is_ready(name)}) for name in list_tasks()]

    @app.get("/sweeps")
    def sweeps() -> list[SweepEntry]:
        return service.sweeps.entries()

    @app.get(
        "/sweeps/{name}",
        response_class=Response,
        responses={200: {"content": {"application/jsonl": {}}}, **refusals(404)},
    )
    def sweep(name: Annotated[str, Path(max_length=255)]) -> Response:
        return Response(service.sweeps.read(name), media_type="application/jsonl")
