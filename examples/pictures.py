"""Make all pictures of the README and the guide again, and look at each before it is committed.

Usage: python examples/pictures.py [NAME ...]      (`make pictures`: all of them, some 40 minutes on one core)

Charts of measurements (`evaluation.png`, `performance.png`, `channels.png`, `sanity.png`) and `trained_*` belong to the
benchmarks that measured them: `make bench`.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from photograph import main as write_photograph

ROOT = Path(__file__).parents[1]
EXAMPLES, DOCS = ROOT / "examples", ROOT / "docs"
PHOTOGRAPHS = ("camera", "chelsea", "clock", "coffee")  # the network names each with a high probability
EXTREMAL = ("-m", "extremal", "figures")
SCRIPTS = {  # name -> arguments of Python; PHOTOGRAPHS stands for their files
    "readme": (str(EXAMPLES / "readme_figure.py"), str(DOCS / "tripod.jpg")),
    "guide": (str(EXAMPLES / "guide_figures.py"), str(DOCS / "figures")),
    "methods": (*EXTREMAL, "methods", "PHOTOGRAPHS", "--out", str(DOCS / "methods.jpg")),
    "areas": (*EXTREMAL, "areas", "PHOTOGRAPHS", "--out", str(DOCS / "areas.jpg")),
    "gallery": (str(EXAMPLES / "gallery.py"),),
    "channels": (str(ROOT / "benchmarks" / "seeing.py"), "--pictures"),
    "app-example": (str(EXAMPLES / "app_example.py"),),
    "viewer": (str(EXAMPLES / "viewer_figure.py"), str(DOCS / "figures" / "viewer.png")),
    "app": (str(EXAMPLES / "app_figure.py"), str(DOCS / "figures" / "app.png")),
}


def main(names: list[str]) -> None:
    """Run the scripts of these names one after another, all of them if none is named."""
    if unknown := set(names) - set(SCRIPTS):
        raise SystemExit(f"names must be of {', '.join(SCRIPTS)}, got {', '.join(sorted(unknown))}")
    with TemporaryDirectory() as folder:
        files = [str(Path(folder, f"{name}.png")) for name in PHOTOGRAPHS]
        for name, file in zip(PHOTOGRAPHS, files, strict=True):
            write_photograph(name, file)
        for name in names or SCRIPTS:
            arguments = [part for word in SCRIPTS[name] for part in (files if word == "PHOTOGRAPHS" else [word])]
            print(f"{name}: python {' '.join(SCRIPTS[name])}", flush=True)
            subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
