"""A run of `extremal bench` that is killed at ten random moments comes to the table of one that is not, byte for byte.

Use: python benchmarks/killed.py --cutouts STAMPS [--kills 10] [--seed 0]
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = "centre,gradient,grad-cam,contrastive-excitation"
NAMES = ("table.md", "table.json")


def main() -> None:
    """Run both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        once, often = Path(folder, "once"), Path(folder, "often")
        whole, start = timed(options, once), timed(options, once)  # the second has nothing left to do
        print(f"undisturbed: {whole:.0f} s, {parts(once)} parts; once more: {start:.0f} s")
        killed = 0
        while killed < options.kills:
            child = subprocess.Popen(command(options, often), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                child.wait(timeout=start + draw.uniform(-0.1, 1.6) * (whole - start) / options.kills)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                killed += 1
                print(f"kill {killed}: {parts(often)} parts stand")
            else:
                raise SystemExit(f"finished after {killed} kills: more --scenes, or another --seed")
        subprocess.run(command(options, often), check=True, capture_output=True)
        for name in NAMES:
            if (once / name).read_bytes() != (often / name).read_bytes():
                raise SystemExit(f"{name} differs")
        print(f"{', '.join(NAMES)}: the same bytes after {killed} kills; {parts(often)} parts")


def command(options: argparse.Namespace, out: Path) -> list[str]:
    """The run; a picture a unit, so that kills fall between many."""
    program = str(Path(sys.executable).with_name("extremal"))
    data = ["--data", f"scenes:{options.cutouts}", "--count", str(options.scenes)]
    return [program, "bench", "pointing", *data, "--methods", METHODS, "--batch", "1", "--out", str(out)]


def timed(options: argparse.Namespace, out: Path) -> float:
    """Seconds of a run to its end."""
    begin = time.monotonic()
    subprocess.run(command(options, out), check=True, capture_output=True)
    return time.monotonic() - begin


def parts(out: Path) -> int:
    """How many stand."""
    return len(list((out / "parts").glob("*.parquet"))) if (out / "parts").exists() else 0


if __name__ == "__main__":
    main()
