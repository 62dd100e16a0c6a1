"""The commands `extremal run` and `extremal status`."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from extremal.cli import options
from extremal.cli.batch import EXIT_BAD_INPUT, EXIT_INTERRUPTED, print_line, report_errors
from extremal.errors import ExtremalValueError

if TYPE_CHECKING:
    from extremal.jobs.run_status import OnStatus, RunStatus


def run(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Pictures, folders, manifests .csv.", show_default=False)
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run; where one stands, only what is missing is done.")],
    target: options.Target = "",
    ask: options.Ask = "",
    areas: options.Areas = options.DEFAULT_AREAS,
    game: options.Game = "preserve",
    perturbation: options.Perturbation = "blur",
    solver: options.Solver = "path",
    score: options.Score = "margin",
    network: options.Network = "embedded",
    weights: options.Weights = "",
    seed: options.Seed = 0,
    alternatives: options.Alternatives = 1,
    refine: options.Refine = False,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[str, typer.Option(help="Of a Ray cluster.", show_default="one on this machine")] = "",
    gpus_per_worker: Annotated[
        float | None, typer.Option(help="Of a Ray cluster's; may be a share.", show_default="1 where there are any")
    ] = None,
    batch: Annotated[str, typer.Option(help="Pictures that are explained together.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Processes; 0: this one alone.", show_default="one a core or device")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of each worker.", show_default="1 on a processor")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Do again what failed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="How it ended as JSON on stdout.")] = False,
) -> None:
    """Explain a data set into a table that survives whatever ends the run; run again, and it goes on."""
    with report_errors():
        from extremal.jobs.runner import run as explain_all
        from extremal.networks.memory import keep_freed_memory

        keep_freed_memory()  # the process is this command's own
        with _progress_bar() as told:
            standing = explain_all(
                images,
                out,
                network=network,
                weights=weights,
                target=target,
                ask=ask,
                areas=_parse_numbers(areas),
                game=game,
                perturbation=perturbation,
                solver=solver,
                score=score,
                seed=seed,
                alternatives=alternatives,
                refine=refine,
                engine=engine,
                address=address or None,
                gpus_per_worker=gpus_per_worker,
                batch=None if batch == "auto" else _parse_whole("--batch", batch),
                workers=workers,
                threads=threads,
                retry=retry,
                on_progress=told,
            )
    typer.echo(json.dumps(asdict(standing), indent=2) if as_json else _progress_sentence(standing, out))
    if standing.state == "stopped":
        print_line("stopped", "run the same command again, it goes on where it stopped")
        raise typer.Exit(EXIT_INTERRUPTED)
    if standing.failed:
        print_line("failed", f"{standing.failed} pictures; their rows say why, --retry does them again")
        raise typer.Exit(EXIT_BAD_INPUT if standing.failed == standing.items else 0)


def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Go on telling until it ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Tell how far a run is, from another terminal or after it ended."""
    with report_errors():
        from extremal.jobs.run_status import status as standing_of

        while True:
            standing = standing_of(folder)
            typer.echo(json.dumps(asdict(standing), indent=2) if as_json else _progress_sentence(standing, folder))
            if not watch or standing.state != "running":
                return
            time.sleep(2)


def _progress_sentence(standing: "RunStatus", folder: Path) -> str:
    failed = f", {standing.failed} of them failed" if standing.failed else ""
    rate = f", {standing.rate:.2g} a second" if standing.rate and standing.state == "running" else ""
    left = "" if standing.seconds_left is None or not rate else f", {_format_time(standing.seconds_left)} left"
    return f"{folder}: {standing.state}; {standing.done} of {standing.items} pictures{failed}{rate}{left}"


def _format_time(seconds: float) -> str:
    """A time as a terminal shows it."""
    from extremal.report.text import duration

    return duration(seconds).replace("\xa0", " ")


@contextmanager
def _progress_bar() -> Iterator["OnStatus"]:
    """A bar on stderr with rate and time left; nothing where stderr is not a terminal."""
    from rich import progress

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[told]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("pictures", total=None, told="")

        def told(standing: "RunStatus") -> None:
            left = "" if standing.seconds_left is None else f", {_format_time(standing.seconds_left)} left"
            failed = f", {standing.failed} failed" if standing.failed else ""
            words = f"{standing.rate:.2g}/s{left}{failed}" if standing.rate else failed
            bar.update(task, completed=standing.done, total=standing.items, told=words)

        yield told


def _parse_numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ExtremalValueError(f"--areas must be numbers with commas, got {text!r}; e.g. 0.05,0.1") from None


def _parse_whole(option: str, text: str) -> int:
    if not text.isdecimal():
        raise ExtremalValueError(f"{option} must be auto or a whole number, got {text!r}")
    return int(text)
