"""Networks served by the app: chosen when it is started, never by visitors of the page."""

import copy
import math
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.networks import zoo
from extremal.networks.devices import AUTO, DeviceLike
from extremal.networks.inputs import prepare
from extremal.networks.layers import Layer, layers
from extremal.networks.network import Network
from extremal.networks.outputs import read_logits
from extremal.networks.reading import Head, guess_head, is_multi_label, read_probabilities
from extremal.networks.resolve import load_network
from extremal.networks.stacks.readers import PreparedStack
from extremal.networks.vision_language import PromptedInputs
from extremal.scores.answer import Answer
from extremal.scores.class_group import ClassGroup, find_classes

N_TOP_CLASSES = 5  # listed for each image

Upload = Image.Image | PreparedStack | Tensor  # an image, a clip or a volume, or a sound (1, C, T)


@dataclass(frozen=True)
class ClassProbability:
    """One of the most probable classes of an image."""

    index: int
    label: str
    probability: float | None  # None if the network has a single output


@dataclass(eq=False)
class ServedNetwork:
    """A network that the app offers.

    Attributes:
        name: name by which it is chosen.
        network: network of the job that is running.
        preview_network: copy with the same weights, for classifying images while a job is running.
        layers: those whose channels can be explained, by name.
    """

    name: str
    network: Network
    preview_network: Network = field(init=False)
    layers: dict[str, Layer] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _head: Head | None = None  # kind of its outputs; None: not yet known

    def __post_init__(self) -> None:
        model = self.network.model.eval().requires_grad_(False)  # owned by the app, so it need not be restored
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.preview_network = copy.copy(self.network)
        self.preview_network.model = copy.deepcopy(model, shared)
        found = layers(self.preview_network) if self.kind is None else []  # of networks on pictures only
        self.layers = {layer.name: layer for layer in found if layer.can_split_cleanly}

    @property
    def kind(self) -> str | None:
        """Kind of files that the network takes: clip, volume or sound; None: pictures."""
        return None if self.network.reader is None else self.network.reader.kind

    @property
    def takes_prompt(self) -> bool:
        """Whether it is a model of images and text, which is asked for an answer in place of a class."""
        return isinstance(self.network.inputs, PromptedInputs)

    def top_classes(self, image: Upload) -> tuple[ClassProbability, ...]:
        """Return the most probable classes of an image, a clip, a volume or a sound.

        Raises:
            ExtremalValueError: the network's scores are not finite.
        """
        with self._lock, torch.inference_mode():
            x = prepare(self.preview_network, image)
            scores = self._read_scores(x)[0]
            head = self._guess_head(x)
        if bool(scores.isnan().any()) or not math.isfinite(float(scores.max())):
            raise ExtremalValueError(f"a network must return finite scores, {self.name} did not; check its weights")
        probabilities = read_probabilities(scores[None], head)[0].tolist() if len(scores) > 1 else [None]
        top = scores.topk(min(N_TOP_CLASSES, int(scores.isfinite().sum()))).indices.tolist()
        return tuple(ClassProbability(index, self.network.label(index), probabilities[index]) for index in top)

    def _read_scores(self, x: Tensor) -> Tensor:
        return read_logits(self.preview_network.model(x), self.name, self.network.labels)

    def _guess_head(self, x: Tensor) -> Head:
        """Guess from the outputs for inputs like x (1, C, *S) that show nothing what kind of outputs they are."""
        if self._head is None:
            empty = torch.cat([self._read_scores(torch.full_like(x, value)) for value in (0.0, 1.0)])
            self._head = guess_head(empty, empty, is_multi_label(self.network))
        return self._head

    def settle_answer(self, image: Upload, prompt: str, text: str) -> Answer:
        """Return the query about an answer to a prompt: a given text, or what the model says about an image.

        Raises:
            ExtremalValueError: the model does not know the words, or has nothing to say.
        """
        return Answer(text or None, prompt).settle_one(self.network, prepare(self.network, image))

    def label(self, target: int | str) -> str:
        """Return the name of a class given by its index, or of a group of classes given by its name."""
        return self.network.label(target if isinstance(target, int) else find_classes(self.network, target))

    def matching_class(self, other: "ServedNetwork", target: int | str) -> int | ClassGroup:
        """Return the class of this network that has the name of a class of another network, or the group of a name.

        Args:
            other: a served network.
            target: index of its class, or name of its group.

        Raises:
            ExtremalValueError: no class or group has this name.
        """
        if isinstance(target, str):
            found = find_classes(self.network, target)
            return found if isinstance(found, int) else ClassGroup(found)
        return self._matching_index(other, target)

    def _matching_index(self, other: "ServedNetwork", index: int) -> int:
        if self is other or self.network.labels == other.network.labels:
            return index
        label = other.network.label(index)
        if _synonyms(label) & _synonyms(self.network.label(index)):  # two lists of the same classes, e.g. ImageNet's
            return index
        for name in (label, *_synonyms(label)):
            with suppress(ExtremalValueError):
                return self.network.index(name)
        return self.network.index(label)


def _synonyms(label: str) -> set[str]:
    """Return the names that a label lists, separated by commas."""
    return {name.strip().lower() for name in label.split(",")}


def load_networks(names: Sequence[str], device: DeviceLike = AUTO) -> dict[str, ServedNetwork]:
    """Load networks by name, each with its own weights or with those of a file.

    Args:
        names: as `zoo.load` takes them, or NAME=FILE, or NAME=random; if empty, the embedded network is loaded.
        device: of the networks.

    Raises:
        ExtremalValueError: a name is repeated, or a network cannot be loaded or has no classes.
    """
    networks: dict[str, ServedNetwork] = {}
    for name in names or (zoo.EMBEDDED_NAME,):
        if name in networks:
            raise ExtremalValueError(f"networks must be distinct, got {name!r} twice; leave one of them out")
        family, _, weights = name.partition("=")
        loaded = load_network(family, weights, device)
        network = ServedNetwork(name, loaded)
        if not network.takes_prompt and network.kind is None:
            network.top_classes(Image.new("RGB", (256, 256), "grey"))  # fail at the start, not at the first visit
        networks[name] = network
    prompted = [name for name, network in networks.items() if network.takes_prompt]
    if prompted and len(networks) > 1:
        raise ExtremalValueError(
            f"a model of images and text must be served alone, got {prompted[0]!r} and {len(networks) - 1} more; start "
            "one app for each"
        )
    if len({network.kind for network in networks.values()}) > 1:
        kinds = ", ".join(f"{name} {network.kind or 'picture'}s" for name, network in networks.items())
        raise ExtremalValueError(
            f"the networks of an app must take the same kind of files, got {kinds}; start an app for each"
        )
    return networks
