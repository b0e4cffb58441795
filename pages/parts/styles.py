"""The app's own rules of style, linked from every page's document, so that nothing is drawn without them first.

Streamlit has no place for them in its document. What a script sends comes after the first texts, which would be seen in
other sizes and colours until then.
"""

from __future__ import annotations

import gzip
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pages.parts.frame import ASSETS

STYLES_URL: Final = "/styles/theme.css"
_ROOT: Final = b'<div id="root">'
"""Where Streamlit's document begins to draw. The rules come after Streamlit's own, which are in the head."""
_LINK: Final = f'<link rel="stylesheet" href="{STYLES_URL}">'.encode()
_IF_CHANGED: Final = (b"if-none-match", b"if-modified-since")


async def styles(_request: Request) -> FileResponse:
    """The rules."""
    return FileResponse(ASSETS / "theme.css", media_type="text/css", headers={"Cache-Control": "no-cache"})


class LinkedStyles:
    """Adds the link to the documents of the application that it wraps; all other answers pass as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        # a document that the browser has kept may be one without the link
        headers = [pair for pair in scope["headers"] if pair[0] not in _IF_CHANGED]
        scope = {**scope, "headers": headers} if _asks_for_document(scope) else scope
        start: Message | None = None
        body = b""

        async def send_linked(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _is_document(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body"):
                    told = MutableHeaders(scope=start)
                    if "content-encoding" in told:
                        del told["content-encoding"]
                        body = gzip.decompress(body)
                    body = body.replace(_ROOT, _LINK + _ROOT, 1)
                    told["content-length"] = str(len(body))
                    await send(start)
                    await send({**message, "body": body})

        await self.app(scope, receive, send_linked)


def _asks_for_document(scope: Scope) -> bool:
    return "text/html" in Headers(scope=scope).get("accept", "")


def _is_document(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    readable = headers.get("content-encoding", "gzip") == "gzip"
    return start["status"] == 200 and readable and headers.get("content-type", "").startswith("text/html")
