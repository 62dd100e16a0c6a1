"""The command line as it is called."""

from typer.testing import CliRunner

from extremal.cli import main


def call(*arguments: object, columns: int = 100) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `extremal` in this process; what it does not tell as an error is raised."""
    result = CliRunner().invoke(main.app, [str(one) for one in arguments], env={"COLUMNS": str(columns)})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr
