"""The networks that the app offers: chosen by whoever starts it, never by whoever looks at it."""

import copy
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from PIL import Image

from extremal.errors import ExtremalValueError
from extremal.networks import zoo
from extremal.networks.inputs import prepare
from extremal.networks.layers import layers
from extremal.networks.network import Network
from extremal.networks.outputs import logits
from extremal.networks.resolve import loaded

TOP = 5  # classes told of a photograph


@dataclass(frozen=True)
class Glance:
    """One of the classes that a network holds most probable."""

    index: int
    name: str
    probability: float | None  # None where the network has one output only


@dataclass(eq=False)
class Offered:
    """A network that the app offers.

    Attributes:
        name: by which it is chosen.
        network: for the one job that runs.
        glancing: the same weights, for a look at a photograph while a job runs.
    """

    name: str
    network: Network
    glancing: Network = field(init=False)
    layers: tuple[str, ...] = ()  # at which it can be split
    _looking: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        model = self.network.model.eval().requires_grad_(False)  # the app's own: nobody gets it back
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.glancing = copy.copy(self.network)
        self.glancing.model = copy.deepcopy(model, shared)
        self.layers = tuple(layer.name for layer in layers(self.glancing) if layer.clean)

    def glance(self, picture: Image.Image) -> tuple[Glance, ...]:
        """The most probable classes of a photograph.

        Raises:
            ExtremalValueError: the network's scores of it are not finite.
        """
        with self._looking, torch.inference_mode():
            x = prepare(self.glancing, picture)
            (scores,) = logits(self.glancing.model(x), self.name)
        if not bool(scores.isfinite().all()):
            raise ExtremalValueError(f"a network must return finite scores, {self.name} did not; check its weights")
        shares = scores.softmax(0).tolist() if len(scores) > 1 else [None]
        best = scores.topk(min(TOP, len(scores))).indices.tolist()
        return tuple(Glance(index, self.network.label(index), shares[index]) for index in best)

    def class_like(self, other: "Offered", index: int) -> int:
        """The class of this network that bears the name of a class of another.

        Raises:
            ExtremalValueError: there is none.
        """
        if self is other or self.network.labels == other.network.labels:
            return index
        label = other.network.label(index)
        if _names(label) & _names(self.network.label(index)):  # two lists of the same classes, as ImageNet's are
            return index
        for name in (label, *_names(label)):
            with suppress(ExtremalValueError):
                return self.network.index(name)
        return self.network.index(label)


def _names(label: str) -> set[str]:
    """The names of a class, which stand one after the other in its label."""
    return {name.strip().lower() for name in label.split(",")}


def offered(names: Sequence[str]) -> dict[str, Offered]:
    """The networks of these names, each with its own weights or, after an equals sign, those of a file.

    Args:
        names: as `zoo.load` takes them, or NAME=FILE, or NAME=random.

    Raises:
        ExtremalValueError: a name stands twice, or cannot be loaded, or stands for a network without classes.
    """
    found: dict[str, Offered] = {}
    for name in names or (zoo.EMBEDDED,):
        if name in found:
            raise ExtremalValueError(f"networks must be different ones, got {name!r} twice; leave one of them out")
        family, _, weights = name.partition("=")
        one = Offered(name, loaded(family, weights))
        one.glance(Image.new("RGB", (256, 256), "grey"))  # told now, not to the first who comes
        found[name] = one
    return found
