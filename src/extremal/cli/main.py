"""The command line: parse, call the library, hand the result on."""

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import extremal
from extremal._version import __version__
from extremal.cli import options as flags
from extremal.cli import tables
from extremal.cli.app import app as serve_app
from extremal.cli.batch import ImageBatch, ImageOutcome, OnStage, ProcessImage, report_errors
from extremal.cli.bench import bench, figures
from extremal.cli.doctor import doctor, plan_run
from extremal.cli.run import run, status
from extremal.cli.summary import compare, summary
from extremal.errors import ExtremalValueError
from extremal.explanations.options import Options
from extremal.explanations.verdict import NOT_FINITE
from extremal.networks.resolve import loaded
from extremal.report import result_files
from extremal.scores.parse import parse_class

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print the values of local variables
    help="The smallest part of a photo that a network's answer needs (extremal perturbations).",
)


def main() -> None:
    """Entry point of the command `extremal`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end, as for Ctrl-C: nothing half-written
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a file's name need not be printable
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"extremal {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Tell it and end.")
    ] = False,
) -> None:
    pass


@app.command()
def explain(
    photos: flags.Images,
    *,
    target: flags.Target = "",
    ask: flags.Ask = "",
    areas: flags.Areas = flags.DEFAULT_AREAS,
    game: flags.Game = "preserve",
    perturbation: flags.Perturbation = "blur",
    solver: flags.Solver = "path",
    score: flags.Score = "margin",
    network: flags.Network = "embedded",
    weights: flags.Weights = "",
    seed: flags.Seed = 0,
    alternatives: flags.Alternatives = 1,
    out: flags.ImageFolders = flags.DEFAULT_FOLDER,
    refine: flags.Refine = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would run and what it costs; no more.")] = False,
    as_json: flags.AsJson = False,
) -> None:
    """Find the smallest regions of photos that a network's answer needs, with the evidence."""
    batch = ImageBatch(out, photos, as_json)
    options = Options(
        *(network, weights, target, ask, areas, game, perturbation, solver, score, seed, alternatives, refine)
    )
    batch.process(lambda: (plan_run if dry_run else prepare_run)(batch, options))


@app.command()
def channels(
    photos: flags.Images,
    *,
    layer: flags.Layer,
    target: flags.Target = "",
    counts: Annotated[str, typer.Option(help="Numbers of channels.", show_default="5, 10, 20, 40 %")] = "",
    axis: flags.Axis = None,
    game: flags.Game = "preserve",
    solver: Annotated[str, typer.Option(help="path or penalty (the paper's).")] = "path",
    score: flags.Score = "margin",
    network: flags.Network = "embedded",
    weights: flags.Weights = "",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of controls and pictures.")] = 0,
    see: Annotated[
        bool, typer.Option("--see", help="Also make pictures of what the channels carry (minutes).")
    ] = False,
    out: flags.ImageFolders = flags.DEFAULT_FOLDER,
    as_json: flags.AsJson = False,
) -> None:
    """Find the smallest sets of channels of a hidden layer that a network's answer needs, with the evidence."""
    from extremal.cli.channels import prepare_channels_run

    batch = ImageBatch(out, photos, as_json)
    choices = {"game": game, "solver": solver, "score": score}
    batch.process(
        lambda: prepare_channels_run(
            *(batch, lambda: loaded(network, weights), lambda net: parse_class(net, target)),
            layer=layer,
            counts=counts,
            axis=axis,
            choices=choices,
            seed=seed,
            see=see,
        )
    )


@app.command("class-channels")
def class_channels(
    folder: Annotated[Path, typer.Argument(help="Folder with pictures of the class.", show_default=False)],
    *,
    layer: flags.Layer,
    target: Annotated[str, typer.Option(help="Class name or index.")],
    axis: flags.Axis = None,
    network: flags.Network = "embedded",
    weights: flags.Weights = "",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of controls and the bootstrap.")] = 0,
    see: Annotated[bool, typer.Option("--see", help="Also make pictures of the first channels (minutes).")] = False,
    top: Annotated[int, typer.Option(min=1, help="Channels told in the terminal.")] = 12,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = flags.DEFAULT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON document on stdout instead of a table.")] = False,
) -> None:
    """Rank the channels of a layer by how often a class needs them, over a folder of its pictures."""
    from extremal.cli.channels import class_channels_command

    with report_errors():
        net = loaded(network, weights)
        wanted = parse_class(net, target)
        class_channels_command(net, folder, layer, wanted, axis=axis, seed=seed, see=see, top=top, out=out, as_json=as_json)


@app.command()
def layers(
    network: flags.Network = "embedded",
    weights: flags.Weights = "",
    every: Annotated[bool, typer.Option("--all", help="Also those at which the network cannot be split.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list on stdout.")] = False,
) -> None:
    """List a network's layers, the shapes of their outputs, and whether all of the answer passes through them."""
    from extremal.networks.layers import layers as layers_of

    with report_errors():
        found = [layer for layer in layers_of(loaded(network, weights)) if every or not layer.problem]
        if as_json:
            typer.echo(json.dumps([{**asdict(layer), "clean": layer.clean} for layer in found], indent=2))
        else:
            tables.print_layers(found)


app.command()(doctor)
app.command("app")(serve_app)
app.command()(run)
app.command()(status)
app.command()(summary)
app.command()(compare)
app.command()(bench)
app.add_typer(figures, name="figures")


@app.command()
def networks(
    pattern: Annotated[str, typer.Argument(help="Only names that contain this.", show_default=False)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list on stdout.")] = False,
) -> None:
    """List the networks by name."""
    from extremal.networks import zoo

    found = zoo.names(pattern)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(found))
    if found:
        typer.echo(f"use one with: extremal explain PHOTO --network {found[0]}", err=True)
    else:
        typer.echo(f"no network's name contains {pattern!r}; `extremal networks` lists all", err=True)


def prepare_run(batch: ImageBatch, options: Options) -> ProcessImage:
    """Everything that can be wrong before the first photo is looked at: options, folder, network."""
    from extremal.explanations.smallest_area import smallest_area
    from extremal.networks.memory import keep_freed_memory

    keep_freed_memory()  # the process is this command's own
    settings = options.checked()
    batch.check_folders()
    net, question = options.loaded()

    def run(photo: str, folder: Path, report: OnStage) -> ImageOutcome:
        explanation = extremal.explain(
            net,
            photo,
            question,
            settings=settings,
            on_step=lambda step: report(step.stage, step.index + 1, step.total),
            on_evidence=lambda done, total: report("evidence", done, total),
        )
        if "not finite" in explanation.status[0]:
            raise ExtremalValueError(NOT_FINITE)
        certificate = None
        if options.refine:
            report("smallest area", 0, 1)
            certificate = smallest_area(net, explanation, None if explanation.is_class else question)[0]
        report("writing", 0, 1)
        files = result_files.write_result(explanation, folder, Path(photo).name, certificate)
        record = result_files.result_record(photo, explanation, files, certificate)
        return ImageOutcome(record, lambda: tables.print_explanation(photo, explanation, files, certificate))

    return run
