"""Compare `penalty` with the paper's own package: mask generator, blur, and a short trajectory.

Use: python benchmarks/parity.py --reference PYTHON [--steps 20]
PYTHON is the interpreter of an environment with the package (`make reference` builds `.venv-reference`).
"""

import argparse
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from extremal import explain, zoo
from extremal.masking.grid import gaussian_blur
from extremal.masking.perturbations import Perturb
from extremal.masking.smooth_max import SmoothMax
from extremal.masking.solvers import Penalty

AREAS = (0.05, 0.1, 0.2)
BORDER = 80  # px: 4 σ of the widest blur; the package pads it with zeros, this project replicates the border


class ZeroBorderBlur:
    """The package's blur pyramid with borders padded by zeros, as a custom perturbation."""

    def __call__(self, x: Tensor) -> Perturb:
        ones = torch.ones_like(x)
        pad = 4 * 20
        levels = []
        for i in range(8):
            sigma = 20 * (1 - i / 7)
            padded = torch.nn.functional.pad(x, [pad] * 4)
            levels.append(gaussian_blur(padded, sigma)[..., pad:-pad, pad:-pad])
        pyramid = torch.stack(levels, 1)

        def perturb(mask: Tensor) -> Tensor:
            height = mask * 7
            below = height.detach().floor().clamp(0, 6)
            index = below.long().expand(-1, -1, *ones.shape[1:])
            return torch.lerp(
                pyramid.gather(1, index), pyramid.gather(1, index + 1), (height - below).expand(index.shape)
            )

        return perturb


KEEP_FREED_TUNABLES = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647:glibc.malloc.top_pad=67108864"


def ask_reference(python: str, *, keep_freed: bool = False, **task: object) -> dict[str, np.ndarray]:
    """Run `reference.py` in its own environment, optionally with freed memory kept as by `keep_freed_memory`."""
    script = Path(__file__).with_name("reference.py")
    variables = {"MPLBACKEND": "agg"} | ({"GLIBC_TUNABLES": KEEP_FREED_TUNABLES} if keep_freed else {})
    with tempfile.TemporaryDirectory() as folder:
        task_file, answer_file = Path(folder, "task.npz"), Path(folder, "answer.npz")
        np.savez(task_file, threads=torch.get_num_threads(), **task)  # type: ignore[arg-type]
        subprocess.run([python, str(script), str(task_file), str(answer_file)], check=True, env=variables)
        return dict(np.load(answer_file))


def print_difference(name: str, ours: Tensor, theirs: np.ndarray, border: int = 0) -> None:
    """Print the largest difference, everywhere and away from the border."""
    difference = (ours - torch.from_numpy(theirs)).abs()
    height, width = difference.shape[-2:]
    inner = difference[..., border : height - border, border : width - border]
    print(f"{name:44s} max |difference| {float(difference.max()):.2e}, away from the border {float(inner.max()):.2e}")


def main() -> None:
    """Run both, and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", required=True)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    generator = torch.Generator().manual_seed(0)
    parameters = torch.rand(3, 1, 32, 32, generator=generator)
    network = zoo.load("embedded")
    x = network.prepare(Image.fromarray(skimage.data.chelsea()))
    answer = ask_reference(
        options.reference, parameters=parameters.numpy(), shape=(224, 224), image=x.numpy(), sigma=20.0
    )
    padded = SmoothMax((224, 224), padded=True)
    print_difference("mask with its margin, equal parameters", padded.evaluate_with_margin(parameters), answer["whole"])
    print_difference("mask on the image, equal parameters", padded(parameters), answer["inside"])
    print_difference("blur, σ = 20 px", gaussian_blur(x, 20.0), answer["blurred"], BORDER)

    with network.frozen() as run, torch.no_grad():
        target = int(run(x).argmax())
    answer = ask_reference(options.reference, input=x.numpy(), target=target, areas=AREAS, steps=options.steps)
    solver = Penalty(steps=options.steps - 1, padded=True)  # the package returns the mask before its last update
    for name, blur in (("its zero border", ZeroBorderBlur()), ("replicated border", "blur")):
        ours = explain(network, x, target, areas=AREAS, solver=solver, score="logit", perturbation=blur)
        for column, area in enumerate(AREAS):
            print_difference(f"trajectory, area {area:.0%}, {name}", ours.masks[0, column], answer["masks"][column])
    print(f"the package's {options.steps} steps took {float(answer['seconds']):.1f} s")


if __name__ == "__main__":
    main()
