"""The command line: the same verbs as the pages, in this process, and `serve` for the backend.

A module of commands imports torch only when one of them runs: `prompting` and `sweeping` hold what they do.
"""

from __future__ import annotations

import sys
import warnings

import typer

from lighttransfer_core.command_line import backend, evidence, models, prompts
from lighttransfer_core.errors import LightTransferError, LightTransferWarning

app = typer.Typer(
    help="Find the lazy layers of a language model and give them streaming attention.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (models, prompts, evidence, backend):
    app.add_typer(commands.app)


def main() -> None:
    """Run the command; a typed error is one line and the exit status 2."""
    warnings.formatwarning = _one_line_warning
    try:
        app()
    except LightTransferError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def _one_line_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    place = "" if issubclass(category, LightTransferWarning) else f"{filename}:{lineno}: "
    return f"warning: {place}{message}\n"
