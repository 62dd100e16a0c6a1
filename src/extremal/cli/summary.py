"""The commands `extremal summary` and `extremal compare`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extremal.cli.batch import progress, report_errors

if TYPE_CHECKING:
    from extremal.jobs.run_comparison import Comparison
    from extremal.jobs.run_summary import Summary

Run = Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of tables.")]


def summary(folder: Run, *, out: Out = Path("extremal-out"), as_json: AsJson = False) -> None:
    """Sum a run up: verdicts, smallest areas by class, what is suspect; a figure, and a page with every image."""
    with report_errors():
        from extremal.cli.run_tables import print_summary
        from extremal.report.run_folder import run_name, write_summary

        found, files = write_summary(folder, _result_folder(out, f"{run_name(folder)}-summary"))
        if as_json:
            _print_json(found, files)
        else:
            print_summary(found, files)


def compare(first: Run, second: Run, *, out: Out = Path("extremal-out"), as_json: AsJson = False) -> None:
    """Tell which explanations moved from one run to another over the same images; no network is asked."""
    with report_errors():
        from extremal.cli.run_tables import print_comparison
        from extremal.report.run_folder import run_name, write_comparison

        goal = _result_folder(out, f"{run_name(first)}-{run_name(second)}-compare")
        with progress("comparing") as report:
            found, files = write_comparison(
                first, second, goal, on_image=lambda done, total: report("images", done, total)
            )
        if as_json:
            _print_json(found, files)
        else:
            print_comparison(found, files)


def _result_folder(out: Path, name: str) -> Path:
    """The folder of a result, which can be written."""
    from extremal import files
    from extremal.report.result_files import RESULT_FILES

    files.check_writable(out)
    goal = out / name
    files.check_replaceable(goal, RESULT_FILES)
    return goal


def _print_json(found: "Summary | Comparison", files: dict[str, str]) -> None:
    """All of it as JSON: None where a number is not finite."""
    from extremal.report.result_files import to_json_values

    told: dict[str, Any] = to_json_values({**asdict(found), "files": files})
    typer.echo(json.dumps(told, indent=2, allow_nan=False, ensure_ascii=False))
