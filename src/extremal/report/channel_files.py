"""Files of channel explanations: a folder per image or class."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from extremal import files
from extremal.explanations.channels.class_ranking import ClassChannels
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.channels.inversion import Inversion
from extremal.explanations.channels.visualisation import Visualisation
from extremal.report import result_files

if TYPE_CHECKING:
    pass


def write(
    found: ChannelExplanation,
    folder: Path,
    title: str,
    inversion: Inversion | None,
    visualisation: Visualisation | None,
) -> dict[str, Any]:
    """Write the explanation of one input, its figure, its report and the pictures; the folder appears whole.

    Returns:
        The paths by kind: `explanation`, `figure`, `report`, and a list `pictures`.
    """
    from extremal.report import channel_page as report
    from extremal.report.channel_plots import write_figure

    pictures: dict[str, Tensor] = {}
    if inversion is not None:
        pictures |= {f"inversion-{part}.png": inversion.pictures[0, m] for m, part in enumerate(inversion.parts)}
    if visualisation is not None:
        pictures |= excited_pictures(visualisation)
    with files.whole_folder(folder, result_files.RESULT_FILES) as aside:
        found.save(aside / result_files.CHANNELS)
        write_figure(found, aside / result_files.FIGURE)
        report.write(found, aside / result_files.REPORT, title=title, inversion=inversion, visualisation=visualisation)
        _save_pictures(aside, pictures)
    return {
        "explanation": str(folder / result_files.CHANNELS),
        "figure": str(folder / result_files.FIGURE),
        "report": str(folder / result_files.REPORT),
        "pictures": [str(folder / name) for name in pictures],
    }


def recorded(photo: str, found: ChannelExplanation, files: dict[str, Any]) -> dict[str, Any]:
    """One photo's result as plain values for JSON: None where a number is not finite."""
    curve, smallest = found.curve(), found.smallest()
    values = {
        "path": photo,
        "target": found.target[0],
        "target_name": found.target_names[0],
        "layer": found.layer,
        "channels_in_all": found.total,
        "bypassed": found.bypassed,
        "score_full": float(found.score_full[0]),
        "score_blank": float(found.score_blank[0]),
        "counts": list(found.counts),
        "channels": [list(found.channels(count)) for count in found.counts],
        "effects": {
            "soft": curve.soft,
            "exactly": curve.binary,
            "random": curve.random,
            "random_best": curve.random_best,
            **curve.ranked,
        },
        "verdicts": [{"word": one.word, "reason": one.reason} for one in found.verdict[0]],
        "smallest": {
            "channels": smallest.channels,
            "effect": smallest.effect,
            "below_count": smallest.below_count,
            "below_effect": smallest.below_effect,
            "share": smallest.share,
        },
        "files": files,
        "settings": found.settings,
    }
    plain: dict[str, Any] = result_files.plain(values)
    return plain


def write_class(found: ClassChannels, folder: Path, visualisation: Visualisation | None) -> dict[str, Any]:
    """Write the table, the figure, the report and the pictures of a class; the folder appears whole.

    Returns:
        The paths by kind: `table`, `figure`, `report`, and a list `pictures`.
    """
    from extremal.report import class_page as report
    from extremal.report.channel_plots import write_class_figure

    with files.whole_folder(folder, result_files.RESULT_FILES) as aside:
        found.save(aside / result_files.CLASS)
        write_class_figure(found, aside / result_files.FIGURE)
        report.write(found, aside / result_files.REPORT, visualisation=visualisation)
        names = _save_pictures(aside, {} if visualisation is None else excited_pictures(visualisation))
    return {
        "table": str(folder / result_files.CLASS),
        "figure": str(folder / result_files.FIGURE),
        "report": str(folder / result_files.REPORT),
        "pictures": [str(folder / name) for name in names],
    }


def excited_pictures(visualisation: Visualisation) -> dict[str, Tensor]:
    """The pictures made for channels, by the names of their files."""
    shown = zip(visualisation.channels, visualisation.pictures, strict=True)
    return {f"channel-{channel}.png": picture for channel, picture in shown}


def _save_pictures(folder: Path, pictures: dict[str, Tensor]) -> list[str]:
    for name, picture in pictures.items():
        Image.fromarray(picture.numpy()).save(folder / name)
    return list(pictures)
