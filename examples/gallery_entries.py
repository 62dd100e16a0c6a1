"""Runs of the gallery, and the human commentary on them; `gallery.py` executes them."""

import shlex
from dataclasses import dataclass, fields

PHOTOS = ("chelsea", "coffee", "rocket", "astronaut", "camera")  # in scikit-image's wheel, public domain or CC0
SURVEY = {
    "`preserve`, blur": {},
    "`delete`": {"game": "delete"},
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
    perturbation: str = "blur"
    solver: str = "path"
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
    WORKS: "The top class. Verdicts are `sufficient`: the region keeps the answer, beats "
    "chance, and holds under perturbations that it was not optimised for.",
    OTHER: "The same photographs with other options.",
    FAILS: "Each was found in a run like those above; none was staged. A failed mask looks as convincing as one that "
    "holds; only the verdict, or the scores, distinguish them.",
}
ENTRIES = (
    Entry(
        "tripod",
        WORKS,
        "A tripod, from very little",
        ImageRun("camera"),
        "sufficient",
        "The network recognises the tripod from its head and a foot, and adding more only raises its confidence. The "
        "weakest number is the unseen one: so small a region keeps less on other backgrounds.",
        "A man looks through a camera on a tripod, in grey",
        "the head of the tripod, the end of one leg and a spot on the camera",
    ),
    Entry(
        "espresso",
        WORKS,
        "Espresso, from most of the cup",
        ImageRun("coffee"),
        "sufficient",
        "Nothing smaller was enough: the evidence for this class is spread over the cup. The scraps along the border "
        "fill up the requested area and may have no meaning.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "the coffee with the rim and the front of the cup, part of the spoon, and scraps along the border",
    ),
    Entry(
        "second-class",
        OTHER,
        "The second class: Egyptian cat",
        ImageRun("chelsea", target="Egyptian cat"),
        "sufficient",
        "More than the whole effect: without the rest of the image, which supports other cats, the network is more "
        "certain of this one.",
        "A tabby cat's face from near",
        "one eye with the fur above and below it, and a patch in a corner",
    ),
    Entry(
        "delete",
        OTHER,
        "The indispensable part of the tripod",
        ImageRun("camera", game="delete"),
        "sufficient",
        "Compare the first entry: a small part of the tripod is enough, but a larger part has to be removed before the "
        "answer breaks, because the rest of it supports the class as well.",
        "A man looks through a camera on a tripod, in grey",
        "without the head of the tripod, most of its legs and the lower part of the camera",
    ),
    Entry(
        "alternatives",
        OTHER,
        "Three explanations of one cup",
        ImageRun("coffee", target="cup", alternatives="3"),
        "sufficient",
        "Each explanation lies outside those found before. The first is not the smallest of them: a run returns the "
        "best mask that it found, not the optimum. The curve is that of the first.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "three regions, two of them of spots on the rim with a little coffee, one on the dark front of the cup",
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
        "The cat fills the image. Enough remains to recognise it after any region of this size is removed; a larger "
        "area is needed.",
        "A tabby cat's face from near",
        "without the forehead, the nose, the mouth and patches of fur",
    ),
    Entry(
        "grey",
        FAILS,
        "Suspect: the effect depends on grey values",
        ImageRun("chelsea", perturbation="constant"),
        "suspect: grey values carry it",
        "The mask as found seems to be enough. After cutting it to black and white, hardly any effect remains: "
        "half-destroyed places produced the score, and such a mask does not define a region.",
        "A tabby cat's face from near",
        "half of one eye, the other eye, the bridge of the nose and patches of fur",
    ),
    Entry(
        "chance",
        FAILS,
        "Suspect: random regions score as high",
        ImageRun("rocket", alternatives="3"),
        "chance is enough: a random region",
        "A smaller area of the same explanation passes. The one shown does not: in this photograph many places carry "
        "similar evidence, and after excluding the best of them the search did no better than chance.",
        "A rocket stands on its lit pad at dusk",
        "the top of the rocket, a piece of a tower, and a strip of sky and lights above the ground",
        answer=2,
        area=0.2,
    ),
    Entry(
        "unseen",
        FAILS,
        "Suspect: specific to one perturbation",
        ImageRun("chelsea", perturbation="fade"),
        "suspect: only",
        "On flat grey, for which it was optimised, the region keeps more than the whole effect; on other backgrounds "
        "it keeps hardly any. With the default blur the same cat needs a larger region.",
        "A tabby cat's face from near",
        "a patch of the forehead, the fur beside the mouth, and specks",
    ),
    Entry(
        "absent",
        FAILS,
        "A class that is not in the image",
        ImageRun("coffee", target="tiger cat"),
        "insufficient",
        "The photograph counts against an absent class more than its blurred version does, so there is nothing to "
        "keep: effects are fractions of a difference of the wrong sign, and a mask that makes the class more likely "
        "counts as negative. `extremal doctor` detects this before a run.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "scattered pieces of coffee, cup, saucer and table",
    ),
    Entry(
        "random",
        FAILS,
        "Sufficient, but the network is untrained",
        ImageRun("coffee", network="timm:tf_efficientnet_lite0", weights="random"),
        "sufficient",
        "The same architecture with random weights; it calls the other photographs a barrow as well. The verdict is "
        "right about fractions, but they are fractions of a negligible effect, as the two margins show. A region does "
        "not show that a network is good.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "two spots on the rim and one on the handle",
    ),
)
