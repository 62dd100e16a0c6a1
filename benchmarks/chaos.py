"""Check that a data-set run whose workers and driver are killed or stopped at random moments yields the same table.

Use: python benchmarks/chaos.py [--kills 20] [--terms 10] [--images 200] [--seed 0] [--network chaos:small_network]
    [--areas 0.1]

SIGKILL hits a worker or the driver, SIGTERM the driver. Among the images are seven that cannot be explained:
truncated, empty, text, a pipe, a broken link, a missing one, and an address. The tables are compared with DuckDB,
without the column of seconds. The small network is slow enough to be hit while it explains.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import duckdb
import torch
from torch import Tensor, nn

import records
from extremal import Network
from throughput import write_photographs

RESULTS = records.FOLDER / "chaos.jsonl"
SIDE = 32  # px of the small network's input
PAUSE = 0.02  # s that a forward pass of the small network takes longer
STOP_LIMIT = 5.0  # s in which a signal must end a run


class Slow(nn.Module):
    """A random convolution that waits in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 8, 5, stride=2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(PAUSE)
        return self.head(torch.relu(self.features(x)).mean((2, 3)))


def small_network() -> Network:
    """Build the network by which workers are disturbed while they explain."""
    from torchvision.transforms.functional import pil_to_tensor

    torch.manual_seed(0)
    return Network(Slow(), lambda image: pil_to_tensor(image.resize((SIDE, SIDE))).float() / 255, name="small")


def main() -> None:
    """Run with and without signals, and compare the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--terms", type=int, default=10)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", default="chaos:small_network")
    parser.add_argument("--areas", default="0.1")
    options = parser.parse_args()
    draw, sent = random.Random(options.seed), Counter[str]()
    signals = ["kill"] * options.kills + ["term"] * options.terms
    draw.shuffle(signals)
    with tempfile.TemporaryDirectory() as name:
        manifest, once, often = write_images(Path(name), options.images), Path(name, "once"), Path(name, "often")
        begin = time.monotonic()
        finish(build_command(options, manifest, once))
        print(f"undisturbed: {len(find_parts(once))} parts in {time.monotonic() - begin:.0f} s", flush=True)
        slowest = 0.0
        while signals:
            slowest = max(slowest, disturb(options, manifest, often, draw, signals, sent))
        finish(build_command(options, manifest, often))
        rows, failed, differing = compare(once, often)
        print(f"{rows} rows, {failed} of them failed, {differing} differ after {dict(sent)}")
        print(f"SIGTERM ended the run within {slowest:.1f} s")
        result = {"images": options.images, "rows": rows, "failed": failed, "differing": differing}
        records.append(RESULTS, {"kind": "killed", **sent, **result, "network": options.network, "stop": slowest})
        if differing or slowest > STOP_LIMIT:
            raise SystemExit("the tables must be equal, and each signal must end the run in time")


def write_images(folder: Path, count: int) -> Path:
    """Write photographs and images that cannot be explained, and a manifest of all."""
    write_photographs(folder / "pictures", count - 7)
    paths = sorted((folder / "pictures").iterdir())
    broken = folder / "broken"
    broken.mkdir()
    (broken / "truncated.png").write_bytes(paths[0].read_bytes()[:1000])
    (broken / "empty.png").touch()
    (broken / "text.png").write_text("no image")
    os.mkfifo(broken / "pipe.png")
    (broken / "link.png").symlink_to("nowhere")
    lines = [str(path) for path in (*paths, *sorted(broken.iterdir()), broken / "missing.png")]
    lines.append("https://example.org/cat.png")
    random.Random(0).shuffle(lines)
    manifest = folder / "images.csv"
    manifest.write_text("path\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def disturb(
    options: argparse.Namespace,
    manifest: Path,
    out: Path,
    draw: random.Random,
    signals: list[str],
    sent: Counter[str],
) -> float:
    """Start the run, and send signals at random moments until it ends; return the time that a stop took."""
    child = subprocess.Popen(
        build_command(options, manifest, out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    ready = len(find_parts(out))
    while child.poll() is None and len(find_parts(out)) == ready and sent.total() % 3:
        time.sleep(0.02)  # in every third start, the first signal comes before a part is written
    while child.poll() is None and signals:
        time.sleep(draw.uniform(0, 0.8))
        workers = find_workers(child.pid)
        if signals[-1] == "kill" and workers and draw.random() < 0.6:
            os.kill(draw.choice(workers), signal.SIGKILL)
            sent["worker killed"] += 1
            signals.pop()
        elif child.poll() is None:
            begin = time.monotonic()
            child.send_signal(signal.SIGKILL if signals[-1] == "kill" else signal.SIGTERM)
            sent[f"driver {signals.pop()}ed"] += 1
            child.wait()
            print(f"{dict(sent)}, {len(find_parts(out))} parts written", flush=True)
            return time.monotonic() - begin
    child.wait()
    if child.returncode in (0, 1) and signals:  # 1: all is done, but for the images that cannot be explained
        raise SystemExit(f"finished after {dict(sent)}: more --images, or another --seed")
    return 0.0


def compare(once: Path, often: Path) -> tuple[int, int, int]:
    """Return the numbers of rows and failed rows, and of rows that are in one of the tables only."""
    database = duckdb.connect()
    for name, folder in (("once", once), ("often", often)):
        database.sql(f"CREATE VIEW {name} AS SELECT * EXCLUDE seconds FROM '{folder}/parts/*.parquet'")
    counts = database.sql("SELECT count(*), count(*) FILTER (status = 'failed') FROM often").fetchall()
    both = "(SELECT * FROM once EXCEPT ALL SELECT * FROM often) UNION ALL"
    differing = database.sql(f"SELECT count(*) FROM ({both} (SELECT * FROM often EXCEPT ALL SELECT * FROM once))")
    return *counts[0], differing.fetchall()[0][0]


def finish(command: list[str]) -> None:
    """Run a command to its end; some of its images are broken, so it ends with 1."""
    done = subprocess.run(command, check=False, capture_output=True, env=environment())
    if done.returncode != 1:
        raise RuntimeError(done.stderr)


def build_command(options: argparse.Namespace, manifest: Path, out: Path) -> list[str]:
    """Return the command of the run; two images per unit, so that signals hit many units."""
    arguments = ["--areas", options.areas, "--network", options.network, "--batch", "2", "--workers", "2"]
    return [sys.executable, "-m", "extremal", "run", str(manifest), *arguments, "--out", str(out)]


def environment() -> dict[str, str]:
    """Return the environment in which workers find the small network."""
    paths = [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


def find_parts(out: Path) -> list[Path]:
    """Return the parts that are written."""
    return list((out / "parts").glob("0*.parquet"))


def find_workers(pid: int) -> list[int]:
    """Return the worker processes of a driver."""
    workers = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in map(int, task.read_text().split()):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    workers.append(child)
        except OSError:  # one of them has ended
            continue
    return workers


if __name__ == "__main__":
    main()
