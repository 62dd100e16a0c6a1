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
    solver: str = ""
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
        "The network recognises the tripod by its legs, and by a part of the camera on it. The effect of this region "
        "is large on other backgrounds, too.",
        "A man looks through a camera on a tripod, in greyscale",
        "the legs of the tripod with the grass next to them, and a spot on the camera",
    ),
    Entry(
        "missile",
        WORKS,
        "A rocket, from its body",
        ImageRun("rocket"),
        "sufficient",
        "The rocket alone is enough. At the largest area, a random region keeps more than the whole image does: the "
        "network is not sure of this class, and parts of the photograph count against it.",
        "A rocket stands on its lit pad at dusk",
        "the rocket with a little of the sky next to it",
    ),
    Entry(
        "espresso",
        WORKS,
        "Espresso, from most of the cup",
        ImageRun("coffee"),
        "sufficient",
        "Nothing smaller was enough: the evidence for this class is spread over the cup, and the saucer and the "
        "spoon are not needed.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "the cup with the coffee and its handle, without saucer and spoon",
    ),
    Entry(
        "helmet",
        OTHER,
        "A wrong answer: football helmet",
        ImageRun("astronaut"),
        "sufficient",
        "The class is wrong, and the region shows what the network took for it: the helmet in the corner, not the "
        "suit. Without the rest of the photograph, the network is more certain of its mistake.",
        "An astronaut in an orange suit smiles in front of a flag, with her helmet and a model of the shuttle",
        "the helmet in the lower right corner, with a part of the sleeve",
    ),
    Entry(
        "cats",
        OTHER,
        "Any of three cats",
        ImageRun("chelsea", target="tabby|tiger cat|Egyptian cat"),
        "sufficient",
        "The network is unsure which of these cats it sees, but not that it is one of them. Asked for any of them, "
        "it needs an eye, the cheek and the nose.",
        "A close-up of a tabby cat's face",
        "one eye, the nose with the cheek, and a part of the other eye",
    ),
    Entry(
        "second-class",
        OTHER,
        "The second class: Egyptian cat",
        ImageRun("chelsea", target="Egyptian cat"),
        "sufficient",
        "The region has more than the whole effect: without the rest of the image, which supports other cats, the "
        "network is more certain of this one. The next smaller area is not enough, least of all on other backgrounds.",
        "A close-up of a tabby cat's face",
        "half of the forehead with a part of one eye, the other eye, and the cheek with a part of the mouth",
        area=0.4,
    ),
    Entry(
        "delete",
        OTHER,
        "The indispensable part of the tripod",
        ImageRun("camera", game="delete"),
        "sufficient",
        "Compare the first entry: a smaller part of the tripod is enough to name it, but more has to be removed "
        "before the answer breaks, because the rest of the tripod supports the class as well.",
        "A man looks through a camera on a tripod, in greyscale",
        "the image without the camera and the legs of the tripod",
    ),
    Entry(
        "alternatives",
        OTHER,
        "No second explanation of the tripod",
        ImageRun("camera", alternatives="3"),
        "sufficient",
        "Asked for three explanations, each outside the ones before it, the search finds one: without the legs and the "
        "part of the camera, no other region of these sizes is enough. The curve is that of the first explanation.",
        "A man looks through a camera on a tripod, in greyscale",
        "the legs of the tripod with the grass next to them, and a spot on the camera",
    ),
    Entry(
        "channels",
        OTHER,
        "Channels instead of places",
        ChannelRun("chelsea", "blocks.3", (8, 16, 32)),
        "sufficient",
        "The map is the sum of these channels at each place: it is bright at the eyes and the nose. Inverted to an "
        "image, these channels carry the texture of fur, and the other channels the outlines of the face.",
        "A close-up of a tabby cat's face",
        "a map that is bright at the eyes and the nose, a picture of fur, and one of the face in wrong colours",
    ),
    Entry(
        "insufficient",
        FAILS,
        "Insufficient: no region this small breaks the answer",
        ImageRun("chelsea", game="delete"),
        "insufficient",
        "The cat fills the image. Enough remains to recognise it after any region of this size is removed; a "
        "larger area is needed.",
        "A close-up of a tabby cat's face",
        "the image without the fur between the eyes, the nose and the mouth",
    ),
    Entry(
        "chance",
        FAILS,
        "Chance is enough: an unclear question",
        ImageRun("chelsea"),
        "chance is enough",
        "The photograph shows a cat, but which kind is unclear: the class has less than half of the probability. At "
        "this area, a random region is as good as the one found, which therefore says nothing about where the "
        "evidence lies. For any of the cats, the same photograph has a clear answer.",
        "A close-up of a tabby cat's face",
        "one eye with the cheek, the nose, and a spot on the forehead",
        area=0.4,
    ),
    Entry(
        "grey",
        FAILS,
        "Suspect: the effect depends on grey values",
        ImageRun("chelsea", perturbation="constant", solver="path"),
        "suspect: grey values carry it",
        "As found, the mask seems to be enough. Cut to black and white, it has less than half of the effect: "
        "half-destroyed places produced the score, and such a mask does not define a region. The default solver "
        "compares its candidates by the scores of cut masks.",
        "A close-up of a tabby cat's face",
        "the nose, the edge of an eye, and patches of fur",
        area=0.4,
    ),
    Entry(
        "unseen",
        FAILS,
        "Suspect: specific to one perturbation",
        ImageRun("chelsea", perturbation="fade"),
        "suspect: only",
        "On flat grey, for which it was optimised, the region keeps more than the whole effect; on other "
        "backgrounds, it keeps hardly more than a random one. The default mix of perturbations avoids most such "
        "regions.",
        "A close-up of a tabby cat's face",
        "a part of the forehead above one eye, and small spots of fur",
        area=0.1,
    ),
    Entry(
        "absent",
        FAILS,
        "A class that is not in the image",
        ImageRun("coffee", target="tiger cat"),
        "insufficient",
        "The photograph counts against a class that is absent, and a region of it does so hardly less. There is "
        "nothing to keep: effects are fractions of a difference with the wrong sign, and random regions do better "
        "than the one found. `extremal doctor` detects this before a run.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "scattered pieces of coffee, cup, saucer, spoon and table",
    ),
    Entry(
        "random",
        FAILS,
        "An untrained network",
        ImageRun("coffee", network="timm:tf_efficientnet_lite0", weights="random"),
        "",
        "This is the same architecture with random weights; it calls the other photographs a barrow as well. The "
        "verdict is right about fractions, but random regions are nearly as good at every area, and the two margins "
        "show how little the image matters. A region does not show that a network is good.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "the front of the cup with the coffee",
    ),
)
