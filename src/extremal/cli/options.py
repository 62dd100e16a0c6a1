"""Options that several commands share, with their help texts.

Defaults stand here as text, and no module that imports torch is imported, so that `--help` does not wait for it.
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from extremal.scores.parse import ASK_SYNTAX

# the same as in modules that import torch; tests keep them equal
DEFAULT_AREAS = "0.025,0.05,0.1,0.2,0.4"
DEFAULT_BUDGET = 1000
DEFAULT_SCORE = "margin"
DEFAULT_FOLDER = Path("extremal-out")
METHOD_NAMES = (
    *("centre", "random", "gradient", "deconvnet", "guided-backprop", "integrated-gradients", "grad-cam", "occlusion"),
    *("excitation", "contrastive-excitation", "rise", "mask-gradient", "penalty", "path", "consensus"),
)
LAYER_METHODS = ("grad-cam", "excitation", "contrastive-excitation")  # that read a layer
AREA_METHODS = ("penalty", "path", "consensus")  # that have areas
EFFORT_METHODS = ("path", "consensus")  # whose explanations take more or fewer passes
TASK_NAMES = ("pointing", "grid", "faithfulness", "sanity", "stability")
DATA_KINDS = ("voc", "coco", "folder", "scenes")
ENGINE_NAMES = ("local", "ray")
GAME_NAMES = ("preserve", "delete", "dual")
PERTURBATION_NAMES = ("mixed", "blur", "fade", "constant", "noise")
SOLVER_NAMES = ("consensus", "path", "penalty", "search")
EFFORT_NAMES = ("fast", "normal", "thorough")
SCORE_NAMES = ("margin", "logit", "probability", "log-probability", "contrastive", "negative", "sigmoid")

Images = Annotated[
    list[str],
    Argument(
        metavar="IMAGE...",
        help="Image files, or folders of them; clips or volumes if the network takes them.",
        show_default=False,
    ),
]
Network = Annotated[str, Option(help="Network name; `extremal networks` lists them.")]
Weights = Annotated[str, Option(help="Weights: a local file, or random.", show_default="the network's own")]
Device = Annotated[str, Option(help="Device to compute on: auto (the fastest), cpu, cuda, cuda:N, mps or xpu.")]
CLASS_SYNTAX = "Class name or index; for a group, its name or its classes joined by |, e.g. 'tabby|tiger cat'."
Target = Annotated[str, Option(help=CLASS_SYNTAX, show_default="the top class")]
Ask = Annotated[
    str, Option(help=f"Score to explain instead of that of a class: {ASK_SYNTAX}.", show_default="the class")
]
Prompt = Annotated[str, Option(help="Question to a model of images and text, with --ask answer or token.")]
Areas = Annotated[str, Option(help="Areas as fractions or percentages of the image: 0.05,0.1 or 5%,10%.")]
Game = Annotated[
    str, Option(help="preserve (what is enough), delete (what the answer depends on) or dual (both at once).")
]
Perturbation = Annotated[
    str, Option(help="mixed (blur,fade,noise), blur, fade, constant or noise; or several, separated by commas.")
]
Solver = Annotated[
    str, Option(help="consensus (stable masks), path, penalty (the paper's) or search (without gradients).")
]
Score = Annotated[
    str,
    Option(help="Score of a class: margin, logit, probability, log-probability, contrastive, negative or sigmoid."),
]
Effort = Annotated[str, Option(help="fast (a first look), normal or thorough (most steps).")]
Seed = Annotated[int, Option(min=0, max=2**32 - 1, help="Random seed of noise and controls.")]
Alternatives = Annotated[int, Option(help="Number of explanations with little overlap to search for.")]
DryRun = Annotated[bool, Option("--dry-run", help="Print what would run and its cost, without running it.")]
Refine = Annotated[
    bool,
    Option(
        "--refine",
        help="Search for the smallest sufficient area, to within 2 %; if none of --areas is enough, above the largest.",
    ),
]
Stability = Annotated[
    bool,
    Option("--stability", help="Also explain 4 copies with one grey level of noise, and compare their masks."),
]
Minimal = Annotated[bool, Option("--minimal", help="Remove pieces from the region until it cannot lose another one.")]
Budget = Annotated[
    int | None, Option(min=1, help="Largest number of evaluations of --minimal.", show_default=str(DEFAULT_BUDGET))
]
Layer = Annotated[str, Option(help="Layer name; `extremal layers` lists the stages.")]
Axis = Annotated[
    int | None, Option(help="Axis of the channels in the layer's output; for (B, tokens, channels), 1 selects tokens.")
]
ImageFolders = Annotated[Path, Option(help="Output folder; each result gets a subfolder of its own.")]
AsJson = Annotated[bool, Option("--json", help="Print one JSON document instead of tables.")]
Force = Annotated[bool, Option("--force", help="Replace earlier results instead of writing new ones next to them.")]
