"""The figure of an answer by regions, drawn when it is first asked for: it takes a second that the answer need not."""

import threading
from pathlib import Path

from extremal.errors import ExtremalError
from extremal.explanations.explanation import Explanation
from extremal.files import EXPLANATION_FILE
from extremal.report.plots import write_figure
from extremal.report.result_files import FIGURE_FILE

_DRAWING = threading.Lock()  # one figure at a time


def find_figure(folder: Path) -> Path | None:
    """Return the path of the figure in a view's folder, drawn from the explanation there; None: both are missing."""
    path = folder / FIGURE_FILE
    with _DRAWING:
        try:
            if not path.is_file():
                write_figure(Explanation.load(folder / EXPLANATION_FILE), path, image=0)
        except (ExtremalError, OSError):  # the cache has removed the view
            return None
    return path
