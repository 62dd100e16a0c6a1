"""Check that `explain` runs unchanged on families of models of images and text: a table of docs/networks.md.

Use: python benchmarks/vision_language.py [FAMILY...] [--table]

Models are tiny with random weights, saved to folders with their processors and loaded as `hf:` networks (those of
tests/support/vlm_toys.py): that a family runs is shown here, that a region is right by the planted model of
tests/scores/test_answer.py. Rows are kept in results/vision_language.jsonl; with --table nothing is run.
"""

import sys
import tempfile
from pathlib import Path

from extremal import zoo
from extremal.networks.vision_language import PromptedInputs
from extremal.scores import Answer
from family_rows import Row, format_costs, format_picture, measure_explanation, run_missing
from records import FOLDER

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.vlm_toys import ANSWER, FAMILIES, PROMPT, save_family

HEADS = """\
| family | class | picture | tokens of the prompt | forward-backward | forward | MB a row | unchanged |
|---|---|---|---:|---:|---:|---:|---|"""


def measure(family: str) -> Row:
    """Return one row: the class, tokens of prompt and answer, and what the explanation took."""
    with tempfile.TemporaryDirectory() as folder:
        save_family(family, Path(folder))
        net = zoo.load(f"hf:{folder}")
    row = measure_explanation(net, Answer(ANSWER, PROMPT))
    height, width = row["picture"]
    assert isinstance(net.inputs, PromptedInputs)
    return {
        "class": type(net.model.model).__name__,
        "prompt": net.inputs.encode(PROMPT, (height, width)).ids.shape[1],
        "answer": len(net.inputs.find_answer(PROMPT, ANSWER)),
        **row,
    }


def format_row(row: Row) -> str:
    """Format a line of the table."""
    return f"| {row['family']} | `{row['class']}` | {format_picture(row)} | {row['prompt']} | {format_costs(row, 1)} |"


if __name__ == "__main__":
    run_missing(__doc__, FAMILIES, FOLDER / "vision_language.jsonl", measure, "vision-language", HEADS, format_row)
