"""The command `extremal app`."""

from typing import Annotated

import typer

from extremal.cli.batch import errors_told


def app(
    *,
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine's own ask for --token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="To listen at; 0 takes a free one.")] = 7860,
    network: Annotated[
        list[str], typer.Option(help="Offered on the page, NAME or NAME=WEIGHTS; several times for several.")
    ] = ["embedded"],  # noqa: B006  # typer reads it, nobody changes it
    token: Annotated[str, typer.Option(help="Without which nobody comes in.", envvar="EXTREMAL_TOKEN")] = "",
    seconds: Annotated[float, typer.Option(help="That one explanation may take.")] = 120.0,
    queue: Annotated[int, typer.Option(help="Explanations that may wait.")] = 32,
) -> None:
    """Serve a page that explains photographs, on this machine alone unless told otherwise; Ctrl-C ends it."""
    with errors_told():
        from extremal.app.server import serve

        try:
            serve(network, host=host, port=port, token=token, seconds=seconds, queue=queue, started=_started)
        except KeyboardInterrupt:
            typer.echo("ended", err=True)


def _started(address: str) -> None:
    typer.echo(f"open {address} in a browser; Ctrl-C ends it")
