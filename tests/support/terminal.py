"""Calls of the command line in this process."""

from typer.testing import CliRunner

from extremal.cli import main


def call(*arguments: object, columns: int = 100) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of `extremal`; raise exceptions that the command does not handle."""
    result = CliRunner().invoke(main.app, [str(argument) for argument in arguments], env={"COLUMNS": str(columns)})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr
