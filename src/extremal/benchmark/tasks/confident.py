"""Images that a network classifies with confidence, on which grid pointing, faithfulness and sanity are measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from extremal.benchmark.data import DataSet
from extremal.benchmark.tasks.option_checks import check_numbers
from extremal.benchmark.tasks.task import Item, OnProgress, network_settings, prepare_image
from extremal.errors import ExtremalError, ExtremalValueError
from extremal.file_checks import describe_error, quote
from extremal.jobs.store import Store
from extremal.json_files import parse_json
from extremal.networks.network import Network

MIN_CONFIDENCE = 0.9  # probability of the top class (Böhle et al., 2021, use correct and confident images)
CONFIDENT_FILE = "confident.json"


@dataclass(frozen=True)
class NamedImage:
    """An image and its top class."""

    key: str
    target: int
    label: str


@dataclass(frozen=True)
class ConfidentImages:
    """The confident images of a data set, in the order of their keys."""

    images: tuple[NamedImage, ...]
    unreadable: Mapping[str, str]  # key -> why the image cannot be read and has no class


@dataclass(eq=False)
class ConfidentImageTask:
    """Base of tasks that ask about the top class of each confident image.

    Args:
        network: classifies the images, and is then asked about them.
        data: any images; labels are not used.
        confidence: minimum probability of an image's top class.
        seed: of random choices.
    """

    network: Network
    data: DataSet
    confidence: float = MIN_CONFIDENCE
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the options, and begin without images; `plan` finds them."""
        check_numbers(confidence=self.confidence)
        self._images: dict[str, NamedImage] = {}
        self._unreadable: Mapping[str, str] = {}

    def settings(self) -> dict[str, Any]:
        """Return data, network, confidence and seed."""
        return {
            **network_settings(self.network),
            "data": self.data.settings(),
            "confidence": self.confidence,
            "seed": self.seed,
        }

    def plan(self, store: Store, on_progress: OnProgress) -> Sequence[str]:
        """Return the keys of the confident images, then those of images that cannot be read."""
        found = find_confident(self.network, self.data, self.confidence, store, on_progress)
        self._images, self._unreadable = {image.key: image for image in found.images}, found.unreadable
        return (*self._images, *self._unreadable)

    def items(self, key: str) -> list[Item]:
        """Return the one item of an image: its top class."""
        if key in self._unreadable:
            return [Item(key, "", error=self._unreadable[key])]
        image = self._images[key]
        try:
            x = prepare_image(self.network, self.data.sample(key).image)
        except ExtremalError as error:
            return [Item(key, image.label, image.target, error=str(error))]
        return [Item(key, image.label, image.target, x)]


def find_confident(
    network: Network,
    data: DataSet,
    min_probability: float,
    store: Store,
    on_progress: OnProgress,
) -> ConfidentImages:
    """Return the images of a data set whose top class has at least this probability.

    They are found once per run, and stored next to its parts.

    Raises:
        ExtremalValueError: there is no such image, or the network has one output only.
    """
    text = store.read_text(CONFIDENT_FILE)
    if text is None:
        found = _classify(network, data, min_probability, on_progress)
        store.write_text(CONFIDENT_FILE, json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n")
    else:
        try:
            record = parse_json(text)
            images = tuple(NamedImage(**image) for image in record["images"])
            found = ConfidentImages(images, dict(record["unreadable"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ExtremalValueError(
                f"{CONFIDENT_FILE} of a run must be as it was written, got {quote(store.folder / CONFIDENT_FILE)}: "
                f"{describe_error(error)}; remove it"
            ) from None
    if not found.images:
        unreadable = f", of which {len(found.unreadable)} cannot be read" if found.unreadable else ""
        raise ExtremalValueError(
            f"images must have a top class with a probability of at least {min_probability:g}, {network.name} finds "
            f"none among {len(data.keys())}{unreadable}; lower --confidence or use images that it knows"
        )
    return found


def _classify(network: Network, data: DataSet, min_probability: float, on_progress: OnProgress) -> ConfidentImages:
    """Classify all images, and return those of sufficient probability."""
    images, unreadable = list[NamedImage](), dict[str, str]()
    keys = data.keys()
    with network.frozen() as run, torch.no_grad():
        for index, key in enumerate(keys):
            on_progress("confidence", index, len(keys))
            try:
                x = prepare_image(network, data.sample(key).image)
            except ExtremalError as error:
                unreadable[key] = str(error)
                continue
            output = run(x)
            if output.shape[1] < 2:
                raise ExtremalValueError(
                    f"a network must distinguish two classes or more to be confident of one, {network.name} has "
                    f"{output.shape[1]} output; wrap it so that it has an output for each class"
                )
            probability, top = output.softmax(1)[0].max(0)
            if float(probability) >= min_probability:
                images.append(NamedImage(key, int(top), network.label(int(top))))
    return ConfidentImages(tuple(images), unreadable)
