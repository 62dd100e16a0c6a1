"""A worker of any engine: images in, table rows out."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalError, ExtremalValueError
from extremal.explanations.certificate import Certificate
from extremal.explanations.explain import explain
from extremal.explanations.explain_copies import stability
from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import apply_mask, encode_jpeg, has_image
from extremal.explanations.settings import Settings
from extremal.explanations.smallest_area import smallest_area
from extremal.file_checks import escape_surrogates, quote
from extremal.jobs.items import RunItem
from extremal.jobs.rows import Row, build_failed_row, build_row
from extremal.networks.devices import AUTO
from extremal.networks.input_kinds import hash_input
from extremal.networks.inputs import prepare, read_input
from extremal.networks.memory import is_out_of_memory
from extremal.networks.network import Network
from extremal.networks.resolve import load_network
from extremal.scores.parse import parse_query
from extremal.scores.target import Target

THUMBNAIL_SIDE = 96  # px of the longer side
MAX_REASON = 500  # characters of an error in a row


@dataclass(frozen=True)
class WorkerConfig:
    """The task of a worker, as plain values that can be sent to another process or machine."""

    network: str  # name that `zoo.load` takes; empty: the network is passed as an object
    weights: str = ""  # file, or random; empty: the network's own
    target: str = ""  # class, group, or classes joined by `|`, of items without one; empty: the top class
    ask: str = ""  # another query than a class, as for `--ask`
    settings: dict[str, Any] = field(default_factory=dict)  # `Settings.as_dict`
    refine: bool = False  # search for the smallest sufficient area
    stability: bool = False  # explain copies with one grey level of noise
    device: str = AUTO  # of a named network; auto: workers are spread over all that there are of the fastest kind
    prompt: str = ""  # to a model of images and text


@dataclass(frozen=True)
class DecodedItem:
    """An item whose image has been read and preprocessed."""

    item: RunItem
    digest: str | None = None  # of the file's bytes, or of a series
    x: Tensor | None = None  # (1, C, *S), in main memory
    spacing: tuple[float, ...] = ()  # of a volume, in mm
    error: str = ""  # why there is no x


@dataclass(frozen=True)
class ItemResult:
    """Result of an item: one input of an explanation, or an error."""

    explanation: Explanation | None = None
    image: int = 0  # index of the input in the explanation
    certificate: Certificate | None = None
    seconds: float = 0.0  # its part of the batch's time
    error: str = ""


class Worker:
    """A network and a target, ready for any number of images.

    Args:
        config: what to load and explain.
        network: that is explained; None: it is loaded by its name, onto the device of the config.
        number: of this worker among those of its machine, which share its devices.
    """

    def __init__(self, config: WorkerConfig, network: Network | None = None, number: int = 0) -> None:
        self.config, self.settings = config, Settings.from_dict(config.settings)
        if network is None:
            network = load_network(config.network, config.weights, config.device, number)
            parse_query(
                network, config.target, config.ask, config.prompt
            )  # an invalid target fails here, not in every row
            if network.accelerate == "portable" and network.anchor.device.type == "cpu":
                network.accelerate = "onednn"
        self.network = network

    def provenance(self) -> dict[str, Any]:
        """Return the settings that all rows share."""
        return self.settings.provenance(self.network)

    def prepare(self, items: Sequence[RunItem]) -> list[DecodedItem]:
        """Read and preprocess images; the network is not evaluated, so this may run ahead in another thread."""
        return [self._decode(item) for item in items]

    def _decode(self, item: RunItem) -> DecodedItem:
        if item.problem:
            return DecodedItem(item, error=item.problem)
        digest = hash_image(item.path)
        try:
            x, spacing = read_input(self.network, item.path)
        except (Exception, SystemExit) as error:  # a user's preprocessing may raise anything
            return DecodedItem(item, digest, error=describe_failure(error, "the preprocessing"))
        return DecodedItem(item, digest, x, spacing)

    def explain(self, decoded: Sequence[DecodedItem]) -> list[Row]:
        """Return a row for each item and alternative, in the order of the items; an error fails its own item only."""
        results = {entry.item.key: ItemResult(error=entry.error) for entry in decoded if entry.x is None}
        targets: dict[str, Target] = {}
        for entry in decoded:
            if entry.x is not None:
                target = entry.item.target or self.config.target
                try:
                    targets[entry.item.key] = parse_query(self.network, target, self.config.ask, self.config.prompt)
                except (Exception, SystemExit) as error:
                    results[entry.item.key] = ItemResult(error=_describe_bad_target(error, target, self.network.name))
        for group in _group_by_shape([entry for entry in decoded if entry.item.key in targets], targets):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the rows contain what warnings would say
                results |= self._explain_or_halve(group, targets)
        return [row for entry in decoded for row in _build_rows(entry, results[entry.item.key])]

    def _explain_or_halve(self, group: Sequence[DecodedItem], targets: dict[str, Target]) -> dict[str, ItemResult]:
        """Explain items together; after an error in halves if memory is short, else each alone."""
        keys = [entry.item.key for entry in group]
        started_at = time.perf_counter()
        try:
            explanation, certificates = self._explain_batch(group, [targets[key] for key in keys])
        except (Exception, SystemExit) as error:
            size, message = len(group), describe_failure(error, "the network")
            if size == 1:
                return {keys[0]: ItemResult(error=message, seconds=time.perf_counter() - started_at)}
            step = -(-size // 2) if is_out_of_memory(error) else 1
        else:
            seconds = (time.perf_counter() - started_at) / len(group)
            return {key: ItemResult(explanation, image, certificates[image], seconds) for image, key in enumerate(keys)}
        results: dict[str, ItemResult] = {}  # outside the handler, which keeps the memory of the failed batch
        for start in range(0, len(group), step):
            results |= self._explain_or_halve(group[start : start + step], targets)
        return results

    def _explain_batch(
        self, group: Sequence[DecodedItem], targets: list[Target]
    ) -> tuple[Explanation, Sequence[Certificate | None]]:
        target: Any = None if targets[0] is None else targets
        inputs = torch.cat([entry.x for entry in group if entry.x is not None])
        network = self.network.with_spacing(group[0].spacing)
        explanation = explain(network, prepare(network, inputs), target, settings=self.settings)
        if self.config.stability:
            images = [entry.item.path for entry in group]  # noise is of the pixels in the files
            measured = stability(network, images, explanation, target=target)
            explanation = replace(explanation, stability=measured)
        if not self.config.refine:
            return explanation, [None] * len(group)
        return explanation, smallest_area(network, explanation, target)


def _group_by_shape(decoded: Sequence[DecodedItem], targets: dict[str, Target]) -> list[list[DecodedItem]]:
    """Group items that can be explained together: of one shape and spacing, all with a target or all without."""
    groups: dict[tuple[object, ...], list[DecodedItem]] = {}
    for entry in decoded:
        assert entry.x is not None
        shape = (tuple(entry.x.shape), entry.x.dtype, entry.spacing, targets[entry.item.key] is None)
        groups.setdefault(shape, []).append(entry)
    return list(groups.values())


def _build_rows(entry: DecodedItem, result: ItemResult) -> list[Row]:
    """Return the rows of an item, or its failed row."""
    try:
        return _rows_of_item(entry, result)
    except Exception as error:
        reason = describe_failure(error, "the result")
        return [build_failed_row(entry.item.key, entry.item.path, entry.digest, reason, result.seconds)]


def _rows_of_item(entry: DecodedItem, result: ItemResult) -> list[Row]:
    """Return the rows of an item: one for its explanation, and one for each alternative."""
    item = entry.item
    if result.explanation is None:
        return [build_failed_row(item.key, item.path, entry.digest, result.error, result.seconds)]
    explanations = (replace(result.explanation, alternatives=()), *result.explanation.alternatives)
    return [
        build_row(
            explanation,
            result.image,
            key=item.key,
            path=item.path,
            digest=entry.digest,
            seconds=result.seconds / len(explanations),
            alternative=number,
            certificate=result.certificate if number == 0 else None,
            thumbnail=draw_thumbnail(explanation, result.image),
        )
        for number, explanation in enumerate(explanations)
    ]


def draw_thumbnail(explanation: Explanation, image: int) -> bytes | None:
    """Return a small JPEG of an image under its smallest sufficient mask, or under its largest if there is none."""
    if not has_image(explanation):
        return None
    smallest = explanation.smallest(image=image)
    mask = explanation.binary(explanation.areas[-1])[image] if smallest is None else smallest.mask
    return encode_jpeg(apply_mask(explanation, mask, image).numpy(), THUMBNAIL_SIDE, quality=70)


def _describe_bad_target(error: BaseException, target: str, network: str) -> str:
    if isinstance(error, ExtremalError):
        return describe_failure(error, "")
    return f"target must be a class of {network}, got {quote(target)} ({type(error).__name__}); check its spelling"


def hash_image(path: str) -> str | None:
    """Return the hash of an image's file or series; None if it cannot be read; reading the image gives the reason."""
    try:
        return hash_input(path)
    except (OSError, ExtremalValueError):
        return None


def describe_failure(error: BaseException, part: str) -> str:
    """Return the reason of a failed row, in one line of text, with a remedy.

    >>> describe_failure(KeyError("rgb"), "the preprocessing")
    "the preprocessing must work for any image, it raised KeyError: 'rgb'; correct it, or leave the image out"

    Args:
        error: that was raised.
        part: that raised it, unless it is an error of this library.
    """
    message = " ".join(_message(error).split())
    message = message if len(message) <= MAX_REASON else f"{message[:MAX_REASON]}…"
    message = escape_surrogates(message)
    if isinstance(error, ExtremalError):
        return message
    reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if is_out_of_memory(error):
        return f"an image must fit into memory, {reason}; use fewer workers, or a smaller image"
    return f"{part} must work for any image, it raised {reason}; correct it, or leave the image out"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # of an error of the caller's code
        return ""
