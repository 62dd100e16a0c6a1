"""Guidance before a run: the command `extremal doctor`, and `extremal explain --dry-run`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from extremal import console, results
from extremal.asking import ASKED, asked_of
from extremal.batch import Batch, Outcome, Progress, Run, errors_told, loaded

ILL = 1  # exit code where explanations would be worth nothing


def doctor(
    network: Annotated[str, typer.Argument(help="A name that `extremal networks` lists.", show_default=False)],
    image: Annotated[str, typer.Argument(help="A picture file.", show_default=False)],
    *,
    target: Annotated[str, typer.Option(help="Class name or index.", show_default="the top class")] = "",
    ask: Annotated[str, typer.Option(help=f"Instead of a class's score: {ASKED}.", show_default="the class")] = "",
    perturbation: Annotated[str, typer.Option(help="blur, fade, constant or noise.")] = "blur",
    score: Annotated[
        str, typer.Option(help="margin, logit, probability, log-probability, contrastive or negative.")
    ] = "margin",
    weights: Annotated[str, typer.Option(help="Its weights: a local file, or random.", show_default="its own")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of a table.")] = False,
) -> None:
    """Check a network and a photo for what makes explanations worthless; exit code 1 where something does."""
    with errors_told():
        from extremal.doctor import examine

        net = loaded(network, weights)
        found = examine(net, image, asked_of(net, target, ask), perturbation=perturbation, score=score)
    if as_json:
        typer.echo(json.dumps({"path": image, **found.plain()}, indent=2))
    else:
        console.show_findings(image, found)
    if not found.ok:
        raise typer.Exit(ILL)


def planning(
    batch: Batch,
    network: str,
    weights: str,
    *,
    target: str,
    areas: str,
    choices: dict[str, str],
    numbers: tuple[int, int],
    refine: bool,
) -> Run:
    """What `explain` would do with each photo, measured and told; nothing is written.

    Args:
        batch, network, weights, target, areas, choices, numbers, refine: as the command `explain` has them.
    """
    from extremal.alternatives import checked_alternatives
    from extremal.dry_run import plan
    from extremal.memory import keep_freed_memory
    from extremal.solvers import solver_named
    from extremal.terms import checked_areas, terms_named

    seed, copies = numbers[0], checked_alternatives(numbers[1])
    wanted = checked_areas(areas.split(","))  # type: ignore[arg-type]  # it reads numbers, also from text
    terms = terms_named(choices["game"], choices["perturbation"], choices["score"], seed)
    solver = solver_named(choices["solver"])
    for folder in batch.folders:
        results.check_replaceable(folder)
    keep_freed_memory()  # as `explain` does: it changes what an evaluation takes
    net = loaded(network, weights)
    question = asked_of(net, target, choices["ask"])

    def run(photo: str, folder: Path, report: Progress) -> Outcome:
        report("measuring", 0, 1)
        found = plan(
            net,
            photo,
            question,
            areas=wanted,
            game=terms.game,
            perturbation=terms.perturbation,
            solver=solver,
            score=terms.score,
            seed=seed,
            alternatives=copies,
            refine=refine,
        )
        record = {"path": photo, "folder": str(folder), **found.plain()}
        return Outcome(results.plain(record), lambda: console.show_plan(photo, found, folder))

    return run
