"""The commands `extremal summary` and `extremal compare`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extremal.cli import options
from extremal.cli.batch import progress, report_errors
from extremal.cli.input_checks import check_run
from extremal.file_checks import find_kind

if TYPE_CHECKING:
    from extremal.jobs.run_comparison import Comparison
    from extremal.jobs.run_summary import Summary

Run = Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Output folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def summary(
    folder: Run, *, out: Out = options.DEFAULT_FOLDER, force: options.Force = False, as_json: AsJson = False
) -> None:
    """Summarise a run: verdicts, smallest areas by class, suspect images; with a figure and a page of all images."""
    with report_errors():
        check_run(folder)

        from extremal.cli.run_tables import print_summary
        from extremal.report.run_folder import run_name, write_summary

        with _result_folder(out, f"{run_name(folder)}-summary", force) as output_folder:
            result, files = write_summary(folder, output_folder)
        if as_json:
            _print_json(result, files)
        else:
            print_summary(result, files)


def compare(
    first: Run, second: Run, *, out: Out = options.DEFAULT_FOLDER, force: options.Force = False, as_json: AsJson = False
) -> None:
    """Compare the explanations of two runs over the same images; the network is not needed."""
    with report_errors():
        for run in (first, second):
            check_run(run)

        from extremal.cli.run_tables import print_comparison
        from extremal.report.run_folder import run_name, write_comparison

        name = f"{run_name(first)}-{run_name(second)}-compare"
        with _result_folder(out, name, force) as output_folder, progress("comparing") as report:
            comparison, files = write_comparison(
                first, second, output_folder, on_image=lambda done, total: report("images", done, total)
            )
        if as_json:
            _print_json(comparison, files)
        else:
            print_comparison(comparison, files)


@contextmanager
def _result_folder(out: Path, name: str, force: bool) -> Iterator[Path]:
    """Yield the folder of a result after checking that it can be written; `out` is removed if it stays empty."""
    from extremal import files
    from extremal.report.result_files import RESULT_FILES

    is_new = not find_kind(out, "an output folder")
    files.check_writable(out)
    try:
        folder = files.choose_folder(out, name, replace=force)
        files.check_replaceable(folder, RESULT_FILES)
        yield folder
    finally:
        if is_new:
            with suppress(OSError):
                out.rmdir()


def _print_json(result: "Summary | Comparison", files: dict[str, str]) -> None:
    """Print all values as JSON, with null for numbers that are not finite."""
    from extremal.report.result_files import to_json_values

    values: dict[str, Any] = to_json_values({**asdict(result), "files": files})
    typer.echo(json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False))
