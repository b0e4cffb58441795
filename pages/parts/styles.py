"""The app's own rules of style, linked from every page's document, so that nothing is drawn without them first.

Streamlit has no place for them in its document. What a script sends comes after the first texts, which would be seen in
other sizes and colours until then.
"""

from __future__ import annotations

import gzip
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pages.parts.frame import ASSETS

STYLES_URL: Final = "/styles/theme.css"
_ROOT: Final = b'<div id="root">'
"""Where Streamlit's document begins to draw. The rules come after Streamlit's own, which are in the head."""
_LINK: Final = f'<link rel="stylesheet" href="{STYLES_URL}">'.encode()


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
                    headers = MutableHeaders(scope=start)
                    if "content-encoding" in headers:
                        del headers["content-encoding"]
                        body = gzip.decompress(body)
                    body = body.replace(_ROOT, _LINK + _ROOT, 1)
                    headers["content-length"] = str(len(body))
                    await send(start)
                    await send({**message, "body": body})

        await self.app(scope, receive, send_linked)


def _is_document(start: Message) -> bool:
    headers = MutableHeaders(scope=start)
    readable = headers.get("content-encoding", "gzip") == "gzip"
    return start["status"] == 200 and readable and headers.get("content-type", "").startswith("text/html")
