"""Result folders and JSON records of channel explanations: one folder per image or class."""

from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from extremal.explanations.channels.class_ranking import ClassChannels
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.channels.inversion import Inversion
from extremal.explanations.channels.visualisation import Visualisation
from extremal.explanations.minimal_region import MinimalRegion
from extremal.files import CHANNELS_FILE, CLASS_FILE
from extremal.report import channel_page, class_page
from extremal.report.channel_plots import write_channel_figure, write_class_figure
from extremal.report.result_files import (
    FIGURE_FILE,
    REPORT_FILE,
    atomic_result_folder,
    minimal_record,
    to_json_values,
)


def write_channel_result(
    explanation: ChannelExplanation,
    folder: Path,
    title: str,
    inversion: Inversion | None,
    visualisation: Visualisation | None,
    minimal: MinimalRegion | None = None,
) -> dict[str, Any]:
    """Write the explanation of one input by channels, its figure, its report and its optimised images.

    Args:
        explanation: of N inputs; the first is shown.
        folder: a new folder, or a previous result, which is replaced when the new one is complete.
        title: heading of the report.
        inversion: of the same input.
        visualisation: of some of the channels.
        minimal: the minimal set of channels of the input.

    Returns:
        The paths by kind: `explanation`, `figure`, `report`, and a list `pictures`.

    Raises:
        ExtremalValueError: if the files cannot be written, or `folder` is not a previous result.
    """
    pictures: dict[str, Tensor] = {}
    if inversion is not None:
        pictures |= {f"inversion-{part}.png": inversion.pictures[0, m] for m, part in enumerate(inversion.parts)}
    if visualisation is not None:
        pictures |= visualisation_images(visualisation)
    with atomic_result_folder(folder) as temporary:
        explanation.save(temporary / CHANNELS_FILE)
        write_channel_figure(explanation, temporary / FIGURE_FILE)
        report = temporary / REPORT_FILE
        channel_page.write(
            explanation, report, title=title, inversion=inversion, visualisation=visualisation, minimal=minimal
        )
        _save_pictures(temporary, pictures)
    return _result_paths(folder, "explanation", CHANNELS_FILE, pictures)


def channel_record(
    image: str, explanation: ChannelExplanation, files: dict[str, Any], minimal: MinimalRegion | None = None
) -> dict[str, Any]:
    """Convert the explanation of one input by channels to JSON values.

    Args:
        image: path of the image.
        explanation: of N inputs; the first is converted.
        files: paths of the result, as returned by `write_channel_result`.
        minimal: the minimal set of channels of the input.
    """
    curve, smallest = explanation.curve(), explanation.smallest()
    record: dict[str, Any] = {
        "path": image,
        "target": explanation.target[0],
        "target_name": explanation.target_names[0],
        "layer": explanation.layer,
        "channels_in_all": explanation.total,
        "bypassed": explanation.bypassed,
        "score_full": float(explanation.score_full[0]),
        "score_blank": float(explanation.score_blank[0]),
        "counts": list(explanation.counts),
        "channels": [list(explanation.channels(count)) for count in explanation.counts],
        "effects": {
            "soft": curve.soft,
            "exactly": curve.binary,
            "random": curve.random,
            "random_best": curve.random_best,
            **curve.ranked,
        },
        "verdicts": [{"word": verdict.label, "reason": verdict.reason} for verdict in explanation.verdict[0]],
        "smallest": {
            "channels": smallest.channels,
            "effect": smallest.effect,
            "below_count": smallest.below_count,
            "below_effect": smallest.below_effect,
            "share": smallest.share,
        },
        "minimal": minimal and minimal_record(minimal),
        "files": files,
        "settings": explanation.settings,
    }
    json_record: dict[str, Any] = to_json_values(record)
    return json_record


def write_class_result(ranking: ClassChannels, folder: Path, visualisation: Visualisation | None) -> dict[str, Any]:
    """Write the table, figure, report and optimised images of a class.

    Args:
        ranking: of the channels.
        folder: a new folder, or a previous result, which is replaced when the new one is complete.
        visualisation: of some of the channels.

    Returns:
        The paths by kind: `table`, `figure`, `report`, and a list `pictures`.

    Raises:
        ExtremalValueError: if the files cannot be written, or `folder` is not a previous result.
    """
    pictures = {} if visualisation is None else visualisation_images(visualisation)
    with atomic_result_folder(folder) as temporary:
        ranking.save(temporary / CLASS_FILE)
        write_class_figure(ranking, temporary / FIGURE_FILE)
        class_page.write(ranking, temporary / REPORT_FILE, visualisation=visualisation)
        _save_pictures(temporary, pictures)
    return _result_paths(folder, "table", CLASS_FILE, pictures)


def visualisation_images(visualisation: Visualisation) -> dict[str, Tensor]:
    """Return the optimised images of channels by file name."""
    images = zip(visualisation.channels, visualisation.pictures, strict=True)
    return {f"channel-{channel}.png": picture for channel, picture in images}


def _save_pictures(folder: Path, pictures: dict[str, Tensor]) -> None:
    for name, picture in pictures.items():
        Image.fromarray(picture.numpy()).save(folder / name)


def _result_paths(folder: Path, kind: str, data_file: str, pictures: dict[str, Tensor]) -> dict[str, Any]:
    return {
        kind: str(folder / data_file),
        "figure": str(folder / FIGURE_FILE),
        "report": str(folder / REPORT_FILE),
        "pictures": [str(folder / name) for name in pictures],
    }
