"""Class names of ImageNet-1k."""

from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("imagenet_classes.txt")  # the words of WordNet for each class, in the usual order
COUNT = 1000


@cache
def imagenet_labels() -> tuple[str, ...]:
    """Return the names of the 1000 classes, each with its synonyms.

    >>> imagenet_labels()[0], len(imagenet_labels())
    ('tench, Tinca tinca', 1000)
    """
    return tuple(FILE.read_text(encoding="utf-8").splitlines())


def find_imagenet_labels(classes: int) -> tuple[str, ...]:
    """Return the class names of ImageNet-1k if there are as many classes; else none."""
    return imagenet_labels() if classes == COUNT else ()
