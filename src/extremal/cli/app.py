"""The command `extremal app`."""

from typing import Annotated

import typer

from extremal.cli import options
from extremal.cli.batch import report_errors
from extremal.cli.networks import report_choice
from extremal.networks.devices import check_device_name
from extremal.networks.names import check_network_name


def app(
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; addresses that other machines can reach require --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 chooses a free one.")] = 7860,
    network: Annotated[
        list[str], typer.Option(help="Network to offer, NAME or NAME=WEIGHTS; can be given several times.")
    ] = ["embedded"],  # noqa: B006  # typer reads it and never modifies it
    device: options.Device = "auto",
    token: Annotated[str, typer.Option(help="Secret that visitors must know.", envvar="EXTREMAL_TOKEN")] = "",
    timeout: Annotated[
        float, typer.Option(help="Time limit of one plain explanation, in seconds; copies and alternatives extend it.")
    ] = 120.0,
    queue: Annotated[int, typer.Option(help="Maximum number of waiting explanations.")] = 32,
    proxy: Annotated[
        str, typer.Option(help="Address of a reverse proxy whose X-Forwarded-For and X-Forwarded-Proto are trusted.")
    ] = "",
) -> None:
    """Serve a page that explains images, by default on this machine only; press Ctrl-C to stop."""
    with report_errors():
        check_device_name(device)
        for name in network:
            check_network_name(*name.partition("=")[::2])

        from extremal.app.server import serve

        def report_start(address: str) -> None:
            report_choice(device)
            typer.echo(f"open {address} in a browser; press Ctrl-C to stop")

        try:
            serve(
                network,
                device=device,
                host=host,
                port=port,
                token=token,
                timeout=timeout,
                queue=queue,
                proxy=proxy,
                on_start=report_start,
            )
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
