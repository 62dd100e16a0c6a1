"""The command `extremal networks`."""

import json
from typing import Annotated

import typer

from extremal.file_checks import quote


def networks(
    pattern: Annotated[str, typer.Argument(help="Only names that contain this text.", show_default=False)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the networks by name.

    The list omits hf:FOLDER, hf:OWNER/NAME and timm:hf-hub:OWNER/NAME (Hugging Face), onnx:FILE.onnx, file:FILE.pt2 and
    MODULE:FUNCTION.
    """
    from extremal.networks import zoo

    names = zoo.names(pattern)
    typer.echo(json.dumps(names, indent=2) if as_json else "\n".join(names))
    if names:
        typer.echo(f"use one with: extremal explain IMAGE --network {names[0]}", err=True)
    else:
        typer.echo(f"no network name contains {quote(pattern)}; `extremal networks` lists all", err=True)
