"""The command line: parse, call the library, print the result."""

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from extremal._version import __version__
from extremal.cli import options, tables
from extremal.cli.app import app as serve_app
from extremal.cli.argument_checks import check_counts, check_names, check_no_empty_argument, find_minimal_budget
from extremal.cli.batch import (
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    ImageBatch,
    ProcessImage,
    other_output_on_stderr,
    print_line,
    report_errors,
)
from extremal.cli.bench import bench, figures
from extremal.cli.common_options import let_waiting_threads_sleep, with_common_options
from extremal.cli.doctor import doctor
from extremal.cli.explain import explain
from extremal.cli.input_checks import find_class_folder
from extremal.cli.networks import load
from extremal.cli.output import check_output_stream
from extremal.cli.question_checks import check_class, check_shapes
from extremal.cli.run import run, status
from extremal.cli.sets import contrast, sets, tokens
from extremal.cli.summary import compare, summary
from extremal.file_checks import quote
from extremal.networks.devices import check_device_name
from extremal.networks.names import check_network_name

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print the values of local variables
    help="Find the smallest part of an image that a network's answer needs (extremal perturbations).",
)


def main() -> None:
    """Run the command `extremal`."""
    let_waiting_threads_sleep()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as for Ctrl-C: nothing is half-written
    output = check_output_stream()
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(errors="replace")  # file names need not be printable
    try:
        _check_arguments()
        app()
    except SystemExit as end:
        if output and output.find_reason():
            print_line("error", f"stdout must be a stream that takes the results, got: {output.find_reason()}")
            end.code = end.code or EXIT_SOME_FAILED
        if end.code == EXIT_INTERRUPTED:  # another signal while the interpreter ends would replace the code
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), signal.SIG_IGN)
        raise


def _check_arguments() -> None:
    try:
        with report_errors():
            check_no_empty_argument(sys.argv[1:])
    except typer.Exit as end:
        raise SystemExit(end.exit_code) from None


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"extremal {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(with_common_options(explain))
app.command()(with_common_options(sets))
app.command()(with_common_options(contrast))
app.command()(with_common_options(tokens))


@app.command()
@with_common_options
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
        typer.Option("--minimal", help="Take channels out of the smallest sufficient set until none can be spared."),
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
        from extremal.cli.channels import prepare_channels_run

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


@app.command("class-channels")
@with_common_options
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

        from extremal.cli.channels import class_channels_command
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


@app.command()
@with_common_options
def layers(
    pattern: Annotated[
        str, typer.Argument(help="All layers whose name or kind contains this text.", show_default="the stages")
    ] = "",
    *,
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    show_all: Annotated[
        bool, typer.Option("--all", help="All layers, also those at which the network cannot be split.")
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


app.command()(with_common_options(doctor))
app.command("app")(with_common_options(serve_app))
app.command()(with_common_options(run))
app.command()(with_common_options(status))
app.command()(with_common_options(summary))
app.command()(with_common_options(compare))
app.command()(with_common_options(bench))
app.add_typer(figures, name="figures")


@app.command()
@with_common_options
def networks(
    pattern: Annotated[str, typer.Argument(help="Only names that contain this text.", show_default=False)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the networks by name.

    Not listed are hf:FOLDER, hf:OWNER/NAME and timm:hf-hub:OWNER/NAME (Hugging Face), onnx:FILE.onnx, file:FILE.pt2 and
    MODULE:FUNCTION.
    """
    from extremal.networks import zoo

    names = zoo.names(pattern)
    typer.echo(json.dumps(names, indent=2) if as_json else "\n".join(names))
    if names:
        typer.echo(f"use one with: extremal explain IMAGE --network {names[0]}", err=True)
    else:
        typer.echo(f"no network name contains {quote(pattern)}; `extremal networks` lists all", err=True)
