"""How long a mistake on the command line takes to be reported: the mistakes of the tests, each in a fresh process.

Use: python benchmarks/errors.py [--repeat 3]

Prints the seconds from the start of the process to its end, the median of several, the slowest first. Exits with 1 if
one takes more than a second.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
LIMIT = 1.0  # s


def main() -> None:
    """Time all mistakes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    from cli.test_argument_checks import MISTAKES, prepare_folder

    with tempfile.TemporaryDirectory() as folder:
        prepare_folder(Path(folder))
        rows = []
        for arguments, message in MISTAKES:
            seconds = [time_mistake(arguments, message, folder) for _ in range(options.repeat)]
            rows.append((statistics.median(seconds), " ".join(arguments)))
    for seconds, command in sorted(rows, reverse=True):
        print(f"{seconds:.2f} s  extremal {command}")
    print(
        f"{len(rows)} mistakes, median {statistics.median(row[0] for row in rows):.2f} s, slowest {max(rows)[0]:.2f} s"
    )
    raise SystemExit(int(max(rows)[0] > LIMIT))


def time_mistake(arguments: list[str], message: str, folder: str) -> float:
    """Return the seconds of one command, which must fail with a message."""
    begin = time.perf_counter()
    command = [Path(sys.executable).with_name("extremal"), *arguments]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if finished.returncode != 2 or message not in " ".join(finished.stderr.split()):
        raise SystemExit(f"{' '.join(arguments)} should be refused with {message!r}, it printed: {finished.stderr}")
    return seconds


if __name__ == "__main__":
    main()
