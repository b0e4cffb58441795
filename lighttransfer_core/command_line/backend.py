"""The command `serve`."""

from __future__ import annotations

import logging
import sys

import typer

from lighttransfer_core.command_line.options import (
    Budget,
    Device,
    ExitWithStdin,
    Host,
    MaxNewTokens,
    MaxPromptTokens,
    MaxSeconds,
    MaxSweepSeconds,
    Port,
    ReadyFile,
)

app = typer.Typer()


@app.command()
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8765,
    device: Device = "auto",
    budget: Budget = None,
    max_prompt_tokens: MaxPromptTokens = None,
    max_new_tokens: MaxNewTokens = 4096,
    max_seconds: MaxSeconds = 1800.0,
    max_sweep_seconds: MaxSweepSeconds = 14_400.0,
    ready_file: ReadyFile = None,
    exit_with_stdin: ExitWithStdin = False,
) -> None:
    """Run the backend, which the pages and remote clients speak to."""
    from lighttransfer_core.service.limits import Limits
    from lighttransfer_core.service.server import serve as run_server

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    limits = Limits(
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=max_new_tokens,
        wall_clock_s=max_seconds,
        sweep_clock_s=max_sweep_seconds,
    )
    run_server(host, port, device, int(budget * 1e9) if budget else None, limits, ready_file, exit_with_stdin)
