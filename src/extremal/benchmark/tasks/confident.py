"""Pictures that a network names with confidence: what grid pointing, faithfulness and sanity are measured on."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch

from extremal.benchmark.data import DataSet
from extremal.benchmark.tasks.task import Item
from extremal.errors import ExtremalError, ExtremalValueError
from extremal.jobs.store import Store
from extremal.networks.network import Network

MIN_CONFIDENCE = 0.9  # probability of the top class (Böhle et al., 2021, use correct and confident ones)
CONFIDENT_FILE = "confident.json"


@dataclass(frozen=True)
class NamedImage:
    """A picture and what the network calls it."""

    key: str
    target: int
    label: str


class ConfidentPictures:
    """The questions of a task that asks each confident picture about its own class."""

    def __init__(self, network: Network, data: DataSet, least: float) -> None:
        self.network, self.data, self.least = network, data, least
        self._named: dict[str, NamedImage] = {}

    def plan(self, store: Store) -> tuple[str, ...]:
        """Their keys."""
        self._named = {one.key: one for one in find_confident(self.network, self.data, self.least, store)}
        return tuple(self._named)

    def items(self, key: str) -> list[Item]:
        """One a picture."""
        x = self.network.prepare(self.data.sample(key).image).to(self.network.anchor)
        return [Item(key, self._named[key].label, self._named[key].target, x)]


def find_confident(
    network: Network,
    data: DataSet,
    least: float,
    store: Store,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[NamedImage]:
    """The pictures of a data set whose top class has at least this probability, in the order of their keys.

    Found once for each run, and kept beside its parts.

    Raises:
        ExtremalValueError: there is none.
    """
    kept = store.read_text(CONFIDENT_FILE)
    if kept is None:
        found = _name_images(network, data, least, on_progress)
        store.write_text(CONFIDENT_FILE, json.dumps([vars(one) for one in found], indent=1, ensure_ascii=False) + "\n")
    else:
        found = [NamedImage(**one) for one in json.loads(kept)]
    if not found:
        raise ExtremalValueError(
            f"pictures must be named with a probability of at least {least:g}, {network.name} names none of "
            f"{len(data.keys())} so; lower --confidence or use pictures that it knows"
        )
    return found


def _name_images(
    network: Network, data: DataSet, least: float, on_progress: Callable[[int, int], None] | None
) -> list[NamedImage]:
    found = []
    keys = data.keys()
    with network.frozen() as run, torch.no_grad():
        for index, key in enumerate(keys):
            if on_progress is not None:
                on_progress(index, len(keys))
            try:
                x = network.prepare(data.sample(key).image)
            except ExtremalError:
                continue  # a broken picture is named by nobody
            probability, top = run(x.to(network.anchor)).softmax(1)[0].max(0)
            if float(probability) >= least:
                found.append(NamedImage(key, int(top), network.label(int(top))))
    return found
