"""The command line: parse, call the library, print the result."""

import signal
import sys
from typing import Annotated

import typer

from extremal._version import __version__
from extremal.cli.app import app as serve_app
from extremal.cli.argument_checks import check_no_empty_argument
from extremal.cli.batch import (
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    print_line,
    report_errors,
)
from extremal.cli.bench import bench, figures
from extremal.cli.channels import channels, class_channels
from extremal.cli.common_options import let_waiting_threads_sleep, with_common_options
from extremal.cli.doctor import doctor
from extremal.cli.explain import explain
from extremal.cli.layers import layers
from extremal.cli.network_names import networks
from extremal.cli.output import check_output_stream
from extremal.cli.run import run, status
from extremal.cli.sets import contrast, sets, tokens
from extremal.cli.summary import compare, summary

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print the values of local variables
    help="Find the smallest part of an image that a network's answer needs (extremal perturbations).",
)


def main() -> None:
    """Run the command `extremal`."""
    let_waiting_threads_sleep()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as for Ctrl-C: nothing is half-written
    output = check_output_stream()
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(errors="replace")  # file names need not be printable
    try:
        _check_arguments()
        app()
    except SystemExit as end:
        if output and output.find_reason():
            print_line("error", f"stdout must be a stream that takes the results, got: {output.find_reason()}")
            end.code = end.code or EXIT_SOME_FAILED
        if end.code == EXIT_INTERRUPTED:  # another signal while the interpreter ends would replace the code
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), signal.SIG_IGN)
        raise


def _check_arguments() -> None:
    try:
        with report_errors():
            check_no_empty_argument(sys.argv[1:])
    except typer.Exit as end:
        raise SystemExit(end.exit_code) from None


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"extremal {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(with_common_options(explain))
app.command()(with_common_options(sets))
app.command()(with_common_options(contrast))
app.command()(with_common_options(tokens))
app.command()(with_common_options(channels))
app.command("class-channels")(with_common_options(class_channels))
app.command()(with_common_options(layers))
app.command()(with_common_options(doctor))
app.command("app")(with_common_options(serve_app))
app.command()(with_common_options(run))
app.command()(with_common_options(status))
app.command()(with_common_options(summary))
app.command()(with_common_options(compare))
app.command()(with_common_options(bench))
app.add_typer(figures, name="figures")
app.command()(with_common_options(networks))
