"""What the commands share: photos one after the other, each into a folder of its own, told as they are done."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from extremal import files
from extremal.errors import ExtremalError
from extremal.report.result_files import RESULT_FILES

if TYPE_CHECKING:
    pass

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130  # exit codes

OnStage = Callable[[str, int, int], None]  # stage, done, in all


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one photo, once its folder is written."""

    record: dict[str, Any]  # plain values for JSON
    print: Callable[[], None]  # tells it in the terminal


ProcessImage = Callable[[str, Path, OnStage], ImageOutcome]  # photo, its folder -> what became of it


def print_line(kind: str, message: str) -> None:
    """One line on stderr."""
    typer.echo(f"{kind}: {' '.join(message.splitlines())}", err=True)


@contextmanager
def report_warnings() -> Iterator[None]:
    """Warnings meant for users as one line each; those of the libraries underneath are not theirs to mend."""

    def told(message: Warning | str, *_: object) -> None:
        print_line("warning", str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = told  # type: ignore[assignment]
        yield


@contextmanager
def report_errors() -> Iterator[None]:
    """Bad input as one line and exit code 2, warnings as one line each."""
    with report_warnings():
        try:
            yield
        except ExtremalError as error:
            print_line("error", str(error))
            raise typer.Exit(EXIT_BAD_INPUT) from None


@dataclass
class ImageBatch:
    """The photos with their folders, and what has become of them."""

    out: Path
    images: list[str]
    as_json: bool
    written: list[int] = field(default_factory=list)  # places in `photos`, where one may stand twice
    records: list[dict[str, Any]] = field(default_factory=list)
    failed: bool = False

    def __post_init__(self) -> None:
        self.folders = files.name_folders(self.out, self.images)
        self._created_folder = not self.out.exists()

    def process(self, prepare: Callable[[], ProcessImage]) -> None:
        """Prepare, work through the photos, and end the command as it should end.

        Args:
            prepare: checks all that can be wrong before the first photo is looked at.
        """
        with report_errors():
            try:
                self._run_all(prepare())
            except KeyboardInterrupt:
                print_line("interrupted", self._progress_sentence())
                self._print_json()
                raise typer.Exit(EXIT_INTERRUPTED) from None
            finally:
                self._remove_empty_folder()
        self._print_json()
        if self.failed:
            raise typer.Exit(EXIT_BAD_INPUT)

    def check_folders(self) -> None:
        """Before anything is computed: can the results be written?"""
        files.check_writable(self.out)
        for folder in self.folders:
            files.check_replaceable(folder, RESULT_FILES)

    def _run_all(self, run: ProcessImage) -> None:
        """One photo after the other; a bad one does not stop the others."""
        for index, photo in enumerate(self.images):
            try:
                with progress(Path(photo).name) as report:
                    outcome = run(photo, self.folders[index], report)
            except ExtremalError as error:
                named = len(self.images) == 1 or repr(photo) in str(error)
                print_line("error", str(error) if named else f"{photo}: {error}")
                self.failed = True
                continue
            self.written.append(index)
            if self.as_json:
                self.records.append(outcome.record)
            else:
                outcome.print()

    def _remove_empty_folder(self) -> None:
        """Leave no empty folder behind where there was none."""
        if self._created_folder:
            with suppress(OSError):
                self.out.rmdir()

    def _progress_sentence(self) -> str:
        """What is finished and what is not."""
        missing = [photo for index, photo in enumerate(self.images) if index not in self.written]
        done = f" ({', '.join(self.images[index] for index in self.written)})" if self.written else ""
        return f"{len(self.written)} of {len(self.images)} photos written{done}; not written: {', '.join(missing)}"

    def _print_json(self) -> None:
        """The records of the photos that were written, if they were asked for."""
        if self.as_json:
            typer.echo(json.dumps(self.records, indent=2, allow_nan=False))


@contextmanager
def progress(name: str) -> Iterator[OnStage]:
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
        speed_estimate_period=3600,  # a unit of work may take minutes
    ) as bar:
        task = bar.add_task(name, total=None)

        def report(stage: str, done: int, total: int) -> None:
            bar.update(task, description=f"{name}: {stage}", completed=done, total=total)

        yield report
