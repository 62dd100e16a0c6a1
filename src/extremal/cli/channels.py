"""The commands `extremal channels` and `extremal class-channels`."""

from pathlib import Path
from typing import Annotated

import typer

from extremal.cli import options
from extremal.cli.argument_checks import check_counts, check_names, find_minimal_budget
from extremal.cli.batch import ImageBatch, ProcessImage, report_errors
from extremal.cli.input_checks import find_class_folder
from extremal.cli.networks import load
from extremal.cli.question_checks import check_class, check_shapes
from extremal.networks.devices import check_device_name
from extremal.networks.names import check_network_name


def channels(
    images: options.Images,
    *,
    layer: options.Layer,
    target: options.Target = "",
    counts: Annotated[
        str, typer.Option(help="Numbers of channels, separated by commas.", show_default="5, 10, 20, 40 %")
    ] = "",
    axis: options.Axis = None,
    game: options.Game = "preserve",
    solver: Annotated[str, typer.Option(help="path, penalty (the paper's), consensus or search.")] = "path",
    score: options.Score = options.DEFAULT_SCORE,
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed of controls and images.")] = 0,
    minimal: Annotated[
        bool,
        typer.Option(
            "--minimal", help="Remove channels from the smallest sufficient set until it cannot lose another one."
        ),
    ] = False,
    budget: options.Budget = None,
    visualise: Annotated[
        bool, typer.Option("--visualise", help="Also make images of what the channels carry (minutes).")
    ] = False,
    out: options.ImageFolders = options.DEFAULT_FOLDER,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Find the smallest sets of channels of a layer that a network's answer needs, with the evidence."""
    kind = " ".join(part for part in ("channels", layer, target, "" if game == "preserve" else game) if part)
    batch = ImageBatch(out, images, as_json, kind, force)

    def check() -> None:
        check_device_name(device)
        check_counts(counts)
        find_minimal_budget(minimal, budget)
        check_names(game=game, solver=solver, score=score)
        check_network_name(network, weights)
        check_class(target, network)
        check_shapes(images, network)

    def prepare() -> list[ProcessImage]:
        from extremal.cli.channel_run import prepare_channels_run

        process = prepare_channels_run(
            batch,
            network=network,
            weights=weights,
            device=device,
            layer=layer,
            target=target,
            counts=counts,
            axis=axis,
            game=game,
            solver=solver,
            score=score,
            seed=seed,
            minimal_budget=find_minimal_budget(minimal, budget),
            with_images=visualise,
        )
        return [process]

    batch.process(check, prepare)


def class_channels(
    folder: Annotated[Path, typer.Argument(help="Folder with images of the class.", show_default=False)],
    *,
    layer: options.Layer,
    target: Annotated[str, typer.Option(help=options.CLASS_SYNTAX)],
    axis: options.Axis = None,
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed of controls and the bootstrap.")] = 0,
    visualise: Annotated[
        bool, typer.Option("--visualise", help="Also make images of the first channels (minutes).")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Number of channels to print.")] = 12,
    out: Annotated[Path, typer.Option(help="Output folder.")] = options.DEFAULT_FOLDER,
    force: options.Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Rank the channels of a layer by how often a class needs them, over a folder of its images."""
    with report_errors():
        check_device_name(device)
        check_network_name(network, weights)
        check_class(target, network)
        output_folder = find_class_folder(folder, out, f"class-channels {layer} {target}", replace=force)

        from extremal.cli.channel_run import class_channels_command
        from extremal.scores.parse import parse_class

        net = load(network, weights, device)
        class_channels_command(
            net,
            folder,
            layer,
            parse_class(net, target),
            axis=axis,
            seed=seed,
            with_images=visualise,
            top=top,
            output_folder=output_folder,
            as_json=as_json,
        )
