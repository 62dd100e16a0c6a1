"""What a worker does: pictures in, rows out, whatever the pictures are. The same in every engine."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalError
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.explanations.options import Options
from extremal.explanations.overlay import has_picture, jpeg, masked
from extremal.explanations.smallest_area import Certificate, smallest_area
from extremal.files import content_hash
from extremal.jobs.plan import Item
from extremal.jobs.rows import failed_row, row
from extremal.networks.inputs import prepare, read_picture
from extremal.networks.network import Network
from extremal.scores.parse import asked_of
from extremal.scores.target import Target

THUMBNAIL_SIDE = 96  # px of its longer side
OUT_OF_MEMORY_MESSAGES = ("not enough memory", "out of memory", "can't allocate memory")  # of other devices' messages

Row = dict[str, Any]


@dataclass(frozen=True)
class DecodedItem:
    """An item, decoded ahead."""

    item: Item
    digest: str | None = None  # of the file's bytes
    x: Tensor | None = None  # (1, C, *S), on the processor
    error: str = ""  # why there is no x


@dataclass(frozen=True)
class ItemResult:
    """What came of an item: an explanation of it among others, or the reason why not."""

    explanation: Explanation | None = None
    image: int = 0  # its place in the explanation
    certificate: Certificate | None = None
    seconds: float = 0.0  # its share
    error: str = ""


class Worker:
    """A network and a question, ready for any number of pictures.

    Args:
        options: what is asked, as the command line has it.
        network: the one that is asked; None: that of the options is loaded, onto a device where there is one.
        number: of this worker among those of its machine, which share its devices.
    """

    def __init__(self, options: Options, network: Network | None = None, number: int = 0) -> None:
        self.options, self.checked = options, options.checked()
        if network is None:
            network, _ = options.loaded()
            network.model.to(device_of(number))
            if network.accelerate == "portable" and network.anchor.device.type == "cpu":
                network.accelerate = "onednn"
        self.network = network

    def settings(self) -> dict[str, Any]:
        """What all rows have in common (`rows.shared_settings`)."""
        return self.checked.provenance(self.network)

    def prepare(self, items: Sequence[Item]) -> list[DecodedItem]:
        """Read and preprocess pictures; touches no network, so it may run ahead in another thread."""
        return [self._decode(item) for item in items]

    def _decode(self, item: Item) -> DecodedItem:
        try:
            digest = content_hash(item.path)
        except OSError:
            digest = None  # the next line tells why
        try:
            x = self.network.prepare(read_picture(item.path)).detach()
        except ExtremalError as error:
            return DecodedItem(item, digest, error=str(error))
        except Exception as error:  # a preprocessing of the user's may raise anything
            return DecodedItem(item, digest, error=f"{type(error).__name__}: {error}")
        return DecodedItem(item, digest, x)

    def rows(self, prepared: Sequence[DecodedItem]) -> list[Row]:
        """A row for each item and answer, in the order of the items; one that fails costs its own row."""
        found = {one.item.key: ItemResult(error=one.error) for one in prepared if one.x is None}
        asked: dict[str, Target] = {}
        for one in prepared:
            if one.x is not None:
                try:
                    asked[one.item.key] = asked_of(
                        self.network, one.item.target or self.options.target, self.options.ask
                    )
                except ExtremalError as error:
                    found[one.item.key] = ItemResult(error=str(error))
        for group in _group_by_shape([one for one in prepared if one.item.key in asked], asked):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what there is to say stands in the rows
                found |= self._explain_or_halve(group, asked)
        return [told for one in prepared for told in _rows_of_item(one, found[one.item.key])]

    def _explain_or_halve(self, group: Sequence[DecodedItem], asked: dict[str, Target]) -> dict[str, ItemResult]:
        """Explain items together; where that fails, in halves for want of memory, else each alone."""
        keys = [one.item.key for one in group]
        begin = time.perf_counter()
        try:
            explanation, certificates = self._explain(group, [asked[key] for key in keys])
        except Exception as error:
            size, told = len(group), _one_line(error)
            if size == 1:
                return {keys[0]: ItemResult(error=told, seconds=time.perf_counter() - begin)}
            step = -(-size // 2) if _out_of_memory(error) else 1
        else:
            seconds = (time.perf_counter() - begin) / len(group)
            return {key: ItemResult(explanation, image, certificates[image], seconds) for image, key in enumerate(keys)}
        found: dict[str, ItemResult] = {}  # outside of the handler, which holds what the batch needed
        for start in range(0, len(group), step):
            found |= self._explain_or_halve(group[start : start + step], asked)
        return found

    def _explain(
        self, group: Sequence[DecodedItem], targets: list[Target]
    ) -> tuple[Explanation, Sequence[Certificate | None]]:
        wanted: Any = None if targets[0] is None else targets
        inputs = torch.cat([one.x for one in group if one.x is not None])
        explanation = explain(self.network, prepare(self.network, inputs), wanted, settings=self.checked)
        if not self.options.refine:
            return explanation, [None] * len(group)
        question = wanted if not explanation.is_class else None
        return explanation, smallest_area(self.network, explanation, question)


def device_of(number: int) -> torch.device:
    """Where the worker of this number puts its network: the devices take turns."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return torch.device("cuda", number % count) if count else torch.device("cpu")


def _group_by_shape(prepared: Sequence[DecodedItem], asked: dict[str, Target]) -> list[list[DecodedItem]]:
    """Groups that can be explained together: inputs of one shape, all asked about their top class or none."""
    groups: dict[tuple[object, ...], list[DecodedItem]] = {}
    for one in prepared:
        assert one.x is not None
        groups.setdefault((tuple(one.x.shape), one.x.dtype, asked[one.item.key] is None), []).append(one)
    return list(groups.values())


def _rows_of_item(one: DecodedItem, found: ItemResult) -> list[Row]:
    """The rows of an item: one for each answer that was looked for."""
    item = one.item
    if found.explanation is None:
        return [failed_row(item.key, item.path, one.digest, found.error, found.seconds)]
    rows = []
    answers = (replace(found.explanation, alternatives=()), *found.explanation.alternatives)
    for number, answer in enumerate(answers):
        told = row(
            answer,
            found.image,
            key=item.key,
            path=item.path,
            digest=one.digest,
            seconds=found.seconds / len(answers),
            answer=number,
            certificate=found.certificate if number == 0 else None,
            thumbnail=draw_thumbnail(answer, found.image),
        )
        rows.append(told)
    return rows


def draw_thumbnail(explanation: Explanation, image: int) -> bytes | None:
    """The photograph under its smallest sufficient mask, or the largest where none is enough: a small JPEG."""
    if not has_picture(explanation):
        return None
    enough = explanation.smallest(image=image)
    mask = explanation.binary(explanation.areas[-1])[image] if enough is None else enough.mask
    return jpeg(masked(explanation, mask, image).numpy(), THUMBNAIL_SIDE, quality=70)


def _out_of_memory(error: Exception) -> bool:
    told = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in told for words in OUT_OF_MEMORY_MESSAGES)


def _one_line(error: Exception) -> str:
    """An error in one line."""
    told = " ".join(str(error).split())[:500]
    return told if isinstance(error, ExtremalError) else f"{type(error).__name__}: {told}"
