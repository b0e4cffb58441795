"""The commands `models` and `fetch`."""

from __future__ import annotations

import sys

import typer

from lighttransfer_core.command_line import console
from lighttransfer_core.command_line.options import AsJson, FetchedModel, Revision

app = typer.Typer()


@app.command()
def models(as_json: AsJson = False) -> None:
    """The models that are offered by name."""
    from lighttransfer_core.models.catalogue import catalogue

    if as_json:
        console.print_json([{**e.to_dict(), "kv_bytes_per_token": e.kv_bytes_per_token} for e in catalogue()])
    else:
        console.show_models(catalogue())


@app.command()
@app.command("prepare", hidden=True)
def fetch(model: FetchedModel = "smollm2", revision: Revision = None) -> None:
    """Bring a model's files onto this disk; the embedded model is converted, once."""
    from lighttransfer_core.models.embedded import NAME, prepare_embedded

    with console.progress() as report:
        if model == NAME:
            folder = prepare_embedded(report)
        else:
            from lighttransfer_core.models.loading import fetch_model

            folder = fetch_model(model, revision, report)
    sys.stdout.write(f"{folder}\n")
