"""The command line: parse, call the library, hand the result on."""

import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from extremal import __version__, console, results
from extremal.errors import ExtremalError, ExtremalValueError

if TYPE_CHECKING:
    from extremal.explanation import Explanation
    from extremal.network import Network
    from extremal.smallest import Certificate

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print the values of local variables
    help="The smallest part of a photo that a network's answer needs (extremal perturbations).",
)

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes


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
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Picture files.", show_default=False)],
    *,
    target: Annotated[str, typer.Option(help="Class name or index.", show_default="the top class")] = "",
    areas: Annotated[str, typer.Option(help="Shares of the picture, in (0, 1).")] = "0.025,0.05,0.1,0.2,0.4",
    game: Annotated[str, typer.Option(help="preserve, delete or dual.")] = "preserve",
    perturbation: Annotated[str, typer.Option(help="blur, fade, constant or noise.")] = "blur",
    solver: Annotated[str, typer.Option(help="path (all areas in one run) or penalty (the paper's).")] = "path",
    score: Annotated[str, typer.Option(help="margin, logit, probability or contrastive.")] = "margin",
    network: Annotated[str, typer.Option(help="A name that `extremal networks` lists.")] = "embedded",
    weights: Annotated[str, typer.Option(help="Its weights: a local file, or random.", show_default="its own")] = "",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of noise and controls.")] = 0,
    alternatives: Annotated[int, typer.Option(help="Answers that overlap little to look for.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the results, one folder a photo.")] = Path("extremal-out"),
    refine: Annotated[bool, typer.Option("--refine", help="Bisect for the smallest sufficient area, to 2 %.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of tables.")] = False,
) -> None:
    """Find the smallest regions of photos that a network's answer needs, with the evidence."""
    batch = _Batch(out, photos, as_json)
    choices = {"game": game, "perturbation": perturbation, "solver": solver, "score": score}
    with _warnings_told():
        try:
            load = partial(_network, network, weights)
            batch.explain_all(
                _prepared(
                    batch,
                    load,
                    target=target,
                    areas=areas,
                    choices=choices,
                    numbers=(seed, alternatives),
                    refine=refine,
                )
            )
        except ExtremalError as error:
            _tell("error", str(error))
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            _tell("interrupted", batch.standing())
            batch.print_json()
            raise typer.Exit(INTERRUPTED) from None
        finally:
            batch.tidy()
    batch.print_json()
    if batch.failed:
        raise typer.Exit(BAD_INPUT)


@app.command()
def networks(
    pattern: Annotated[str, typer.Argument(help="Only names that contain this.", show_default=False)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list on stdout.")] = False,
) -> None:
    """List the networks by name."""
    from extremal import zoo

    found = zoo.names(pattern)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(found))
    if found:
        typer.echo(f"use one with: extremal explain PHOTO --network {found[0]}", err=True)
    else:
        typer.echo(f"no network's name contains {pattern!r}; `extremal networks` lists all", err=True)


Progress = Callable[[str, int, int], None]  # stage, done, in all
Found = tuple["Explanation", "Certificate | None"]
Run = Callable[[str, Progress], Found]  # photo -> its explanation, and the certificate if that was asked for


def _prepared(
    batch: "_Batch",
    load: Callable[[], "Network"],
    *,
    target: str,
    areas: str,
    choices: dict[str, str],
    numbers: tuple[int, int],
    refine: bool,
) -> Run:
    """Everything that can be wrong before the first photo is looked at: options, folder, network."""
    from extremal.alternatives import checked_alternatives
    from extremal.explain import explain
    from extremal.games import game_named
    from extremal.memory import keep_freed_memory
    from extremal.perturbations import perturbation_named
    from extremal.scores import score_named
    from extremal.smallest import smallest_area
    from extremal.solvers import solver_named
    from extremal.terms import checked_areas

    seed, copies = numbers[0], checked_alternatives(numbers[1])
    wanted = checked_areas(areas.split(","))  # type: ignore[arg-type]  # it reads numbers, also from text
    parts = (
        game_named(choices["game"]),
        perturbation_named(choices["perturbation"]),
        solver_named(choices["solver"]),
        score_named(choices["score"]),
    )
    batch.check_folders()
    keep_freed_memory()  # the process is this command's own
    net = load()
    question = _target(net, target)

    def run(photo: str, report: Progress) -> Found:
        explanation = explain(
            net,
            photo,
            question,
            areas=wanted,
            game=parts[0],
            perturbation=parts[1],
            solver=parts[2],
            score=parts[3],
            seed=seed,
            alternatives=copies,
            on_step=lambda step: report(step.stage, step.index + 1, step.total),
            on_evidence=lambda done, total: report("evidence", done, total),
        )
        if not refine or "not finite" in explanation.status[0]:
            return explanation, None
        report("smallest area", 0, 1)
        return explanation, smallest_area(net, explanation)[0]

    return run


def _network(name: str, weights: str) -> "Network":
    from extremal import zoo

    return zoo.load(name, weights or None)


def _target(net: "Network", target: str) -> int | None:
    if not target:
        return None
    return int(target) if target.removeprefix("-").isdecimal() else net.index(target)


def _tell(kind: str, message: str) -> None:
    typer.echo(f"{kind}: {' '.join(message.splitlines())}", err=True)


@contextmanager
def _warnings_told() -> Iterator[None]:
    """Warnings meant for users as one line each; those of the libraries underneath are not theirs to mend."""

    def told(message: Warning | str, *_: object) -> None:
        _tell("warning", str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = told  # type: ignore[assignment]
        yield


@dataclass
class _Batch:
    """The photos with their folders, and what has become of them."""

    out: Path
    photos: list[str]
    as_json: bool
    written: list[int] = field(default_factory=list)  # places in `photos`, where one may stand twice
    records: list[dict[str, Any]] = field(default_factory=list)
    failed: bool = False

    def __post_init__(self) -> None:
        self.folders = results.folders(self.out, self.photos)
        self._made = not self.out.exists()

    def check_folders(self) -> None:
        """Before anything is computed: can the results be written?"""
        results.check_writable(self.out)
        for folder in self.folders:
            results.check_replaceable(folder)

    def tidy(self) -> None:
        """Leave no empty folder behind where there was none."""
        if self._made:
            with suppress(OSError):
                self.out.rmdir()

    def explain_all(self, run: Run) -> None:
        """One photo after the other; a bad one does not stop the others."""
        for index, photo in enumerate(self.photos):
            try:
                self._explain(run, index, photo)
            except ExtremalError as error:
                named = len(self.photos) == 1 or repr(photo) in str(error)
                _tell("error", str(error) if named else f"{photo}: {error}")
                self.failed = True

    def _explain(self, run: Run, index: int, photo: str) -> None:
        with _progress(Path(photo).name) as progress:
            explanation, certificate = run(photo, progress)
            if "not finite" in explanation.status[0]:
                raise ExtremalValueError(
                    "a network must return finite scores, it returned NaN or infinite ones on the way, so nothing was "
                    "written; check its weights, or try another perturbation or score"
                )
            progress("writing", 0, 1)
            files = results.write(explanation, self.folders[index], Path(photo).name, certificate)
        self.written.append(index)
        if self.as_json:
            self.records.append(results.record(photo, explanation, files, certificate))
        else:
            console.show(photo, explanation, files, certificate)

    def standing(self) -> str:
        """What is finished and what is not."""
        missing = [photo for index, photo in enumerate(self.photos) if index not in self.written]
        done = f" ({', '.join(self.photos[index] for index in self.written)})" if self.written else ""
        return f"{len(self.written)} of {len(self.photos)} photos written{done}; not written: {', '.join(missing)}"

    def print_json(self) -> None:
        """The records of the photos that were written, if they were asked for."""
        if self.as_json:
            typer.echo(json.dumps(self.records, indent=2, allow_nan=False))


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """A bar on stderr that is gone at the end; nothing at all where stderr is not a terminal."""
    from rich import progress

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(name, total=None)

        def report(stage: str, done: int, total: int) -> None:
            bar.update(task, description=f"{name}: {stage}", completed=done, total=total)

        yield report
