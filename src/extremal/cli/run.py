"""The commands `extremal run` and `extremal status`."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from extremal.cli import options
from extremal.cli.argument_checks import check_alternatives, check_areas, check_execution, check_names
from extremal.cli.batch import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    other_output_on_stderr,
    print_line,
    progress,
    report_errors,
)
from extremal.cli.common_options import OUTPUT
from extremal.cli.input_checks import check_run, check_sources
from extremal.cli.networks import report_choice
from extremal.cli.parse import parse_areas, parse_perturbation
from extremal.cli.question_checks import check_question
from extremal.cli.text import duration
from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.devices import check_device_name
from extremal.networks.names import check_network_name
from extremal.number_checks import parse_whole

MAX_PRINTED = 8  # failed images

if TYPE_CHECKING:
    from extremal.jobs.rows import Row
    from extremal.jobs.run_status import OnStatus, RunStatus
    from extremal.networks.network import Network


def run(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Image files (or what the network takes), folders, or manifests (.csv).",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run; an existing run is resumed.")],
    target: options.Target = "",
    ask: options.Ask = "",
    prompt: options.Prompt = "",
    areas: options.Areas = options.DEFAULT_AREAS,
    game: options.Game = "preserve",
    perturbation: options.Perturbation = "mixed",
    solver: options.Solver = "consensus",
    effort: options.Effort = "normal",
    score: options.Score = options.DEFAULT_SCORE,
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    alternatives: options.Alternatives = 1,
    refine: options.Refine = False,
    stability: options.Stability = False,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[
        str, typer.Option(help="Address of a Ray cluster.", show_default="one is started on this machine")
    ] = "",
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(help="GPUs of each Ray worker; may be a fraction.", show_default="1 if there are any"),
    ] = None,
    batch: Annotated[str, typer.Option(help="Number of images to explain together, or auto.")] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(help="Number of worker processes; 0: this process.", show_default="one per core or device"),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each worker.", show_default="1 on a CPU")] = None,
    unit_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that a batch may take before its worker is replaced.", show_default="no limit"),
    ] = None,
    pages: Annotated[
        bool,
        typer.Option("--pages", help="Write a page for each image, also for a finished run."),
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Explain failed and changed images again, together with their batches.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the final status as JSON.")] = False,
) -> None:
    """Explain a data set into a table; run the same command again to resume after an interruption."""
    with report_errors():
        check_device_name(device)
        check_areas(areas)
        check_names(game=game, perturbation=perturbation, solver=solver, score=score, effort=effort, engine=engine)
        check_alternatives(alternatives)
        execution: dict[str, Any] = {
            "engine": engine,
            "address": address or None,
            "gpus_per_worker": gpus_per_worker,
            "batch": None if batch == "auto" else _parse_whole("--batch", batch),
            "workers": workers,
            "threads": threads,
            "unit_timeout": unit_timeout,
        }
        check_execution(execution)
        check_network_name(network, weights)
        check_question(target, ask, prompt, network, score)
        check_sources(images, out)

        from extremal.jobs.runner import run as run_data_set
        from extremal.networks.memory import keep_freed_memory

        keep_freed_memory()  # the process belongs to this command
        report_choice(device)
        writer = PageWriter(out, network, weights, is_on=pages)
        with other_output_on_stderr(), _progress_bar() as on_status:
            status = run_data_set(
                images,
                out,
                network=network,
                weights=weights,
                device=device,
                target=target,
                ask=ask,
                prompt=prompt,
                areas=parse_areas(areas),
                game=game,
                perturbation=parse_perturbation(perturbation),
                solver=solver,
                effort=effort,
                score=score,
                seed=seed,
                alternatives=alternatives,
                refine=refine,
                stability=stability,
                **execution,
                retry=retry,
                on_progress=on_status,
                on_rows=writer.add_rows,
            )
        if status.state != "stopped":
            writer.write_missing()
    typer.echo(json.dumps(asdict(status), indent=2) if as_json else _progress_sentence(status, out))
    if status.failed:
        _print_failures(out)
    if status.state == "stopped":
        print_line("stopped", "run the same command again to resume")
        raise typer.Exit(EXIT_INTERRUPTED)
    if status.failed:
        print_line("failed", _failed_sentence(status.failed))
        raise typer.Exit(EXIT_BAD_INPUT if status.failed == status.items else EXIT_SOME_FAILED)


class PageWriter:
    """Writes the pages of a run's images: of new rows at once, and those that are missing at the end.

    Args:
        run: folder of the run.
        network, weights: as passed to the command; the network prepares the images, and is loaded when it is needed.
        is_on: whether pages are written; otherwise only those are removed whose rows are written anew.
    """

    def __init__(self, run: Path, network: str, weights: str, *, is_on: bool) -> None:
        self._run, self._network, self._weights, self._is_on = run, network, weights, is_on

    @cached_property
    def _loaded(self) -> "Network":
        from extremal.networks.resolve import load_network

        return load_network(self._network, self._weights, "cpu")

    def add_rows(self, rows: Sequence["Row"]) -> None:
        """Write the pages of rows that were just written, in place of earlier ones."""
        from extremal.report import run_pages

        run_pages.remove_pages(self._run, rows)
        if self._is_on:
            self._report(run_pages.write_rows(self._run, rows, self._loaded))

    def write_missing(self) -> None:
        """Write the pages of all rows without one."""
        from extremal.report import run_pages

        if self._is_on and run_pages.count_missing(self._run):
            with other_output_on_stderr(), progress("pages") as on_stage:
                _, problems = run_pages.write_missing(
                    self._run, self._loaded, lambda done, total: on_stage("pages", done, total)
                )
            self._report(problems)

    def _report(self, problems: Sequence[str]) -> None:
        for problem in problems[:MAX_PRINTED]:
            print_line("warning", f"no page of {problem}")


def _failed_sentence(count: int) -> str:
    if count == 1:
        return "1 image; the reason is in its row, --retry explains it again"
    return f"{count} images; the reasons are in their rows, --retry explains them again"


def _print_failures(folder: Path) -> None:
    """Print why images failed; the first of them."""
    with report_errors():
        from extremal.jobs.rows import FAILED
        from extremal.jobs.run_table import table

        rows = [row for row in table(folder, ("key", "status", "error")).to_pylist() if row["status"] == FAILED]
        for row in rows[:MAX_PRINTED]:
            print_line("failed", f"{quote(row['key'])[1:-1]}: {row['error']}")
        if len(rows) > MAX_PRINTED:
            print_line("failed", f"{len(rows) - MAX_PRINTED} more images, for reasons in their rows")


def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Print the status repeatedly until the run ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
) -> None:
    """Print the status of a run, from another terminal or after it has ended."""
    with report_errors():
        check_run(folder)

        from extremal.jobs.run_status import status as read_status

        while True:
            current = read_status(folder)
            typer.echo(json.dumps(asdict(current), indent=2) if as_json else _progress_sentence(current, folder))
            if not watch or current.state != "running":
                return
            time.sleep(2)


def _progress_sentence(status: "RunStatus", folder: Path) -> str:
    failed = f", {status.failed} of them failed" if status.failed else ""
    rate = f", {_rate_text(status.rate)}" if status.rate and status.state == "running" else ""
    remaining = "" if status.seconds_left is None or not rate else f", {duration(status.seconds_left)} left"
    images = "image" if status.items == 1 else "images"
    return f"{folder}: {status.state}; {status.done} of {status.items} {images}{failed}{rate}{remaining}"


def _rate_text(rate: float) -> str:
    """Return a rate, as seconds per image if it is low.

    >>> _rate_text(4.02), _rate_text(0.05)
    ('4 per second', '20 s per image')
    """
    return f"{rate:.2g} per second" if rate >= 1 else f"{duration(1 / rate)} per image"


@contextmanager
def _progress_bar() -> Iterator["OnStatus"]:
    """Show a progress bar on stderr with rate and remaining time, if stderr is a terminal."""
    from rich import progress

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[details]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        disable=OUTPUT.quiet or not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("images", total=None, details="")

        def update(status: "RunStatus") -> None:
            remaining = "" if status.seconds_left is None else f", {duration(status.seconds_left)} left"
            failed = f", {status.failed} failed" if status.failed else ""
            rate = f"{_rate_text(status.rate)}{remaining}" if status.rate else "time left after the first batch"
            details = f"{rate}{failed}"
            bar.update(task, completed=status.done, total=status.items, details=details)

        yield update


def _parse_whole(option: str, text: str) -> int:
    number = parse_whole(text)
    if number is None:
        raise ExtremalValueError(f"{option} must be auto or a whole number, got {quote(text)}; e.g. 8")
    return number
