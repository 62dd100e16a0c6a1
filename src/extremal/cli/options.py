"""Options that several commands have, with the words by which `--help` tells of them."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from extremal.scores.parse import ASK_SYNTAX

DEFAULT_AREAS = "0.025,0.05,0.1,0.2,0.4"
DEFAULT_FOLDER = Path("extremal-out")

Images = Annotated[list[str], Argument(metavar="PHOTO...", help="Picture files.", show_default=False)]
Network = Annotated[str, Option(help="A name that `extremal networks` lists.")]
Weights = Annotated[str, Option(help="Its weights: a local file, or random.", show_default="its own")]
Target = Annotated[str, Option(help="Class name or index.", show_default="the top class")]
Ask = Annotated[str, Option(help=f"Instead of a class's score: {ASK_SYNTAX}.", show_default="the class")]
Areas = Annotated[str, Option(help="Shares of the picture, in (0, 1).")]
Game = Annotated[str, Option(help="preserve, delete or dual.")]
Perturbation = Annotated[str, Option(help="blur, fade, constant or noise.")]
Solver = Annotated[str, Option(help="path (all areas in one run) or penalty (the paper's).")]
Score = Annotated[str, Option(help="margin, logit, probability, log-probability, contrastive or negative.")]
Seed = Annotated[int, Option(min=0, max=2**32 - 1, help="Of noise and controls.")]
Alternatives = Annotated[int, Option(help="Answers that overlap little to look for.")]
Refine = Annotated[bool, Option("--refine", help="Bisect for the smallest sufficient area, to 2 %.")]
Layer = Annotated[str, Option(help="A module's name; `extremal layers` lists them.")]
Axis = Annotated[int | None, Option(help="Of the units; of tokens (B, T, K) 1 is tokens.")]
ImageFolders = Annotated[Path, Option(help="Folder of the results, one folder a photo.")]
AsJson = Annotated[bool, Option("--json", help="One JSON document on stdout instead of tables.")]
