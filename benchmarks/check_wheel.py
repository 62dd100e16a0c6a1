"""Install the wheel of a folder in a new environment, and use it as a new user would.

python benchmarks/check_wheel.py dist
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORT = "import time; t = time.perf_counter(); import extremal; print(time.perf_counter() - t)"
EXPLAIN = """
import torch, extremal
network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(192, 2))
print(extremal.explain(network, torch.rand(1, 3, 32, 32), areas=(0.1, 0.3)))
"""


def main() -> None:
    """Install, import, and explain; raise if a step fails."""
    (wheel,) = Path(sys.argv[1]).resolve().glob("*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB")
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "venv" / "bin" / "python"

        def run(*arguments: str) -> str:
            done = subprocess.run([str(python), *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
            return done.stdout.strip()

        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        started = time.monotonic()
        run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints()), str(wheel))
        seconds = time.monotonic() - started
        size = int(
            subprocess.run(["du", "-sm", folder], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[0]
        )
        print(f"pip install: {seconds:.0f} s, {size:,} MB")
        run("-c", IMPORT)  # writes the byte code
        print(f"import extremal: {float(run('-c', IMPORT)):.3f} s")
        print(run("-m", "extremal", "--version"))
        print(run("-c", EXPLAIN))


def constraints() -> Path:
    """Return the path of the pinned versions."""
    return Path(__file__).parents[1] / "constraints.txt"


if __name__ == "__main__":
    main()
