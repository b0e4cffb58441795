"""Who may ask, and how much: the bearer token, the size of a request, and which models a request may name."""

from __future__ import annotations

import hmac
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Header, Request
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from lighttransfer_core.errors import InvalidInputError, LightTransferError, ModelNotFoundError, ServiceError
from lighttransfer_core.service.answers import ErrorEnvelope
from lighttransfer_core.service.specs import ADDRESS_HEADER, CLIENT_HEADER, ErrorRecord

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

MODEL_ROOT_VARIABLE = "LIGHTTRANSFER_MODEL_ROOT"
MAX_BODY_NBYTES = 8 * 2**20
_OPEN_PATHS = ("/health",)
_REFUSALS = {
    400: "The body is not text that can be read.",
    401: "The bearer token is missing or wrong.",
    404: "No such run, model or file of results.",
    409: "The model is not loaded, or others follow the run.",
    410: "What the map needs has left memory.",
    411: "The request does not state its length.",
    413: "The request is too large.",
    422: "A value is not one that the route takes.",
    429: "Too many requests, or too many runs in line.",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_LONGEST_HUB_ID = 193  # owner and model of 96 characters each, as the hub allows
_LENGTH = re.compile(r"[0-9]{1,18}")


def check_model_name(name: str) -> None:
    """Names and hub ids pass; a path only under LIGHTTRANSFER_MODEL_ROOT. Raises ModelNotFoundError."""
    root = os.environ.get(MODEL_ROOT_VARIABLE)
    # loading would put a home folder in the place of a leading "~"
    plain = "\0" not in name and not name.startswith("~")
    if root and plain and Path(name).resolve().is_relative_to(Path(root).resolve()):
        return
    if len(name) > _LONGEST_HUB_ID or _HUB_ID.fullmatch(name) is None or Path(name).exists():
        raise ModelNotFoundError(
            f"{name!r} is not a model that this backend loads: give a catalogue name or a hub id (owner/model). "
            f"Folders and files are loaded only from below {MODEL_ROOT_VARIABLE}, which is {root or 'not set'}."
        )


def refusal(status: int, error: LightTransferError) -> JSONResponse:
    """The typed answer to a request that is refused."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(ErrorEnvelope(ErrorRecord.of(error)).to_dict(), status_code=status, headers=headers)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How the schema declares that a route may refuse with these statuses."""
    return {status: {"model": ErrorEnvelope, "description": _REFUSALS[status]} for status in statuses}


ClientName = Annotated[str, Header(alias=CLIENT_HEADER, max_length=100)]


def client_of(request: Request, name: str) -> str:
    """Who asks: the visitor or the address that the page server names, else the other side's address."""
    peer = request.client.host if request.client is not None else ""
    return name or request.headers.get(ADDRESS_HEADER, peer)[:100]


class AccessControl:
    """Refuses requests without the bearer token (where one is set) and bodies that are too large or of unknown size."""

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self.app = app
        self._expected = f"Bearer {token}".encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refused := self._refuse(scope)) is not None:
            await refused(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refuse(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        given = headers.get("authorization", "").encode()
        if self._expected and scope["path"] not in _OPEN_PATHS and not hmac.compare_digest(given, self._expected):
            return refusal(401, ServiceError("This backend demands a bearer token: set LIGHTTRANSFER_TOKEN."))
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or _LENGTH.fullmatch(length) is None:
            return refusal(411, InvalidInputError("A request must state its length."))
        if int(length) > MAX_BODY_NBYTES:
            return refusal(413, InvalidInputError(f"A request may have {MAX_BODY_NBYTES:,} bytes, not {length}."))
        return None
