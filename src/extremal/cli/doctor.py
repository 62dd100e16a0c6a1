"""Guidance before a run: the command `extremal doctor`, and `extremal explain --dry-run`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from extremal import files
from extremal.cli import options as flags
from extremal.cli import tables
from extremal.cli.batch import ImageBatch, ImageOutcome, OnStage, ProcessImage, report_errors
from extremal.explanations.options import Options
from extremal.networks.resolve import loaded
from extremal.report import result_files
from extremal.scores.parse import parse_query

EXIT_PROBLEM = 1  # exit code where explanations would be worth nothing


def doctor(
    network: Annotated[str, typer.Argument(help="A name that `extremal networks` lists.", show_default=False)],
    image: Annotated[str, typer.Argument(help="A picture file.", show_default=False)],
    *,
    target: flags.Target = "",
    ask: flags.Ask = "",
    perturbation: flags.Perturbation = "blur",
    score: flags.Score = "margin",
    weights: flags.Weights = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of a table.")] = False,
) -> None:
    """Check a network and a photo for what makes explanations worthless; exit code 1 where something does."""
    with report_errors():
        from extremal.explanations.preflight.doctor import examine

        net = loaded(network, weights)
        found = examine(net, image, parse_query(net, target, ask), perturbation=perturbation, score=score)
    if as_json:
        typer.echo(json.dumps({"path": image, **found.as_dict()}, indent=2))
    else:
        tables.print_findings(image, found)
    if not found.ok:
        raise typer.Exit(EXIT_PROBLEM)


def plan_run(batch: ImageBatch, options: Options) -> ProcessImage:
    """What `explain` would do with each photo, measured and told; nothing is written."""
    from extremal.explanations.preflight.plan import plan
    from extremal.networks.memory import keep_freed_memory

    keep_freed_memory()  # the process is this command's own
    settings = options.checked()
    for folder in batch.folders:
        files.check_replaceable(folder, result_files.RESULT_FILES)
    net, question = options.loaded()

    def run(photo: str, folder: Path, report: OnStage) -> ImageOutcome:
        report("measuring", 0, 1)
        found = plan(
            net,
            photo,
            question,
            settings=settings,
            refine=options.refine,
        )
        record = {"path": photo, "folder": str(folder), **found.as_dict()}
        return ImageOutcome(result_files.to_json_values(record), lambda: tables.print_plan(photo, found, folder))

    return run
