"""Measure explanations on a GPU: one command, no downloads, under four minutes.

    python benchmarks/gpu.py                        # the fastest device
    python benchmarks/gpu.py --device cpu --quick   # the same code with tiny networks, in a minute on a processor

It needs torch, torchvision (with Pillow), timm, safetensors and NumPy, and runs from a checkout without installation.
Weights are random: times do not depend on them. It prints a table and, as its last line, one JSON object, which
`--out benchmarks/results/gpu.jsonl` keeps for docs/performance.md:

- equality: masks and scores of the device compared with those of the processor, and of bfloat16 with float32;
- speed: seconds per image of `explain` at four areas; the share of that time that is not spent in the network's own
  passes, which are repeated alone to measure it; peak memory;
- steps: operations, kernel launches, and waits of the program for the device, per step of the solver: two runs with
  different numbers of steps are compared, so that what is done once does not count;
- data set: images per second of 256 images, from PNG files in memory to judged masks.
"""

import argparse
import ast
import importlib
import io
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "src"


def provide_lazy_loader() -> None:
    """Provide what the library uses of the package lazy_loader, if it is not installed."""
    with suppress(ModuleNotFoundError):
        importlib.import_module("lazy_loader")
        return

    def attach(package: str, submodules: Sequence[str] = (), attributes: Any = None) -> tuple[Any, Any, list[str]]:
        places = {name: module for module, names in (attributes or {}).items() for name in names}

        def load(name: str) -> Any:
            if name in places:
                return getattr(importlib.import_module(f"{package}.{places[name]}"), name)
            if name in submodules:
                return importlib.import_module(f"{package}.{name}")
            raise AttributeError(f"module {package!r} has no attribute {name!r}")

        names = [*submodules, *places]
        return load, lambda: names, names

    def attach_stub(package: str, file: str) -> tuple[Any, Any, list[str]]:
        imports = [
            node
            for node in ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8")).body
            if isinstance(node, ast.ImportFrom) and node.level == 1
        ]
        submodules = [alias.name for node in imports if node.module is None for alias in node.names]
        attributes = {node.module: [alias.name for alias in node.names] for node in imports if node.module}
        return attach(package, submodules, attributes)

    module = ModuleType("lazy_loader")
    module.attach, module.attach_stub = attach, attach_stub  # type: ignore[attr-defined]
    sys.modules["lazy_loader"] = module


if str(SOURCE) not in sys.path:
    sys.path.insert(0, str(SOURCE))
provide_lazy_loader()

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from extremal.explanations.explain import explain
from extremal.masking.area import cut
from extremal.masking.solvers.consensus import Consensus
from extremal.networks.devices import describe_device, find_device
from extremal.networks.network import Network
from extremal.networks.zoo import load

AREAS = (0.05, 0.1, 0.2, 0.4)
PRECISIONS = ("float32", "bfloat16")
NETWORKS = {
    "ResNet-50": "timm:resnet50",
    "embedded": "timm:efficientnet_lite0",  # its trained weights are a package of their own
    "ConvNeXt-T": "timm:convnext_tiny",
    "ViT-B/16": "timm:vit_base_patch16_224",
}
GOALS = {1: 0.35, 32: 0.06}  # seconds per image by batch, of ResNet-50 on an H100
GOAL_OUTSIDE = 0.1  # share of the time outside of the network
SYNC_WARNING = "synchronizing"  # in the warnings of torch.cuda.set_sync_debug_mode


class TinyTransformer(nn.Module):
    """A transformer of 16 patches, for `--quick`."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.block(tokens).mean(1))


def tiny_networks() -> dict[str, Callable[[], nn.Module]]:
    def convolutions() -> nn.Module:
        layers = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))

    return {"convolutions": convolutions, "transformer": TinyTransformer}


class Bench:
    """The measurements on one device."""

    def __init__(self, device: str, quick: bool, seconds: float) -> None:
        self.device, self.quick = find_device(device), quick
        self.is_gpu = self.device.type == "cuda"
        self.end = time.perf_counter() + seconds
        self.side = 32 if quick else 224
        self.batches = (1, 2) if quick else (1, 8, 32)
        self.solver = Consensus(steps=1, least=2) if quick else Consensus()
        self._networks: dict[tuple[str, str], Network] = {}

    def left(self) -> float:
        return self.end - time.perf_counter()

    def networks(self) -> list[str]:
        return list(tiny_networks() if self.quick else NETWORKS)

    def load(self, name: str, precision: str = "float32", device: object = None) -> Network:
        key = name, str(self.device if device is None else device)
        if key not in self._networks:
            self._networks.clear()  # one at a time
            self._networks[key] = self._load(*key)
        return replace(self._networks[key], precision=precision)

    def _load(self, name: str, device: str) -> Network:
        if not self.quick:
            return load(NETWORKS[name], "random", device)
        torch.manual_seed(0)
        return Network(tiny_networks()[name]().eval(), name=name, mirror=True).to(device)

    def inputs(self, count: int) -> Tensor:
        """Return images (N, 3, side, side): smooth colours with some noise, normalised."""
        generator = torch.Generator().manual_seed(0)
        small = torch.rand(count, 3, 7, 7, generator=generator)
        smooth = nn.functional.interpolate(small, size=(self.side, self.side), mode="bilinear")
        return (4 * (smooth - 0.5) + 0.3 * torch.randn(smooth.shape, generator=generator)).clamp(-2, 2)

    def explain(self, network: Network, x: Tensor, solver: Consensus | None = None) -> Any:
        return explain(network, x, areas=AREAS, solver=solver or self.solver, progress=False)

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def measure_seconds(self, function: Callable[[], object]) -> float:
        self.wait()
        start = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - start


@contextmanager
def recorded_passes(model: nn.Module) -> Iterator[list[tuple[int, bool]]]:
    """Collect the rows of each evaluation of a model, and whether it had a gradient."""
    passes: list[tuple[int, bool]] = []

    def record(_: nn.Module, args: tuple[Any, ...]) -> None:
        passes.append((len(args[0]), torch.is_grad_enabled() and args[0].requires_grad))

    handle = model.register_forward_pre_hook(record)
    try:
        yield passes
    finally:
        handle.remove()


def measure_passes(bench: Bench, network: Network, x: Tensor, passes: list[tuple[int, bool]]) -> float:
    """Return the seconds of the network's own passes: of the same rows in the same order, and nothing else."""
    with network.frozen() as run:
        run.accelerate(x)
        rows = x[:1].expand(max(count for count, _ in passes), *x.shape[1:]).contiguous()
        leaf = rows.clone().requires_grad_()

        def repeat() -> None:
            for count, has_gradient in passes:
                if has_gradient:
                    torch.autograd.grad(run(leaf[:count]).sum(), leaf)
                else:
                    with torch.no_grad():
                        run(rows[:count])

        return bench.measure_seconds(repeat)


def measure_speed(bench: Bench, name: str, batch: int, precision: str) -> dict[str, Any]:
    network, x = bench.load(name, precision), bench.inputs(batch).to(bench.device)
    warm_up = bench.solver if bench.quick else Consensus(steps=1, least=2)
    bench.explain(network, x, warm_up)
    if bench.is_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    seconds = bench.measure_seconds(lambda: bench.explain(network, x))
    peak = torch.cuda.max_memory_allocated(bench.device) if bench.is_gpu else None
    with recorded_passes(network.model) as passes:
        bench.explain(network, x, warm_up)
    per_step = [rows for rows, has_gradient in passes if has_gradient]
    with recorded_passes(network.model) as passes:
        again = bench.measure_seconds(lambda: bench.explain(network, x))
    inside = measure_passes(bench, network, x, passes)
    seconds = min(seconds, again)
    return {
        "network": name,
        "batch": batch,
        "precision": precision,
        "seconds_per_image": seconds / batch,
        "outside_network": 1 - inside / seconds,
        "passes": len(passes),
        "rows_with_gradient": sum(rows for rows, has_gradient in passes if has_gradient),
        "rows_without": sum(rows for rows, has_gradient in passes if not has_gradient),
        "largest_rows": max(per_step, default=0),
        "peak_memory_bytes": peak,
    }


def measure_equality(bench: Bench, name: str) -> dict[str, Any]:
    """Compare the device with the processor, and bfloat16 with float32 on the device."""
    x = bench.inputs(1)
    expected = bench.explain(bench.load(name, device="cpu"), x)
    found = {precision: bench.explain(bench.load(name, precision), x) for precision in PRECISIONS}

    def compare(a: Any, b: Any) -> dict[str, Any]:
        first, second = (cut(result.masks, AREAS) > 0.5 for result in (a, b))
        iou = (first & second).sum((0, 2, 3, 4)) / (first | second).sum((0, 2, 3, 4))
        span = (b.score_full - b.score_blank).abs().clamp_min(1e-12)
        return {
            "mask_iou": [round(value, 4) for value in iou.tolist()],
            "score_full_difference": float((a.score_full - b.score_full).abs().max()),
            "score_difference_of_span": float(((a.scores - b.scores).abs() / span[:, None]).max()),
        }

    return {
        "network": name,
        "float32_to_processor": compare(found["float32"], expected),
        "bfloat16_to_float32": compare(found["bfloat16"], found["float32"]),
    }


class CountOperations(TorchDispatchMode):
    """Counts operations, and values that Python takes from tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        self.values += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def count_launches(function: Callable[[], object]) -> int:
    """Return how many kernels a function launches on a GPU."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        function()
        torch.cuda.synchronize()
    return sum(
        event.count
        for event in profiler.key_averages()
        if event.key.startswith(("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchCooperativeKernel"))
    )


def count_waits(function: Callable[[], object]) -> int:
    """Return how often a function makes the program wait for a GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum(SYNC_WARNING in str(warning.message) for warning in caught)


def measure_steps(bench: Bench, name: str) -> dict[str, Any]:
    """Count operations, launches and waits per step; what does not depend on the number of steps cancels out."""
    network, x = bench.load(name), bench.inputs(1).to(bench.device)
    steps = 8
    few, many = (Consensus(steps=count, least=1) for count in (steps, 2 * steps))
    n_more = steps

    def count(solver: Consensus) -> dict[str, float]:
        with CountOperations() as counted:
            bench.explain(network, x, solver)
        counts = {"operations": counted.operations, "values_to_python": counted.values}
        if bench.is_gpu:
            counts["launches"] = count_launches(lambda: bench.explain(network, x, solver))
            counts["waits"] = count_waits(lambda: bench.explain(network, x, solver))
        return counts

    bench.explain(network, x, few)
    before, after = count(few), count(many)
    with CountOperations() as alone, network.frozen() as run:
        run.accelerate(x)
        leaf = x.expand(max(few.columns, len(AREAS)), *x.shape[1:]).clone().requires_grad_()
        start = alone.operations
        torch.autograd.grad(run(leaf).sum(), leaf)
        own = alone.operations - start
    return {
        "network": name,
        **{f"{key}_per_step": (after[key] - before[key]) / n_more for key in before},
        "operations_of_the_network": own,
    }


def measure_data_set(bench: Bench, name: str) -> dict[str, Any]:
    """Explain images from PNG files in memory, in batches."""
    count, batch = (4, 2) if bench.quick else (256, 32)
    network = bench.load(name, "auto")
    draw = np.random.default_rng(0)
    files = []
    for _ in range(count):
        small = Image.fromarray(draw.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((bench.side + 32, bench.side + 32), Image.Resampling.BICUBIC).save(file, "PNG")
        files.append(file.getvalue())

    def run() -> None:
        for first in range(0, count, batch):
            images = [Image.open(io.BytesIO(data)).convert("RGB") for data in files[first : first + batch]]
            bench.explain(network, torch.cat([network.prepare(image) for image in images]))

    seconds = bench.measure_seconds(run)
    return {"network": name, "images": count, "batch": batch, "seconds": seconds, "images_per_second": count / seconds}


def describe_machine(bench: Bench) -> dict[str, Any]:
    return {
        "device": describe_device(bench.device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "threads": torch.get_num_threads(),
        "quick": bench.quick,
    }


def measure_all(bench: Bench) -> dict[str, Any]:
    """Run the measurements, the most important first; what is left when time is up is listed as skipped."""
    names, skipped, failed = bench.networks(), list[str](), dict[str, str]()
    result: dict[str, Any] = {"machine": describe_machine(bench), "speed": []}

    def attempt(title: str, least: float, function: Callable[[], Any]) -> Any:
        if bench.left() < least:
            skipped.append(title)
            return None
        print(f"{title} ...", file=sys.stderr, flush=True)
        try:
            return function()
        except Exception as error:  # one measurement must not end the others
            failed[title] = f"{type(error).__name__}: {error}"
            return None

    first = names[0]
    embedded = "embedded" if "embedded" in names else first
    result["equality"] = attempt("equality", 30, lambda: measure_equality(bench, embedded))
    result["steps"] = attempt("steps", 20, lambda: measure_steps(bench, first))
    for name in names:
        for batch in bench.batches:
            for precision in PRECISIONS:
                row = attempt(
                    f"{name}, batch {batch}, {precision}",
                    5,
                    lambda name=name, batch=batch, precision=precision: measure_speed(bench, name, batch, precision),
                )
                result["speed"] += [row] if row else []
        if name == first:
            result["data_set"] = attempt("data set", 20, lambda: measure_data_set(bench, embedded))
    result["goals"] = judge_goals(result["speed"])
    return {**result, "skipped": skipped, "failed": failed}


def judge_goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how the measured times of ResNet-50 compare with the goals."""
    return [
        {
            "batch": row["batch"],
            "precision": row["precision"],
            "seconds_per_image": row["seconds_per_image"],
            "goal": GOALS[row["batch"]],
            "is_met": row["seconds_per_image"] < GOALS[row["batch"]],
            "is_outside_met": row["outside_network"] < GOAL_OUTSIDE,
        }
        for row in rows
        if row["network"] == "ResNet-50" and row["batch"] in GOALS
    ]


def print_table(result: dict[str, Any]) -> None:
    print(f"on {result['machine']['device']}, torch {result['machine']['torch']}")
    print(f"{'network':<14}{'batch':>6}  {'precision':<10}{'s/image':>9}{'outside':>9}{'peak MiB':>10}")
    for row in result["speed"]:
        peak = "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 2**20:.0f}"
        print(
            f"{row['network']:<14}{row['batch']:>6}  {row['precision']:<10}{row['seconds_per_image']:>9.4f}"
            f"{row['outside_network']:>9.1%}{peak:>10}"
        )
    for name in ("equality", "steps", "data_set", "goals", "skipped", "failed"):
        print(f"{name}: {json.dumps(result.get(name))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps or xpu")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to check the script")
    parser.add_argument("--seconds", type=float, default=185, help="no measurement is begun after this time")
    parser.add_argument("--out", type=Path, help="file to which the JSON object is added as a line")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="extremal|torch")
    result = measure_all(Bench(options.device, options.quick, options.seconds))
    print_table(result)
    text = json.dumps(result)
    if options.out is not None:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
