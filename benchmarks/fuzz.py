"""Read changed files by every reader: truncated, flipped, oversized, of wrong types, deep.

Use: python benchmarks/fuzz.py [--inputs N] [--readers NAME,NAME] [--seed S] [--json]

Each reader of `tests/support/readers.py` works in a process of its own. It must read each input or refuse it in one
sentence (`ExtremalError`): another exception, a message of several lines or of over 2,000 characters, and more than
20 s for an input are faults. Prints a table and appends one row to `results/fuzz.jsonl`; exit code 1 with faults, or
if a process takes more than 1.5 GB.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import records

sys.path.append(str(Path(__file__).parents[1] / "tests"))

RESULTS = records.FOLDER / "fuzz.jsonl"
MAX_SECONDS = 20  # for one input
MAX_LENGTH = 2000  # characters of a message
MAX_MEMORY = 1500  # MB
MAX_LISTED = 5  # faults of a reader that are described
# share of the inputs; those that build networks or write pages take longest
SHARES = {
    "images": 4.0,
    "exported networks": 1.0,
    "config.json": 0.5,
    "preprocessor_config.json": 0.5,
    "model.safetensors": 0.7,
    "weights": 4.0,
    "explanations": 2.0,
    "channel explanations": 2.0,
    "run folders": 0.4,
    "option texts": 6.0,
}


def main() -> None:
    """Run the readers and print what they did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="of all readers together")
    parser.add_argument("--readers", default="", help="names, separated by commas; all without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON only")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(try_reader(options.worker, options.inputs, options.seed)))
        return
    from support.readers import READERS

    names = options.readers.split(",") if options.readers else list(READERS)
    total = sum(SHARES.get(name, 1.0) for name in names)
    rows = []
    for name in names:
        count = -(-int(options.inputs * SHARES.get(name, 1.0)) // max(1, int(total)))
        rows.append(start_worker(name, count, options.seed))
        if not options.json:
            print_row(rows[-1], with_head=len(rows) == 1)
    faults, memory = sum(row["faults"] for row in rows), max(row["memory_mb"] for row in rows)
    record = {"inputs": sum(row["inputs"] for row in rows), "faults": faults, "memory_mb": memory, "readers": rows}
    records.append(RESULTS, record)
    print(json.dumps(record))
    sys.exit(faults > 0 or memory > MAX_MEMORY)


def start_worker(name: str, count: int, seed: int) -> dict[str, Any]:
    """Return the row of a reader in a process of its own; a process that dies or hangs counts as a fault."""
    command = [sys.executable, __file__, "--worker", name, "--inputs", str(count), "--seed", str(seed)]
    start = time.monotonic()
    limit = 60 + count * 2  # also of what no signal interrupts
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        if done.returncode == 0:
            row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            return row
        reason = f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"
    except subprocess.TimeoutExpired:
        reason = f"no end after {limit} s"
    seconds = round(time.monotonic() - start, 1)
    return {"reader": name, "inputs": count, "seconds": seconds, "faults": 1, "memory_mb": 0, "listed": [reason]}


def try_reader(name: str, count: int, seed: int) -> dict[str, Any]:
    """Return the row of a reader: number of inputs, of those that were refused, faults, seconds, peak memory."""
    from support.readers import start_trial

    signal.signal(signal.SIGALRM, _raise_timeout)
    refused, faults, listed = 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            trial = start_trial(name, Path(folder) / "files")
            trial.read_intact()
            before, start = _peak_memory(), time.monotonic()
            for index in range(count):
                fault, is_refused = _try_input(trial, seed * 10**9 + index)
                refused += is_refused
                if fault:
                    faults += 1
                    listed.append(f"seed {seed * 10**9 + index}: {fault}")
        os.chdir("/")
    row = {"reader": name, "inputs": count, "refused": refused, "faults": faults, "listed": listed[:MAX_LISTED]}
    seconds = round(time.monotonic() - start, 1)
    return {**row, "seconds": seconds, "memory_mb": _peak_memory(), "memory_before_mb": before}


def _try_input(trial: Any, seed: int) -> tuple[str, bool]:
    """Return the fault of an input, empty if there is none, and whether the input was refused."""
    from extremal import ExtremalError

    signal.alarm(MAX_SECONDS)
    try:
        trial.read_changed(seed)
    except ExtremalError as error:
        message = str(error)
        is_sentence = "\n" not in message and len(message) <= MAX_LENGTH
        return "" if is_sentence else f"message of {len(message)} characters: {message[:80]!r}", True
    except _Timeout:
        return f"no end after {MAX_SECONDS} s", False
    except BaseException as error:  # everything else is a fault
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "extremal" in frame.filename]
        inside = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
        return (
            f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno} ({inside}): {str(error)[:120]}",
            False,
        )
    finally:
        signal.alarm(0)
    return "", False


class _Timeout(BaseException):
    """Raised for an input that takes too long."""


def _raise_timeout(*_: object) -> None:
    raise _Timeout


def _peak_memory() -> int:
    """Return the largest resident size of this process so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def print_row(row: dict[str, Any], with_head: bool) -> None:
    """Print a line of the table."""
    if with_head:
        print(f"{'reader':<26}{'inputs':>8}{'refused':>9}{'seconds':>9}{'faults':>8}{'peak MB':>9}")
    print(
        f"{row['reader']:<26}{row['inputs']:>8}{row.get('refused', 0):>9}{row['seconds']:>9}{row['faults']:>8}"
        f"{row['memory_mb']:>9}",
        flush=True,
    )
    for fault in row["listed"]:
        print(f"    {fault}", flush=True)


if __name__ == "__main__":
    main()
