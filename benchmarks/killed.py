"""Check that `extremal bench`, killed at ten random moments and resumed, produces the same table byte for byte.

Use: python benchmarks/killed.py --cutouts FOLDER [--kills 10] [--seed 0]
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
    """Run with and without interruptions, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = Path(folder, "undisturbed"), Path(folder, "killed")
        subprocess.run(command(options, undisturbed), check=True, capture_output=True)
        print(f"undisturbed: {count_parts(undisturbed)} parts")
        for kill in range(1, options.kills + 1):
            child = subprocess.Popen(command(options, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            n_parts = count_parts(killed) + rng.randint(0, count_parts(undisturbed) // (options.kills + 1))
            while count_parts(killed) < n_parts and child.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.5))  # at any moment of a unit of work, also while it is written
            if child.poll() is not None:
                raise SystemExit(f"finished after {kill - 1} kills: more --scenes, or another --seed")
            child.kill()
            child.wait()
            print(f"kill {kill}: {count_parts(killed)} parts finished")
        subprocess.run(command(options, killed), check=True, capture_output=True)
        for name in NAMES:
            if (undisturbed / name).read_bytes() != (killed / name).read_bytes():
                raise SystemExit(f"{name} differs")
        print(f"{', '.join(NAMES)}: the same bytes after {options.kills} kills; {count_parts(killed)} parts")


def command(options: argparse.Namespace, out: Path) -> list[str]:
    """Return the command of a run with one image per unit of work, so that there are many units."""
    program = str(Path(sys.executable).with_name("extremal"))
    data = ["--data", f"scenes:{options.cutouts}", "--count", str(options.scenes)]
    return [program, "bench", "pointing", *data, "--methods", METHODS, "--batch", "1", "--out", str(out)]


def count_parts(out: Path) -> int:
    """Return the number of finished parts."""
    return len(list((out / "parts").glob("*.parquet"))) if (out / "parts").exists() else 0


if __name__ == "__main__":
    main()
