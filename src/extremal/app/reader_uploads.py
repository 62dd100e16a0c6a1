"""Uploaded clips, volumes and sounds, read within tighter limits than on the command line."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from extremal.app.networks import ServedNetwork
from extremal.errors import ExtremalError, ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.sounds.reader import SoundReader
from extremal.networks.stacks.paths import find_stack_kind
from extremal.networks.stacks.readers import PreparedStack, check_kind

MAX_STACK_BYTES = 500_000_000  # of the frames of a clip that are kept, and of a volume
MAX_SAMPLES = 5_000_000  # of a sound, as the network takes it: 5 minutes at 16 kHz
MAX_DECODED_SAMPLES = 30_000_000  # of all channels of a sound file: 5 minutes in stereo at 48 kHz


def read_upload(path: Path, network: ServedNetwork) -> PreparedStack | Tensor:
    """Read and check an uploaded clip, volume or sound.

    Args:
        path: of the file.
        network: takes clips, volumes or sounds.

    Raises:
        ExtremalValueError: it cannot be read; the message has the name of the file instead of its path.
    """
    try:
        if not path.is_file():  # a folder of DICOM files cannot be sent
            raise ExtremalValueError("the file is no longer stored here; drop it again")
        reader, kind = network.network.reader, find_stack_kind(path)
        if kind is None and isinstance(reader, SoundReader):
            return _read_sound(reader, path)
        return check_kind(reader, kind, path, network.name, "choose another file").read(path, MAX_STACK_BYTES)
    except ExtremalError as error:
        raise ExtremalValueError(str(error).replace(f"{path.parent}/", "")) from None


def _read_sound(reader: SoundReader, path: Path) -> Tensor:
    """Read a sound as an input (1, C, T) of bounded length."""
    x = reader.read(path, MAX_DECODED_SAMPLES)
    if x.shape[2] > MAX_SAMPLES:
        longest, seconds = (count / reader.rate for count in (MAX_SAMPLES, x.shape[2]))
        raise ExtremalValueError(
            f"a sound must have at most {longest:.0f} seconds here, got {seconds:.0f} in {quote(path)}; cut it"
        )
    return x


def show_middle_frame(stack: PreparedStack) -> np.ndarray[Any, Any]:
    """Return the middle frame from black, at its least value, to white: (H, W, 3) uint8."""
    middle = stack.x[0, :, stack.x.shape[2] // 2].float()
    middle = (middle if len(middle) == 3 else middle[:1].expand(3, -1, -1)).movedim(0, -1)
    low, high = middle.min(), middle.max()
    picture: np.ndarray[Any, Any] = (255 * (middle - low) / (high - low).clamp_min(1e-12)).byte().numpy()
    return picture
