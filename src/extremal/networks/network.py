"""A network with its preprocessing and class names, and a `with` that leaves it exactly as it was."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.acceleration import ACCELERATIONS, Acceleration, accelerated
from extremal.networks.counting import EvaluationCount, EvaluationCounter
from extremal.networks.memory import activation_bytes, default_budget
from extremal.networks.outputs import has_bfloat16, to_float32, to_channels_last, read_logits

Preprocess = Callable[[Image.Image], Tensor]  # RGB picture -> (C, H, W)

PRECISIONS = ("float32", "bfloat16", "auto")


@dataclass(eq=False)
class Network:
    """Any `nn.Module` with what is needed to ask it about an image.

    >>> toy = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)), labels=("cat", "dog"))
    >>> with toy.frozen() as run:
    ...     output = run(torch.zeros(1, 3, 2, 2))
    >>> output.shape, run.forwards
    (torch.Size([1, 2]), 1)
    """

    model: nn.Module
    preprocess: Preprocess | None = None  # RGB picture -> (C, H, W); None: pixel values / 255
    labels: Sequence[str] = ()  # class names in the order of the outputs; may be empty
    name: str = ""  # as `zoo.load` takes it, or the class of the module
    mean: Sequence[float] = ()  # per-channel normalisation, only to show the input as a picture again
    std: Sequence[float] = ()
    mirror: bool = False  # the mirrored input asks the same question: solvers may flip it (paper: jitter)
    spacing: Sequence[float] = ()  # of places along each dimension: (2, 1, 1) for thick slices, frames; empty: equal
    accelerate: Acceleration = "portable"  # during a run: portable, onednn (convolutions on a CPU as well), or off
    precision: str = "float32"  # float32, bfloat16 (autocast), or auto: bfloat16 where the hardware has it
    memory: float | None = None  # GiB for what the network holds for its gradient; None: by the device

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise ExtremalTypeError(f"a network must be a torch.nn.Module, got {type(self.model).__name__}")
        if self.accelerate not in ACCELERATIONS:
            raise ExtremalValueError(f"accelerate must be one of {', '.join(ACCELERATIONS)}, got {self.accelerate!r}")
        if self.precision not in PRECISIONS:
            raise ExtremalValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.memory is not None and not self.memory > 0:
            raise ExtremalValueError(f"memory must be above 0 GiB, got {self.memory:g}; e.g. 2")
        self.name = self.name or type(self.model).__name__

    @property
    def anchor(self) -> Tensor:
        """A floating tensor whose device and dtype the network's inputs follow."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return next((t for t in tensors if t.is_floating_point()), torch.empty(0))

    def devices(self) -> list[str]:
        """On which devices the weights lie; `meta` where they have no values."""
        return sorted({str(tensor.device) for tensor in (*self.model.parameters(), *self.model.buffers())})

    def count_nonfinite_weights(self) -> dict[str, int]:
        """How many values of each weight are not finite, where any are.

        Buffers may be infinite, as those are that hide tokens from each other.
        """
        parameters = {name: (~torch.isfinite(tensor)).sum() for name, tensor in self.model.named_parameters()}
        buffers = {name: torch.isnan(tensor).sum() for name, tensor in self.model.named_buffers()}
        return {name: int(count) for name, count in (parameters | buffers).items() if count}

    def check_device(self) -> None:
        """Raise where the weights are not all on one device, or have no values."""
        devices = self.devices()
        if len(devices) > 1 or "meta" in devices:
            raise ExtremalValueError(
                f"a network must lie on one device with its values, {self.name} lies on {', '.join(devices)}; "
                "move it with .to(device), or load its weights"
            )

    def is_mirror_invariant(self, x: Tensor) -> bool:
        """Whether inputs (N, C, *S) may be mirrored and ask the same question."""
        return self.mirror and x.ndim == 4

    def prepare(self, image: Image.Image) -> Tensor:
        """One RGB picture as the network takes it: (1, C, H, W)."""
        if self.preprocess is None:
            pixels = torch.from_numpy(np.array(image)).movedim(-1, 0)
            return (pixels.to(torch.get_default_dtype()) / 255)[None]
        return self.preprocess(image)[None]

    def to_images(self, x: Tensor) -> Tensor | None:
        """The prepared input (N, C, H, W) as pictures (N, H, W, 3) uint8; None where it is not a picture."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            return None
        x = x.detach().cpu().float()
        if self.mean and self.std:
            x = x * torch.tensor(self.std).view(-1, 1, 1) + torch.tensor(self.mean).view(-1, 1, 1)
        elif x.min() < 0 or x.max() > 1:
            low, high = x.amin((1, 2, 3), True), x.amax((1, 2, 3), True)
            x = (x - low) / (high - low).clamp_min(1e-12)
        return (x.clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1).movedim(1, -1).contiguous()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pictures (N, C, H, W) in [0, 1] as the network takes them: normalised, where it tells how."""
        if not (self.mean and self.std):
            return pixels
        mean, std = (pixels.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def example_input(self, side: int = 256) -> Tensor:
        """What the network makes of a grey picture with noise, side × side px: an input where none is given."""
        noise = np.random.default_rng(0).integers(96, 160, (side, side, 3)).astype(np.uint8)
        return self.prepare(Image.fromarray(noise)).to(self.anchor)

    def to_images_or_empty(self, x: Tensor) -> Tensor:
        """As `picture`, or (N, 0, 0, 3) where the inputs are not pictures."""
        found = self.to_images(x)
        return torch.zeros(len(x), 0, 0, 3, dtype=torch.uint8) if found is None else found

    def label(self, target: int) -> str:
        """The name of a class, or its number where the network has no names."""
        return self.labels[target] if target < len(self.labels) else f"class {target}"

    def index(self, name: str) -> int:
        """The class of this name (or of one of its comma-separated synonyms), whatever the case."""
        wanted = name.strip().lower()
        if not self.labels:
            raise ExtremalValueError(f"{self.name} has no class names, got {name!r}; give the class as an index")
        whole: dict[str, list[int]] = {}
        synonyms: dict[str, list[int]] = {}
        for index, label in enumerate(self.labels):
            whole.setdefault(label.strip().lower(), []).append(index)
            for synonym in {part.strip().lower() for part in label.split(",")}:
                synonyms.setdefault(synonym, []).append(index)
        found = whole.get(wanted) or synonyms.get(wanted, [])
        if len(found) > 1:
            which = ", ".join(f"{index} ({self.labels[index]})" for index in found)
            raise ExtremalValueError(
                f"target must name one class of {self.name}, got {name!r}, which is {which}; give the class as an index"
            )
        if not found:
            known = whole | synonyms
            near = get_close_matches(wanted, known, n=3, cutoff=0.5) or [s for s in known if wanted in s][:3]
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise ExtremalValueError(f"target must be a class of {self.name}, got {name!r}{hint}")
        return found[0]

    def weight_hash(self) -> str:
        """SHA-256 over names, shapes and bytes of all parameters and buffers."""
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @contextmanager
    def frozen(self, seed: int = 0) -> Iterator["Run"]:
        """Evaluation mode, no parameter gradients, seeded; on exit everything is as it was.

        Restored also after an exception or an interrupt: training flags, `requires_grad`, buffers, and the random
        state of torch, numpy and Python.
        """
        if self.anchor.is_inference():
            raise ExtremalValueError(
                f"a network must be built outside torch.inference_mode, {self.name}'s weights were made inside it, "
                "where no gradient passes; build or load it outside"
            )
        modules = [(module, module.training) for module in self.model.modules()]
        parameters = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        buffers = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]
        states = random.getstate(), np.random.get_state()
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
        # inference_mode(False): a caller's inference mode would cut the gradients of the mask
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
            undo = ExitStack()
            try:
                torch.manual_seed(seed)
                self.model.eval()
                self.model.requires_grad_(False)
                yield Run(self, undo)
            finally:
                undo.close()
                for module, training in modules:
                    module.training = training
                for parameter, needed in parameters:
                    parameter.requires_grad_(needed)
                for buffer, value in buffers:
                    if not torch.equal(buffer, value):
                        buffer.detach().copy_(value)
                random.setstate(states[0])
                np.random.set_state(states[1])


class Evaluator(Protocol):
    """A frozen network, whole or from a layer on."""

    @property
    def network(self) -> "Network":
        """The network."""
        ...

    @property
    def undo(self) -> ExitStack:
        """Closed when the network is no longer frozen."""
        ...

    def evaluate(self, inputs: Tensor, images: Tensor, /) -> object:
        """The output as the network gives it, counted; `images` (B,) tells of which input each row is."""
        ...

    def counted(self) -> AbstractContextManager[EvaluationCount]:
        """Count the evaluations made inside the `with`."""
        ...


@dataclass(eq=False)
class Run(EvaluationCounter):
    """The frozen network in use: x (B, C, *S) -> output (B, classes), counting its evaluations."""

    network: Network
    undo: ExitStack  # closed when the network is no longer frozen
    _autocast: bool = field(default=False, init=False)

    def accelerate(self, x: Tensor, keep: Sequence[str] = ()) -> None:
        """Accelerate the network for inputs like x (N, C, *S) until it is no longer frozen, and set its precision.

        Costs up to three evaluations of the first input, for checks; with `accelerate="onednn"` up to eight, four of
        them for the gradient of two rows with and without oneDNN. All count as evaluations without gradient.

        Args:
            x: inputs; the first serves as the example.
            keep: names of modules that must give the output and the gradient they give without acceleration.
        """
        network, example = self.network, x[:1]
        self._autocast = network.precision == "bfloat16" or (network.precision == "auto" and has_bfloat16(x.device))
        self.undo.enter_context(
            accelerated(network.model, self._evaluate_for_setup, example, keep, level=network.accelerate)
        )

    def max_batch_size(self, x: Tensor) -> int:
        """Return how many rows like those of x (N, C, *S) fit into memory at once; costs one evaluation."""
        example = x[:1]
        self.count_evaluations(1, with_gradient=False)
        return self.fit_batch_size(lambda: self._evaluate_uncounted(example.detach().requires_grad_()), x.device)

    def _evaluate_for_setup(self, x: Tensor) -> object:
        self.count_evaluations(len(x), with_gradient=False)
        output: object = self.network.model(x)
        return output

    def fit_batch_size(self, evaluate: Callable[[], object], device: torch.device) -> int:
        """How many rows the memory takes at once, at least 1, where `evaluate` is one row with its gradient."""
        network = self.network
        budget = default_budget(device) if network.memory is None else network.memory * 2**30
        held = activation_bytes(evaluate, (*network.model.parameters(), *network.model.buffers()))
        return max(1, int(budget // max(1, held)))

    def __call__(self, x: Tensor, images: Tensor | None = None) -> Tensor:
        """The scores (B, classes); `images` tells of which input each row is, which here makes no difference."""
        return read_logits(self.evaluate(x, images), self.network.name)

    def evaluate(self, x: Tensor, images: Tensor | None = None) -> object:
        """The output as the network gives it, for scores that read it themselves."""
        self.count_evaluations(len(x), with_gradient=x.requires_grad)
        return self._evaluate_uncounted(x)

    def _evaluate_uncounted(self, x: Tensor) -> object:
        """The model's output, uncounted."""
        if x.ndim == 4:  # convolutions run faster so, and the network's own tensors stay as they are
            x = to_channels_last(x)
        if not self._autocast:
            output: object = self.network.model(x)
            return output
        with torch.autocast(x.device.type, torch.bfloat16):
            output = self.network.model(x)
        return to_float32(output)
