"""What the gallery asks, and what a person says of it beside the numbers; `gallery.py` runs it."""

import shlex
from dataclasses import dataclass, fields

PHOTOS = ("chelsea", "coffee", "rocket", "astronaut", "camera")  # in scikit-image's wheel, free of rights
SURVEY = {
    "`preserve`, blur": {},
    "`delete`": {"game": "delete"},
    "`fade`": {"perturbation": "fade"},
    "`constant`": {"perturbation": "constant"},
    "`noise`": {"perturbation": "noise"},
}


@dataclass(frozen=True)
class Asked:
    """One run of `extremal explain`, by the names of its options; an empty one is the default."""

    photo: str
    target: str = ""
    game: str = ""
    perturbation: str = ""
    alternatives: str = ""
    network: str = ""
    weights: str = ""

    @property
    def options(self) -> dict[str, str]:
        """Those that are given."""
        return {field.name: value for field in fields(self)[1:] if (value := getattr(self, field.name))}

    @property
    def command(self) -> str:
        """As it is typed."""
        return shlex.join(["extremal", "explain", f"{self.photo}.png", *options_of(self.options)])


@dataclass(frozen=True)
class Channels:
    """One run of `extremal channels` with pictures of what the channels carry."""

    photo: str
    layer: str
    counts: tuple[int, ...]

    @property
    def command(self) -> str:
        """As it is typed."""
        options = {"layer": self.layer, "counts": ",".join(map(str, self.counts))}
        return shlex.join(["extremal", "channels", f"{self.photo}.png", *options_of(options), "--see"])


@dataclass(frozen=True)
class Entry:
    """What was asked, and what a person says of it; measured values are none of these words."""

    name: str  # of its picture
    section: str
    title: str
    asked: Asked | Channels
    verdict: str  # how the verdict and its reason must begin for the text to hold
    text: str  # to be read after the numbers
    scene: str  # what the photograph shows
    region: str  # what the region holds
    answer: int = 0  # which of the alternatives; 0 is the first answer
    area: float = 0.0  # shown; 0: the smallest sufficient one, the largest where none is


def options_of(given: dict[str, str]) -> list[str]:
    """Options as words of a command."""
    return [word for name, value in given.items() for word in (f"--{name}", value)]


WORKS, OTHER, FAILS = "What works", "Other questions", "Failures"
SECTIONS = {
    WORKS: "The top class, and the defaults. Verdicts are `sufficient`: the region keeps the answer, beats chance, and "
    "holds under perturbations that it was not made for.",
    OTHER: "The same photographs asked otherwise.",
    FAILS: "Each was found in a run like those above, and none was staged. They are here because a mask by itself "
    "looks as convincing as those that hold; the verdict, or a look at the scores, tells them apart.",
}
ENTRIES = (
    Entry(
        "tripod",
        WORKS,
        "A tripod, from very little",
        Asked("camera"),
        "sufficient",
        "The network names the tripod from its head and a foot, and adding more only makes it surer. The weakest "
        "number is the unseen one: of so small a region less holds on other backgrounds.",
        "A man looks through a camera on a tripod, in grey",
        "the head of the tripod, the end of one leg and a spot on the camera",
    ),
    Entry(
        "espresso",
        WORKS,
        "Espresso, from most of the cup",
        Asked("coffee"),
        "sufficient",
        "Nothing smaller was enough: this answer is spread over the cup. The scraps along the border fill up the "
        "area that was asked for and need not mean anything.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "the coffee with the rim and the front of the cup, part of the spoon, and scraps along the border",
    ),
    Entry(
        "second-class",
        OTHER,
        "The second class: Egyptian cat",
        Asked("chelsea", target="Egyptian cat"),
        "sufficient",
        "More than the whole effect: without the rest of the picture, which speaks for other cats, the network is"
        " surer of this one.",
        "A tabby cat's face from near",
        "one eye with the fur above and below it, and a patch in a corner",
    ),
    Entry(
        "delete",
        OTHER,
        "What the tripod cannot do without",
        Asked("camera", game="delete"),
        "sufficient",
        "Beside the first entry: little of the tripod is enough, yet more than that has to go before the answer "
        "breaks, for what is left of it speaks as well.",
        "A man looks through a camera on a tripod, in grey",
        "without the head of the tripod, most of its legs and the lower part of the camera",
    ),
    Entry(
        "alternatives",
        OTHER,
        "Three answers for one cup",
        Asked("coffee", target="cup", alternatives="3"),
        "sufficient",
        "Each answer was sought where those before it are not. The first is not the smallest of them: what a run "
        "finds is the best that it found, and no optimum. The curve is that of the first.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "three regions, two of them of spots on the rim with a little coffee, one on the dark front of the cup",
    ),
    Entry(
        "channels",
        OTHER,
        "Channels instead of places",
        Channels("chelsea", "blocks.3", (8, 16, 32)),
        "sufficient",
        "The map is the sum of these channels over places: it is bright at the eyes and the nose. Turned back "
        "into a picture, they carry the texture of fur, and the rest the outlines of the face.",
        "A tabby cat's face from near",
        "a map that is bright at the eyes and the nose, a picture of fur, and one of the face in wrong colours",
    ),
    Entry(
        "insufficient",
        FAILS,
        "Insufficient: nothing that small breaks the cat",
        Asked("chelsea", game="delete"),
        "insufficient",
        "The cat fills the picture. Whatever goes, enough is left to name it; a larger area has to be asked for.",
        "A tabby cat's face from near",
        "without the forehead, the nose, the mouth and patches of fur",
    ),
    Entry(
        "grey",
        FAILS,
        "Suspect: grey values carry it",
        Asked("chelsea", perturbation="constant"),
        "suspect: grey values carry it",
        "As found, the mask seems to be enough. Cut to black and white, next to nothing is left: half-destroyed "
        "places carried the score, and what works only so is no region.",
        "A tabby cat's face from near",
        "half of one eye, the other eye, the bridge of the nose and patches of fur",
    ),
    Entry(
        "chance",
        FAILS,
        "Suspect: random regions do as well",
        Asked("rocket", alternatives="3"),
        "suspect: a random region",
        "A smaller area of the same answer passes. The one shown does not: in this photograph many places say "
        "much the same, and with the best of them taken the search did no better than luck.",
        "A rocket stands on its lit pad at dusk",
        "the top of the rocket, a piece of a tower, and a strip of sky and lights above the ground",
        answer=2,
        area=0.2,
    ),
    Entry(
        "unseen",
        FAILS,
        "Suspect: made for one perturbation",
        Asked("chelsea", perturbation="fade"),
        "suspect: only",
        "On flat grey, for which it was made, the region keeps more than the whole effect; on other backgrounds "
        "next to nothing of it. With the default blur the same cat needs a larger region.",
        "A tabby cat's face from near",
        "a patch of the forehead, the fur beside the mouth, and specks",
    ),
    Entry(
        "absent",
        FAILS,
        "A class that is not there",
        Asked("coffee", target="tiger cat"),
        "insufficient",
        "The photograph speaks against a class that is not in it, more than its blurred self does, so there is "
        "nothing to keep: effects are shares of a difference of the wrong sign, and a mask that makes the class "
        "likelier counts as negative. `extremal doctor` finds this before a run.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "scattered pieces of coffee, cup, saucer and table",
    ),
    Entry(
        "random",
        FAILS,
        "Sufficient, of a network that knows nothing",
        Asked("coffee", network="timm:tf_efficientnet_lite0", weights="random"),
        "sufficient",
        "The same architecture with random weights; it calls the other photographs a barrow as well. The verdict "
        "is right about shares, but they are shares of next to nothing, as the two margins tell. Nothing in a "
        "region says that a network is any good.",
        "A cup of espresso with its saucer and spoon on a wooden table",
        "two spots on the rim and one on the handle",
    ),
)
