"""A network with its preprocessing and class names, frozen inside a `with` and restored after it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.file_checks import name_error
from extremal.masking.grid import read_spacing
from extremal.networks.acceleration import ACCELERATIONS, Acceleration
from extremal.networks.callables import as_module, name_model
from extremal.networks.calls import MakeInputs
from extremal.networks.class_groups import describe_group, find_named_groups
from extremal.networks.class_names import find_class, read_labels
from extremal.networks.compiled import uncompiled
from extremal.networks.devices import DeviceLike, check_single_device, find_device, move_module
from extremal.networks.image_bounds import check_aspect
from extremal.networks.module_state import check_weights, evaluation_state
from extremal.networks.pixels import to_pixels
from extremal.networks.randomness import seeded
from extremal.networks.run import Run
from extremal.networks.sounds.reader import SoundReader
from extremal.networks.stacks.readers import ClipReader, StackReader, VolumeReader
from extremal.networks.torch_state import standard_modes
from extremal.networks.turns import exclusive
from extremal.networks.weight_hash import hash_weights, to_plain
from extremal.number_checks import read_numbers, validate_positive

Preprocess = Callable[[Image.Image], Tensor]  # RGB image -> (C, H, W)

PRECISIONS = ("float32", "bfloat16", "auto")


@dataclass(eq=False)
class Network:
    """Any `nn.Module`, or a function (B, C, *S) -> (B, classes), with everything needed to evaluate it on an image.

    Of a compiled module, the module that it was compiled from is used. Modules that a function uses are found if it
    captures or names them, and are frozen with it.

    >>> toy = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)), labels=("cat", "dog"))
    >>> with toy.frozen() as run:
    ...     output = run(torch.zeros(1, 3, 2, 2))
    >>> output.shape, run.forwards
    (torch.Size([1, 2]), 1)
    """

    model: nn.Module  # a function passed here becomes a module
    preprocess: Preprocess | None = None  # RGB image -> (C, H, W); None: pixel values / 255
    labels: Sequence[str] = ()  # class names in the order of the outputs; may be empty
    name: str = ""  # as `zoo.load` takes it, or the class of the module
    mean: Sequence[float] = ()  # per-channel normalisation, used to convert inputs to images and back
    std: Sequence[float] = ()
    mirror: bool = False  # a mirrored image means the same: solvers may mirror inputs (paper: jitter)
    spacing: Sequence[float] = ()  # of places along each dimension, e.g. (2, 1, 1) for thick slices; empty: equal
    accelerate: Acceleration = "portable"  # during a run: portable, onednn (convolutions on a CPU as well), or off
    precision: str = "float32"  # float32, bfloat16 (autocast), or auto: bfloat16 if the hardware supports it
    memory: float | None = None  # GiB for the tensors that a gradient needs; None: depends on the device
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)  # names of groups of classes: their indices
    inputs: MakeInputs | None = None  # x (B, C, *S) -> a tuple of the model's arguments, or a dict by name; None: x
    gradient: bool = True  # False: a black box, never asked for a gradient (`solver="search"`)
    check_output: Callable[[Tensor, object], None] | None = None  # takes x (B, C, *S) and its output; raises if wrong
    random_weights: bool | None = None  # True: untrained, as they were initialised; False: from a file; None: unknown
    reader: SoundReader | StackReader | None = None  # reads sound, clip or volume files; None: pictures
    source: str = ""  # origin of the weights, with revision and licence, if they are from a hub

    def __post_init__(self) -> None:
        self.model = as_module(self.model)
        self.labels = read_labels(self.labels)
        self.mean, self.std = _read_normalisation(self.mean, self.std)
        self.spacing = read_spacing(self.spacing, "spacing")
        if self.inputs is not None and not callable(self.inputs):
            raise ExtremalTypeError(
                f"inputs must be a function from x (B, C, *S) to the model's arguments, got "
                f"{type(self.inputs).__name__}; e.g. lambda x: {{'image': x}}"
            )
        if self.reader is not None and not isinstance(self.reader, SoundReader | ClipReader | VolumeReader):
            raise ExtremalTypeError(
                f"reader must be a SoundReader, a ClipReader or a VolumeReader, got {type(self.reader).__name__}; e.g. "
                "extremal.ClipReader(frames=16)"
            )
        if self.accelerate not in ACCELERATIONS:
            raise ExtremalValueError(f"accelerate must be one of {', '.join(ACCELERATIONS)}, got {self.accelerate!r}")
        if self.precision not in PRECISIONS:
            raise ExtremalValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.memory is not None:
            self.memory = validate_positive(self.memory, "memory", "it is in GiB, e.g. 2")
        self.name = self.name or name_model(self.model)

    @property
    def _first_weight(self) -> Tensor:
        """The first floating-point parameter or buffer; empty without any."""
        tensors = chain(self.model.parameters(), self.model.buffers())
        return next((t for t in tensors if t.is_floating_point()), torch.empty(0, dtype=torch.float32, device="cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first weight, in which the network is evaluated; float32 if there are no weights."""
        return self._first_weight.dtype

    @property
    def anchor(self) -> Tensor:
        """An empty tensor of the device and dtype that inputs must have: the network's dtype, at least float32."""
        first = self._first_weight
        return torch.empty(0, dtype=torch.promote_types(first.dtype, torch.float32), device=first.device)

    def to(self, device: DeviceLike) -> "Network":
        """Move the module to a device (`auto`: the fastest), as `nn.Module.to` does, and return this network.

        >>> Network(torch.nn.Linear(2, 2)).to("cpu").devices()
        ['cpu']

        Raises:
            ExtremalValueError: this machine has no such device, or the network does not fit on it; it then stays
                where it was.
        """
        move_module(self.model, self.name, find_device(device))
        return self

    def devices(self) -> list[str]:
        """Return the devices of the weights; `meta` for weights without values."""
        return sorted({str(tensor.device) for tensor in (*self.model.parameters(), *self.model.buffers())})

    def count_nonfinite_weights(self) -> dict[str, int]:
        """Count the values of each weight that are not finite; weights without any are omitted.

        Buffers may be infinite, e.g. attention masks.
        """
        parameters = {name: (~to_plain(tensor).isfinite()).sum() for name, tensor in self.model.named_parameters()}
        buffers = {name: to_plain(tensor).isnan().sum() for name, tensor in self.model.named_buffers()}
        return {name: int(count) for name, count in (parameters | buffers).items() if count}

    def check_device(self) -> None:
        """Check that all weights exist, and are on one device with their values.

        Raises:
            ExtremalValueError: they are not.
        """
        with exclusive(self.model, self.name):
            check_weights(self.model, self.name)
            devices = self.devices()
        check_single_device(devices, self.name)

    def is_mirror_invariant(self, x: Tensor) -> bool:
        """Return whether inputs (N, C, *S) mean the same when mirrored."""
        return self.mirror and x.ndim == 4

    def prepare(self, image: Image.Image) -> Tensor:
        """Prepare one RGB image for the network: (1, C, H, W).

        Raises:
            ExtremalValueError, ExtremalTypeError: it is no Pillow image, or so thin that scaling it could take
                gigabytes, the network takes sounds, clips or volumes, or `preprocess` fails or returns no tensor.
        """
        if self.reader is not None and self.preprocess is None:
            raise ExtremalValueError(
                f"{self.name} takes {self.reader.kind}s, got a picture; pass the path of a {self.reader.kind}, or a "
                f"prepared tensor {'(1, C, T)' if isinstance(self.reader, SoundReader) else '(1, C, D, H, W)'}"
            )
        if not isinstance(image, Image.Image):
            raise ExtremalTypeError(
                f"network.prepare takes one Pillow image, got {type(image).__name__}; convert an array with "
                "Image.fromarray, open a file with Image.open"
            )
        if self.preprocess is None:
            return to_pixels(image)[None]
        check_aspect(image)
        try:
            x = self.preprocess(image)
        except ExtremalError:
            raise
        except (Exception, SystemExit) as error:
            raise ExtremalValueError(
                f"preprocess must turn an RGB image into a tensor (C, H, W), that of {self.name} raised "
                f"{name_error(error)}; correct it, or leave the image out"
            ) from error
        if not isinstance(x, Tensor):
            raise ExtremalTypeError(
                f"preprocess must turn an RGB image into a tensor (C, H, W), that of {self.name} returned a "
                f"{type(x).__name__}; end it with torchvision's ToTensor, or torch.from_numpy"
            )
        return x[None]

    def with_spacing(self, spacing: tuple[float, ...]) -> "Network":
        """Return this network for inputs with a spacing, unless it has one of its own; its module is shared.

        >>> Network(torch.nn.Identity()).with_spacing((5.0, 1.0, 1.0)).spacing
        (5.0, 1.0, 1.0)
        """
        return replace(self, spacing=spacing) if spacing and not self.spacing else self

    def to_images(self, x: Tensor) -> Tensor | None:
        """Convert inputs (N, C, H, W) to images (N, H, W, 3), uint8; return None if they are not images."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            return None
        x = x.detach().cpu().float()
        normalisation = self.normalisation(x)
        if normalisation is not None:
            mean, std = normalisation
            x = x * std + mean
        elif x.min() < 0 or x.max() > 1:
            low, high = x.amin((1, 2, 3), True), x.amax((1, 2, 3), True)
            x = (x - low) / (high - low).clamp_min(1e-12)
        return (x.clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1).movedim(1, -1).contiguous()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise values (N, C, H, W) in [0, 1] for the network, if its mean and standard deviation are known."""
        normalisation = self.normalisation(pixels)
        return pixels if normalisation is None else (pixels - normalisation[0]) / normalisation[1]

    def normalisation(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the mean and the standard deviation of each channel (C, *1), or of all (1, *1); None: unknown.

        >>> [values.shape for values in Network(torch.nn.Identity(), mean=(0.5,), std=(0.2,)).normalisation(
        ...     torch.zeros(1, 3, 8, 8))]
        [torch.Size([1, 1, 1]), torch.Size([1, 1, 1])]

        Args:
            x: inputs (N, C, *S).

        Raises:
            ExtremalValueError: the network has them for another number of channels.
        """
        if not self.mean:
            return None
        if len(self.mean) not in (1, x.shape[1]):
            raise ExtremalValueError(
                f"an input must have a channel for each of the {len(self.mean)} values of mean and std, {self.name} "
                f"got {x.shape[1]}; pass an image, or what network.prepare(image) returns, or correct mean and std"
            )
        places = [1] * (x.ndim - 2)
        return x.new_tensor(self.mean).view(-1, *places), x.new_tensor(self.std).view(-1, *places)

    def example_input(self, side: int = 256) -> Tensor:
        """Prepare a grey image with noise, side × side px, as an example input."""
        noise = np.random.default_rng(0).integers(96, 160, (side, side, 3)).astype(np.uint8)
        return self.prepare(Image.fromarray(noise)).to(self.anchor)

    def to_images_or_empty(self, x: Tensor) -> Tensor:
        """Convert inputs to images like `to_images`, or return (N, 0, 0, 3) if they are not images."""
        images = self.to_images(x)
        return torch.zeros(len(x), 0, 0, 3, dtype=torch.uint8) if images is None else images

    @property
    def named_groups(self) -> dict[str, Sequence[int]]:
        """Class indices of the groups with a name: `groups`, and those of ImageNet-1k if it has these classes."""
        return {**find_named_groups(self.labels), **self.groups}

    def label(self, target: int | tuple[int, ...]) -> str:
        """Return the name of a class, or its number if it has none; for a group, its name or those of its classes."""
        if isinstance(target, tuple):
            return describe_group(target, self.labels, self.named_groups)
        return self.labels[target] if target < len(self.labels) else f"class {target}"

    def distinct_label(self, target: int) -> str:
        """Return a name that no other class has: the label, followed by the index if several classes share it."""
        label = self.label(target)
        return label if self._label_counts[label] <= 1 else f"{label} ({target})"

    @cached_property
    def _label_counts(self) -> Counter[str]:
        return Counter(self.labels)

    def index(self, name: str) -> int:
        """Return the class with this name, or with this comma-separated synonym; case is ignored."""
        return find_class(name, self.labels, self.name)

    def weight_hash(self) -> str:
        """Return the SHA-256 of the names, shapes and bytes of all parameters and buffers (`hash_weights`)."""
        with exclusive(self.model, self.name):
            return hash_weights(self.model)

    @contextmanager
    def frozen(self, seed: int = 0) -> Iterator["Run"]:
        """Put the network in evaluation mode without parameter gradients, seeded; on exit everything is restored.

        Training flags, `requires_grad`, buffers, and the random state of torch, numpy and Python are restored, also
        after an exception or an interrupt. Threads that freeze the same network, or networks with a common part, take
        turns. The caller's modes (no_grad, inference mode, autocast, default device) do not apply inside.
        """
        with (
            exclusive(self.model, self.name),
            standard_modes(),
            seeded(seed),
            uncompiled(self.model),
            evaluation_state(self.model, self.name),
            ExitStack() as undo,
        ):
            yield Run(self, undo)


def _read_normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel as numbers; both empty if they are unknown."""
    means, deviations = read_numbers(mean, "mean", "(0.5, 0.5, 0.5)"), read_numbers(std, "std", "(0.2, 0.2, 0.2)")
    if len(means) != len(deviations):
        raise ExtremalValueError(
            f"mean and std must have a value for each channel, got {len(means)} and {len(deviations)}; pass both, or "
            "neither"
        )
    for deviation in deviations:
        validate_positive(deviation, "std", "e.g. (0.2, 0.2, 0.2)")
    return means, deviations
