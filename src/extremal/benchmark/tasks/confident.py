"""Images that a network classifies with confidence, on which grid pointing, faithfulness and sanity are measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from extremal.benchmark.data import DataSet
from extremal.benchmark.tasks.option_checks import check_numbers
from extremal.benchmark.tasks.task import Item, OnProgress, network_settings
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

    def settings(self) -> dict[str, Any]:
        """Return data, network, confidence and seed."""
        return {
            **network_settings(self.network),
            "data": self.data.settings(),
            "confidence": self.confidence,
            "seed": self.seed,
        }

    def plan(self, store: Store, on_progress: OnProgress) -> Sequence[str]:
        """Return the keys of the confident images."""
        found = find_confident(self.network, self.data, self.confidence, store, on_progress)
        self._images = {image.key: image for image in found}
        return tuple(self._images)

    def items(self, key: str) -> list[Item]:
        """Return the one item of an image: its top class."""
        x = self.network.prepare(self.data.sample(key).image).to(self.network.anchor)
        return [Item(key, self._images[key].label, self._images[key].target, x)]


def find_confident(
    network: Network,
    data: DataSet,
    min_probability: float,
    store: Store,
    on_progress: OnProgress,
) -> list[NamedImage]:
    """Return the images of a data set whose top class has at least this probability, in the order of their keys.

    They are found once per run, and stored next to its parts.

    Raises:
        ExtremalValueError: there is no such image, or the network has one output only.
    """
    text = store.read_text(CONFIDENT_FILE)
    if text is None:
        images = _name_images(network, data, min_probability, on_progress)
        records = [vars(image) for image in images]
        store.write_text(CONFIDENT_FILE, json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    else:
        try:
            images = [NamedImage(**record) for record in parse_json(text)]
        except (TypeError, ValueError) as error:
            raise ExtremalValueError(
                f"{CONFIDENT_FILE} of a run must be as it was written, got {quote(store.folder / CONFIDENT_FILE)}: "
                f"{describe_error(error)}; remove it"
            ) from None
    if not images:
        raise ExtremalValueError(
            f"images must have a top class with a probability of at least {min_probability:g}, {network.name} finds "
            f"none among {len(data.keys())}; lower --confidence or use images that it knows"
        )
    return images


def _name_images(network: Network, data: DataSet, min_probability: float, on_progress: OnProgress) -> list[NamedImage]:
    """Classify all images, and return those of sufficient probability."""
    images = []
    keys = data.keys()
    with network.frozen() as run, torch.no_grad():
        for index, key in enumerate(keys):
            on_progress("confidence", index, len(keys))
            try:
                x = network.prepare(data.sample(key).image)
            except ExtremalError:
                continue  # a broken image has no class
            output = run(x.to(network.anchor))
            if output.shape[1] < 2:
                raise ExtremalValueError(
                    f"a network must distinguish two classes or more to be confident of one, {network.name} has "
                    f"{output.shape[1]} output; wrap it so that it has an output for each class"
                )
            probability, top = output.softmax(1)[0].max(0)
            if float(probability) >= min_probability:
                images.append(NamedImage(key, int(top), network.label(int(top))))
    return images
