"""Process images one after another, each into its own folder, and print the results as they finish."""

import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console

from extremal import files
from extremal.cli.common_options import OUTPUT
from extremal.cli.input_checks import expand_images, find_image_errors
from extremal.errors import ExtremalError, ExtremalValueError, Notice
from extremal.explanations.stages import OnStage
from extremal.file_checks import to_printable
from extremal.report.result_files import RESULT_FILES, import_libraries_early
from extremal.report.stage_text import STAGE_WORDS

if TYPE_CHECKING:
    from extremal.explanations.minimal_region import MinimalRegion

EXIT_SOME_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
MAX_LINE = 1500  # characters of a message


@dataclass(frozen=True)
class ImageOutcome:
    """The outcome of one image, once its folder is written."""

    record: dict[str, Any]  # plain values for JSON
    print: Callable[[], None]  # print the result in the terminal


ProcessImage = Callable[[str, Path, OnStage], ImageOutcome]  # image, its folder -> outcome


def print_line(kind: str, message: str) -> None:
    """Print one line on stderr, with its middle left out if it is very long."""
    line = " ".join(message.splitlines())
    if len(line) > MAX_LINE:
        line = f"{line[: MAX_LINE * 2 // 3]}…{line[-MAX_LINE // 3 :]}"
    typer.echo(f"{kind}: {to_printable(line)}", err=True)


def search_minimal(
    search: Callable[[], Sequence["MinimalRegion | None"]], describe: Callable[["MinimalRegion | None"], str]
) -> tuple["MinimalRegion | None", str]:
    """Return the minimal region of one input, and a sentence about it.

    Where the budget ends too early, the sentence says so, and the explanation is written all the same.
    """
    try:
        (region,) = search()
    except ExtremalValueError as error:
        return None, f"Minimal region: not searched for, {error}."
    return region, describe(region)


@contextmanager
def report_warnings() -> Iterator[None]:
    """Print each `UserWarning` or `Notice` as one line, and suppress the other warnings, which users cannot act on."""

    def print_warning(message: Warning | str, *_: object) -> None:
        print_line("note" if isinstance(message, Notice) else "warning", str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not OUTPUT.quiet:
            warnings.simplefilter("default", UserWarning)
        warnings.showwarning = print_warning  # type: ignore[assignment]
        yield


@contextmanager
def other_output_on_stderr() -> Iterator[None]:
    """Print what the code of networks prints on stderr, so that stdout has the results only."""
    with redirect_stdout(sys.stderr):
        yield


class _OfThread:
    """A stream that passes what this thread writes to one stream, and what others write to another."""

    def __init__(self, own: TextIO, others: TextIO) -> None:
        self._thread, self._own, self._others = threading.get_ident(), own, others

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own if threading.get_ident() == self._thread else self._others, name)


@contextmanager
def report_errors() -> Iterator[None]:
    """Print bad input as one line and exit with code 2; print each warning as one line."""
    with report_warnings():
        try:
            yield
        except ExtremalError as error:
            print_line("error", str(error))
            raise typer.Exit(EXIT_BAD_INPUT) from None


@dataclass
class ImageBatch:
    """The images of a command with their output folders and outcomes.

    Attributes:
        out: folder of the results.
        images: paths of files, and of folders, which are replaced by the images in them.
        as_json: whether to print records instead of tables.
        kind: part of the names of the result folders: what is asked about the images, e.g. `tiger-cat`.
        force: whether earlier results are replaced; otherwise new ones get a number.
        writes: whether results are written.
    """

    out: Path
    images: list[str]
    as_json: bool
    kind: str = ""
    force: bool = False
    writes: bool = True
    written: list[int] = field(default_factory=list)  # indices into `images`, which may contain duplicates
    records: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        self._created_folder = not os.path.exists(self.out)

    @cached_property
    def folders(self) -> list[Path]:
        """The output folder of each image."""
        return files.name_folders(self.out, self.images, self.kind, replace=self.force)

    def process(self, check: Callable[[], None], prepare: Callable[[], Sequence[ProcessImage]]) -> None:
        """Check arguments and files, prepare, process each image, print JSON if requested, and exit with the code.

        Args:
            check: validates what can be validated before torch is imported.
            prepare: validates the other options and loads the network, before the first image is read; returns one
                function, or one for each device, among which the images are shared.
        """
        with report_errors():
            try:
                check()
                self._check_files()
                with other_output_on_stderr():
                    processes = prepare()
                if self.writes:
                    import_libraries_early()
                if len(processes) == 1:
                    self._process_all(processes[0])
                else:
                    self._process_shared(processes)
            except KeyboardInterrupt:
                print_line("interrupted", self._progress_sentence())
                self._print_json()
                raise typer.Exit(EXIT_INTERRUPTED) from None
            finally:
                self._remove_empty_folder()
        self._print_json()
        if self.failed:
            raise typer.Exit(EXIT_SOME_FAILED if self.written else EXIT_BAD_INPUT)

    def _check_files(self) -> None:
        """Replace folders by their images; raise if none of these can be read, or results cannot be written."""
        self.images = expand_images(self.images)
        errors = find_image_errors(self.images)
        if len(errors) == len(self.images):
            *others, last = errors
            for error in others:
                print_line("error", str(error))
            raise last
        if self.writes:
            files.check_writable(self.out)
        for folder in self.folders:
            files.check_replaceable(folder, RESULT_FILES)

    def _process_all(self, process: ProcessImage) -> None:
        """Process one image after another; an error in one does not stop the others."""
        for index, image in enumerate(self.images):
            with other_output_on_stderr(), progress(Path(image).name) as on_stage:
                outcome = self._process_one(process, index, on_stage)
            self._finish(index, outcome)

    def _process_shared(self, processes: Sequence[ProcessImage]) -> None:
        """Process several images at once, one on each device; results are printed in the order of the images."""
        from extremal.networks.replicas import CheckStop, share_work

        def process_image(process: ProcessImage, index: int, check_stop: CheckStop) -> ImageOutcome | ExtremalError:
            return self._process_one(process, index, lambda *_: check_stop())

        indices, finished = range(len(self.images)), dict[int, ImageOutcome | ExtremalError]()
        stage, n_printed, stdout = f"images on {len(processes)} devices", 0, sys.stdout
        with other_output_on_stderr(), progress(stage) as on_stage:
            on_stage("explaining", 0, len(indices))
            for count, (index, outcome) in enumerate(share_work(processes, indices, process_image), start=1):
                finished[index] = outcome
                on_stage("explaining", count, len(indices))
                with redirect_stdout(_OfThread(stdout, sys.stderr)):
                    while n_printed in finished:
                        self._finish(n_printed, finished.pop(n_printed))
                        n_printed += 1

    def _process_one(self, process: ProcessImage, index: int, on_stage: OnStage) -> ImageOutcome | ExtremalError:
        """Process an image, and return its outcome or the error that prevented one."""
        try:
            return process(self.images[index], self.folders[index], on_stage)
        except ExtremalError as error:
            return error

    def _finish(self, index: int, outcome: ImageOutcome | ExtremalError) -> None:
        """Print an outcome, or keep its record for JSON."""
        if isinstance(outcome, ExtremalError):
            image = self.images[index]
            names_image = len(self.images) == 1 or repr(image) in str(outcome)
            print_line("error", str(outcome) if names_image else f"{image}: {outcome}")
            self.failed += 1
            return
        self.written.append(index)
        if self.as_json:
            self.records.append(outcome.record)
        else:
            outcome.print()

    def _remove_empty_folder(self) -> None:
        """Remove the output folder if this command created it and left it empty."""
        if self._created_folder:
            with suppress(OSError):
                self.out.rmdir()

    def _progress_sentence(self) -> str:
        """Return a sentence that names the images that were written and those that were not."""
        missing = [image for index, image in enumerate(self.images) if index not in self.written]
        done = f" ({', '.join(self.images[index] for index in self.written)})" if self.written else ""
        return f"{len(self.written)} of {len(self.images)} images written{done}; not written: {', '.join(missing)}"

    def _print_json(self) -> None:
        """Print the records of the images that were written, if requested."""
        if self.as_json:
            typer.echo(json.dumps(self.records, indent=2, allow_nan=False))


@contextmanager
def progress(name: str) -> Iterator[OnStage]:
    """Show a transient progress bar on stderr if it is a terminal; with --verbose, a line for each stage instead."""
    from rich import progress

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=OUTPUT.quiet or OUTPUT.verbose or not sys.stderr.isatty(),
        speed_estimate_period=3600,  # a single step may take minutes
    ) as bar:
        task, stages = bar.add_task(name, total=None), list[str]()

        def report(stage: str, done: int, total: int) -> None:
            stage = STAGE_WORDS.get(stage, stage)
            if OUTPUT.verbose and stage not in stages[-1:]:
                stages.append(stage)
                print_line(f"{time.perf_counter() - OUTPUT.start:.1f} s", f"{name}: {stage}")
            bar.update(task, description=f"{name}: {stage}", completed=done, total=total)

        yield report
