"""The app under attack on this machine: others are served, disk and memory stay bounded, and nothing is left.

Use: python benchmarks/attack.py [--users 3] [--seconds 120]

The app serves a small network. Users from one address do what `crowd.py` describes, while clients from other addresses
attack it without a pause: invented sessions with and without cookies, large uploads, broken ones, connections that are
held open, malformed requests, odd values, and images of 40 megapixels. Then the app is killed and started again.
It prints a table and one JSON object, and appends that to benchmarks/results/attack.jsonl. The exit code is 1 if a
promise is broken: no user without a result, no response with status 500, bounded files, memory and log, no folder left
by a server that was killed, and an end within 5 s of a signal. It needs a system where 127.0.0.2 is a loopback address.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import records

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support import app_attacks as attacks
from support.app_client import serve_app
from support.app_load import resident_memory, run_users, summarise

RESULTS = records.FOLDER / "attack.jsonl"
TESTS = Path(__file__).parents[1] / "tests"
MAX_WAIT = 60.0  # s, of a user's request
MAX_FILES_MB = 600.0  # uploads and results on disk
MAX_MEMORY_MB = 2500.0
MAX_LOG_KB = 200.0
MAX_STOP_SECONDS = 5.0


async def send_odd_requests(address: str) -> Counter[int]:
    """Send malformed requests, and count the statuses of the responses."""
    responses = await attacks.send_odd_requests(address, "127.0.0.8")
    return Counter(status for status, _ in responses.values())


Attack = Callable[[str], Awaitable[Counter[Any]]]
ATTACKS: dict[str, Attack] = {
    "60 invented sessions": lambda address: attacks.invent_sessions(address, 60, "127.0.0.2"),
    "60 sessions with cookies": lambda address: attacks.invent_sessions(address, 60, "127.0.0.3", cookies=True),
    "large uploads": lambda address: attacks.upload_much(address, 20, 19_000_000, "127.0.0.4"),
    "broken uploads": lambda address: attacks.break_uploads(address, 10, "127.0.0.5"),
    "uploads held open": lambda address: attacks.break_uploads(address, 20, "127.0.0.6", hold=30.0),
    "connections held open": lambda address: attacks.hold_connections(address, 300, 30.0, "127.0.0.7"),
    "malformed requests": send_odd_requests,
    "odd values": lambda address: attacks.send_odd_values(address, 200, "127.0.0.9", seed=int(time.time())),
    "images of 40 megapixels": lambda address: attacks.flood_with_images(address, 12, "127.0.0.10"),
}


class Watch:
    """Largest values of what the app uses."""

    def __init__(self, process: int, folder: Path, log: Path) -> None:
        self.process, self.folder, self.log = process, folder, log
        self.files_mb = self.unlinked_mb = self.memory_mb = self.log_kb = 0.0
        self.descriptors = 0

    async def run(self) -> None:
        """Measure twice a second, until this is cancelled."""
        while True:
            await asyncio.to_thread(self.measure)
            await asyncio.sleep(0.5)

    def measure(self) -> None:
        """Measure once."""
        self.files_mb = max(self.files_mb, attacks.folder_bytes(self.folder) / 1e6)
        self.unlinked_mb = max(self.unlinked_mb, attacks.unlinked_bytes(self.process) / 1e6)
        self.memory_mb = max(self.memory_mb, resident_memory(self.process))
        self.log_kb = max(self.log_kb, self.log.stat().st_size / 1e3)
        self.descriptors = max(self.descriptors, len(os.listdir(f"/proc/{self.process}/fd")))


async def repeat(name: str, attack: Attack, address: str, deadline: float, counts: dict[str, Counter[Any]]) -> None:
    """Repeat an attack until the deadline, and count its responses."""
    while time.monotonic() < deadline:
        try:
            counts[name] += await attack(address)
        except Exception as error:  # what the server refuses is counted, too
            counts[name][type(error).__name__] += 1
            await asyncio.sleep(0.5)


async def attack_app(address: str, process: int, users: int, seconds: float, watch: Watch) -> dict[str, Any]:
    """Run users and attacks at the same time, and return what was measured."""
    counts: dict[str, Counter[Any]] = {name: Counter() for name in ATTACKS}
    deadline = time.monotonic() + seconds
    watching = asyncio.create_task(watch.run())
    measurements, *_ = await asyncio.gather(
        run_users(address, process, users, seconds),
        *(repeat(name, attack, address, deadline, counts) for name, attack in ATTACKS.items()),
    )
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    summary = summarise(measurements)
    return {
        "users": users,
        "seconds": seconds,
        **{name: summary[name] for name in ("answers", "served", "errors", "overtaken", "ms", "wait", "run", "memory")},
        "attacks": {name: {str(key): n for key, n in sorted(count.items(), key=str)} for name, count in counts.items()},
        "files_mb": round(watch.files_mb, 1),
        "unlinked_mb": round(watch.unlinked_mb, 1),
        "memory_mb": round(watch.memory_mb),
        "log_kb": round(watch.log_kb, 1),
        "descriptors": watch.descriptors,
    }


def run(users: int, seconds: float, root: Path) -> dict[str, Any]:
    """Attack the app, kill it, start it again, and stop it."""
    temporary, log = root / "temp", root / "log"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary), "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    options = ("--network", "support.app_toys:random_network")
    with log.open("wb") as stderr:
        with serve_app(*options, stderr=stderr, **environment) as (address, process):
            (folder,) = temporary.glob("extremal-app-*")
            row = asyncio.run(attack_app(address, process, users, seconds, Watch(process, folder, log)))
            os.kill(process, signal.SIGKILL)
        row["left_by_kill"] = folder.exists()
        with serve_app(*options, stderr=stderr, **environment) as (address, process):
            row["left_after_start"] = folder.exists()
            begin = time.monotonic()
            os.kill(process, signal.SIGTERM)
            while Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                time.sleep(0.02)
            row["stop_s"] = round(time.monotonic() - begin, 2)
    row["left_at_the_end"] = [path.name for path in temporary.iterdir() if path.name.startswith("extremal")]
    row["log"] = log.read_text(errors="replace")[-2000:]
    return row


def broken_promises(row: dict[str, Any]) -> list[str]:
    """Return the promises that a run has broken, as text."""
    statuses = [key for count in row["attacks"].values() for key in count]
    promises = {
        f"{len(row['errors'])} errors of users": not row["errors"],
        f"{row['users'] - row['served']} users without a result": row["served"] == row["users"],
        f"a user waited for {max(row['wait'], default=0)} s": max(row["wait"], default=0.0) <= MAX_WAIT,
        "a response had status 500": "500" not in statuses,
        f"{row['files_mb']} MB of files": row["files_mb"] + row["unlinked_mb"] <= MAX_FILES_MB,
        f"{row['memory_mb']} MB of memory": row["memory_mb"] <= MAX_MEMORY_MB,
        f"{row['log_kb']} kB of log": row["log_kb"] <= MAX_LOG_KB,
        "a folder of a killed server is left": not row["left_after_start"] and not row["left_at_the_end"],
        f"it ended after {row['stop_s']} s": row["stop_s"] <= MAX_STOP_SECONDS,
    }
    return [name for name, is_kept in promises.items() if not is_kept]


def print_row(row: dict[str, Any]) -> None:
    """Print a run as a table."""
    for name, count in row["attacks"].items():
        print(f"{name:28s}" + ", ".join(f"{n} × {key}" for key, n in count.items()))
    print(f"{row['users']} users, {row['answers']} results, {len(row['errors'])} errors")
    print(f"{'ms':8s}{'p50':>8s}{'p95':>8s}{'max':>8s}")
    for name, values in row["ms"].items():
        print(f"{name:8s}" + "".join(f"{values[key]:8.0f}" for key in ("p50", "p95", "max")))
    print(f"from request to result, s: {row['wait']} (median, maximum)")
    names = (
        "files_mb",
        "unlinked_mb",
        "memory_mb",
        "log_kb",
        "descriptors",
        "left_by_kill",
        "left_after_start",
        "stop_s",
    )
    for name in names:
        print(f"{name:28s}{row[name]}")
    print(f"ended after a signal in {row['stop_s']} s")
    for error in row["errors"][:10]:
        print(error)


def main() -> None:
    """Run the attack, and print and record its measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="attack-") as root:
        row = {**run(options.users, options.seconds, Path(root)), "load": round(load, 1), "torch": torch.__version__}
    print_row(row)
    print(json.dumps(row))
    records.append(RESULTS, {name: value for name, value in row.items() if name != "log"})
    if broken := broken_promises(row):
        sys.exit("; ".join(broken))


if __name__ == "__main__":
    main()
