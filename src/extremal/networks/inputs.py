"""Prepare images as inputs: image files are read safely, tensors are validated."""

import os
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import describe_error
from extremal.masking.device_tensors import copy_to
from extremal.networks.image_files import MAX_PIXELS, check_pixels, read_image_file, to_upright_rgb
from extremal.networks.input_kinds import InputKind
from extremal.networks.network import Network
from extremal.networks.sounds.reader import read_sound
from extremal.networks.sounds.sound_files import is_sound
from extremal.networks.stacks.paths import find_stack_kind
from extremal.networks.stacks.readers import PreparedStack, check_kind

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor | PreparedStack
ImagesLike = ImageLike | Sequence[ImageLike]  # a sequence is a batch


def prepare(network: Network, image: ImagesLike) -> Tensor:
    """Prepare a path, a Pillow image, a uint8 array (H, W, C) or (H, W), or a tensor as inputs (N, C, *S).

    Tensors must be prepared already; they are only moved to the network's device and dtype, without changing the
    caller's tensor. A list of any of these becomes one batch. Paths of sounds, clips and volumes are read by the
    network's `reader`.
    """
    if isinstance(image, list | tuple):
        return concatenate_inputs([prepare(network, item) for item in image])
    if is_sound(image):
        return copy_to(read_sound(network.reader, image, network.name), network.anchor)  # type: ignore[arg-type]  # a path
    image = read_stacks(network, image)
    opened = open_image(image)  # type: ignore[arg-type]  # a sequence of another type is refused there
    x = opened if isinstance(opened, Tensor) else network.prepare(opened)
    network.normalisation(x)  # raises if it is of other channels
    prepared = copy_to(x.detach(), network.anchor)
    if prepared.dtype.itemsize < x.dtype.itemsize and not bool(prepared.isfinite().all()):
        raise ExtremalValueError(
            f"an input must be finite in the network's {prepared.dtype}, got values up to {float(x.abs().max()):.3g}; "
            "normalise it"
        )
    return prepared


def prepare_each(network: Network, images: Sequence[ImagesLike] | Tensor) -> list[Tensor]:
    """Prepare a list of images, each as `prepare` takes it, or inputs (N, C, *S), as inputs (1, C, *S).

    Raises:
        ExtremalTypeError: it is one image, not a list of them.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if not isinstance(images, list | tuple | Tensor):
        raise ExtremalTypeError(
            f"images must be a list of images, or prepared inputs (N, C, *S), got {type(images).__name__}; e.g. [image]"
        )
    parts = [images] if isinstance(images, Tensor) else images
    return [row for image in parts for row in torch.split(prepare(network, image), 1)]


def read_stacks(network: Network, image: ImagesLike) -> ImagesLike:
    """Return images with the paths of clips and volumes replaced by what the network's reader prepares from them.

    Raises:
        ExtremalValueError, ExtremalTypeError: the network does not take them, or they cannot be read.
    """
    if isinstance(image, list | tuple):
        return [read_stacks(network, item) for item in image]  # type: ignore[misc]  # lists of lists are refused later
    kind = find_stack_kind(image) if isinstance(image, str | os.PathLike) else None
    if kind is None:
        return image
    path: str | os.PathLike[str] = image  # type: ignore[assignment]  # only paths have a kind
    return check_kind(network.reader, kind, path, network.name).read(path)


def read_input(network: Network, path: str) -> tuple[Tensor, tuple[float, ...]]:
    """Read and prepare a file for a network, in main memory.

    Args:
        network: for its reader and its preprocessing.
        path: of a picture, sound, clip or volume.

    Returns:
        The input (1, C, *S), and the spacing of a volume in mm; empty of others.

    Raises:
        ExtremalValueError, ExtremalTypeError: the network does not take it, or it cannot be read or prepared.
    """
    if is_sound(path):
        return read_sound(network.reader, path, network.name), ()
    opened = read_stacks(network, path)
    if isinstance(opened, PreparedStack):
        return validate_input(opened.x).detach(), opened.spacing
    return network.prepare(read_image_file(path)).detach(), ()


def find_input_kinds(network: Network) -> tuple[InputKind, ...]:
    """Return the kinds of files that a network takes.

    >>> find_input_kinds(Network(torch.nn.Identity()))
    (<InputKind.PICTURE: 'picture'>,)
    """
    if network.reader is None:
        return (InputKind.PICTURE,)
    kind = InputKind(network.reader.kind)
    return (kind,) if network.preprocess is None else (InputKind.PICTURE, kind)


def take_spacing(network: Network, image: ImagesLike) -> Network:
    """Return a network with the spacing of these volumes, unless it has one of its own; its module is shared.

    Raises:
        ExtremalValueError: the spacings of several volumes differ.
    """
    stacks = [item for item in (image if isinstance(image, list | tuple) else [image]) if _has_spacing(item)]
    if not stacks or network.spacing:
        return network
    spacings = sorted({stack.spacing for stack in stacks})
    if not all(np.allclose(spacings[0], spacing, rtol=1e-3) for spacing in spacings):
        raise ExtremalValueError(
            f"the volumes of a batch must have one spacing, got {spacings[0]} and {spacings[-1]} mm; explain them "
            "one by one, or resample them in the reader's preprocess"
        )
    return network.with_spacing(spacings[0])


def describe_stack(network: Network, x: Tensor, image: ImagesLike) -> dict[str, Any]:
    """Return what a result stores about the third dimension of inputs (N, C, D, H, W); of others nothing.

    That is the kind, times or orientation of one clip or volume from a file, and the normalisation of its channels.
    """
    if x.ndim != 5:
        return {}
    (item,) = image if isinstance(image, list | tuple) and len(image) == 1 else [image]
    axis = dict(item.axis) if isinstance(item, PreparedStack) else {}
    if len(network.mean) == len(network.std) == x.shape[1]:
        axis |= {"mean": list(network.mean), "std": list(network.std)}
    return {"stack": axis} if axis else {}


def _has_spacing(item: object) -> TypeGuard[PreparedStack]:
    return isinstance(item, PreparedStack) and bool(item.spacing)


def open_image(image: ImageLike) -> Image.Image | Tensor:
    """Return one image as upright RGB, or the prepared tensor itself once it is validated."""
    if isinstance(image, Tensor | PreparedStack):
        return validate_input(image.x if isinstance(image, PreparedStack) else image)
    if isinstance(image, np.ndarray):
        return to_upright_rgb(Image.fromarray(_validate_array(image)))
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    if isinstance(image, str | os.PathLike):
        return read_image_file(image)
    raise ExtremalTypeError(
        "an image must be a path, a Pillow image, a uint8 array (H, W, C) or a prepared tensor (N, C, *S), or a "
        f"list of these, got {type(image).__name__}"
    )


def concatenate_inputs(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate inputs (N, C, *S) of one shape.

    Raises:
        ExtremalValueError: there are none, or their shapes differ.
    """
    if not parts:
        raise ExtremalValueError("a batch must hold at least one image, got an empty list")
    shapes = sorted({tuple(part.shape[1:]) for part in parts})
    if len(shapes) > 1:
        raise ExtremalValueError(
            "the images of a batch must have one shape after preparation, got "
            f"{' and '.join(map(str, shapes[:3]))}; explain them one by one, or crop them to one shape"
        )
    return torch.cat(list(parts))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image to upright RGB; Pillow reads the pixels of an open file only here."""
    check_pixels(image, "the Pillow image", MAX_PIXELS)
    try:
        return to_upright_rgb(image)
    except ExtremalValueError:
        raise
    except Exception as error:
        raise ExtremalValueError(
            f"an image must be readable to its end, got a Pillow image that is not: {describe_error(error)}; "
            "copy or convert it again"
        ) from None


def _validate_array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype != np.uint8:
        raise ExtremalTypeError(
            f"an image array must be uint8 (H, W, C), got {array.dtype}; scale it to 0..255, or pass a prepared tensor"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ExtremalValueError(f"an image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    return array


def validate_input(x: Tensor) -> Tensor:
    """Check that a tensor is dense, floating-point, finite and (N, C, *S) with 1 to 3 spatial dimensions; return it."""
    if x.is_nested or x.layout != torch.strided:
        kind = "a nested one" if x.is_nested else str(x.layout).removeprefix("torch.")
        raise ExtremalTypeError(f"a prepared tensor must be dense, got {kind}; convert it with x.to_dense()")
    if x.device.type == "meta":
        raise ExtremalValueError("a prepared tensor must have values, got one on the device meta; load its values")
    if not x.is_floating_point():
        raise ExtremalTypeError(f"a prepared tensor must be floating, got {x.dtype}; convert and normalise it first")
    if x.dtype.itemsize < 2:
        raise ExtremalTypeError(f"a prepared tensor must have at least 16 bits, got {x.dtype}; convert it by x.float()")
    if not 3 <= x.ndim <= 5 or 0 in x.shape:
        raise ExtremalValueError(
            "a prepared tensor must be (N, C, *S) with 1 to 3 spatial dimensions, got shape "
            f"{tuple(x.shape)}; add a batch axis with x[None] if it is missing"
        )
    n_broken = int((~torch.isfinite(x)).sum())
    if n_broken:
        raise ExtremalValueError(f"a prepared tensor must be finite, got {n_broken} NaN or infinite values; clean it")
    return x
