"""Runs of the gallery, and the human commentary on them; `gallery.py` executes them."""

import shlex
from dataclasses import dataclass, fields

PHOTOS = ("chelsea", "coffee", "rocket", "astronaut", "camera")  # in scikit-image's wheel, public domain or CC0
SURVEY = {
    "`preserve`, mixed": {},
    "`delete`": {"game": "delete"},
    "`blur`": {"perturbation": "blur"},
    "`fade`": {"perturbation": "fade"},
    "`constant`": {"perturbation": "constant"},
    "`noise`": {"perturbation": "noise"},
}


@dataclass(frozen=True)
class ImageRun:
    """One run of `extremal explain`, with its options as text; an empty one takes the default."""

    photo: str
    target: str = ""
    game: str = ""
    perturbation: str = ""
    alternatives: str = ""
    network: str = ""
    weights: str = ""

    @property
    def options(self) -> dict[str, str]:
        """Return the options that are set."""
        return {field.name: value for field in fields(self)[1:] if (value := getattr(self, field.name))}

    @property
    def command(self) -> str:
        """Return the command line."""
        return shlex.join(["extremal", "explain", f"{self.photo}.png", *to_arguments(self.options)])


@dataclass(frozen=True)
class ChannelRun:
    """One run of `extremal channels` with images of what the channels carry."""

    photo: str
    layer: str
    counts: tuple[int, ...]

    @property
    def command(self) -> str:
        """Return the command line."""
        options = {"layer": self.layer, "counts": ",".join(map(str, self.counts))}
        return shlex.join(["extremal", "channels", f"{self.photo}.png", *to_arguments(options), "--visualise"])


@dataclass(frozen=True)
class Entry:
    """A run with commentary, which contains no measured values."""

    name: str  # of its image file
    section: str
    title: str
    run: ImageRun | ChannelRun
    verdict: str  # prefix of the verdict and its reason that the text requires
    text: str  # printed after the numbers
    scene: str  # description of the photograph
    region: str  # description of the region
    answer: int = 0  # index of the alternative; 0 is the first explanation
    area: float = 0.0  # the area shown; 0: the smallest sufficient one, or the largest if none is


def to_arguments(options: dict[str, str]) -> list[str]:
    """Convert options to command-line arguments."""
    return [word for name, value in options.items() for word in (f"--{name}", value)]


WORKS, OTHER, FAILS = "Successes", "Other questions", "Failures"
SECTIONS = {
    WORKS: "The top class with the default options. Verdicts are `sufficient`: the region keeps the answer, beats "
    "chance, and holds under perturbations that it was not optimised for.",
    OTHER: "The same photographs with other questions and options.",
    FAILS: "Each was found in a run like those above; none was staged. A failed mask looks as convincing as one that "
    "holds; only the verdict, or the scores, distinguish them.",
}
ENTRIES = (
    Entry(
        "tripod",
        WORKS,
        "A tripod, from a tenth of the image",
        ImageRun("camera"),
        "sufficient",
        "TEXT",
        "A man looks through a camera on a tripod, in grey",
        "REGION",
    ),
    Entry(
        "missile",
        WORKS,
        "A rocket, from its body",
        ImageRun("rocket"),
        "sufficient",
        "TEXT",
        "A rocket stands on its lit pad at dusk",
        "REGION",
    ),
    Entry(
        "espresso",
        WORKS,
        "Espresso, from most of the cup",
        ImageRun("coffee"),
        "sufficient",
        "TEXT",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "REGION",
    ),
    Entry(
        "helmet",
        OTHER,
        "A wrong answer: football helmet",
        ImageRun("astronaut"),
        "sufficient",
        "TEXT",
        "An astronaut in an orange suit smiles in front of a flag, with her helmet and a model of the shuttle",
        "REGION",
    ),
    Entry(
        "cats",
        OTHER,
        "Any of three cats",
        ImageRun("chelsea", target="tabby|tiger cat|Egyptian cat"),
        "sufficient",
        "TEXT",
        "A tabby cat's face from near",
        "REGION",
    ),
    Entry(
        "second-class",
        OTHER,
        "The second class: Egyptian cat",
        ImageRun("chelsea", target="Egyptian cat"),
        "sufficient",
        "TEXT",
        "A tabby cat's face from near",
        "REGION",
        area=0.4,
    ),
    Entry(
        "delete",
        OTHER,
        "The indispensable part of the tripod",
        ImageRun("camera", game="delete"),
        "sufficient",
        "TEXT",
        "A man looks through a camera on a tripod, in grey",
        "REGION",
    ),
    Entry(
        "alternatives",
        OTHER,
        "Two explanations of one rocket",
        ImageRun("rocket", alternatives="3"),
        "sufficient",
        "TEXT",
        "A rocket stands on its lit pad at dusk",
        "REGION",
    ),
    Entry(
        "channels",
        OTHER,
        "Channels instead of places",
        ChannelRun("chelsea", "blocks.3", (8, 16, 32)),
        "sufficient",
        "The map is the sum of these channels at each place: it is bright at the eyes and the nose. Inverted to an "
        "image, they carry the texture of fur, and the other channels the outlines of the face.",
        "A tabby cat's face from near",
        "a map that is bright at the eyes and the nose, a picture of fur, and one of the face in wrong colours",
    ),
    Entry(
        "insufficient",
        FAILS,
        "Insufficient: no region this small breaks the answer",
        ImageRun("chelsea", game="delete"),
        "insufficient",
        "TEXT",
        "A tabby cat's face from near",
        "REGION",
    ),
    Entry(
        "chance",
        FAILS,
        "Chance is enough: an unclear question",
        ImageRun("chelsea"),
        "",
        "TEXT",
        "A tabby cat's face from near",
        "REGION",
        area=0.4,
    ),
    Entry(
        "grey",
        FAILS,
        "Suspect: the effect depends on grey values",
        ImageRun("camera", perturbation="constant"),
        "suspect: grey values carry it",
        "TEXT",
        "A man looks through a camera on a tripod, in grey",
        "REGION",
        area=0.2,
    ),
    Entry(
        "unseen",
        FAILS,
        "Suspect: specific to one perturbation",
        ImageRun("chelsea", perturbation="fade"),
        "suspect: only",
        "TEXT",
        "A tabby cat's face from near",
        "REGION",
        area=0.1,
    ),
    Entry(
        "absent",
        FAILS,
        "A class that is not in the image",
        ImageRun("coffee", target="tiger cat"),
        "insufficient",
        "TEXT",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "REGION",
    ),
    Entry(
        "random",
        FAILS,
        "A network that is untrained",
        ImageRun("coffee", network="timm:tf_efficientnet_lite0", weights="random"),
        "",
        "TEXT",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "REGION",
    ),
)
