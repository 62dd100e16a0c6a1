"""Whether the demonstration has the same verdicts whatever the threads, and with one grey level of noise.

Use: python benchmarks/demo_runs.py [--copies 4]

Each run is a fresh process of the demonstration's command, with one thread and with two, on its photograph and copies
with noise. Prints the effects of the cut masks and the verdicts; the exit code is 1 if two runs have different ones.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import skimage.data
from PIL import Image

from extremal.networks.noise import add_grey_noise

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from demo import AREAS


def main() -> None:
    """Run the command on all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, default=4, help="with noise")
    options = parser.parse_args()
    photograph = Image.fromarray(skimage.data.camera())
    pictures = [photograph, *(add_grey_noise(photograph, seed) for seed in range(options.copies))]
    found = set()
    with TemporaryDirectory() as folder:
        for number, picture in enumerate(pictures):
            path = Path(folder) / f"tripod-{number}.png"
            picture.save(path)
            for threads in (1, 2):
                command = ["explain", str(path), "--areas", AREAS, "--out", folder, "--force", "--json"]
                command = [sys.executable, "-m", "extremal", *command, "--quiet", "--threads", str(threads)]
                (record,) = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                words = tuple(verdict["word"] for verdict in record["verdicts"])
                found.add(words)
                effects = " / ".join(f"{effect:.2f}" for effect in record["effects"]["binary"])
                print(f"noise {number or 'none'}, threads {threads}: {effects}: {', '.join(words)}", flush=True)
    sys.exit(len(found) > 1)


if __name__ == "__main__":
    main()
