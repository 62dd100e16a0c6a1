"""Options of every command: `--threads`, `--quiet` and `--verbose`."""

import functools
import inspect
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from typer import Context, Option

Threads = Annotated[
    int | None, Option(min=1, max=1024, help="Number of CPU threads to compute with.", show_default="one per core")
]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Print results and errors only: no progress bar, no warnings.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Print each stage with the seconds since the start.")]
_COMMON = {"threads": (Threads, None), "quiet": (Quiet, False), "verbose": (Verbose, False)}


@dataclass
class Verbosity:
    """Amount that the command of this process prints on stderr besides errors."""

    quiet: bool = False
    verbose: bool = False
    start: float = 0.0  # s, of `time.perf_counter`


OUTPUT = Verbosity()
SPIN_COUNT = "2000"  # looks for work, some microseconds, before a waiting thread sleeps


def with_common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the common options to a command, except for those that it has itself."""
    signature = inspect.signature(command)
    added = {name: option for name, option in _COMMON.items() if name not in signature.parameters}

    @functools.wraps(command)
    def call(**options: Any) -> None:
        values = {name: options.pop(name) for name in added}
        OUTPUT.quiet, OUTPUT.verbose, OUTPUT.start = values["quiet"], values["verbose"], time.perf_counter()
        limit_threads(values.get("threads"))
        command(**options)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *(parameter.replace(kind=keyword) for parameter in signature.parameters.values()),
        *(
            inspect.Parameter(name, keyword, default=default, annotation=kind)
            for name, (kind, default) in added.items()
        ),
    ]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {**command.__annotations__, **{name: kind for name, (kind, _) in added.items()}}
    return call


def find_passed(context: Context) -> set[str]:
    """Return the names of the parameters that were passed on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def limit_threads(count: int | None) -> None:
    """Set the number of threads that torch computes with, also before it is imported; None: its own choice."""
    if count is None:
        return
    os.environ.update(OMP_NUM_THREADS=str(count), MKL_NUM_THREADS=str(count))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def let_waiting_threads_sleep() -> None:
    """Let the threads of OpenMP sleep soon while they wait for each other; only before torch is imported.

    By default they wait in a loop, and where other programs keep the cores busy, each waits for one that does not run.
    GNU's threads look for work a few times before they sleep, which is faster on idle cores; others sleep at once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
