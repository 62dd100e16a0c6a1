"""The command `extremal layers`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from extremal.cli import options, tables
from extremal.cli.batch import other_output_on_stderr, report_errors
from extremal.cli.networks import load
from extremal.networks.devices import check_device_name
from extremal.networks.names import check_network_name


def layers(
    pattern: Annotated[
        str, typer.Argument(help="List all layers whose name or kind contains this text.", show_default="the stages")
    ] = "",
    *,
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    show_all: Annotated[
        bool, typer.Option("--all", help="List all layers, including those at which the network cannot be split.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the stages of a network, their output shapes, and whether the whole answer passes through them."""
    with report_errors():
        check_device_name(device)
        check_network_name(network, weights)

        from extremal.networks.layers import layers as list_layers
        from extremal.networks.stages import find_stages, is_identity

        net = load(network, weights, device)
        with other_output_on_stderr():
            known = [layer for layer in list_layers(net) if not is_identity(layer)]
        listed = known if show_all else [layer for layer in known if not layer.problem]
        text = pattern.lower()
        if text:
            listed = [layer for layer in listed if text in layer.name.lower() or text in layer.kind.lower()]
        elif not show_all:
            listed = find_stages(listed)
        if as_json:
            typer.echo(json.dumps([{**asdict(layer), "clean": layer.can_split_cleanly} for layer in listed], indent=2))
        else:
            tables.print_layers(listed, pattern, len(known))
