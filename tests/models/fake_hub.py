"""A hub on loopback that serves one repository, with the routes that huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_ID = "someone/tiny-llama"


@contextmanager
def serve(folder: Path, refusal: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serves the folder's files as `HUB_ID`; yields the address and the list of files handed out.

    With a refusal, such as "GatedRepo", every answer is the hub's 403 of that name.
    """
    handed_out: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

        def _answer(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if refusal is not None:
                self._send(403, b"{}", with_body, {"X-Error-Code": refusal})
            elif path.startswith(f"/api/models/{HUB_ID}/revision/"):
                self._revision(path.rpartition("/")[2], with_body)
            elif path.startswith(f"/api/models/{HUB_ID}/tree/"):
                self._send(200, json.dumps(self._tree()).encode(), with_body)
            elif path.startswith(f"/{HUB_ID}/resolve/{COMMIT}/"):
                self._file(path.rpartition("/")[2], with_body)
            else:
                self._send(404, b"{}", with_body, {"X-Error-Code": "RepoNotFound"})

        def _revision(self, revision: str, with_body: bool) -> None:
            if revision not in ("main", COMMIT):
                self._send(404, b"{}", with_body, {"X-Error-Code": "RevisionNotFound"})
                return
            self._send(200, json.dumps({"id": HUB_ID, "sha": COMMIT}).encode(), with_body)

        def _tree(self) -> list[dict[str, object]]:
            files = sorted(folder.iterdir())
            return [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _etag(f)} for f in files]

        def _file(self, name: str, with_body: bool) -> None:
            if with_body:
                handed_out.append(name)
            headers = {"ETag": f'"{_etag(folder / name)}"', "X-Repo-Commit": COMMIT}
            self._send(200, (folder / name).read_bytes(), with_body, headers)

        def _send(self, status: int, body: bytes, with_body: bool, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handed_out
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
