"""Explain why an EfficientNet sees a tripod in a photograph, print the result, and say which page to open.

Usage: python examples/demo.py [FOLDER]      (demo; under a minute on two cores)
"""

import subprocess
import sys
from pathlib import Path

import skimage.data
from PIL import Image

import extremal
from extremal.report.text import summarise

AREAS = "0.05,0.1,0.2,0.4"
EXPECTED = "a tenth of the photograph is enough (`sufficient` at 10, 20 and 40 %, `insufficient` below)"


def main(folder: Path) -> None:
    """Run the commands that a user would run, and sum up."""
    folder.mkdir(parents=True, exist_ok=True)
    photograph, result = folder / "tripod.png", folder / "tripod"
    Image.fromarray(skimage.data.camera()).save(photograph)
    command = ["explain", str(photograph), "--areas", AREAS, "--out", str(folder), "--force"]
    print(f"The photograph is {photograph}. Which part of it does an EfficientNet need to see a tripod?")
    print(f"\n$ extremal {' '.join(command)}\n", flush=True)
    subprocess.run([sys.executable, "-m", "extremal", *command], check=True)
    explanation = extremal.Explanation.load(result / "explanation.safetensors")
    print(f"\nResult:   {summarise(explanation).headline}")
    print(f"Expected: {EXPECTED}.")
    print(f"Open {(result / 'report.html').resolve().as_uri()} in a browser, and move the slider.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
