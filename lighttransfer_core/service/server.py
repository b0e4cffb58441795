"""Serving the application: the socket, the token, the ready file, and ending when the parent does."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import socket
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import uvicorn
from sse_starlette.sse import AppStatus

from lighttransfer_core.errors import InvalidInputError, ShortPromptWarning
from lighttransfer_core.service.app import create_app
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.client import is_loopback
from lighttransfer_core.service.launcher import TOKEN_VARIABLE, given_token
from lighttransfer_core.service.limits import Limits
from lighttransfer_core.service.model_side import ModelSide

_LOG = logging.getLogger("lighttransfer.server")
_GRACE_S = 5


def serve(
    host: str,
    port: int,
    device: str = "auto",
    budget_nbytes: int | None = None,
    limits: Limits | None = None,
    ready_file: Path | None = None,
    exit_with_stdin: bool = False,
) -> None:
    """Serve until a signal comes, or, with `exit_with_stdin`, until the input ends (the parent is gone).

    Parameters
    ----------
    port
        0 for any free one.
    ready_file
        Where to write the address once no answer has to wait for an import.

    Raises
    ------
    InvalidInputError
        An address outside this machine without LIGHTTRANSFER_TOKEN, or one that cannot be had, or a device that is not
        on this machine.
    """
    token = given_token()
    if token is None and not is_loopback(host):
        raise InvalidInputError(
            f"{host} can be reached from other machines, so a token is demanded: set {TOKEN_VARIABLE} to a long random "
            "text here and for the clients, or serve on 127.0.0.1."
        )
    # read when torch is loaded: threads that wait for each other give their core to the page server and the browser
    # instead of spinning on it, which on shared cores made a decode step three times as slow
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if device not in ("auto", "cpu"):  # these are there; to ask for others takes torch, which is loaded later
        from lighttransfer_core.models.placement import choose_device

        choose_device(device)
    listening = listen(host, port)
    # transformers replaces itself in sys.modules while it is imported: a thread that imports from it then fails
    import transformers  # noqa: F401

    # scores say themselves whether they are informative; a log line per request says nothing more
    warnings.simplefilter("ignore", ShortPromptWarning)

    def make_model_side() -> ModelSide:
        from lighttransfer_core.service.jobs import JobEngine

        most = limits.max_prompt_tokens if limits is not None else None
        return JobEngine(device=device, budget_nbytes=budget_nbytes, max_prompt_tokens=most)

    service = BackendService(make_model_side, limits)

    def get_ready() -> None:
        try:
            _warm_up(service)
        finally:  # what cannot be imported is told to who asks for it
            if ready_file is not None:
                announce(listening, ready_file)

    _in_background("warm-up", get_ready)
    run(service, listening, token, exit_with_stdin)


def run(
    service: BackendService,
    listening: socket.socket,
    token: str | None = None,
    exit_with_stdin: bool = False,
) -> None:
    """Serve a backend on a socket to its end, then close it."""
    config = uvicorn.Config(
        create_app(service, token), log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_S
    )
    server = uvicorn.Server(config)
    if exit_with_stdin:
        _in_background("parent-watch", lambda: _exit_with_stdin(server))
    _LOG.info("listening on %s", _address(listening))
    with contextlib.suppress(KeyboardInterrupt):  # the server has ended in order; Ctrl-C is how people end it
        server.run(sockets=[listening])
    if not service.close():
        # a thread inside a forward pass would abort the interpreter's own end
        logging.shutdown()
        os._exit(0)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 for any free one. Raises InvalidInputError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InvalidInputError(
            f"Cannot listen on {host}:{port} ({error.strerror}); give another --host or --port, or port 0."
        ) from error
    # Connections inherit it. asyncio sets it on sockets of its own making only, and without it every answer waits 40 ms
    # for the other side to acknowledge its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def announce(listening: socket.socket, file: Path) -> None:
    """Write a socket's address into a file, which appears with all of it."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(_address(listening), encoding="utf-8")
    partial.replace(file)


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _warm_up(service: BackendService) -> None:
    """Import what the first run would wait for: torch, the library, and the modelling file of the embedded model.

    What they bring lives as long as the process, with the little garbage that importing makes. Looking through it,
    again and again while it grows, would take a tenth of the time and more.
    """
    gc.disable()
    try:
        _ = service.model_side
        importlib.import_module("transformers.models.llama.modeling_llama")
        gc.freeze()
    finally:
        gc.enable()


def _exit_with_stdin(server: uvicorn.Server) -> None:
    # not sys.stdin: the interpreter cannot end while a thread waits inside its buffer
    while os.read(0, 1024):
        pass
    AppStatus.should_exit = True  # ends the open event streams, which the server would wait for
    server.should_exit = True


def _in_background(name: str, work: Callable[[], object]) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()
