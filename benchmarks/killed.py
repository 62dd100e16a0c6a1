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
        subprocess.run(command(options, once), check=True, capture_output=True)
        print(f"undisturbed: {parts(once)} parts")
        for kill in range(1, options.kills + 1):
            child = subprocess.Popen(command(options, often), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            goal = parts(often) + draw.randint(0, parts(once) // (options.kills + 1))
            while parts(often) < goal and child.poll() is None:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.5))  # anywhere within a part, or while it is written
            if child.poll() is not None:
                raise SystemExit(f"finished after {kill - 1} kills: more --scenes, or another --seed")
            child.kill()
            child.wait()
            print(f"kill {kill}: {parts(often)} parts stand")
        subprocess.run(command(options, often), check=True, capture_output=True)
        for name in NAMES:
            if (once / name).read_bytes() != (often / name).read_bytes():
                raise SystemExit(f"{name} differs")
        print(f"{', '.join(NAMES)}: the same bytes after {options.kills} kills; {parts(often)} parts")


def command(options: argparse.Namespace, out: Path) -> list[str]:
    """The run; a picture a unit, so that kills fall between many."""
    program = str(Path(sys.executable).with_name("extremal"))
    data = ["--data", f"scenes:{options.cutouts}", "--count", str(options.scenes)]
    return [program, "bench", "pointing", *data, "--methods", METHODS, "--batch", "1", "--out", str(out)]


def parts(out: Path) -> int:
    """How many stand."""
    return len(list((out / "parts").glob("*.parquet"))) if (out / "parts").exists() else 0


if __name__ == "__main__":
    main()
